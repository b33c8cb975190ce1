//! G4, and that members agree: what lacks when all is well again, if anything.

use std::collections::BTreeMap;

use sessionmesh::SessionId;
use sessionmesh::simulation::Inspection;

use crate::cluster::Run;

/// What is not yet as it must be.
pub(crate) fn lacks(run: &Run, nodes: &[Inspection]) -> Option<String> {
    if nodes.len() < run.hosts() {
        return Some(format!("{} of {} nodes run", nodes.len(), run.hosts()));
    }
    for node in nodes {
        if !node.serving || node.doubting || !node.settled {
            let Inspection { boot, serving, doubting, settled, .. } = node;
            return Some(format!("{boot}: serving {serving}, doubting {doubting}, settled {settled}"));
        }
        if node.view.len() != nodes.len() {
            return Some(format!("{} sees {} members", node.boot, node.view.len()));
        }
    }
    let mut copies: BTreeMap<SessionId, Vec<(&Inspection, &sessionmesh::simulation::Copy)>> = BTreeMap::new();
    for node in nodes {
        for (id, copy) in &node.copies {
            copies.entry(*id).or_default().push((node, copy));
        }
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
