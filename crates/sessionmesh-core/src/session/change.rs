//! A change that a request asks for, and the limits that bind it.

use alloc::vec::Vec;
use core::time::Duration;

use super::attributes::{Name, Value};

/// A session's own limits, as durations from now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Instead of the cluster's idle limit.
    pub idle: Option<Duration>,
    /// Until the session ends, whatever its use.
    pub remaining: Option<Duration>,
    /// The same, but no later write can put it off.
    pub absolute: Option<Duration>,
}

/// What a request wants changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Attributes to set (`Some`) and remove (`None`).
    pub attributes: Vec<(Name, Option<Value>)>,
    /// New limits.
    pub limits: Option<Limits>,
}

impl Change {
    /// Whether nothing is to change.
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.limits.is_none()
    }
}

/// What a session may hold. Limits bind writers; a merge is never refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Bytes of one attribute's name. Default 256.
    pub name_bytes: usize,
    /// Attributes in one session. Default 256.
    pub attributes: usize,
    /// Bytes of all names and values of one session. Default 1 MiB.
    pub session_bytes: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { name_bytes: 256, attributes: 256, session_bytes: 1 << 20 }
    }
}

/// Why a change was not made. The session is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// This node does not hold the session.
    #[error("no such session on this node")]
    Unknown,
    /// The session has ended; a write can't bring it back.
    #[error("the session has ended")]
    Ended,
    /// An attribute's name is too long.
    #[error("an attribute name of {bytes} bytes is over the limit of {limit} (name_bytes)")]
    NameTooLong {
        /// Of the name.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The session would hold too many attributes.
    #[error("{count} attributes are over the limit of {limit} in one session (session_attributes)")]
    TooManyAttributes {
        /// After the change.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The session would be too large.
    #[error("{bytes} bytes of attributes are over the limit of {limit} in one session (session_bytes)")]
    TooLarge {
        /// After the change.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}
