//! Work in the background rests in between where requests come: moving sessions must not cost the users who wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sessionmesh_core::Instant;

use crate::host;
use crate::mesh::{Mesh, Phase};

/// How work rests: so many times as long as it took, as soon as that is worth a timer.
struct Rest {
    times: u32,
    least: Duration,
}

/// Who asks meanwhile waits for one step, not for several: the 99th percentile stays below twice the usual.
const BESIDE_REQUESTS: Rest = Rest { times: 4, least: Duration::from_micros(400) };
/// The sooner it is gone the better.
const LEAVING: Rest = Rest { times: 2, least: Duration::from_millis(2) };

/// Who asked so long ago may ask again.
const RECENT: Duration = Duration::from_millis(250);

/// Whether requests come. Each one writes at most one flag, and only if nobody has since it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    came: AtomicBool,
    /// When the flag was last found set, in nanoseconds of the boot-time clock.
    seen_at: AtomicU64,
}

impl Requests {
    pub(crate) fn note(&self) {
        if !self.came.load(Ordering::Relaxed) {
            self.came.store(true, Ordering::Relaxed);
        }
    }

    /// Looks at the flag; at each tick, or one set long ago would count as set now.
    pub(crate) fn look(&self, now: Instant) {
        if self.came.load(Ordering::Relaxed) {
            self.came.store(false, Ordering::Relaxed);
            self.seen_at.store(now.as_nanos(), Ordering::Relaxed);
        }
    }

    fn are_recent(&self, now: Instant) -> bool {
        self.look(now);
        now - Instant::from_nanos(self.seen_at.load(Ordering::Relaxed)) < RECENT
    }
}

/// The pace of one piece of work.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Time worked and not yet rested for.
    debt: Duration,
}

impl Pace {
    /// Rests after work, unless nobody asks this node for anything. One that leaves is asked no more, but those that it
    /// hands over to are. Without a rest it yields: what was made is sent, and asked for, while the next is made.
    pub(crate) async fn rest(&mut self, mesh: &Mesh, worked: Duration) {
        let rest = match *mesh.phase.borrow() {
            Phase::Leaving => Some(LEAVING),
            Phase::Ready | Phase::Stopped(_) if mesh.requests.are_recent(host::mono()) => {
                Some(BESIDE_REQUESTS)
            }
            Phase::Joining(_) | Phase::Ready | Phase::Stopped(_) => None,
        };
        match rest {
            Some(rest) => {
                self.debt += worked * rest.times;
                if self.debt >= rest.least {
                    return tokio::time::sleep(std::mem::take(&mut self.debt)).await;
                }
            }
            None => self.debt = Duration::ZERO,
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_recent_for_a_quarter_of_a_second_whenever_it_is_asked_for() {
        let requests = Requests::default();
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        assert!(!requests.are_recent(at(1_000)));
        requests.note();
        assert!(requests.are_recent(at(1_000)) && requests.are_recent(at(1_249)));
        assert!(!requests.are_recent(at(1_250)));
        requests.note();
        requests.look(at(2_000));
        assert!(!requests.are_recent(at(2_250)), "one of long ago");
    }
}
