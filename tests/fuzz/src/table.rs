//! Sessions for a target.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use sessionmesh_core::replication::Table;
use sessionmesh_core::session::Record;
use sessionmesh_core::{Instant, Now, SessionId};

#[derive(Default)]
pub(crate) struct Sessions(RefCell<BTreeMap<SessionId, Record>>);

impl Table for Sessions {
    fn with<R>(&self, id: &SessionId, f: impl FnOnce(&mut Option<Record>) -> R) -> R {
        let mut sessions = self.0.borrow_mut();
        let mut slot = sessions.remove(id);
        let result = f(&mut slot);
        sessions.extend(slot.map(|record| (*id, record)));
        result
    }

    fn read<R>(&self, id: &SessionId, f: impl FnOnce(Option<&Record>) -> R) -> R {
        f(self.0.borrow().get(id))
    }

    fn for_each(&self, mut f: impl FnMut(&SessionId, &Record)) {
        for (id, record) in self.0.borrow().iter() {
            f(id, record);
        }
    }
}

/// A day after start, some day in 2026.
pub(crate) fn now() -> Now {
    Now { mono: Instant::ZERO + Duration::from_secs(86_400), wall_ms: 1_790_000_000_000 }
}
