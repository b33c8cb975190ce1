//! G6: what waits for one member is bounded, however long it stands still.

use sessionmesh::simulation::Inspection;

use crate::cluster::Run;

pub(crate) fn look(run: &Run, nodes: &[Inspection]) {
    // Data up to outbox_bytes; control frames and passes each as much again.
    let most = 3 * 2 * run.scenario().session_bytes as usize;
    for node in nodes.iter().filter(|node| node.outbox_bytes > most) {
        run.history(|history| {
            history.violated("memory", format_args!("{} bytes wait on {}", node.outbox_bytes, node.boot));
        });
    }
}
