//! Ends of sessions.

use crate::Stamp;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndCause {
    /// By its idle or absolute limit. Yields to a newer access that was cut off.
    Expired,
    /// By a logout or a change of id. Final.
    Destroyed,
}

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub cause: EndCause,
    /// Destroyed: of the write that destroyed it. Expired: of the last access that it knew, so that
    /// every node that lets the session expire makes the same end.
    pub stamp: Stamp,
    /// The first holder has announced it to the application.
    pub announced: bool,
}

impl End {
    /// Whether all who hold the session know it to be over: destroyed, or announced, which an end by idleness is once
    /// they have agreed to it. Until then one of them may know of an access.
    pub fn is_agreed(&self) -> bool {
        self.cause == EndCause::Destroyed || self.announced
    }

    /// The end that both become: destroyed over expired; of two destroyed the earlier, which is the
    /// one that users saw; of two expired the later.
    pub fn merge(self, other: Self) -> Self {
        let mut end = match (self.cause, other.cause) {
            (EndCause::Destroyed, EndCause::Destroyed) => {
                if self.stamp <= other.stamp {
                    self
                } else {
                    other
                }
            }
            (EndCause::Expired, EndCause::Expired) => {
                if self.stamp >= other.stamp {
                    self
                } else {
                    other
                }
            }
            (EndCause::Destroyed, EndCause::Expired) => self,
            (EndCause::Expired, EndCause::Destroyed) => other,
        };
        // Nobody is told twice that a session is over, also if it had expired before the logout. But one that was used
        // again after an end by idleness ends anew.
        let is_other_idle_end = self.cause == other.cause && self.cause == EndCause::Expired;
        if !is_other_idle_end || self.stamp == other.stamp {
            end.announced = self.announced || other.announced;
        }
        end
    }
}
