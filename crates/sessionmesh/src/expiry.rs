//! The sweep: lets idle sessions end, announces ends, forgets what nobody asks about any more.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use sessionmesh_core::replication::{Table, commit};
use sessionmesh_core::session::{EndCause, Record};
use sessionmesh_core::{BootId, Hlc, Instant, SessionId, mutated};

use crate::ack::AckWait;
use crate::events::fault;
use crate::host;
use crate::mesh::Mesh;
use crate::routes::RouteTable;
use crate::stats::{add, count};
use crate::table::{LAST_PART, Look};

/// Parts of sessions asked for in one sweep.
const MAX_COMPLETED: usize = 64;

/// A part is looked at now and then whatever was found before.
const MOST_QUIET: Duration = Duration::from_secs(600);

/// What one look at all records found to do.
#[derive(Default)]
struct Found {
    overdue: Vec<SessionId>,
    unannounced: Vec<SessionId>,
    outworn: Vec<SessionId>,
    partial: Vec<SessionId>,
    ends: Vec<(Hlc, SessionId)>,
}

/// Ends by idleness that other holders have not agreed to yet. One of them may know of an access that was on its way,
/// and then the session lives: the application is told of ends that stay.
#[derive(Debug, Default)]
struct Proposed(BTreeMap<SessionId, Arc<AckWait>>);

impl Proposed {
    fn add(&mut self, id: SessionId, wait: Arc<AckWait>) {
        if let Some(former) = self.0.insert(id, wait) {
            former.abandon();
        }
    }

    /// Announces what all have agreed to, or was destroyed meanwhile.
    fn announce(&mut self, mesh: &Mesh) {
        self.0.retain(|id, wait| {
            let end = mesh.table.read(id, |record| record.and_then(Record::end));
            let is_over = match end {
                Some(_) if mutated!(ExpiryWithoutGrace) => true,
                Some(_) if mutated!(ExpiryInDoubt) => true,
                Some(end) => end.announced || end.cause == EndCause::Destroyed || wait.is_met(),
                None => true,
            };
            if is_over {
                wait.abandon();
                match end {
                    Some(end) if end.cause == EndCause::Expired => mesh.end_is_agreed(*id, end),
                    Some(end) => mesh.ended(*id, end),
                    None => {}
                }
            }
            !is_over
        });
    }
}

/// A part of the table in which there is nothing to do before a moment, as long as no record of it and no holder
/// changes.
#[derive(Debug)]
struct Quiet {
    look: Look,
    routes: Weak<RouteTable>,
    until: Instant,
}

impl Quiet {
    fn lasts(&self, mesh: &Mesh, part: u8, routes: &Arc<RouteTable>, mono: Instant) -> bool {
        mono < self.until
            && std::ptr::eq(self.routes.as_ptr(), Arc::as_ptr(routes))
            && mesh.table.is_as_of(part, self.look)
    }
}

/// What one sweep leaves to the next.
#[derive(Debug, Default)]
struct Kept {
    proposed: Proposed,
    quiet: BTreeMap<u8, Quiet>,
}

pub(crate) async fn watch(mesh: Arc<Mesh>) {
    let mut kept = Kept::default();
    let mut stop = mesh.stop.subscribe();
    let pause = (mesh.config.idle / 20).clamp(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        // A node that doubts does not know the last accesses.
        if mesh.is_doubting() && !mutated!(ExpiryInDoubt) || mesh.check_serving().is_err() {
            continue;
        }
        let looking = mesh.clone();
        let mut theirs = std::mem::take(&mut kept);
        match host::blocking(move || (sweep(&looking, &mut theirs), theirs)).await {
            Ok((partial, theirs)) => {
                kept = theirs;
                for id in partial {
                    complete(&mesh, id).await;
                }
            }
            Err(error) => tracing::error!(%error, "the sweep of sessions failed; it is tried again"),
        }
    }
}

/// How much longer than its limit an idle session is kept, for accesses that this node may not have
/// heard of yet.
fn grace(mesh: &Mesh) -> Duration {
    if mesh.routes.current().peers.is_empty() || mutated!(ExpiryWithoutGrace) {
        return Duration::ZERO;
    }
    let silent = mesh.suspicious.load(Ordering::Relaxed);
    mesh.config.touch_interval() + if silent { mesh.config.membership.drop_time } else { Duration::ZERO }
}

