//! How long a session may last.

use core::time::Duration;

use crate::{Instant, Stamp};

/// A session's own limits, last writer wins.
///
/// They travel as durations: a deadline is this node's reading of "time left", so no two wall
/// clocks are ever compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampedLimits {
    /// Of the write that set them.
    pub stamp: Stamp,
    /// Instead of the cluster's idle limit.
    pub idle: Option<Duration>,
    /// The session ends then, whatever its use.
    pub deadline: Option<Instant>,
    /// As well, and no later write can put it off: set when the session begins.
    pub absolute: Option<Instant>,
}

impl StampedLimits {
    /// Takes the newer of both; of the same write, the deadline that is here. The absolute end is the
    /// earlier of both.
    pub fn merge(&mut self, other: Self) {
        let absolute = self.absolute.into_iter().chain(other.absolute).min();
        if other.stamp > self.stamp {
            *self = other;
        }
        self.absolute = absolute;
    }

    /// When the session ends, whatever its use.
    pub fn ends_at(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.absolute).min()
    }
}
