//! The sessions of this node, in memory.
//!
//! Closures only: no guard leaves this file, so no shard lock can outlive a call or be taken twice.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use sessionmesh_core::replication::Table;
use sessionmesh_core::session::{End, EndCause, Record};
use sessionmesh_core::{BootId, SessionId};

use crate::host::{Hashing, TABLE_PARTS};

/// Parts that a scan can rest between, by the first byte of the ids: in order of the ids.
pub(crate) const LAST_PART: u8 = (TABLE_PARTS - 1) as u8;

/// Requests come to a part on few threads at once.
const SHARDS_PER_PART: usize = 2;

#[derive(Debug)]
struct Part {
    records: DashMap<SessionId, Option<Record>, Hashing>,
    /// The last look that had begun when a record changed. Written under a shard's lock.
    changed_in: AtomicU64,
}

/// A look at the records of a part; each has a greater number than those that began before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look(u64);

/// An end that was handed on.
#[derive(Debug)]
struct Departed {
    end: End,
    /// Who took it. Once all of them were lost nobody else may know it.
    holders: Vec<BootId>,
}

/// All records of this node.
#[derive(Debug)]
pub(crate) struct SessionTable {
    parts: Vec<Part>,
    looks: AtomicU64,
    /// Kept, because counting would lock every shard. The second, of those, are over.
    records: AtomicUsize,
    ends: AtomicUsize,
    /// Ends of sessions that this node held once and handed on: whatever comes of them again, from a node
    /// that does not know, finds its end. Locked after a shard, never before.
    departed: Mutex<BTreeMap<SessionId, Departed>>,
    departed_count: AtomicUsize,
}

impl SessionTable {
    pub(crate) fn new() -> Self {
        let hasher = Hashing::default();
        let records =
            || DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher.clone(), SHARDS_PER_PART);
        Self {
            parts: (0..=LAST_PART)
                .map(|_| Part { records: records(), changed_in: AtomicU64::new(0) })
                .collect(),
            looks: AtomicU64::new(0),
            records: AtomicUsize::new(0),
            ends: AtomicUsize::new(0),
            departed: Mutex::default(),
            departed_count: AtomicUsize::new(0),
        }
    }

    fn departed(&self) -> MutexGuard<'_, BTreeMap<SessionId, Departed>> {
        self.departed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every holder has a record, and this node need not: it goes, and its end, if it is a final one, is
    /// remembered. May be called in a closure of [`Table::with`].
    pub(crate) fn depart(&self, id: &SessionId, slot: &mut Option<Record>, holders: Vec<BootId>) {
        let end = slot.take().and_then(|record| record.end());
        if let Some(end) = end.filter(|end| end.cause == EndCause::Destroyed) {
            let mut departed = self.departed();
            departed.insert(*id, Departed { end, holders });
            self.departed_count.store(departed.len(), Ordering::Relaxed);
        }
    }

    /// Forgets ends that departed, if they are older than this, and the oldest past so many; how many of these.
    pub(crate) fn forget_departed(&self, before_ms: u64, most: usize) -> usize {
        let mut departed = self.departed();
        departed.retain(|_, departed| departed.end.stamp.hlc.millis() >= before_ms);
        let excess = departed.len().saturating_sub(most);
        if excess > 0 {
            let mut ends: Vec<_> =
                departed.iter().map(|(id, departed)| (departed.end.stamp.hlc, *id)).collect();
            ends.sort_unstable();
            for (_, id) in ends.into_iter().take(excess) {
                departed.remove(&id);
            }
        }
        self.departed_count.store(departed.len(), Ordering::Relaxed);
        excess
    }

    /// What is known of a session that has no record here.
    fn recalled(&self, id: &SessionId) -> Option<Record> {
        if self.departed_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.departed().get(id).map(|departed| Record::Ended(departed.end))
    }

    /// A member is gone; gives back the ends that departed to nobody who still lives. Who leaves in order hands on
    /// what it has.
    pub(crate) fn lose_holder(&self, boot: BootId, left: bool) -> Vec<SessionId> {
        let mut last = Vec::new();
        for (id, departed) in self.departed().iter_mut() {
            if !departed.holders.contains(&boot) {
                continue;
            }
            if left {
                departed.holders.clear();
                continue;
            }
            departed.holders.retain(|holder| *holder != boot);
            if departed.holders.is_empty() {
                last.push(*id);
            }
        }
        last
    }

    /// Records of any kind: sessions, ends, parts.
    pub(crate) fn len(&self) -> usize {
        self.records.load(Ordering::Relaxed)
    }

    /// Sessions, in part or whole.
    pub(crate) fn sessions(&self) -> usize {
        // Not of one moment, both.
        self.len().saturating_sub(self.ends.load(Ordering::Relaxed))
    }

    fn count(&self, before: (bool, bool), after: (bool, bool)) {
        for (counter, before, after) in [(&self.records, before.0, after.0), (&self.ends, before.1, after.1)]
        {
            match (before, after) {
                (false, true) => _ = counter.fetch_add(1, Ordering::Relaxed),
                (true, false) => _ = counter.fetch_sub(1, Ordering::Relaxed),
                _ => {}
            }
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.departed().clear();
        self.departed_count.store(0, Ordering::Relaxed);
        for part in &self.parts {
            part.records.retain(|_, slot| {
                self.count(kind(slot), kind(&None));
                false
            });
            self.note_change(part);
        }
    }

    /// Sessions that may be served, of those that `counts` picks. Scans everything.
    pub(crate) fn live(&self, counts: impl Fn(&SessionId) -> bool) -> usize {
        let mut count = 0;
        self.for_each(|id, record| count += usize::from(record.live().is_some() && counts(id)));
        count
    }

    fn part(&self, id: &SessionId) -> &Part {
        let first = usize::from(id.as_bytes()[0]);
        &self.parts[first * TABLE_PARTS / 256]
    }

    /// About how many records a part has.
    pub(crate) fn len_of(&self, part: u8) -> usize {
        self.parts[usize::from(part)].records.len()
    }

    /// As [`Table::for_each`], of the ids in this part.
    pub(crate) fn for_each_in(&self, part: u8, mut f: impl FnMut(&SessionId, &Record)) -> Look {
        let look = Look(self.looks.fetch_add(1, Ordering::Relaxed) + 1);
        for entry in self.parts[usize::from(part)].records.iter() {
            if let Some(record) = entry.value() {
                f(entry.key(), record);
            }
        }
        look
    }

    /// Whether no record of a part has changed since a look began.
    pub(crate) fn is_as_of(&self, part: u8, look: Look) -> bool {
        let part = &self.parts[usize::from(part)];
        // Counting locks each shard for a moment, as a look would: who was changing a record then is done, and seen
        // here; who begins later sees the routes that were published before this.
        let _ = part.records.len();
        part.changed_in.load(Ordering::Relaxed) < look.0
    }

    /// A record of this part is about to change, and its shard is locked. A look that begins later waits for the lock
    /// and sees the change; one that has seen the shard before is counted here.
    fn note_change(&self, part: &Part) {
        let look = self.looks.load(Ordering::Relaxed);
        // Nearly always so: only the first change after a look writes what all cores read.
        if part.changed_in.load(Ordering::Relaxed) < look {
            part.changed_in.fetch_max(look, Ordering::Relaxed);
        }
    }
}

