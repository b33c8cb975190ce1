//! Hosts on a network of their own: namespaces, cables and a switch that do as real ones.
//!
//! The test itself stands on the switch, so it reaches every host. Nothing leaves the namespaces, and
//! they are gone with the test, however it ends.

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A switch with hosts on it. Host `h` (counted from 0) is 10.77.0.(11 + h) and fd77::(11 + h) on `eth0`.
#[derive(Debug)]
pub struct Lan {
    hosts: Vec<Namespace>,
    /// Rules of what the switch drops, as nft writes them.
    rules: Mutex<Vec<String>>,
    dir: PathBuf,
    _switch: Namespace,
}

/// What the switch drops.
#[derive(Clone, Copy, Debug)]
pub enum Traffic {
    /// Everything.
    All,
    /// Datagrams: all heartbeats.
    Udp,
    /// Connections.
    Tcp,
}

impl Traffic {
    fn rule(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Udp => "meta l4proto udp",
            Self::Tcp => "meta l4proto tcp",
        }
    }
}

impl Lan {
    /// Why there can be no hosts here, if so.
    pub fn missing() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("network namespaces need root".into());
        }
        let missing =
            ["ip", "nft", "unshare", "nsenter", "setpriv", "dnsmasq"].iter().find(|tool| !has(tool))?;
        Some(format!("{missing} is not installed"))
    }

    /// Tells a story on a network with so many hosts.
    pub fn story<F: Future<Output = ()>>(hosts: usize, story: impl FnOnce(Self) -> F + Send) {
        // A thread of its own: it stays where it goes. Threads that it starts, the runtime's, and processes are there, too.
        let told = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let switch = Namespace::make();
                switch.enter();
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async { story(Self::lay(switch, hosts)).await });
            });
            thread.join()
        });
        if let Err(panic) = told {
            std::panic::resume_unwind(panic);
        }
    }

    fn lay(switch: Namespace, hosts: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sessionmesh-lan-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        write_setting("ipv6/conf/default/accept_dad", "0");
        ip("link set lo up\n\
            link add switch type bridge forward_delay 0\n\
            link set switch up\n\
            addr add 10.77.0.1/24 dev switch\n\
            addr add fd77::1/64 dev switch nodad\n");
        nft("add table bridge lan\n\
             add chain bridge lan forward { type filter hook forward priority 0; }\n");
        let hosts = (0..hosts).map(|host| Self::plug_in(host, "switch")).collect();
        Self { hosts, rules: Mutex::default(), dir, _switch: switch }
    }

    fn plug_in(host: usize, switch: &str) -> Namespace {
        let namespace = Namespace::make();
        ip(&format!(
            "link add cable{host} type veth peer name eth0 netns {}\n\
             link set cable{host} master {switch} up\n",
            namespace.pid()
        ));
        let number = 11 + host;
        namespace.run("sh", &["-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad"]);
        namespace.ip(&format!(
            "link set lo up\n\
             link set eth0 up\n\
             addr add 10.77.0.{number}/24 dev eth0\n\
             addr add fd77::{number}/64 dev eth0 nodad\n\
             route add default via 10.77.0.1\n"
        ));
        namespace
    }

    /// A host's address.
    pub fn address(&self, host: usize) -> String {
        format!("10.77.0.{}", 11 + host)
    }

    /// What makes a program run on a host: `nsenter` and its arguments, the program comes after.
    pub(crate) fn enter(&self, host: usize) -> Vec<String> {
        self.hosts[host].enter_command()
    }

    /// Runs a program on a host to its end; it must succeed.
    pub fn run(&self, host: usize, program: &str, args: &[&str]) -> String {
        self.hosts[host].run(program, args)
    }

    /// A directory of this network's own, gone with it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Asks this name server from now on, on a host.
    pub fn use_name_server(&self, host: usize, address: &str) {
        let file = self.dir.join(format!("resolv-{host}.conf"));
        std::fs::write(&file, format!("nameserver {address}\noptions timeout:1 attempts:2\n")).unwrap();
        self.run(host, "mount", &["--bind", &file.display().to_string(), "/etc/resolv.conf"]);
    }

    /// Pulls a host's cable. Both ends see it; connections do not.
    pub fn pull(&self, host: usize) {
        ip(&format!("link set cable{host} down\n"));
    }

    /// Plugs it in again.
    pub fn plug(&self, host: usize) {
        ip(&format!("link set cable{host} up\n"));
    }

    /// Drops what one host sends to another. Nobody sees it.
    pub fn block(&self, from: usize, to: usize, what: Traffic) {
        let rule = what.rule();
        self.rule(format!("iifname cable{from} oifname cable{to} {rule} drop"));
    }

    /// Drops so many of a hundred frames between all hosts.
    pub fn lose(&self, percent: u32) {
        self.rule(format!("numgen random mod 100 < {percent} drop"));
    }

    /// Drops multicast, as most clouds do.
    pub fn drop_multicast(&self) {
        self.rule("ip daddr 224.0.0.0/4 drop".into());
        self.rule(
            "ip6 daddr ff00::/8 icmpv6 type != { nd-neighbor-solicit, nd-neighbor-advert } drop".into(),
        );
        self.rule("ip6 daddr ff00::/8 meta l4proto udp drop".into());
    }

    fn rule(&self, rule: String) {
        let mut rules = self.rules.lock().unwrap();
        rules.push(rule);
        Self::apply(&rules);
    }

    /// Drops nothing any more.
    pub fn mend(&self) {
        let mut rules = self.rules.lock().unwrap();
        rules.clear();
        Self::apply(&rules);
    }

    fn apply(rules: &[String]) {
        let mut script = String::from("flush chain bridge lan forward\n");
        for rule in rules {
            script.push_str(&format!("add rule bridge lan forward {rule}\n"));
        }
        nft(&script);
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A network and mount namespace, as long as the process lives that holds it open.
#[derive(Debug)]
struct Namespace {
    holder: Child,
}

impl Namespace {
    fn make() -> Self {
        // The holder dies with the thread that made it, even if that is killed.
        let mut holder = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "--mount",
                "sh",
                "-c",
                "echo; exec sleep infinity",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It says a line once it is there.
        let read = holder.stdout.take().unwrap().read(&mut [0]).unwrap();
        assert_eq!(read, 1, "a namespace can be made");
        Self { holder }
    }

    fn pid(&self) -> u32 {
        self.holder.id()
    }

    fn enter(&self) {
        let file = File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    fn enter_command(&self) -> Vec<String> {
        let pid = self.pid().to_string();
        ["nsenter", "--net", "--mount", "--target", &pid, "--"].map(Into::into).to_vec()
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let enter = self.enter_command();
        let mut command = Command::new(&enter[0]);
        output(command.args(&enter[1..]).arg(program).args(args), "")
    }

    fn ip(&self, batch: &str) {
        let enter = self.enter_command();
        let mut command = Command::new(&enter[0]);
        output(command.args(&enter[1..]).args(["ip", "-batch", "-"]), batch);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Whether a program is installed.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).any(|dir| dir.join(program).is_file())
}

fn ip(batch: &str) {
    output(Command::new("ip").args(["-batch", "-"]), batch);
}

fn nft(script: &str) {
    output(Command::new("nft").args(["-f", "-"]), script);
}

fn write_setting(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
}

fn output(command: &mut Command, input: &str) -> String {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} {input:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
