//! A data frame from a peer: into the table, and into the acknowledgement.

use super::inbox::Inbox;
use super::table::Table;
use crate::session::{Applied, End, Record, Version};
use crate::wire::Frame;
use crate::{HybridClock, Now, SessionId};

/// What is to be done after a data frame was applied.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Of which session.
    pub id: Option<SessionId>,
    /// Ask the sender for what is missing, on condition of this version.
    pub pull: Option<Option<Version>>,
    /// The session came to be here.
    pub created: bool,
    /// The session ended here.
    pub ended: Option<End>,
    /// A write came too late, after the session's end.
    pub late: bool,
    /// Writes that lost against others of the same attributes that they did not know of.
    pub conflicts: usize,
    /// The sender let a session expire of which this node knows a newer access: tell it.
    pub outlived: bool,
}

/// Applies a data frame and counts it. Frames that are not data are left alone.
pub fn receive(
    table: &impl Table,
    clock: &HybridClock,
    inbox: &mut Inbox,
    frame: Frame,
    now: Now,
) -> Received {
    let (id, applied) = match frame {
        Frame::Delta(delta) => {
            clock.observe(delta.stamp.hlc);
            (delta.id, table.with(&delta.id, |slot| Record::apply(slot, &delta, now.mono)))
        }
        Frame::Ended(id, end) => {
            clock.observe(end.stamp.hlc);
            (id, table.with(&id, |slot| Record::apply_end(slot, end)))
        }
        Frame::Record(record) => {
            clock.observe(record.newest());
            let id = record.id;
            (id, table.with(&id, |slot| Record::apply_update(slot, record.difference, now.mono)))
        }
        _ => return Received::default(),
    };
    inbox.applied((!applied.held).then_some(id));
    let Applied { want, created, ended, late, outlived, conflicts, .. } = applied;
    Received { id: Some(id), pull: want, created, ended, late, conflicts, outlived }
}