/// Whether there is a record, and one that is over.
fn kind(slot: &Option<Record>) -> (bool, bool) {
    (slot.is_some(), slot.as_ref().is_some_and(|record| record.end().is_some()))
}

impl Table for SessionTable {
    fn with<R>(&self, id: &SessionId, f: impl FnOnce(&mut Option<Record>) -> R) -> R {
        let part = self.part(id);
        match part.records.entry(*id) {
            Entry::Occupied(mut entry) => {
                self.note_change(part);
                let before = kind(entry.get());
                let result = f(entry.get_mut());
                self.count(before, kind(entry.get()));
                if entry.get().is_none() {
                    entry.remove();
                }
                result
            }
            // The entry holds the shard's lock while the closure runs.
            Entry::Vacant(entry) => {
                self.note_change(part);
                let mut slot = self.recalled(id);
                let result = f(&mut slot);
                if slot.is_some() {
                    self.count(kind(&None), kind(&slot));
                    entry.insert(slot);
                }
                result
            }
        }
    }

    fn read<R>(&self, id: &SessionId, f: impl FnOnce(Option<&Record>) -> R) -> R {
        match self.part(id).records.get(id) {
            Some(guard) => f(guard.value().as_ref()),
            None => f(None),
        }
    }

    fn prefetch<'a>(&self, ids: impl Iterator<Item = &'a SessionId>) {
        let mut ids = ids.peekable();
        let Some(part) = ids.peek().map(|id| self.part(id)) else { return };
        // Locked once: a lock waits for all that was read before it, and each session would for the one before.
        let shards: Vec<_> = part.records.shards().iter().map(|shard| shard.read()).collect();
        let mut read = 0;
        for id in ids {
            let hash = part.records.hash_usize(id);
            let shard = shards.get(part.records.determine_shard(hash));
            let entry = shard.and_then(|shard| shard.get(hash as u64, |(key, _)| key == id));
            read ^= entry.and_then(|(_, slot)| slot.get().as_ref()).map_or(0, Record::prefetch);
        }
        black_box(read);
    }

    fn for_each(&self, mut f: impl FnMut(&SessionId, &Record)) {
        for part in 0..=LAST_PART {
            self.for_each_in(part, &mut f);
        }
    }
}

