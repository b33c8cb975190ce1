//! A session is not denied while a member that is connected, and sees the same members, has it.

use sessionmesh::simulation::Copy;
use sessionmesh::{BootId, SessionId};

use crate::cluster::{Node, Run};

/// Who would know better.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witnesses {
    /// And how often the node that is asked had dropped each.
    boots: Vec<(BootId, usize)>,
}

/// Members that have a session when a node is asked for it, see the same members and reach it.
pub(crate) fn witnesses(run: &Run, node: &Node, id: &SessionId) -> Witnesses {
    run.listen();
    let view = node.cluster.inspect().view;
    let nodes = run.nodes();
    // One who was cut off and is a member still, as others see it, is about to hand on what it has: until they have
    // heard of its view, their holders can't know.
    let returns = |other: &Node| {
        view.contains(&other.boot)
            && !other.cluster.inspect().view.contains(&node.boot)
            && other.cluster.copy_of(id).is_some_and(|copy| is_live(&copy))
    };
    if nodes.iter().any(returns) {
        return Witnesses::default();
    }
    // What came through one that joins both sides of a cut, and not to its holders yet: they hear of it in a moment.
    // It may be dead by then.
    let is_beyond = |boot: BootId| {
        let runs = || nodes.iter().any(|node| node.boot == boot);
        let stirs = || run.is_any_cable_disturbed() || run.has_lost_a_node_lately();
        !view.contains(&boot) && (stirs() || runs())
    };
    let has_come = |copy: &Copy| !copy.belongs && copy.version.entries().all(|(boot, _)| is_beyond(boot));
    let witnesses = nodes.iter().filter(|other| {
        // What a visitor has may be gone at any time; who is cut off from those who use it may let it expire.
        let stays = |copy: &Copy| {
            is_live(copy) && !copy.idle_visit && !has_come(copy) && copy.remaining > run.scenario().idle / 5
        };
        other.cluster.copy_of(id).is_some_and(|copy| stays(&copy))
            && !other.paused
            && other.cluster.inspect().serving
            && view.contains(&other.boot)
            && other.cluster.inspect().view == view
            && run.is_connected(node.host, other.host)
    });
    let boots = witnesses.map(|witness| (witness.boot, run.drops(node.boot, witness.boot)));
    Witnesses { boots: boots.collect() }
}

fn is_live(copy: &Copy) -> bool {
    copy.end.is_none() && !copy.partial
}

/// A node has denied a session; `before`: who had it when it was asked.
pub(crate) fn check(run: &Run, node: &Node, id: &SessionId, before: &Witnesses) {
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
    let nodes = run.nodes();
    let mut has = nodes.iter().filter(|other| other.cluster.copy_of(id).is_some_and(|copy| is_live(&copy)));
    // In trouble it must have had it all the time, and been a member.
    let holder = if run.is_troubled() {
        let after = witnesses(run, node, id);
        let all_the_time =
            |boot| after.boots.iter().any(|witness| witness.0 == boot && before.boots.contains(witness));
        has.find(|other| all_the_time(other.boot))
    } else {
        has.next()
    };
    if let Some(holder) = holder {
        run.history(|history| {
            history.violated(
                "denial",
                format_args!("{id:?} is denied by {}, and {} has it", node.boot, holder.boot),
            );
        });
    }
}
