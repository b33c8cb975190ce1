//! A session is not denied while a member that is connected, and sees the same members, has it.

use std::time::Duration;

use sessionmesh::SessionId;
use sessionmesh::simulation::Copy;

use crate::cluster::{Node, Run};

pub(crate) fn check(run: &Run, node: &Node, id: &SessionId) {
    let now = run.elapsed();
    let known = run.history(|history| {
        let session = history.session(id);
        // An access may be on its way elsewhere when idleness ends it.
        let used = now.saturating_sub(session.accessed_at) < run.scenario().idle / 2;
        used && !session.may_be_over && session.created.promised
    });
    if !known {
        return;
    }
    let troubled = run.is_troubled();
    let view = node.cluster.inspect().view;
    let nodes = run.nodes();
    let has = |copy: Copy| copy.end.is_none() && !copy.partial;
    // In trouble it must be one that sees the same, since a while, and can answer.
    let within = |other: &&Node| {
        !troubled
            || run.was_quiet(Duration::from_secs(1), now)
                && !other.paused
                && other.cluster.inspect().serving
                && view.contains(&other.boot)
                && other.cluster.inspect().view == view
                && run.is_connected(node.host, other.host)
    };
    let mut holders = nodes.iter().filter(within);
    if let Some(holder) = holders.find(|other| other.cluster.copy_of(id).is_some_and(has)) {
        run.history(|history| {
            history.violated(
                "denial",
                format_args!("{id:?} is denied by {}, and {} has it", node.boot, holder.boot),
            );
        });
    }
}
