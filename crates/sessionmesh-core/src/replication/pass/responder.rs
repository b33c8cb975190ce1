//! The side of a pass that answers.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::summary::{Listed, Summary};
use super::{BATCH_BYTES, PREFETCHED, PREFIXES_PER_REQUEST, STRAYS_PER_STEP};
use crate::replication::Table;
use crate::session::{Difference, EndCause, Record, RecordUpdate};
use crate::wire::{PassStep, PassWant, PeerMisbehaved, Prefix, ReplyStep};
use crate::{HybridClock, Now, SessionId};

/// Answers one pass.
#[derive(Debug)]
pub struct PassResponder {
    summary: Summary,
}

impl PassResponder {
    /// From a summary made after the stream to the driver was opened.
    pub fn new(summary: Summary) -> Self {
        Self { summary }
    }

    /// What the driver holds and this node does not: after the pass, the driver has it.
    pub fn strays(&self) -> &[(SessionId, u64)] {
        self.summary.strays()
    }

    /// The answer to one step. `note` is called with each record pushed as it is here then, under its session's
    /// lock.
    ///
    /// # Errors
    /// The peer asks for more than any correct one.
    pub fn handle(
        &mut self,
        step: PassStep,
        table: &impl Table,
        clock: &HybridClock,
        now: Now,
        note: impl Fn(&SessionId, &Record),
    ) -> Result<ReplyStep, PeerMisbehaved> {
        let few = |prefixes: &[Prefix]| {
            let few = prefixes.len() <= PREFIXES_PER_REQUEST;
            if few { Ok(()) } else { Err(PeerMisbehaved::TooMany("prefixes")) }
        };
        Ok(match step {
            PassStep::Open { .. } => ReplyStep::Sums(alloc::vec![self.summary.children(Prefix::ROOT)]),
            PassStep::Expand(prefixes) => {
                few(&prefixes)?;
                ReplyStep::Sums(prefixes.into_iter().map(|prefix| self.summary.children(prefix)).collect())
            }
            PassStep::List(prefixes) => {
                few(&prefixes)?;
                let mut entries = Vec::new();
                for prefix in prefixes {
                    self.summary.visit(prefix, None, Listed::Digests, |below| {
                        entries.extend_from_slice(below);
                        ControlFlow::Continue(())
                    });
                }
                ReplyStep::Listing(entries)
            }
            PassStep::Pull(wants) => self.pull(&wants, table, now),
            PassStep::Range(prefix, after) => self.range(prefix, after, table, now),
            PassStep::Push(records) => {
                let mut ends = Vec::new();
                for record in records {
                    let id = record.id;
                    let is_live = matches!(record.difference, Difference::State(_));
                    apply(table, clock, record, now, &note);
                    // It was over here: the driver must hear of it.
                    if is_live && is_over(&id, table) {
                        ends.extend(table.read(&id, |record| record?.update(id, None, now.mono)));
                    }
                }
                if ends.is_empty() { ReplyStep::Done } else { ReplyStep::Records(ends, None) }
            }
            PassStep::Offer(entries) => {
                if entries.len() > STRAYS_PER_STEP {
                    return Err(PeerMisbehaved::TooMany("strays"));
                }
                ReplyStep::Wants(entries.into_iter().filter_map(|entry| lacked(entry, table)).collect())
            }
            PassStep::Strays(after) => {
                let mut rest = self.summary.strays_after(after).to_vec();
                let goes_on = rest.len() > STRAYS_PER_STEP;
                rest.truncate(STRAYS_PER_STEP);
                let next = rest.last().filter(|_| goes_on).map(|stray| stray.0);
                ReplyStep::Strays(rest, next)
            }
            PassStep::Close => ReplyStep::Done,
        })
    }

    /// What is wanted, up to a batch; the id tells where the answer broke off.
    fn pull(&self, wants: &[PassWant], table: &impl Table, now: Now) -> ReplyStep {
        let mut bytes = 0;
        let mut records = Vec::new();
        for want in wants {
            let base = want.version.as_ref();
            if let Some(update) = table.read(&want.id, |record| record?.update(want.id, base, now.mono)) {
                bytes += approximate_bytes(&update);
                records.push(update);
            }
            if bytes >= BATCH_BYTES {
                return ReplyStep::Records(records, Some(want.id));
            }
        }
        ReplyStep::Records(records, None)
    }

    fn range(&mut self, prefix: Prefix, after: Option<SessionId>, table: &impl Table, now: Now) -> ReplyStep {
        let mut bytes = 0;
        let mut records = Vec::new();
        let mut broke_off = None;
        self.summary.visit(prefix, after, Listed::Ids, |below| {
            for group in below.chunks(PREFETCHED) {
                table.prefetch(group.iter().map(|entry| &entry.0));
                for (id, _) in group {
                    if let Some(update) = table.read(id, |record| record?.update(*id, None, now.mono)) {
                        bytes += approximate_bytes(&update);
                        records.push(update);
                    }
                    if bytes >= BATCH_BYTES {
                        broke_off = Some(*id);
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        });
        ReplyStep::Records(records, broke_off)
    }
}

/// What to ask for of a session that another node has with this digest; `None` if it is the same here.
pub(super) fn lacked((id, digest): (SessionId, u64), table: &impl Table) -> Option<PassWant> {
    table.read(&id, |record| {
        let version = match record {
            Some(record) if !record.is_partial() && record.digest() == digest => return None,
            Some(Record::Held(state)) if !state.is_partial() => Some(state.version().clone()),
            _ => None,
        };
        Some(PassWant { id, version })
    })
}

/// Whether a session was ended for good.
pub(super) fn is_over(id: &SessionId, table: &impl Table) -> bool {
    let is_final = |record: &Record| record.end().is_some_and(|end| end.cause == EndCause::Destroyed);
    table.read(id, |record| record.is_some_and(is_final))
}

pub(super) fn apply(
    table: &impl Table,
    clock: &HybridClock,
    record: RecordUpdate,
    now: Now,
    note: &impl Fn(&SessionId, &Record),
) {
    clock.observe(record.newest());
    table.with(&record.id, |slot| {
        // What is still missing afterwards shows in the next pass.
        let _ = Record::apply_update(slot, record.difference, now.mono);
        if let Some(here) = slot {
            note(&record.id, here);
        }
    });
}

/// About how many bytes a record has on the wire.
pub(super) fn approximate_bytes(update: &RecordUpdate) -> usize {
    let attributes = match &update.difference {
        Difference::Ended(_) => 0,
        Difference::State(state) => state.attributes.bytes(),
    };
    80 + attributes
}
