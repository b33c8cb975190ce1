//! What the machine says: processor time, memory, bytes on the loopback.

use std::fs::read_to_string;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::Error;

/// Processor time that a process has used, to the nanosecond: what `/proc` says comes in ticks of ten milliseconds.
pub(crate) fn cpu(pid: u32) -> Result<Duration, Error> {
    let spent = i32::try_from(pid).map_err(|_| Errno::ESRCH).and_then(|pid| {
        let clock = clock_getcpuclockid(Pid::from_raw(pid))?;
        clock_gettime(clock)
    });
    Ok(spent.map_err(|errno| format!("the processor time of process {pid}: {errno}; has it ended?"))?.into())
}

/// Processor time that all of them have used.
pub(crate) fn cpu_of_all(pids: &[u32]) -> Result<Duration, Error> {
    pids.iter().map(|pid| cpu(*pid)).sum()
}

/// Memory that a process has, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Memory that a process can have without taking another's.
pub(crate) fn free_bytes() -> u64 {
    meminfo("MemAvailable:").unwrap_or(0) * 1024
}

/// In KiB.
fn meminfo(name: &str) -> Option<u64> {
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    memory.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// What went over the loopback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

impl Wire {
    pub(crate) fn now() -> Self {
        let devices = read_to_string("/proc/self/net/dev").unwrap_or_default();
        let line = devices.lines().find_map(|line| line.trim().strip_prefix("lo:"));
        let field =
            |n: usize| line.and_then(|line| line.split_whitespace().nth(n)?.parse().ok()).unwrap_or(0);
        Self { bytes: field(0), packets: field(1) }
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { bytes: self.bytes - earlier.bytes, packets: self.packets - earlier.packets }
    }

    /// Without the headers of Ethernet, IP and TCP with a time stamp.
    pub(crate) fn payload_bytes(self) -> u64 {
        self.bytes.saturating_sub(self.packets * 66)
    }
}

/// Processor time used by anybody, and all there was.
pub(crate) fn busy() -> (f64, f64) {
    let stat = read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let all: f64 = fields.iter().take(8).sum();
    let idle: f64 = fields.get(3).unwrap_or(&0.0) + fields.get(4).unwrap_or(&0.0);
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    ((all - idle) / ticks, all / ticks)
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text).lines().next()?.trim().to_owned();
    output.status.success().then_some(text)
}

/// What the figures were measured on.
pub(crate) fn description() -> Vec<(String, String)> {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let said = |program, args: &[&str]| output(program, args).unwrap_or_else(|| "not here".into());
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"]);
    let dirty = output("git", &["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty());
    vec![
        ("commit".into(), commit + if dirty { " with changes" } else { "" }),
        ("processor".into(), format!("{cores} x {}", model.map_or("unknown", |(_, model)| model))),
        ("memory".into(), format!("{} GiB", meminfo("MemTotal:").unwrap_or(0) >> 20)),
        ("kernel".into(), said("uname", &["-sr"])),
        ("rustc".into(), said("rustc", &["--version"])),
        ("redis".into(), said("redis-server", &["--version"])),
        ("java".into(), said("java", &["-version"])),
    ]
}
