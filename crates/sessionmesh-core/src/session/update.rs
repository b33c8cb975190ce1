//! A session's state on its way to another holder.

use core::time::Duration;

use super::attributes::Attributes;
use super::change::Limits;
use super::end::End;
use super::limits::StampedLimits;
use super::version::Version;
use crate::{Hlc, Instant, SessionId, Stamp};

/// A record as one holder sends it to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordUpdate {
    /// Of which session.
    pub id: SessionId,
    /// What is known of it.
    pub difference: Difference,
}

/// A record's state, or what the asker lacks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The session has ended and nothing else is kept.
    Ended(End),
    /// The session's state.
    State(StateUpdate),
}

/// A state, or what a base lacks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateUpdate {
    /// Attributes and removal marks; with a base, only those that it lacks.
    pub attributes: Attributes,
    /// What the sender's state contains.
    pub version: Version,
    /// What the receiver must contain for this to make its state whole. `None`: nothing.
    pub base: Option<Version>,
    /// The session's limits.
    pub limits: LimitsUpdate,
    /// The newest access.
    pub touch: TouchUpdate,
    /// The newest end by idleness.
    pub expired: Option<End>,
}

/// Limits on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitsUpdate {
    /// Of the write that set them.
    pub stamp: Stamp,
    /// As durations from now.
    pub limits: Limits,
}

impl LimitsUpdate {
    pub(super) fn into_local(self, now: Instant) -> StampedLimits {
        local_limits(self.stamp, self.limits, now)
    }

    pub(super) fn from_local(limits: &StampedLimits, now: Instant) -> Self {
        let left = |at: Option<Instant>| at.map(|at| at - now);
        let (remaining, absolute) = (left(limits.deadline), left(limits.absolute));
        Self { stamp: limits.stamp, limits: Limits { idle: limits.idle, remaining, absolute } }
    }
}

/// Durations from now as this node's deadlines.
pub(super) fn local_limits(stamp: Stamp, limits: Limits, now: Instant) -> StampedLimits {
    let at = |left: Option<Duration>| left.map(|left| now + left);
    StampedLimits { stamp, idle: limits.idle, deadline: at(limits.remaining), absolute: at(limits.absolute) }
}

/// An access on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TouchUpdate {
    /// Its stamp.
    pub stamp: Stamp,
    /// How long ago.
    pub age: Duration,
}

impl Difference {
    /// Makes it what it is after so long.
    pub fn age(&mut self, by: Duration) {
        if let Self::State(update) = self {
            update.touch.age = update.touch.age.saturating_add(by);
        }
    }
}

impl RecordUpdate {
    /// Whether it tells of an end, and nothing else.
    pub fn is_end(&self) -> bool {
        matches!(self.difference, Difference::Ended(_))
    }

    /// The newest stamp in it, for the receiver's clock.
    pub fn newest(&self) -> Hlc {
        match &self.difference {
            Difference::Ended(end) => end.stamp.hlc,
            Difference::State(state) => {
                let end = state.expired.map_or(Hlc::ZERO, |end| end.stamp.hlc);
                state.version.newest().max(state.touch.stamp.hlc).max(end)
            }
        }
    }
}
