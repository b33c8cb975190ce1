//! A session is not denied while a member that is connected, and sees the same members, has it.

use sessionmesh::SessionId;

use crate::cluster::{Node, Run};

pub(crate) fn check(run: &Run, node: &Node, id: &SessionId) {
    let now = run.elapsed();
    let known = run.history(|history| {
        let session = history.session(id);
        // An access may be on its way elsewhere when idleness ends it.
        let used = now.saturating_sub(session.accessed_at) < run.scenario().idle / 2;
        used && !session.may_be_over && session.created.promised
    });
    if !known || run.is_troubled() {
        return;
    }
    let nodes = run.inspect();
    let has = |copy: &sessionmesh::simulation::Copy| copy.end.is_none() && !copy.partial;
    if let Some(holder) = nodes.iter().find(|other| other.copies.get(id).is_some_and(has)) {
        run.history(|history| {
            history.violated(
                "denial",
                format_args!("{id:?} is denied by {}, and {} has it", node.boot, holder.boot),
            );
        });
    }
}
