//! A change made on this node: into the table and, in the same breath, into the outboxes.
//!
//! Both happen under the session's lock, so a stream carries the deltas of one session in the order
//! of their stamps, and a table scan that begins after a stream was opened misses nothing: a commit
//! either came before it, or sees the stream.

use core::time::Duration;

use bytes::Bytes;

use super::table::Table;
use crate::session::{Change, ChangeError, Delta, End, EndCause, Record, SessionLimits, Token};
use crate::wire::Frame;
use crate::{BootId, Hlc, HybridClock, Now, SessionId, Stamp};

/// Who commits, and when.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// This node.
    pub boot: BootId,
    /// Its clock.
    pub clock: &'a HybridClock,
    /// What sessions may hold.
    pub limits: &'a SessionLimits,
    /// The time.
    pub now: Now,
}

impl Origin<'_> {
    fn tick(&self, floor: Hlc) -> Stamp {
        Stamp { hlc: self.clock.tick(self.now.wall_ms, floor), origin: self.boot }
    }
}

/// Where deltas go. Called under a session's lock: must not wait, must not touch the table, and
/// must read the current routes when it is called, not before.
pub trait Streams {
    /// Whether somebody waits for what is sent of a session to be acknowledged.
    fn is_awaited(&self, id: &SessionId) -> bool;

    /// Appends an encoded data frame to the outbox of every other node that holds the session.
    fn send(&self, id: &SessionId, frame: &Bytes);
}

/// Begins a session.
///
/// # Errors
/// The change is over a limit. Nothing was made.
pub fn create(
    table: &impl Table,
    streams: &impl Streams,
    origin: Origin<'_>,
    id: SessionId,
    change: Change,
) -> Result<Token, ChangeError> {
    table.with(&id, |slot| {
        let (record, delta) =
            Record::create(id, origin.tick(Hlc::ZERO), origin.now.mono, change, origin.limits)?;
        *slot = Some(record);
        Ok(send(streams, slot, delta))
    })
}

/// Makes a change; `None` if every value is what it was, and nothing was sent.
///
/// `prepare` makes the change from what is there now, under the session's lock.
///
/// # Errors
/// As [`Record::change`]. Nothing was changed.
pub fn change<E: From<ChangeError>>(
    table: &impl Table,
    streams: &impl Streams,
    origin: Origin<'_>,
    id: SessionId,
    prepare: impl FnOnce(Option<&Record>) -> Result<Change, E>,
) -> Result<Option<Token>, E> {
    table.with(&id, |slot| {
        let change = prepare(slot.as_ref())?;
        let (limits, mono) = (origin.limits, origin.now.mono);
        let delta = Record::change(slot, id, change, limits, mono, |floor| origin.tick(floor))?;
        Ok(delta.map(|delta| send(streams, slot, delta)))
    })
}

/// Tells other holders of an access.
///
/// # Errors
/// The session is not here or has ended.
pub fn touch(
    table: &impl Table,
    streams: &impl Streams,
    origin: Origin<'_>,
    id: SessionId,
) -> Result<Token, ChangeError> {
    table.with(&id, |slot| {
        let delta = Record::touch(slot, id, origin.now.mono, |floor| origin.tick(floor))?;
        Ok(send(streams, slot, delta))
    })
}

/// Tells other holders of the last access here, which the end by idleness that came did not know of; whether the session
/// lives on.
pub fn outlive(
    table: &impl Table,
    streams: &impl Streams,
    origin: Origin<'_>,
    id: SessionId,
    idle: Duration,
) -> bool {
    table.with(&id, |slot| {
        let update = Record::outlive(slot, id, idle, origin.now.mono, |floor| origin.tick(floor));
        let lives = update.is_some();
        if let Some(update) = update {
            streams.send(&id, &Frame::Record(update).encode());
        }
        lives
    })
}

/// Destroys a session, or leaves the end of one that this node does not know; gives back what was
/// there. `announced`: the application need not be told.
///
/// # Errors
/// [`ChangeError::Ended`] if it was destroyed before.
pub fn destroy(
    table: &impl Table,
    streams: &impl Streams,
    origin: Origin<'_>,
    id: SessionId,
    announced: bool,
) -> Result<(End, Option<Record>), ChangeError> {
    table.with(&id, |slot| {
        let before = slot.clone();
        let end = Record::destroy(slot, announced, |floor| origin.tick(floor))?;
        streams.send(&id, &Frame::Ended(id, end).encode());
        Ok((end, before))
    })
}

/// Ends an idle session if `still` says so of what is there now.
pub fn expire(
    table: &impl Table,
    streams: &impl Streams,
    id: SessionId,
    still: impl FnOnce(&Record) -> bool,
) -> Option<End> {
    table.with(&id, |slot| {
        if !slot.as_ref().is_some_and(still) {
            return None;
        }
        let end = Record::expire(slot)?;
        streams.send(&id, &Frame::Ended(id, end).encode());
        Some(end)
    })
}

/// Asks the other holders whether they agree to an end by idleness that is known here; whether there is one that has
/// not been announced.
pub fn propose(table: &impl Table, streams: &impl Streams, id: SessionId) -> bool {
    table.with(&id, |slot| {
        let end = slot.as_ref().and_then(Record::end);
        let proposed = end.filter(|end| end.cause == EndCause::Expired && !end.announced);
        if let Some(end) = proposed {
            streams.send(&id, &Frame::Ended(id, end).encode());
        }
        proposed.is_some()
    })
}

/// Marks a session's end as announced to the application; `None` if it was.
pub fn announce(table: &impl Table, streams: &impl Streams, id: SessionId) -> Option<End> {
    table.with(&id, |slot| {
        let end = slot.as_mut()?.announce()?;
        streams.send(&id, &Frame::Ended(id, end).encode());
        Some(end)
    })
}

/// Sends a session's whole record again.
pub fn resend(table: &impl Table, streams: &impl Streams, now: Now, id: SessionId) -> bool {
    table.with(&id, |slot| {
        let update = slot.as_ref().and_then(|record| record.update(id, None, now.mono));
        let sent = update.is_some();
        if let Some(update) = update {
            streams.send(&id, &Frame::Record(update).encode());
        }
        sent
    })
}

fn send(streams: &impl Streams, slot: &Option<Record>, mut delta: Delta) -> Token {
    let id = delta.id;
    delta.ack_later = !streams.is_awaited(&id);
    streams.send(&id, &Frame::Delta(delta).encode());
    token_of(slot.as_ref())
}

/// Of the client that is told of the change: its request has seen what was there.
fn token_of(record: Option<&Record>) -> Token {
    record.and_then(Record::live).map(Token::of).unwrap_or_default()
}
