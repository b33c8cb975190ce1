//! Everything worth telling: the single source of logs, counters and the application's events.

use alloc::string::String;
use core::net::SocketAddr;
use core::time::Duration;

use crate::session::End;
use crate::wire::RefusalReason;
use crate::{BootId, NodeName, SessionId};

/// Why a member was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropCause {
    /// It said that it leaves.
    Left,
    /// Its link broke and its address refuses connections: the process is gone.
    Refused,
    /// Silent for `drop_time`, and its process answered no ping.
    Silent,
    /// No link could be had for `drop_time`.
    Unreachable,
    /// It has not heard this node for `drop_time`.
    Deaf,
    /// The same node came back with another boot id.
    Replaced,
    /// It broke the protocol.
    Misbehaved,
    /// This node starts empty.
    Emptied,
}

/// Something that happened in the cluster, as this node sees it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A node was admitted as a member.
    MemberAdmitted {
        /// Its boot.
        boot: BootId,
        /// Its name.
        name: NodeName,
        /// Where it accepts links.
        address: SocketAddr,
    },
    /// A member has all sessions and serves.
    MemberReady {
        /// Its boot.
        boot: BootId,
        /// Its name.
        name: NodeName,
    },
    /// A member is leaving; it holds sessions until it is gone.
    MemberLeaving {
        /// Its boot.
        boot: BootId,
        /// Its name.
        name: NodeName,
    },
    /// A member is no longer one.
    MemberDropped {
        /// Its boot.
        boot: BootId,
        /// Its name.
        name: NodeName,
        /// Why.
        cause: DropCause,
    },
    /// This node has all sessions and serves.
    Ready {
        /// Since its start.
        after: Duration,
        /// Other members.
        members: usize,
    },
    /// This node can't become ready; the reason changed.
    NotReady {
        /// What it waits for.
        reason: String,
    },
    /// Other members are ready than before.
    ViewChanged {
        /// How many, this node included if it is.
        ready: usize,
        /// How many of them hold each session.
        holders: usize,
        /// How many the mode asks for.
        wanted: usize,
    },
    /// This node has compared with all since the view changed: what it has is where it belongs.
    Rebalanced {
        /// Since the last change of view.
        after: Duration,
        /// The redundancy gap: for how long some sessions had fewer copies than they should, since a
        /// member that held them was last known to live. Zero if no copy was lost.
        gap: Duration,
    },
    /// This node was paused and trusts nothing that it holds until it has compared it.
    Doubting {
        /// How late its ticker was.
        late: Duration,
    },
    /// It has compared.
    Trusting,
    /// This node refused another, or was refused.
    Refused {
        /// The other side's name.
        name: NodeName,
        /// Why.
        reason: RefusalReason,
        /// In plain words.
        detail: String,
        /// Whether this node was the one refused.
        by_peer: bool,
    },
    /// This node was cut off for longer than the horizon, on the smaller side: it drops all its
    /// sessions and joins anew, because ended ones among them could come back.
    Emptied {
        /// The member of the larger side that it met.
        name: NodeName,
    },
    /// A pass with a member is done: both hold the same.
    PassDone {
        /// The member.
        boot: BootId,
        /// Its name.
        name: NodeName,
    },
    /// A session came to be on this node.
    SessionCreated {
        /// Which.
        id: SessionId,
    },
    /// A session changed its id.
    SessionIdChanged {
        /// Its old id.
        from: SessionId,
        /// Its new id.
        to: SessionId,
    },
    /// A session ended; told once per session in the cluster, by its first holder.
    SessionDestroyed {
        /// Which.
        id: SessionId,
        /// How.
        end: End,
    },
}
