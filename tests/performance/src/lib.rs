//! A change's way from one node to another, a stage at a time: timed by the report and by the micro-benchmarks.

#![allow(clippy::disallowed_methods)] // It measures real time.

mod way;

pub use way::{BATCH, Stage, Times, Way, changes};

/// Whatever goes wrong ends the measurement.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
