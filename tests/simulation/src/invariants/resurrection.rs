//! G3: a node that has applied the end of a session never serves it again.

use std::time::Duration;

use sessionmesh::{BootId, EndCause, SessionId};

use crate::cluster::{Node, Run};

/// How long a logout takes at most to reach those who are connected.
const REPLICATION: Duration = Duration::from_secs(1);

/// Notes who knows of which end, and finds who knew and knows no more.
pub(crate) fn look(run: &Run) {
    let nodes = run.nodes();
    // Past the horizon a logout of what only nodes beyond the cut know is not promised to last.
    let long_cuts = run.scenario().has_short_horizon();
    let now = run.elapsed();
    run.history(|history| {
        let mut back = Vec::new();
        let mut live = Vec::new();
        for node in &nodes {
            node.cluster.for_each_end(|id, end| {
                let session = history.session(id);
                match end {
                    Some(EndCause::Destroyed) if long_cuts && node.cluster.is_unknown_end(id) => {}
                    Some(EndCause::Destroyed) => {
                        session.told_over.insert(node.boot);
                        session.told_at.get_or_insert(now);
                    }
                    None if session.told_over.contains(&node.boot) && !session.outlived_horizon => {
                        back.push((*id, node.boot));
                    }
                    None if long_cuts
                        && session.told_at.is_some_and(|at| at + run.scenario().horizon < now) =>
                    {
                        live.push((*id, node.boot));
                    }
                    _ => {}
                }
            });
        }
        for (id, boot) in live {
            let session = history.session(&id);
            let knows = |node: &Node| session.told_over.contains(&node.boot);
            session.outlived_horizon |=
                nodes.iter().any(|node| knows(node) && !run.have_met(node.boot, boot));
        }
        for (id, boot) in back {
            // Who had not met one that knew of the end within the horizon was cut off from it for longer.
            let session = history.session(&id);
            let (told_over, ended_at) = (&session.told_over, session.over_since.or(session.told_at));
            let by = ended_at.unwrap_or_default() + run.scenario().horizon;
            let live = || {
                let copies = nodes.iter().filter_map(|node| Some((node.boot, node.cluster.copy_of(&id)?)));
                copies.filter(|(_, copy)| copy.end.is_none())
            };
            // Who wrote it may have brought it and handed it on by now.
            let had_it = |boot: BootId| {
                live().any(|(holder, copy)| {
                    holder == boot || copy.version.entries().any(|(writer, _)| writer == boot)
                })
            };
            let stranger = |node: &Node| {
                node.boot != boot
                    && had_it(node.boot)
                    && told_over.iter().any(|knew| !run.had_met(*knew, node.boot, by))
            };
            if long_cuts && nodes.iter().any(stranger) {
                history.session(&id).outlived_horizon = true;
                continue;
            }
            history.violated("resurrection", format_args!("{id:?} lives again on {boot}"));
        }
    });
    if long_cuts {
        run.note_meetings();
    }
}

/// A node has served a session.
pub(crate) fn read(run: &Run, id: &SessionId, boot: BootId, asked_at: Duration) {
    seen(run, id, boot, "is served");
    // Whoever holds it has heard by then, and one who does not asks them.
    let over = run.history(|history| {
        let session = history.session(id);
        session.must_be_over() && session.over_since.is_some_and(|since| since + REPLICATION < asked_at)
    });
    if over && !run.is_troubled() {
        run.history(|history| {
            history.violated("resurrection", format_args!("{id:?} is served on {boot}, long after its end"));
        });
    }
}

/// A node has taken a write.
pub(crate) fn written(run: &Run, id: &SessionId, boot: BootId) {
    seen(run, id, boot, "takes a write");
}

fn seen(run: &Run, id: &SessionId, boot: BootId, what: &str) {
    // It may have forgotten everything since it was last heard.
    run.listen();
    run.history(|history| {
        let session = history.session(id);
        if session.told_over.contains(&boot) && !session.outlived_horizon {
            history.violated(
                "resurrection",
                format_args!("{id:?} {what} on {boot}, which knew that it is over"),
            );
        }
    });
}

/// All is well again: no node has what is over everywhere.
pub(crate) fn at_the_end(run: &Run) {
    let nodes = run.nodes();
    run.history(|history| {
        let mut back = Vec::new();
        for node in &nodes {
            node.cluster.for_each_copy(|id, copy| {
                // A visitor's copy goes when it has rested, and serves nobody.
                if copy.belongs && copy.end.is_none() && history.session(id).must_be_over() {
                    back.push((*id, node.boot));
                }
            });
        }
        for (id, boot) in back {
            history.violated(
                "resurrection",
                format_args!("{id:?} was ended, acknowledged, and lives on {boot}"),
            );
        }
    });
}
