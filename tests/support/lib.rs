//! What tests of whole clusters share: nodes in this process, nodes as processes, patience.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that can't go on says so and stops.

mod net;
mod process;

pub use net::{Net, eventually};
pub use process::{Answer, Browser, NodeProcess, Processes, Signal};

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
