//! What sessionmesh costs, beside what it replaces: every figure has its baseline in the same run.
//!
//! `cargo performance` measures everything and writes a report; `cargo performance --quick writes` looks
//! at one part for a moment. Servers are this same program (`serve`), so that all are built alike; Redis and Tomcat
//! are measured if they are installed.

#![allow(clippy::disallowed_methods)] // It measures real time.

mod app;
mod load;
mod machine;
mod parts;
mod report;
mod results;
mod systems;
mod tomcat;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::{Parser, Subcommand};

use crate::parts::Part;
use crate::results::Results;
use crate::systems::Bench;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "What sessionmesh costs, beside what it replaces", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Sub>,
    /// What to measure; everything if nothing is named.
    parts: Vec<Part>,
    /// Once and for a moment: shows that it works, and no figure that means anything.
    #[arg(long)]
    quick: bool,
    /// How often each is measured; medians are shown.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// How long each load lasts, in seconds.
    #[arg(long, default_value_t = 2.0)]
    secs: f64,
    /// Where the report goes.
    #[arg(long, default_value = "target/performance")]
    out: PathBuf,
    /// The processes share the host's loopback instead of one in a network namespace.
    #[arg(long)]
    shared_loopback: bool,
}

#[derive(Subcommand)]
enum Sub {
    /// The application under load.
    #[command(hide = true)]
    Serve(app::Serve),
    /// A core's worth of nothing, for so many seconds.
    #[command(hide = true)]
    Burn { secs: f64 },
    /// Uses so much memory once.
    #[command(hide = true)]
    Touch { bytes: usize },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.command {
        Some(Sub::Serve(serve)) => app::run(serve),
        Some(Sub::Burn { secs }) => {
            let begun = Instant::now();
            while begun.elapsed().as_secs_f64() < *secs {
                std::hint::spin_loop();
            }
            Ok(())
        }
        Some(Sub::Touch { bytes }) => {
            let mut memory = vec![0_u8; *bytes];
            memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            std::hint::black_box(memory);
            Ok(())
        }
        None => measure(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A loopback of its own: nothing leaves the machine, and every byte on it is of what is measured. True if this
/// process is to go on; otherwise it has run in there.
fn isolate(args: &Args) -> Result<bool, Error> {
    const INSIDE: &str = "PERFORMANCE_ISOLATED";
    if args.shared_loopback || std::env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    let enter = "ip link set lo up multicast on && ip route add 224.0.0.0/4 dev lo && exec \"$@\"";
    let can = Command::new("unshare").args(["-n", "sh", "-c", enter, "sh", "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "no network namespace of its own (needs root, unshare and ip): bytes on the wire are not measured"
        );
        return Ok(true);
    }
    let status = Command::new("unshare")
        .args(["-n", "sh", "-c", enter, "sh"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()?;
    if status.success() { Ok(false) } else { Err(format!("ended with {status}").into()) }
}

fn measure(args: &Args) -> Result<(), Error> {
    if !isolate(args)? {
        return Ok(());
    }
    let bench = Bench::new(args)?;
    let mut results = Results::default();
    let parts = if args.parts.is_empty() { Part::all() } else { args.parts.clone() };
    // One thread: what makes the load must not use both cores.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (n, part) in parts.iter().enumerate() {
        eprintln!("== {} of {}: {}", n + 1, parts.len(), part.title());
        runtime.block_on(part.measure(&bench, &mut results))?;
    }
    report::write(&bench, &results, &args.out)?;
    Ok(())
}
