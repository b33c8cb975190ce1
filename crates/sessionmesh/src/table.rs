//! The sessions of this node, in memory.
//!
//! Closures only: no guard leaves this file, so no shard lock can outlive a call or be taken twice.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use sessionmesh_core::SessionId;
use sessionmesh_core::replication::Table;
use sessionmesh_core::session::Record;

use crate::host::Hashing;

/// Parts that a scan can rest between, by the first byte of the ids: in order of the ids.
pub(crate) const LAST_PART: u8 = u8::MAX;

/// Requests come to a part on few threads at once.
const SHARDS_PER_PART: usize = 2;

type Part = DashMap<SessionId, Option<Record>, Hashing>;

/// All records of this node.
#[derive(Debug)]
pub(crate) struct SessionTable {
    parts: Vec<Part>,
    /// Kept, because counting would lock every shard.
    records: AtomicUsize,
}

impl SessionTable {
    pub(crate) fn new() -> Self {
        let hasher = Hashing::default();
        let part = || DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher.clone(), SHARDS_PER_PART);
        Self { parts: (0..=LAST_PART).map(|_| part()).collect(), records: AtomicUsize::new(0) }
    }

    /// Records of any kind: sessions, ends, parts.
    pub(crate) fn len(&self) -> usize {
        self.records.load(Ordering::Relaxed)
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        for part in &self.parts {
            part.retain(|_, _| {
                self.records.fetch_sub(1, Ordering::Relaxed);
                false
            });
        }
    }

    /// Sessions that may be served, of those that `counts` picks. Scans everything.
    pub(crate) fn live(&self, counts: impl Fn(&SessionId) -> bool) -> usize {
        let mut count = 0;
        self.for_each(|id, record| count += usize::from(record.live().is_some() && counts(id)));
        count
    }

    fn part(&self, id: &SessionId) -> &Part {
        let first = id.as_bytes()[0];
        &self.parts[usize::from(first)]
    }

    /// As [`Table::for_each`], of the ids that begin with this byte.
    pub(crate) fn for_each_in(&self, part: u8, mut f: impl FnMut(&SessionId, &Record)) {
        for entry in self.parts[usize::from(part)].iter() {
            if let Some(record) = entry.value() {
                f(entry.key(), record);
            }
        }
    }
}

impl Table for SessionTable {
    fn with<R>(&self, id: &SessionId, f: impl FnOnce(&mut Option<Record>) -> R) -> R {
        match self.part(id).entry(*id) {
            Entry::Occupied(mut entry) => {
                let result = f(entry.get_mut());
                if entry.get().is_none() {
                    entry.remove();
                    self.records.fetch_sub(1, Ordering::Relaxed);
                }
                result
            }
            // The entry holds the shard's lock while the closure runs.
            Entry::Vacant(entry) => {
                let mut slot = None;
                let result = f(&mut slot);
                if slot.is_some() {
                    entry.insert(slot);
                    self.records.fetch_add(1, Ordering::Relaxed);
                }
                result
            }
        }
    }

    fn read<R>(&self, id: &SessionId, f: impl FnOnce(Option<&Record>) -> R) -> R {
        match self.part(id).get(id) {
            Some(guard) => f(guard.value().as_ref()),
            None => f(None),
        }
    }

    fn for_each(&self, mut f: impl FnMut(&SessionId, &Record)) {
        for part in 0..=LAST_PART {
            self.for_each_in(part, &mut f);
        }
    }
}

#[cfg(test)]
mod tests {
    use sessionmesh_core::session::{End, EndCause};
    use sessionmesh_core::{BootId, Hlc, Stamp};

    use super::*;

    #[test]
    fn records_are_counted_and_parts_come_in_the_order_of_ids() {
        let table = SessionTable::new();
        let stamp = Stamp { hlc: Hlc::ZERO, origin: BootId::new(1).unwrap() };
        let end = Record::Ended(End { cause: EndCause::Destroyed, stamp, announced: true });
        for n in 0..=u8::MAX {
            table.with(&SessionId::from_bytes([n; 16]), |slot| *slot = Some(end.clone()));
        }
        table.with(&SessionId::from_bytes([7; 16]), |slot| *slot = None);
        table.with(&SessionId::from_bytes([7; 16]), |_| ());
        assert_eq!(table.len(), 255);
        let mut ids = Vec::new();
        table.for_each(|id, _| ids.push(*id));
        assert!(ids.is_sorted() && ids.len() == 255);
        table.clear();
        assert_eq!(table.len(), 0);
    }
}
