//! G9: sessions end by idleness in time, not before it; each end is announced.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use sessionmesh::{End, EndCause, SessionId};

use crate::cluster::{Node, Run};
use crate::users;

/// A node has told its application that a session is over.
pub(crate) fn announced(run: &Run, node: &Node, id: &SessionId, end: End) {
    let (now, idle) = (run.elapsed(), run.scenario().idle);
    let connected = run.sees_all(node);
    run.history(|history| {
        let session = history.session(id);
        session.announced.push((node.boot, end, now));
        let rested = now.saturating_sub(session.accessed_at);
        // Whoever saw the access was connected, then and since; this node may have stood still.
        let heard = connected && run.was_quiet_but_for(node.host, calm(run), session.accessed_at);
        if end.cause == EndCause::Expired && rested < idle && heard {
            history.violated(
                "expiry",
                format_args!("{id:?} expired on {} {rested:?} after an access, not {idle:?}", node.boot),
            );
        }
    });
}

/// How long an access takes at most to reach those who are connected.
const REPLICATION: Duration = Duration::from_secs(1);

/// After so long without a fault what users do is told to all.
pub(super) fn calm(run: &Run) -> Duration {
    run.scenario().drop_time * 4 + Duration::from_secs(4)
}

/// Finds who let a session end that others use: it may be told better before it announces anything, and must not
/// have done it all the same.
pub(crate) fn look(run: &Run) {
    let idle = run.scenario().idle;
    if !run.scenario().has_short_idle() {
        return;
    }
    let now = run.elapsed();
    for node in run.nodes().iter().filter(|node| run.sees_all(node)) {
        let mut early = Vec::new();
        run.history(|history| {
            node.cluster.for_each_end(|id, end| {
                let accessed_at = history.session(id).accessed_at;
                let rested = now.saturating_sub(accessed_at);
                if end == Some(EndCause::Expired) && rested > REPLICATION && rested < idle {
                    early.push((*id, accessed_at));
                }
            });
        });
        // As above.
        early.retain(|(_, accessed_at)| run.was_quiet_but_for(node.host, calm(run), *accessed_at));
        run.history(|history| {
            for (id, accessed_at) in early {
                let rested = now.saturating_sub(accessed_at);
                history.violated(
                    "expiry",
                    format_args!("{id:?} is over on {} {rested:?} after an access, not {idle:?}", node.boot),
                );
            }
        });
    }
}

/// Users come once more when nothing has happened for long: what they leave ends when it must.
pub(crate) async fn quiet(run: &Run, random: &mut fastrand::Rng) {
    if !run.scenario().has_short_idle() {
        return;
    }
    tokio::time::sleep(run.scenario().drop_time * 4 + Duration::from_secs(5)).await;
    let stop = Rc::new(RefCell::new(false));
    let tabs = users::start(run, random, &stop);
    tokio::time::sleep(Duration::from_secs(2)).await;
    *stop.borrow_mut() = true;
    for tab in tabs {
        let _ = tab.await;
    }
}

/// Nobody asks for anything any more: what is idle ends.
pub(crate) async fn at_the_end(run: &Run) {
    let scenario = run.scenario();
    if !scenario.has_short_idle() {
        return;
    }
    let mut live = Vec::new();
    for node in run.nodes() {
        node.cluster.for_each_copy(|id, copy| live.extend((copy.end.is_none()).then_some(*id)));
    }
    // A login that came too late has taken back what it had made, and told nobody of either; others hear of that now.
    live.retain(|id| !run.nodes().iter().any(|node| node.knows_end_of(id)));
    let until = run.elapsed() + scenario.idle + scenario.latest_end();
    while run.elapsed() < until {
        tokio::time::sleep(Duration::from_millis(250)).await;
        run.listen();
    }
    for node in run.nodes() {
        node.cluster.for_each_copy(|id, copy| {
            // One who does not hold it serves it only as its holders have it.
            if copy.end.is_none() && copy.belongs {
                run.history(|history| {
                    history.violated("expiry", format_args!("{id:?} lives on {} past its time", node.boot));
                });
            }
        });
    }
    let calm = scenario.calm.is_none() && scenario.lost_per_mille == 0;
    run.history(|history| {
        let mut wrong = Vec::new();
        for (id, session) in &history.sessions {
            // Otherwise it may have expired on one side of a cut and been used on the other; and in the moment in which
            // a node joins two may think that they are the first holder.
            let formed = session
                .announced
                .first()
                .is_some_and(|(_, _, at)| run.was_formed(scenario.drop_time * 2, *at));
            if calm && formed && session.announced.len() > 1 {
                wrong.push(format!("{id:?}: its end was announced {} times", session.announced.len()));
            }
        }
        for id in live {
            // A copy that somebody visited may have lived on after a change of id, which announces nothing.
            let session = history.session(&id);
            if session.announced.is_empty() && !session.may_be_over {
                wrong.push(format!("{id:?}: its end was announced to nobody"));
            }
        }
        for wrong in wrong {
            history.violated("expiry", wrong);
        }
    });
}
