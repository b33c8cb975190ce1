//! G4, and that members agree: what lacks when all is well again, if anything.

use std::collections::BTreeMap;

use sessionmesh::SessionId;
use sessionmesh::simulation::{Copy, Inspection};

use crate::cluster::{Node, Run};

/// What is not yet as it must be.
pub(crate) fn lacks(run: &Run) -> Option<String> {
    lacks_of(run, run.hosts())
}

/// The same of a cluster in which so many nodes should run.
pub(crate) fn lacks_of(run: &Run, count: usize) -> Option<String> {
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
        if let Some((node, _)) = copies.iter().find(|(_, copy)| copy.partial) {
            return Some(format!("{id:?}: {} has only part", node.boot));
        }
        let ended = copies.iter().any(|(_, copy)| copy.end.is_some());
        let at_home: Vec<_> = copies.iter().filter(|(_, copy)| copy.belongs).collect();
        if let Some((node, _)) = copies.iter().find(|(_, copy)| !copy.belongs && !ended) {
            return Some(format!("{id:?}: {} has it and does not hold it", node.boot));
        }
        // Ends are forgotten by each node in its own time.
        if !ended && at_home.len() < run.scenario().holders(nodes.len()) {
            return Some(format!("{id:?}: on {} holders", at_home.len()));
        }
        let Some((_, first)) = at_home.first() else { continue };
        if let Some((node, _)) = at_home.iter().find(|(_, copy)| copy.digest != first.digest) {
            return Some(format!("{id:?}: {} differs", node.boot));
        }
    }
    None
}