/// Gives back the sessions of which only part is here.
fn sweep(mesh: &Mesh, kept: &mut Kept) -> Vec<SessionId> {
    let (mono, grace) = (host::mono(), grace(mesh));
    let routes = mesh.routes.current();
    let view = &routes.view;
    let removals = mesh.config.limits.attributes;
    let is_member = |boot: BootId| boot == mesh.me.boot || routes.peer(boot).is_some();
    let horizon_ms = u64::try_from(mesh.config.membership.horizon.as_millis()).unwrap_or(u64::MAX);
    // One who is heard by somebody and linked with nobody is no stranger after any time.
    let forget_before = if mutated!(EndForgottenAtOnce) {
        u64::MAX
    } else if mesh.may_forget() {
        host::steady_wall_ms().saturating_sub(horizon_ms)
    } else {
        0
    };
    let mut found = Found::default();
    for part in 0..=LAST_PART {
        if kept.quiet.get(&part).is_some_and(|quiet| quiet.lasts(mesh, part, &routes, mono)) {
            continue;
        }
        // The first end by idleness; `None` if there may be something else to do any time.
        let mut until = Some(mono + MOST_QUIET);
        let look = mesh.table.for_each_in(part, |id, record| match record {
            Record::Held(state) if state.is_partial() => {
                until = None;
                found.partial.push(*id);
            }
            Record::Held(state) => match state.idle_end() {
                None => {
                    let ends_at = state.ends_at(mesh.config.idle);
                    let over = mono >= ends_at + grace || state.is_past_deadline(mono);
                    // Past all patience any holder may end it: the end is the same.
                    let first = || view.am_first(id) || view.i_hold(id) && mesh.is_overdue(ends_at, mono);
                    // One that has not held it all the time does not know the last access.
                    let outwears = state.has_outworn(u64::MAX, 0, is_member);
                    if over && first() && view.may_serve(id) {
                        found.overdue.push(*id);
                    } else if outwears && state.has_outworn(forget_before, removals, is_member) {
                        found.outworn.push(*id);
                    }
                    until = until.filter(|_| !outwears);
                    until = until.map(|until| until.min(ends_at));
                }
                Some(end) => {
                    until = None;
                    if !end.announced && view.am_first(id) {
                        found.unannounced.push(*id);
                    }
                    if mono >= state.ends_at(mesh.config.idle) + compact_after(mesh) {
                        found.outworn.push(*id);
                    }
                }
            },
            Record::Ended(end) => {
                until = None;
                if end.stamp.hlc.millis() < forget_before {
                    found.outworn.push(*id);
                } else if !end.announced && view.am_first(id) {
                    found.unannounced.push(*id);
                }
                found.ends.push((end.stamp.hlc, *id));
            }
        });
        match until {
            Some(until) => {
                kept.quiet.insert(part, Quiet { look, routes: Arc::downgrade(&routes), until });
            }
            None => _ = kept.quiet.remove(&part),
        }
    }
    let partial = found.partial.iter().take(MAX_COMPLETED).copied().collect();
    act(mesh, found, &mut kept.proposed, forget_before, mono);
    let excess = mesh.table.forget_departed(forget_before, mesh.config.max_ends);
    forgot_ends(mesh, excess);
    forget_unknown_ends(mesh, mono);
    partial
}

/// An ended session's state is kept for so long, for an access that is on its way.
fn compact_after(mesh: &Mesh) -> Duration {
    mesh.config.touch_interval() + mesh.config.membership.drop_time * 4
}

fn act(mesh: &Mesh, mut found: Found, proposed: &mut Proposed, forget_before: u64, mono: Instant) {
    let grace = grace(mesh);
    for id in found.overdue {
        let wait = AckWait::proposal(id);
        let streams = mesh.routes.streams(Some(wait.clone()), mono);
        let still = |record: &Record| match record {
            Record::Held(state) => {
                mono >= state.ends_at(mesh.config.idle) + grace || state.is_past_deadline(mono)
            }
            Record::Ended(_) => false,
        };
        if commit::expire(&mesh.table, &streams, id, still).is_some() {
            proposed.add(id, wait);
        }
    }
    proposed.announce(mesh);
    for id in found.unannounced {
        if proposed.0.contains_key(&id) {
            continue;
        }
        // What another node made, and proposed to others than would be asked now.
        let wait = AckWait::proposal(id);
        if commit::propose(&mesh.table, &mesh.routes.streams(Some(wait.clone()), mono), id) {
            proposed.add(id, wait);
        } else {
            mesh.announce(id);
        }
    }
    let routes = mesh.routes.current();
    let removals = mesh.config.limits.attributes;
    let is_member = |boot: BootId| boot == mesh.me.boot || routes.peer(boot).is_some();
    for id in found.outworn {
        mesh.table.with(&id, |slot| match slot {
            Some(record @ Record::Held(_)) => {
                record.forget(forget_before, removals, is_member);
                record.compact();
            }
            Some(Record::Ended(end)) if end.stamp.hlc.millis() < forget_before => {
                *slot = None;
                count(&mesh.counters.ends_aged_out);
            }
            _ => {}
        });
    }
    let excess = found.ends.len().saturating_sub(mesh.config.max_ends);
    if excess > 0 {
        found.ends.sort_unstable();
        for (_, id) in found.ends.iter().take(excess) {
            mesh.table.with(id, |slot| {
                if matches!(slot, Some(Record::Ended(_))) {
                    *slot = None;
                }
            });
        }
        forgot_ends(mesh, excess);
    }
}

/// Past `max_ends`.
fn forgot_ends(mesh: &Mesh, excess: usize) {
    if excess > 0 {
        add(&mesh.counters.ends_forgotten, excess as u64);
        let more = "a session that ended within the horizon could be brought back by a node that was cut off";
        fault(mesh, "ends forgotten", "max_ends", &format!("{excess} of them: {more}"));
    }
}

/// Asks the other holders for the rest of a session whose origin did not send it.
pub(crate) async fn complete(mesh: &Mesh, id: SessionId) {
    if !matches!(mesh.look_up(&id, false).await, Ok(None)) {
        return;
    }
    // Nobody has the rest: it died with its origin, unacknowledged, or the session is over.
    if mesh.table.with(&id, Record::give_up_part) {
        count(&mesh.counters.parts_dropped);
    }
}

/// Ends of ids that nobody knew are kept for a few drop times, then forgotten.
fn forget_unknown_ends(mesh: &Mesh, now: Instant) {
    let horizon = mesh.config.membership.horizon;
    mesh.doubtful_ends().retain(|_, left_at| now - *left_at < horizon);
    let patience = mesh.config.membership.drop_time * 4;
    let mut gone = Vec::new();
    mesh.unknown_ends().retain(|id, left_at| {
        let keep = now - *left_at < patience;
        if !keep {
            gone.push(*id);
        }
        keep
    });
    for id in gone {
        mesh.table.with(&id, |slot| {
            if slot.as_ref().and_then(Record::end).is_some_and(|end| end.cause == EndCause::Destroyed) {
                *slot = None;
            }
        });
    }
}
