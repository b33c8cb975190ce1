//! Three real node processes on loopback, a round-robin front, and the story of a session that
//! outlives each of them. `--check` tells it with an HTTP client and exits 0 if every step held.
//!
//! | file | what |
//! |---|---|
//! | `nodes` | starts, kills and restarts node processes |
//! | `front` | the balancer: every request to another node |
//! | `show` | for a person with a browser |
//! | `check` | for a machine |

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod check;
mod front;
mod nodes;
mod show;

use std::io::Read;
use std::process::ExitCode;

use clap::Parser;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Three nodes, a round-robin front, one session.
#[derive(Clone, Debug, Parser)]
#[command(name = "demo", version)]
struct Args {
    /// Tell the whole story with an HTTP client, and exit 0 only if every step held.
    #[arg(long)]
    check: bool,
    /// The front's port; the next free one if it is taken.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Who must have a write before it is answered: async, one or all.
    #[arg(long, default_value = "all", value_parser = ["async", "one", "all"])]
    ack: String,
    /// all-peers: every node holds every session; backup-only: two of the three do.
    #[arg(long, default_value = "all-peers", value_parser = ["all-peers", "backup-only"])]
    mode: String,
    /// Find each other by seeds, though multicast would work.
    #[arg(long)]
    seeds: bool,
    /// Show what the nodes log.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    // The demo starts itself as its nodes, so that there is one program to build.
    if args.nth(1).is_some_and(|word| word == "node") {
        stop_with_parent();
        return session_node::main(std::iter::once("session-node".into()).chain(args));
    }
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let done =
        runtime.block_on(async { if args.check { check::run(args).await } else { show::run(args).await } });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("demo: {error}");
    ExitCode::FAILURE
}

/// A node whose demo is gone, however it went, has nobody to serve.
fn stop_with_parent() {
    std::thread::spawn(|| {
        let mut nothing = [0; 1];
        let _ = std::io::stdin().read(&mut nothing);
        std::process::exit(0);
    });
}
