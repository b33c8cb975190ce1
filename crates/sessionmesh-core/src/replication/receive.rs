//! A data frame from a peer: into the table, and into the acknowledgement.

use core::time::Duration;

use super::inbox::{Inbox, Taken};
use super::table::Table;
use crate::session::{Applied, End, Record, Version};
use crate::wire::Frame;
use crate::{HybridClock, Now, SessionId, mutated};

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
    /// The sender let a session expire that has been used here since: tell it.
    pub outlived: bool,
}

/// When a frame came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// For how long this node may have left it lying, if it stood still.
    pub age: Duration,
    /// When it takes it.
    pub now: Now,
}

impl From<Now> for Arrival {
    fn from(now: Now) -> Self {
        Self { age: Duration::ZERO, now }
    }
}

/// Applies a data frame and counts it. Frames that are not data are left alone. `idle`: the cluster's. `note` is called
/// with the session's id, under its lock.
pub fn receive(
    table: &impl Table,
    clock: &HybridClock,
    inbox: &mut Inbox,
    frame: Frame,
    idle: Duration,
    Arrival { age, now }: Arrival,
    note: impl FnOnce(&SessionId),
) -> Received {
    let (id, newest) = match &frame {
        Frame::Delta(delta) => (delta.id, delta.stamp.hlc),
        Frame::Ended(id, end) => (*id, end.stamp.hlc),
        Frame::Record(record) => (record.id, record.newest()),
        _ => return Received::default(),
    };
    clock.observe(newest);
    let later = matches!(&frame, Frame::Delta(delta) if delta.ack_later);
    let is_end = matches!(&frame, Frame::Ended(..));
    let applied = table.with(&id, |slot| {
        note(&id);
        let mut applied = match frame {
            Frame::Delta(delta) if slot.is_none() && !delta.create && mutated!(AckWithoutApply) => {
                Applied { held: true, ..Applied::default() }
            }
            Frame::Delta(delta) => Record::apply(slot, &delta, age, now.mono),
            Frame::Ended(_, end) => Record::apply_end(slot, end),
            Frame::Record(mut record) => {
                record.difference.age(age);
                Record::apply_update(slot, record.difference, now.mono)
            }
            _ => Applied::default(),
        };
        if applied.ended.is_some() && slot.as_ref().is_some_and(|record| record.is_disproved(idle, now.mono))
        {
            applied.ended = None;
            (applied.outlived, applied.superseded) = (true, true);
        }
        applied
    });
    // The first holder tells the application of an end by idleness once all others have agreed to it.
    let taken = match applied.held || mutated!(AckOfPart) {
        true if is_end && applied.superseded => Taken::Not,
        true => Taken::Whole,
        false => Taken::Part(id),
    };
    inbox.applied(taken, later);
    let Applied { want, created, ended, late, outlived, conflicts, .. } = applied;
    Received { id: Some(id), pull: want, created, ended, late, conflicts, outlived }
}
