//! One session, asked of another holder.

use alloc::boxed::Box;

use super::table::Table;
use crate::placement::View;
use crate::session::{Applied, EndCause, Record};
use crate::wire::{Fetch, FetchOutcome};
use crate::{HybridClock, Now, SessionId, mutated};

/// What a node's word about a session is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has been paused, and what it has may be old: its word is that there is something, or nothing at all.
    Doubting,
    /// It does not hold it, or has not since it last compared with all.
    Stranger,
    /// It holds it.
    Holder,
    /// It holds it, doubts nothing, has compared with all, and sees the same members as the asker: only
    /// then is "not here" an answer about the session.
    Settled,
}

impl Standing {
    /// Of a node that doubts nothing, in the eyes of one that asks. `settled`: it has compared with all
    /// since the members changed.
    pub fn of(view: &View, settled: bool, fetch: &Fetch) -> Self {
        if !view.may_serve(&fetch.id) && !mutated!(DenialUnsettled) {
            Self::Stranger
        } else if (settled || mutated!(DenialUnsettled))
            && view.hash() == fetch.view
            && view.i_hold(&fetch.id)
        {
            Self::Settled
        } else {
            Self::Holder
        }
    }
}

/// Answers a peer's fetch.
pub fn answer(table: &impl Table, fetch: &Fetch, standing: Standing, now: Now) -> FetchOutcome {
    if standing == Standing::Doubting {
        let has_copy = table.read(&fetch.id, |record| record.is_some_and(|record| !record.is_partial()));
        return if has_copy { FetchOutcome::Doubted } else { FetchOutcome::Undecided };
    }
    let counts = |record: &Record| {
        // A logout is final, whoever knows of it.
        let final_end = matches!(record, Record::Ended(end) if end.cause == EndCause::Destroyed);
        standing != Standing::Stranger || fetch.any_copy || final_end
    };
    let update = table.read(&fetch.id, |record| {
        let record = record.filter(|record| counts(record))?;
        record.update(fetch.id, fetch.version.as_ref(), now.mono)
    });
    match update {
        Some(update) => FetchOutcome::Record(Box::new(update)),
        None => nothing(standing),
    }
}

/// The answer of a node that has nothing to say of the session itself.
pub fn nothing(standing: Standing) -> FetchOutcome {
    if standing == Standing::Settled { FetchOutcome::Absent } else { FetchOutcome::Undecided }
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
