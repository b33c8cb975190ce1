//! HTTP sessions that survive the loss, restart or deploy of any web node, with no store to run.
//!
//! Every web node links this crate. The nodes find each other by multicast heartbeats or seeds, send
//! what each request changed in a session to the nodes that hold it, and drop whoever falls silent.
//!
//! ```no_run
//! use sessionmesh::{Cluster, Config};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = Config::new();
//! config.load_file("sessionmesh.toml")?.load_env()?;
//! let cluster = Cluster::start(config).await?;
//! cluster.ready().await?;
//!
//! let sessions = cluster.sessions();
//! let created = sessions.create(|s| { s.set("user", "ada"); }).await?;
//! sessions.update(&created.id, |s| {
//!     let visits: u32 = s.get_json("visits").ok().flatten().unwrap_or(0);
//!     let _ = s.set_json("visits", &(visits + 1));
//! }).await?;
//! cluster.leave().await?;
//! # Ok(()) }
//! ```
//!
//! For axum and everything else on tower, `tower-sessions-sessionmesh-store` puts the sessions behind
//! the unmodified tower-sessions.
//!
//! Runs in a current-thread and in a multi-thread tokio runtime. The protocol itself is in
//! `sessionmesh-core`, without any IO.

mod ack;
mod cluster;
mod config;
mod control;
#[cfg(not(sessionmesh_simulation))]
mod diagnose;
mod error;
mod events;
mod expiry;
mod host;
mod mesh;
mod net;
mod pace;
mod peer;
mod routes;
mod security;
mod sessions;
mod stats;
mod strays;
mod sums;
mod table;

pub use bytes::Bytes;
pub use cluster::Cluster;
pub use config::{Alone, Config, ConfigError, OPTIONS, OptionInfo};
#[cfg(not(sessionmesh_simulation))]
pub use diagnose::{Finding, Verdict, diagnose};
pub use error::{
    ClusterError, CommitError, Committed, LeaveError, LoadError, ReloadError, SecurityError, StartError,
};
#[cfg(sessionmesh_simulation)]
#[doc(hidden)]
pub use host::simulated as simulation;
pub use sessionmesh_core::membership::{Fatal, MemberInfo, MemberState};
pub use sessionmesh_core::placement::Mode;
pub use sessionmesh_core::replication::{AckLevel, Outcome};
pub use sessionmesh_core::session::{
    Attributes, Change, ChangeError, End, EndCause, Limits, Name, Token, Version,
};
pub use sessionmesh_core::wire::NoToken;
pub use sessionmesh_core::{BootId, DropCause, Event, NodeName, SessionId};
pub use sessions::{Edit, Loaded, Sessions, Snapshot, Stale};
pub use stats::{Counts, PeerStats, Placement, Rebalance, Stats};
