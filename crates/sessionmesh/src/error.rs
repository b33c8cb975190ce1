//! What can go wrong, per operation. Every message says what became of the state.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sessionmesh_core::membership::Fatal;
use sessionmesh_core::replication::Outcome;
use sessionmesh_core::session::{ChangeError, Token};
use sessionmesh_core::{NodeName, SessionId};

use crate::config::ConfigError;

/// Why a node did not start. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No port of the range could be bound.
    #[error(
        "can't listen on any port of {first} to {last}: {source} (set bind to a free port, or raise auto_bind)"
    )]
    Ports {
        /// The first tried.
        first: SocketAddr,
        /// The last tried.
        last: SocketAddr,
        /// Of the last attempt.
        source: io::Error,
    },
    /// The interface for multicast can't be used.
    #[error("interface = {interface:?} can't be used: {detail}")]
    Interface {
        /// As given.
        interface: String,
        /// Why, and which there are.
        detail: String,
    },
    /// The system refuses multicast.
    #[error(
        "can't use multicast {group} on {interface}: {source} (name another interface, or do without multicast: seeds = \
         \"HOST:PORT\")"
    )]
    Multicast {
        /// The group.
        group: SocketAddr,
        /// The interface.
        interface: String,
        /// What the system says.
        source: io::Error,
    },
    /// It is not known where others reach this node.
    #[error(
        "bind = \"{bind}\" does not say where other nodes reach this one: set advertise or interface ({detail})"
    )]
    NoAddress {
        /// As given.
        bind: SocketAddr,
        /// Why it could not be found out.
        detail: String,
    },
    /// Secret or certificates can't be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The system failed.
    #[error("can't start: {0}")]
    Io(#[from] io::Error),
}

/// Why a node can't prove who it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// A file of the operator's can't be used.
    #[error(
        "{path:?} can't be used: {detail} (PEM is needed; the certificate must be valid for this node's name)"
    )]
    Certificate {
        /// As given.
        path: String,
        /// Why.
        detail: String,
    },
    /// A certificate can't be made.
    #[error("no certificate can be made from the secret: {0}")]
    Mint(String),
}

/// Why other secrets or certificates were not taken. Those from before are in use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The configuration can't be used.
    #[error("secrets and certificates are as before: {0}")]
    Config(#[from] ConfigError),
    /// Secret or certificates can't be used.
    #[error("secrets and certificates are as before: {0}")]
    Security(#[from] SecurityError),
    /// A node with a secret can't do without one while it runs, nor the other way round; nor can it change
    /// its cluster's name.
    #[error("secrets and certificates are as before: {0} can only change with a restart")]
    Restart(&'static str),
}

/// Why a node is not, or no longer, in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// It was refused, or had to yield.
    #[error("this node can't be in the cluster: {0}")]
    Refused(#[from] Fatal),
    /// It has left, or was told to.
    #[error("this node has left the cluster")]
    Left,
}

/// A node has left before all members were known to have everything that it held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "left after {after:?}, at last without progress (leave_timeout), with members that may lack sessions of this node: \
     {}; {strays} sessions not handed over",
    list(behind)
)]
pub struct LeaveError {
    /// How long it waited.
    pub after: Duration,
    /// Members that had not acknowledged everything; none if a comparison was still going on.
    pub behind: Vec<NodeName>,
    /// In backup-only mode, sessions here that are not known to be on all their holders.
    pub strays: usize,
}

fn list(names: &[NodeName]) -> String {
    if names.is_empty() {
        return "a comparison of sessions was not done".into();
    }
    names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

/// Why a session could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The node does not serve (yet, or any more).
    #[error("this node does not serve sessions: {0}")]
    NotReady(String),
    /// The holders that would know did not answer in time. This says nothing about the session.
    #[error("can't tell whether the session exists: {answered} of {asked} holders answered in time")]
    Unavailable {
        /// Holders that answered.
        answered: usize,
        /// Holders asked.
        asked: usize,
    },
    /// Too many requests wait for other nodes.
    #[error("too many requests wait for sessions on other nodes (lookups)")]
    Overloaded,
}

/// Why a write failed, or was kept without reaching its level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// There is no such session. Nothing was written.
    #[error("no such session")]
    NotFound,
    /// The session has ended. Nothing was written.
    #[error("the session has ended")]
    Ended,
    /// The change is over a limit. Nothing was written.
    #[error("nothing was written: {0}")]
    OverLimit(ChangeError),
    /// No other node could take a copy, and `alone = refuse`. Nothing was written.
    #[error("nothing was written: no other node is ready to take a copy (alone = refuse)")]
    Alone,
    /// This node holds as many sessions as it may. Nothing was written.
    #[error("nothing was written: this node holds {limit} sessions, its limit (max_sessions)")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// Too few holders had the write in time. It is kept here and still sent to the others.
    #[error("the write is kept and still sent, but only {} holders had it in time", .0.outcome)]
    LevelMissed(Committed),
    /// An update closure lost against other requests too often. Nothing was written.
    #[error(
        "nothing was written: other requests changed what the update had read, {attempts} times in a row"
    )]
    Contended {
        /// How often it was tried.
        attempts: usize,
    },
    /// The session could not be read. Nothing was written.
    #[error("nothing was written: {0}")]
    Load(#[from] LoadError),
    /// The system gives no random bytes. Nothing was written.
    #[error("nothing was written: {0}")]
    NoRandomness(String),
}

impl From<ChangeError> for CommitError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Unknown => Self::NotFound,
            ChangeError::Ended => Self::Ended,
            over => Self::OverLimit(over),
        }
    }
}

/// A write that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Of the session; the new one, if the write made or changed it.
    pub id: SessionId,
    /// Holders that have it, of those that the level asked for.
    pub outcome: Outcome,
    /// What its client has seen of the session then; `None` if nothing had to change.
    pub token: Option<Token>,
}
