//! A web node whose users' sessions survive it: an axum application to copy from.
//!
//! | file | what |
//! |---|---|
//! | `args` | flags, on top of file and environment |
//! | `app` | the routes: how an application uses sessions |
//! | `cart` | the page that a person sees |
//! | `admin` | what operators and tests ask |
//! | `serve` | start, serve, drain, leave |
//! | `health` | asks a running node whether it is ready |
//! | `diagnose` | why nodes do not find each other |

mod admin;
mod app;
mod args;
mod cart;
mod diagnose;
mod health;
mod serve;

use std::ffi::OsString;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;

use clap::Parser;

pub use args::Args;

/// Runs a node until it is told to stop. For programs that are a node, or start themselves as one.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = Args::parse_from(args);
    if args.health {
        return match health::check(args.http) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&*error),
        };
    }
    if args.diagnose {
        return diagnose::run(&args);
    }
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "warn,sessionmesh=info,session_node=info".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        // It would say on stderr that stderr can't be written, and panic: a full disk behind the log would
        // end the node.
        .log_internal_errors(false)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(serve::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    // If nobody can be told, the exit code says it.
    let _ = writeln!(std::io::stderr(), "session-node: {error}");
    ExitCode::FAILURE
}
