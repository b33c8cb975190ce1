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
    /// Destroyed: where that was done the session was known to have expired.
    pub after_expiry: bool,
}

impl End {
    /// By idleness, after this access; nobody has been told yet.
    pub fn expired(stamp: Stamp) -> Self {
        Self { cause: EndCause::Expired, stamp, announced: false, after_expiry: false }
    }

    /// By this write; nobody has been told yet.
    pub fn destroyed(stamp: Stamp) -> Self {
        Self { cause: EndCause::Destroyed, stamp, announced: false, after_expiry: false }
    }

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
        end.after_expiry = self.after_expiry || other.after_expiry;
        let counts =
            |one: Self| one.stamp == end.stamp || one.cause == EndCause::Destroyed || end.after_expiry;
        end.announced = [self, other].into_iter().any(|one| one.announced && counts(one));
        end
    }
}
