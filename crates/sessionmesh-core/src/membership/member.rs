//! What a node knows of another.

use core::net::SocketAddr;

use super::action::LinkId;
use crate::placement::Seat;
use crate::wire::Contact;
use crate::wire::member_state::{self, WireState};
use crate::{BootId, Instant, NodeName};

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberState {
    /// It collects sessions and serves none.
    Joining,
    /// It holds all that it should and serves.
    Ready,
    /// It hands over and serves none.
    Leaving,
}

impl MemberState {
    pub(crate) fn to_wire(self) -> WireState {
        match self {
            Self::Joining => member_state::JOINING,
            Self::Ready => member_state::READY,
            Self::Leaving => member_state::LEAVING,
        }
    }

    pub(crate) fn from_wire(state: WireState) -> Option<Self> {
        [Self::Joining, Self::Ready, Self::Leaving].into_iter().find(|known| known.to_wire() == state)
    }
}

impl core::fmt::Display for MemberState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Leaving => "leaving",
        })
    }
}

/// A member, for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its boot.
    pub boot: BootId,
    /// Its name.
    pub name: NodeName,
    /// Where it accepts links.
    pub address: SocketAddr,
    /// Its state.
    pub state: MemberState,
}

/// Where the comparison with a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PassState {
    /// This node must start one.
    Due,
    /// The member must.
    Awaited,
    /// This node drives one.
    Running,
    /// One is done since the link is up.
    Done,
    /// One is done, and this node drives another as a matter of routine.
    Round,
}

/// Which of two connections between the same nodes stays: both sides compute the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkRank {
    pub(super) dialed_by_lower: bool,
    pub(super) dial: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) rank: LinkRank,
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    /// How often its boot has started empty again.
    pub(super) incarnation: u32,
    pub(super) name: NodeName,
    pub(super) address: SocketAddr,
    pub(super) zone: Option<NodeName>,
    pub(super) state: MemberState,
    /// The ready members that it sees, by their hash.
    pub(super) view: Option<u64>,
    /// It knows of a node that may live beyond a cut.
    pub(super) misses: bool,
    /// It has not compared with all whom it knows of.
    pub(super) incomplete: bool,
    /// Since when it sees others than this node does, or was last asked why.
    pub(super) differs_since: Option<Instant>,
    pub(super) link: Option<Link>,
    pub(super) link_lost_at: Instant,
    /// The newest heartbeat.
    pub(super) counter: u64,
    pub(super) heard_at: Instant,
    /// The newest answer to a ping.
    pub(super) answered_at: Instant,
    pub(super) pinged_at: Option<Instant>,
    /// When it last said that it hears this node.
    pub(super) hears_us_at: Instant,
    pub(super) pass: PassState,
    /// Not before: after one that came to nothing, or while the member should start one.
    pub(super) next_pass_at: Instant,
    /// Something was lost while one ran: another must follow.
    pub(super) pass_again: bool,
    /// In the last pass the two saw different members: there is one more when they agree.
    pub(super) disagreed: bool,
}

impl Member {
    pub(super) fn info(&self, boot: BootId) -> MemberInfo {
        MemberInfo { boot, name: self.name.clone(), address: self.address, state: self.state }
    }

    pub(super) fn contact(&self, boot: BootId) -> Contact {
        Contact { boot, incarnation: self.incarnation, name: self.name.clone(), address: self.address }
    }

    pub(super) fn seat(&self, boot: BootId) -> Seat {
        Seat::new(boot, &self.name, self.address.ip(), self.zone.as_ref())
    }

    /// Whether it has what this node had when their link came up, or the view last changed, and the
    /// other way round.
    pub(super) fn has_compared(&self) -> bool {
        match self.pass {
            PassState::Done => true,
            PassState::Round => !self.pass_again,
            PassState::Due | PassState::Awaited | PassState::Running => false,
        }
    }

    /// The newest sign of life of any kind.
    pub(super) fn alive_at(&self) -> Instant {
        self.heard_at.max(self.answered_at)
    }
}
