//! Sessions deleted a moment ago, for the `create` that follows when an id is cycled.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sessionmesh::{SessionId, Snapshot};

/// A request that cycles an id ends within this time, or carries nothing over.
const LIFE: Duration = Duration::from_secs(60);
/// Bytes kept at most: deletions past that carry nothing over.
const CAPACITY_BYTES: usize = 64 << 20;

/// What a session was when it was deleted.
#[derive(Clone, Debug)]
pub(crate) enum Last {
    /// It held this.
    Held(Snapshot),
    /// It had ended before: nothing may take its place.
    Ended,
}

impl PartialEq for Last {
    fn eq(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Ended, Self::Ended))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    sessions: HashMap<SessionId, (tokio::time::Instant, Last)>,
    bytes: usize,
}

fn bytes_of(last: &Last) -> usize {
    let held = match last {
        Last::Held(snapshot) => snapshot.iter().map(|(name, value)| name.len() + value.len() + 64).sum(),
        Last::Ended => 0,
    };
    128 + held
}

impl Recent {
    pub(crate) fn put(&self, id: SessionId, last: Option<Snapshot>) {
        let last = last.map_or(Last::Ended, Last::Held);
        let now = tokio::time::Instant::now();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + bytes_of(&last) > CAPACITY_BYTES {
            kept.sessions.retain(|_, (at, _)| now - *at < LIFE);
            kept.bytes = kept.sessions.values().map(|(_, last)| bytes_of(last)).sum();
        }
        let bytes = bytes_of(&last);
        if kept.bytes + bytes <= CAPACITY_BYTES {
            kept.bytes += bytes;
            if let Some((_, earlier)) = kept.sessions.insert(id, (now, last)) {
                kept.bytes -= bytes_of(&earlier);
            }
        }
    }

    pub(crate) fn take(&self, id: &SessionId) -> Option<Last> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, last) = kept.sessions.remove(id)?;
        kept.bytes -= bytes_of(&last);
        (at.elapsed() < LIFE).then_some(last)
    }
}
