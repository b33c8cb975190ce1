//! What a node decides, and what it is told.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::member::{MemberInfo, MemberState};
use crate::placement::{Mode, Seat};
use crate::wire::{Contact, Hello, Refusal, RefusalReason};
use crate::{BootId, DropCause, NodeName};

/// The driver's number of a connection; never used twice.
pub type LinkId = u64;

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// This start.
    pub boot: BootId,
    /// Its name.
    pub name: NodeName,
    /// Where others reach it.
    pub address: SocketAddr,
    /// How its sessions are placed.
    pub mode: Mode,
    /// What is lost together with it: a rack, a data centre. Copies go to other zones first.
    pub zone: Option<NodeName>,
    /// The protocol versions that it speaks, lowest and highest.
    pub versions: (u32, u32),
}

impl Identity {
    pub(super) fn seat(&self) -> Seat {
        Seat::new(self.boot, &self.name, self.address.ip(), self.zone.as_ref())
    }
}

/// What the driver is to do, in order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Connect, shake hands with this Hello, and report the peer's Hello or the failure.
    Dial {
        /// Where.
        address: SocketAddr,
        /// What to say.
        hello: Hello,
    },
    /// Tell the other side of a connection that it is admitted.
    Admit {
        /// The connection.
        link: LinkId,
    },
    /// Tell it that it is not, and close.
    Refuse {
        /// The connection.
        link: LinkId,
        /// Why.
        refusal: Refusal,
    },
    /// A link is up: open the streams to this member.
    Open {
        /// The member.
        member: MemberInfo,
        /// The link.
        link: LinkId,
    },
    /// Close a link.
    Close {
        /// The link.
        link: LinkId,
    },
    /// Ask a member's process for a sign of life.
    Ping {
        /// The member.
        boot: BootId,
    },
    /// Compare sessions with a member.
    StartPass {
        /// The member.
        boot: BootId,
    },
    /// A member is gone: forget its streams, and do not wait for its acknowledgements.
    Remove {
        /// The member.
        boot: BootId,
        /// Why.
        cause: DropCause,
    },
    /// The members changed, or this node has compared with all of them: see [`super::Node::view`].
    Publish,
    /// What heartbeats say changed: send one at once.
    Beat,
    /// Tell of members: one that was just admitted, or all.
    Tell {
        /// The member to tell; `None` for all.
        to: Option<BootId>,
        /// Whom it may meet.
        contacts: Vec<Contact>,
    },
    /// Drop all sessions: this node joins anew.
    Empty,
    /// This node can't be in the cluster: stop it.
    Stop(Fatal),
}

/// Why a node must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fatal {
    /// The kind of refusal.
    pub reason: RefusalReason,
    /// In plain words, naming both sides and the remedy.
    pub detail: String,
}

/// Why an address could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// Nobody listens there.
    Refused,
    /// No answer in time, or no way there.
    Silent,
    /// Somebody is there, but not a node of this cluster.
    Stranger,
}

/// Who drives a pass that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassRole {
    /// This node.
    Driver,
    /// The member.
    Responder,
}

/// A pass that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassDone {
    /// Who drove it.
    pub role: PassRole,
    /// The view in which this node had summed up: its [`View::serial`](crate::placement::View::serial).
    pub view: u64,
    /// Whether the other side saw the same ready members all the time.
    pub agreed: bool,
}

/// What heartbeats say now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// This node's state.
    pub state: MemberState,
    /// Its view.
    pub view: u64,
    /// The members that it holds for alive.
    pub heard: Vec<BootId>,
    /// Where heartbeats go if there is no multicast.
    pub targets: Vec<SocketAddr>,
}
