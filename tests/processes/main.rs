//! Real processes on loopback, under real signals.

#![allow(clippy::unwrap_used)] // A test that can't go on says so and stops.

mod backup;
mod bad_input;
mod faults;
mod hygiene;
mod life;
mod rotation;

use cluster_tests::Processes;

/// Clusters of the program that was built with these tests.
fn processes(mode: &str) -> Processes {
    Processes::new(env!("CARGO_BIN_EXE_session-node-under-test")).with(&format!("--set=mode={mode}"))
}

/// How many nodes hold each session, of so many.
fn holders(mode: &str, nodes: usize) -> usize {
    if mode == "all-peers" { nodes } else { nodes.min(2) }
}