#[cfg(test)]
mod tests {
    use sessionmesh_core::{Hlc, Stamp};

    use super::*;

    #[test]
    fn records_are_counted_and_parts_come_in_the_order_of_ids() {
        let table = SessionTable::new();
        let stamp = Stamp { hlc: Hlc::ZERO, origin: BootId::new(1).unwrap() };
        let end = Record::Ended(End { announced: true, ..End::destroyed(stamp) });
        for n in 0..=u8::MAX {
            table.with(&SessionId::from_bytes([n; 16]), |slot| *slot = Some(end.clone()));
        }
        table.with(&SessionId::from_bytes([7; 16]), |slot| *slot = None);
        table.with(&SessionId::from_bytes([7; 16]), |_| ());
        assert_eq!((table.len(), table.sessions()), (255, 0));
        let mut ids = Vec::new();
        table.for_each(|id, _| ids.push(*id));
        assert!(ids.is_sorted() && ids.len() == 255);
        table.clear();
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn fetching_sessions_from_memory_changes_nothing() {
        let table = SessionTable::new();
        let end = End { announced: true, ..End::destroyed(Stamp::default()) };
        let ids = [1, 2, 255].map(|n| SessionId::from_bytes([n; 16]));
        table.with(&ids[0], |slot| *slot = Some(Record::Ended(end)));
        let look = table.for_each_in(LAST_PART, |_, _| ());
        // One that is there, one that is not, one of another part; and none.
        table.prefetch(ids.iter());
        table.prefetch([].iter());
        assert!(table.is_as_of(LAST_PART, look) && table.len() == 1);
    }

    #[test]
    fn a_look_is_out_of_date_when_a_record_of_its_part_changes() {
        let table = SessionTable::new();
        let change = |first: u8| table.with(&SessionId::from_bytes([first; 16]), |_| ());
        change(0);
        let looks = [0, LAST_PART].map(|part| (part, table.for_each_in(part, |_, _| ())));
        let are_right = || looks.map(|(part, look)| table.is_as_of(part, look));
        assert_eq!(are_right(), [true, true]);
        change(255);
        assert_eq!(are_right(), [true, false]);
        let during = table.for_each_in(0, |_, _| ());
        table.with(&SessionId::from_bytes([255; 16]), |_| ());
        assert!(table.is_as_of(0, during) && !table.is_as_of(LAST_PART, looks[1].1));
        table.clear();
        assert_eq!(are_right(), [false, false]);
    }

    #[test]
    fn an_end_that_departed_meets_whatever_comes_again() {
        let table = SessionTable::new();
        let id = SessionId::from_bytes([7; 16]);
        let hlc = Hlc::from_raw(50 << 16);
        let stamp = Stamp { hlc, origin: BootId::new(1).unwrap() };
        let end = End { announced: true, ..End::destroyed(stamp) };
        table.with(&id, |slot| *slot = Some(Record::Ended(end)));
        let [one, other] = [1, 2].map(|boot| BootId::new(boot).unwrap());
        table.with(&id, |slot| table.depart(&id, slot, vec![one, other]));
        assert_eq!(table.lose_holder(one, false), []);
        assert_eq!(table.lose_holder(one, false), []);
        assert_eq!(table.lose_holder(other, false), [id]);
        assert_eq!((table.len(), table.read(&id, |record| record.is_some())), (0, false));
        assert!(table.with(&id, |slot| slot.as_ref().and_then(Record::end) == Some(end)));
        table.with(&id, |slot| table.depart(&id, slot, vec![one, other]));
        assert_eq!(table.lose_holder(one, true), []);
        assert_eq!(table.lose_holder(other, false), [], "who left has handed it on");
        assert_eq!(table.forget_departed(50, 1), 0);
        assert!(table.with(&id, |slot| slot.take().is_some()));
        assert_eq!(table.forget_departed(51, 1), 0);
        assert!(table.with(&id, |slot| slot.is_none()));
    }
}
