//! What one request changed.

use alloc::vec::Vec;

use super::attributes::{Name, Value};
use super::change::Limits;
use crate::{Hlc, SessionId, Stamp};

/// One commit, as it travels. Every delta is also an access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Of which session.
    pub id: SessionId,
    /// The origin's previous stamp in this session. A receiver whose version lacks it has a gap.
    pub previous: Hlc,
    /// The commit's own.
    pub stamp: Stamp,
    /// Attributes set (`Some`) and removed (`None`).
    pub changes: Vec<(Name, Option<Value>)>,
    /// New limits, if they changed.
    pub limits: Option<Limits>,
    /// The session begins here: nothing went before.
    pub create: bool,
    /// Nobody waits for it to be acknowledged: that may be done together with later ones.
    pub ack_later: bool,
}

impl Limits {
    /// No idle limit of its own and no absolute end.
    pub const NONE: Self = Self { idle: None, remaining: None, absolute: None };
}
