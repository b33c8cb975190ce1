//! G4, and that members agree: what lacks when all is well again, if anything.

use std::collections::BTreeMap;

use sessionmesh::SessionId;
use sessionmesh::simulation::{Copy, Inspection};

use crate::cluster::{Node, Run};

/// Which copies must be as they must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copies {
    /// Those of holders.
    AtHome,
    /// Those of others must be gone, too.
    All,
}

/// What is not yet as it must be in a cluster in which so many nodes should run.
pub(crate) fn lacks(run: &Run, count: usize, which: Copies) -> Option<String> {
    let nodes = run.nodes();
    if nodes.len() < count {
        return Some(format!("{} of {count} nodes run", nodes.len()));
    }
    for node in &nodes {
        let Inspection { boot, serving, doubting, settled, view, .. } = node.cluster.inspect();
        if !serving || doubting || !settled {
            return Some(format!("{boot}: serving {serving}, doubting {doubting}, settled {settled}"));
        }
        if view.len() != nodes.len() {
            return Some(format!("{boot} sees {} members", view.len()));
        }
    }
    let mut copies: BTreeMap<SessionId, Vec<(&Node, Copy)>> = BTreeMap::new();
    for node in &nodes {
        node.cluster.for_each_copy(|id, copy| copies.entry(*id).or_default().push((node, copy)));
    }
    for (id, copies) in copies {
        let is_whole = copies.iter().any(|(_, copy)| !copy.partial);
        if !is_whole && which == Copies::AtHome {
            // Nobody has the rest: the part goes with the next sweep.
            continue;
        }
        // Of what has ended nobody needs the rest.
        let lacks =
            |copy: &Copy| copy.partial && copy.end.is_none() && (copy.belongs || which == Copies::All);
        if let Some((node, _)) = copies.iter().find(|(_, copy)| lacks(copy)) {
            return Some(format!("{id:?}: {} has only part", node.boot));
        }
        let ended = copies.iter().any(|(_, copy)| copy.end.is_some());
        let at_home: Vec<_> = copies.iter().filter(|(_, copy)| copy.belongs).collect();
        let strays = |copy: &Copy| which == Copies::All && !copy.belongs && !ended;
        if let Some((node, _)) = copies.iter().find(|(_, copy)| strays(copy)) {
            return Some(format!("{id:?}: {} has it and does not hold it", node.boot));
        }
        // Ends are forgotten by each node in its own time; and of those who meet past the horizon some may know one that
        // others have forgotten. The next pass brings what lives to all.
        let horizon = run.scenario().horizon;
        let (outlived, told_at) = run.history(|history| {
            let session = history.session(&id);
            (session.outlived_horizon, session.told_at)
        });
        // Both sides of a cut may have ended it: who has forgotten the one end takes the other, and who has not, not.
        let is_old = told_at.is_some_and(|at| at + horizon < run.elapsed());
        if outlived || is_old && copies.iter().all(|(_, copy)| copy.end.is_some()) {
            continue;
        }
        if !ended && at_home.len() < run.scenario().holders(nodes.len()) {
            return Some(format!("{id:?}: on {} holders", at_home.len()));
        }
        let Some((first, _)) = at_home.first() else { continue };
        let digest = first.cluster.digest_of(&id);
        if let Some((node, _)) = at_home.iter().find(|(node, _)| node.cluster.digest_of(&id) != digest) {
            return Some(format!("{id:?}: {} differs", node.boot));
        }
    }
    None
}
