//! Sessions as a node keeps them.

use dashmap::DashMap;
use sessionmesh_core::SessionId;
use sessionmesh_core::replication::Table;
use sessionmesh_core::session::Record;

#[derive(Default)]
pub(crate) struct Sessions(DashMap<SessionId, Option<Record>, foldhash::fast::RandomState>);

impl Table for Sessions {
    fn with<R>(&self, id: &SessionId, f: impl FnOnce(&mut Option<Record>) -> R) -> R {
        f(&mut self.0.entry(*id).or_default())
    }

    fn read<R>(&self, id: &SessionId, f: impl FnOnce(Option<&Record>) -> R) -> R {
        f(self.0.get(id).as_ref().and_then(|slot| slot.as_ref()))
    }

    fn for_each(&self, mut f: impl FnMut(&SessionId, &Record)) {
        for slot in &self.0 {
            slot.value().iter().for_each(|record| f(slot.key(), record));
        }
    }
}

/// How many parts a node's table has, by the first byte of the ids.
pub(crate) const PARTS: usize = 256;

/// Many sessions, in parts.
pub(crate) struct Parts(Vec<Sessions>);

impl Parts {
    pub(crate) fn new() -> Self {
        Self((0..PARTS).map(|_| Sessions::default()).collect())
    }

    fn part(&self, id: &SessionId) -> &Sessions {
        &self.0[usize::from(id.as_bytes()[0])]
    }

    pub(crate) fn ids(&self, part: usize) -> Vec<SessionId> {
        self.0[part].0.iter().map(|slot| *slot.key()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|part| part.0.len()).sum()
    }
}

impl Table for Parts {
    fn with<R>(&self, id: &SessionId, f: impl FnOnce(&mut Option<Record>) -> R) -> R {
        self.part(id).with(id, f)
    }

    fn read<R>(&self, id: &SessionId, f: impl FnOnce(Option<&Record>) -> R) -> R {
        self.part(id).read(id, f)
    }

    fn for_each(&self, mut f: impl FnMut(&SessionId, &Record)) {
        self.0.iter().for_each(|part| part.for_each(&mut f));
    }
}

/// The ids of all that is measured here.
pub(crate) fn id(n: usize) -> SessionId {
    // Spread as random ones are.
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    SessionId::from_bytes(bytes)
}
