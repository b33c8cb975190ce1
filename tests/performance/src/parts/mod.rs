//! What is measured, one part a file.

mod acks;
mod engine;
mod growth;
mod idle;
mod join;
mod memory;
mod stopped;
mod store;
mod wire;
mod writes;

use clap::ValueEnum;

use crate::Error;
use crate::results::Results;
use crate::systems::Bench;

/// In the order in which the report has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// P1, P2, P3: requests that write, by all systems.
    Writes,
    /// P4: what waiting for other nodes costs.
    Acks,
    /// P5: load and save through the store.
    Store,
    /// P6: bytes for each delta.
    Wire,
    /// P7: memory for each session.
    Memory,
    /// P8: a joining node.
    Join,
    /// P9: the engine without HTTP.
    Engine,
    /// P10: the cost of a write in larger clusters.
    Growth,
    /// P11: a cluster that does nothing.
    Idle,
    /// P12: a peer that stands still.
    Stopped,
}

impl Part {
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Writes => "requests that write",
            Self::Acks => "waiting for other nodes",
            Self::Store => "load and save",
            Self::Wire => "bytes on the wire",
            Self::Memory => "memory for each session",
            Self::Join => "a node that joins",
            Self::Engine => "the engine without HTTP",
            Self::Growth => "larger clusters",
            Self::Idle => "a cluster that does nothing",
            Self::Stopped => "a peer that stands still",
        }
    }

    pub(crate) async fn measure(self, bench: &Bench, results: &mut Results) -> Result<(), Error> {
        match self {
            Self::Writes => writes::measure(bench, results).await,
            Self::Acks => acks::measure(bench, results).await,
            Self::Store => store::measure(bench, results).await,
            Self::Wire => wire::measure(bench, results).await,
            Self::Memory => memory::measure(bench, results).await,
            Self::Join => join::measure(bench, results).await,
            Self::Engine => engine::measure(bench, results).await,
            Self::Growth => growth::measure(bench, results).await,
            Self::Idle => idle::measure(bench, results).await,
            Self::Stopped => stopped::measure(bench, results).await,
        }
    }
}
