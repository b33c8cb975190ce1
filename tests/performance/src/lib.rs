//! A change's way from one node to another, a stage at a time: timed by the report and by the micro-benchmarks. And a
//! session's way to a node that joins, a step at a time: timed by the report.

#![allow(clippy::disallowed_methods)] // It measures real time.

mod tables;
mod tls;
mod transfer;
mod way;

pub use transfer::{Step, StepTimes, Transfer};
pub use way::{BATCH, Stage, Times, Way, changes};

/// Whatever goes wrong ends the measurement.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
