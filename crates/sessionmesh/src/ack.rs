//! Waiting for other holders.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sessionmesh_core::placement::{Share, View};
use sessionmesh_core::replication::{AckLevel, AckTally, Outcome};
use sessionmesh_core::{BootId, SessionId};
use tokio::sync::Notify;

/// One write and the holders that are to apply it.
#[derive(Debug)]
pub(crate) struct AckWait {
    id: SessionId,
    tally: Mutex<AckTally>,
    changed: Notify,
    /// Nobody waits any more.
    abandoned: AtomicBool,
    /// Whoever answers the request, somebody else still wants to know: a visitor's copy goes by it.
    followed: AtomicBool,
    /// Of an end by idleness: a holder that knows better never acknowledges it.
    pub(crate) is_proposal: bool,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Met(Outcome),
    TimedOut(Outcome),
    /// All that were awaited have been dropped.
    Deserted,
}

impl AckWait {
    /// For a request: at level async nobody waits, and no acknowledgement is looked for.
    pub(crate) fn at(level: AckLevel, id: SessionId) -> Option<Arc<Self>> {
        (level != AckLevel::Async).then(|| Self::new(level, id))
    }

    pub(crate) fn new(level: AckLevel, id: SessionId) -> Arc<Self> {
        Self::with(level, id, false)
    }

    /// For an end by idleness.
    pub(crate) fn proposal(id: SessionId) -> Arc<Self> {
        Self::with(AckLevel::All, id, true)
    }

    fn with(level: AckLevel, id: SessionId, is_proposal: bool) -> Arc<Self> {
        Arc::new(Self {
            id,
            is_proposal,
            tally: Mutex::new(AckTally::new(level)),
            changed: Notify::new(),
            abandoned: AtomicBool::new(false),
            followed: AtomicBool::new(false),
        })
    }

    fn update(&self, f: impl FnOnce(&mut AckTally)) {
        f(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn tally(&self) -> AckTally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more holder is to apply it.
    pub(crate) fn await_one(&self) {
        self.update(AckTally::await_one);
    }

    /// A holder has.
    pub(crate) fn ack(&self) {
        self.update(AckTally::ack);
        self.changed.notify_one();
    }

    /// A pass with a member is done: it has brought it the write, if the session belongs there.
    pub(crate) fn passed(&self, view: &View, member: BootId) {
        match view.share(&self.id, member) {
            Share::Both | Share::Stray => self.ack(),
            Share::Neither => self.gone(),
        }
    }

    /// A holder never will.
    pub(crate) fn gone(&self) {
        self.update(AckTally::gone);
        self.changed.notify_one();
    }

    /// What was reached by now.
    pub(crate) fn outcome(&self) -> Outcome {
        self.tally().outcome()
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed) && !self.followed.load(Ordering::Relaxed)
    }

    /// Is to be kept until all holders have said so, however soon the request is answered.
    pub(crate) fn follow(&self) {
        self.followed.store(true, Ordering::Relaxed);
    }

    /// Whether every holder has it.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.tally().is_everywhere()
    }

    /// Whether all that are awaited and not dropped have it.
    pub(crate) fn is_met(&self) -> bool {
        self.tally().is_met()
    }

    /// Outboxes may forget the wait.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether a holder was dropped before it had it.
    pub(crate) fn is_lost(&self) -> bool {
        self.tally().is_lost()
    }

    /// Waits for the level. Call once all holders are entered.
    pub(crate) async fn finish(&self, within: Duration) -> Waited {
        let met = async {
            loop {
                let tally = self.tally();
                if tally.is_deserted() {
                    return Waited::Deserted;
                }
                if tally.is_met() {
                    return Waited::Met(tally.outcome());
                }
                self.changed.notified().await;
            }
        };
        // However this ends, a dropped request included, outboxes may forget the wait.
        let _abandon = Abandon(self);
        match tokio::time::timeout(within, met).await {
            Ok(waited) => waited,
            Err(_) => Waited::TimedOut(self.outcome()),
        }
    }
}

struct Abandon<'a>(&'a AckWait);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
