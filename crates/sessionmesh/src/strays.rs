//! Copies of sessions that this node does not hold: handed to the holders, then dropped.

use std::sync::Arc;
use std::time::Duration;

use sessionmesh_core::placement::{Mode, View};
use sessionmesh_core::replication::{Table, commit};
use sessionmesh_core::session::Record;
use sessionmesh_core::{BootId, SessionId};

use crate::ack::AckWait;
use crate::expiry::complete;
use crate::host;
use crate::mesh::{Mesh, Phase};
use crate::pace::Pace;
use crate::stats::{add, count};

/// What came while two nodes saw different members is sent on only if they still do after so long.
const PATIENCE: Duration = Duration::from_millis(250);
/// A visitor keeps its copy for at most so long after the last request: the next load moves only what changed.
const REST: Duration = Duration::from_secs(5);

/// Less if ends are soon forgotten: a copy must not outlive its end.
fn rest(horizon: Duration) -> Duration {
    REST.min(horizon / 8)
}
/// More records than this are not looked at one by one.
const MANY: usize = 16 << 10;
/// Strays confirmed under one lock.
const BATCH: usize = 256;

pub(crate) async fn watch(mesh: Arc<Mesh>) {
    let mut stop = mesh.stop.subscribe();
    loop {
        let leaving = *mesh.phase.borrow() == Phase::Leaving;
        let rest = rest(mesh.config.membership.horizon);
        let (patience, rest) = if leaving { (Duration::ZERO, Duration::ZERO) } else { (PATIENCE, rest) };
        let pause = if leaving { Duration::from_millis(10) } else { PATIENCE };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let (is_everywhere, is_lost) =
            (|wait: &Arc<AckWait>| wait.is_everywhere(), |wait: &Arc<AckWait>| wait.is_lost());
        let now = host::mono();
        let (send, drop) =
            mesh.routes.strays(|strays| strays.due(now, patience, rest, is_everywhere, is_lost));
        for id in send {
            if mesh.table.read(&id, |record| record.is_some_and(Record::is_partial)) {
                complete(&mesh, id).await;
            }
            mesh.send_stray(id);
        }
        for id in drop {
            mesh.drop_known_stray(&id, rest);
        }
    }
}

impl Mesh {
    /// Another node sent something of a session: if it is not held here, somebody has another view. Called
    /// under the session's lock.
    pub(crate) fn note_arrival(&self, id: &SessionId) {
        let routes = self.routes.current();
        if routes.view.mode() == Mode::AllPeers || routes.view.i_hold(id) {
            return;
        }
        // A joining node collects what it will hold.
        if routes.view.am_ready() || !matches!(*self.phase.borrow(), Phase::Joining(_)) {
            let now = host::mono();
            self.routes.strays(|strays| strays.arrived(*id, now));
        }
    }

    /// Of ends that this node handed on to members that are lost, all of them, and of sessions that have just become
    /// whole here: who holds them now may not know.
    pub(crate) fn tell_again(&self, ids: &[SessionId]) {
        for id in ids {
            self.table.with(id, |slot| {
                if slot.is_some() {
                    self.note_arrival(id);
                }
            });
        }
    }

    /// Sends a whole record to its holders; it may go when they have it.
    fn send_stray(&self, id: SessionId) {
        let now = host::now();
        if self.routes.current().view.i_hold(&id) {
            self.routes.strays(|strays| strays.forget(&id));
            return;
        }
        if commit::resend(&self.table, &self.routes.whole(now.mono), now, id) {
            count(&self.counters.strays_sent);
        } else if self.table.read(&id, |record| record.is_none()) {
            self.routes.strays(|strays| strays.forget(&id));
        }
    }

    fn drop_known_stray(&self, id: &SessionId, rest: Duration) {
        self.table.with(id, |slot| {
            let stays = self.routes.current().view.i_hold(id);
            let whole = slot.as_ref().is_some_and(|record| !record.is_partial());
            let goes = self.routes.strays(|strays| {
                if stays || slot.is_none() {
                    strays.forget(id);
                }
                whole && strays.release(id, host::mono(), rest, |wait| wait.is_everywhere())
            });
            if goes {
                self.table.depart(id, slot, self.routes.current().view.holders(id));
                count(&self.counters.strays_dropped);
            }
        });
    }

    /// Drops a visitor's copy that was one in an earlier view, unless a request uses it again. An end that it came
    /// to know stays and is handed on: it lacks nothing, and those who knew it may be gone.
    pub(crate) fn drop_outlived(&self, id: &SessionId) {
        self.table.with(id, |slot| {
            let goes = slot.as_ref().is_some_and(|record| !matches!(record, Record::Ended(_)));
            if goes && !self.routes.strays(|strays| strays.is_known(id)) {
                self.table.depart(id, slot, self.routes.current().view.holders(id));
                count(&self.counters.strays_dropped);
            }
        });
    }

    /// A pass is done in which both sides saw this view: a member has these now.
    pub(crate) async fn confirm_strays(&self, view: &View, by: BootId, strays: &[(SessionId, u64)]) {
        let mut dropped = 0;
        let mut pace = Pace::default();
        for batch in strays.chunks(BATCH) {
            let begun = host::mono();
            let everywhere = self.routes.strays(|strays| strays.confirm(view, by, batch));
            for (id, digest) in everywhere {
                dropped += u64::from(self.drop_stray(&id, digest));
            }
            pace.rest(self, host::mono() - begun).await;
        }
        add(&self.counters.strays_dropped, dropped);
    }

    /// Drops a copy that every holder has, unless it has changed since.
    fn drop_stray(&self, id: &SessionId, digest: u64) -> bool {
        self.table.with(id, |slot| {
            let unchanged = |record: &Record| !record.is_partial() && record.digest() == digest;
            let goes = slot.as_ref().is_some_and(unchanged) && !self.routes.current().view.i_hold(id);
            if goes {
                self.table.depart(id, slot, self.routes.current().view.holders(id));
                self.routes.strays(|strays| strays.forget(id));
            }
            goes
        })
    }

    /// Passes do not take what a leaving node has: others see members that it does not admit any more. Then
    /// each copy is sent on its own; who gets it and does not hold it sends it on.
    pub(crate) fn hand_over_one_by_one(&self) {
        let is_unknown_end = self.is_unknown_end();
        let mut left = Vec::new();
        self.table.for_each(|id, record| {
            if !record.is_partial() && !is_unknown_end(id, record) {
                left.push(*id);
            }
        });
        for id in left {
            self.table.with(&id, |slot| {
                if slot.is_some() {
                    self.note_arrival(&id);
                }
            });
        }
    }

    /// Sessions that a leaving node must not take with it.
    pub(crate) fn left_to_hand_over(&self) -> usize {
        let alone = self.routes.current().view.ready() == 0;
        if self.me.mode == Mode::AllPeers || alone {
            return 0;
        }
        // Asked again and again: of many it is enough to know that there are.
        let known = self.table.len().saturating_sub(self.unknown_ends().len());
        if known > MANY {
            return known;
        }
        let is_unknown_end = self.is_unknown_end();
        let mut left = 0;
        self.table.for_each(|id, record| {
            left += usize::from(!record.is_partial() && !is_unknown_end(id, record));
        });
        left
    }
}
