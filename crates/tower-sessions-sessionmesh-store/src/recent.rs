//! Sessions deleted a moment ago, for the `create` that follows when an id is cycled.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sessionmesh::{SessionId, Snapshot};

/// A request that cycles an id ends within this time, or carries nothing over.
const LIFE: Duration = Duration::from_secs(60);
/// At most so many are kept.
const CAPACITY: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<HashMap<SessionId, (tokio::time::Instant, Snapshot)>>);

impl Recent {
    pub(crate) fn put(&self, last: Snapshot) {
        let now = tokio::time::Instant::now();
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= CAPACITY {
            recent.retain(|_, (at, _)| now - *at < LIFE);
        }
        if recent.len() < CAPACITY {
            recent.insert(last.id(), (now, last));
        }
    }

    pub(crate) fn take(&self, id: &SessionId) -> Option<Snapshot> {
        let (at, last) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id)?;
        (at.elapsed() < LIFE).then_some(last)
    }
}
