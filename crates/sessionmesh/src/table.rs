//! The sessions of this node, in memory.
//!
//! Closures only: no guard leaves this file, so no shard lock can outlive a call or be taken twice.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use sessionmesh_core::SessionId;
use sessionmesh_core::replication::Table;
use sessionmesh_core::session::Record;

/// A scan of all sessions holds one shard at a time: requests to its sessions wait meanwhile.
const SHARDS: usize = 256;

/// All records of this node.
#[derive(Debug)]
pub(crate) struct SessionTable {
    map: DashMap<SessionId, Option<Record>, foldhash::fast::RandomState>,
}

impl SessionTable {
    pub(crate) fn new() -> Self {
        let hasher = foldhash::fast::RandomState::default();
        Self { map: DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher, SHARDS) }
    }

    /// Records of any kind: sessions, ends, parts.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.map.clear();
    }

    /// Sessions that may be served, of those that `counts` picks. Scans everything.
    pub(crate) fn live(&self, counts: impl Fn(&SessionId) -> bool) -> usize {
        let mut count = 0;
        self.for_each(|id, record| count += usize::from(record.live().is_some() && counts(id)));
        count
    }
}

impl Table for SessionTable {
    fn with<R>(&self, id: &SessionId, f: impl FnOnce(&mut Option<Record>) -> R) -> R {
        match self.map.entry(*id) {
            Entry::Occupied(mut entry) => {
                let result = f(entry.get_mut());
                if entry.get().is_none() {
                    entry.remove();
                }
                result
            }
            // The entry holds the shard's lock while the closure runs.
            Entry::Vacant(entry) => {
                let mut slot = None;
                let result = f(&mut slot);
                if slot.is_some() {
                    entry.insert(slot);
                }
                result
            }
        }
    }

    fn read<R>(&self, id: &SessionId, f: impl FnOnce(Option<&Record>) -> R) -> R {
        match self.map.get(id) {
            Some(guard) => f(guard.value().as_ref()),
            None => f(None),
        }
    }

    fn for_each(&self, mut f: impl FnMut(&SessionId, &Record)) {
        for entry in self.map.iter() {
            if let Some(record) = entry.value() {
                f(entry.key(), record);
            }
        }
    }
}
