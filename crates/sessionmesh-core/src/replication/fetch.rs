//! One session, asked of another holder.

use alloc::boxed::Box;

use super::table::Table;
use crate::session::{Applied, Record};
use crate::wire::{Fetch, FetchOutcome};
use crate::{HybridClock, Now, SessionId};

/// Answers a peer's fetch. `may_deny`: this node holds the id, doubts nothing, and sees the same
/// members as the asker; only then is "not here" an answer about the session.
pub fn answer(table: &impl Table, fetch: &Fetch, may_deny: bool, now: Now) -> FetchOutcome {
    let update = table.read(&fetch.id, |record| {
        record.and_then(|record| record.update(fetch.id, fetch.version.as_ref(), now.mono))
    });
    match update {
        Some(update) => FetchOutcome::Record(Box::new(update)),
        None if may_deny => FetchOutcome::Absent,
        None => FetchOutcome::Undecided,
    }
}

/// Applies a peer's answer; `None` if it brought nothing, or not what was asked.
pub fn apply(
    table: &impl Table,
    clock: &HybridClock,
    id: SessionId,
    outcome: FetchOutcome,
    now: Now,
) -> Option<Applied> {
    match outcome {
        FetchOutcome::Record(record) if record.id == id => {
            clock.observe(record.newest());
            Some(table.with(&id, |slot| Record::apply_update(slot, record.difference, now.mono)))
        }
        _ => None,
    }
}
