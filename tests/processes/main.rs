//! Real processes on loopback, under real signals.

mod bad_input;
mod faults;
mod life;

use cluster_tests::Processes;

/// Clusters of the program that was built with these tests.
fn processes() -> Processes {
    Processes::new(env!("CARGO_BIN_EXE_session-node-under-test"))
}
