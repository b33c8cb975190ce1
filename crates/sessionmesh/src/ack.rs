//! Waiting for other holders.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sessionmesh_core::replication::{AckLevel, AckTally, Outcome};
use tokio::sync::Notify;

/// One write and the holders that are to apply it.
#[derive(Debug)]
pub(crate) struct AckWait {
    tally: Mutex<AckTally>,
    changed: Notify,
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
    pub(crate) fn new(level: AckLevel) -> Arc<Self> {
        Arc::new(Self { tally: Mutex::new(AckTally::new(level)), changed: Notify::new() })
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

    /// A holder never will.
    pub(crate) fn gone(&self) {
        self.update(AckTally::gone);
        self.changed.notify_one();
    }

    /// What was reached by now.
    pub(crate) fn outcome(&self) -> Outcome {
        self.tally().outcome()
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
        match tokio::time::timeout(within, met).await {
            Ok(waited) => waited,
            Err(_) => Waited::TimedOut(self.outcome()),
        }
    }
}
