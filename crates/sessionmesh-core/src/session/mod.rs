//! What a session is and how two states of it become one.
//!
//! A session's state is a join-semilattice: deltas may be lost, doubled and reordered, and merging
//! the full states afterwards gives the same result everywhere. This module knows nothing of
//! members, links or holders.

mod attributes;
mod change;
mod delta;
mod end;
mod limits;
mod record;
mod state;
mod token;
mod update;
mod version;

pub use attributes::{Attribute, Attributes, Name, Value};
pub(crate) use attributes::{INLINE_BYTES, MAX_NAME_BYTES};
pub use change::{Change, ChangeError, Limits, SessionLimits};
pub use delta::Delta;
pub use end::{End, EndCause};
pub use limits::StampedLimits;
pub use record::{Applied, Record};
pub use state::{SessionState, Touch};
pub use token::Token;
pub use update::{Difference, LimitsUpdate, RecordUpdate, StateUpdate, TouchUpdate};
pub use version::Version;

#[cfg(test)]
mod laws;
