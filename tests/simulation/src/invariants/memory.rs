//! G6: what waits for one member is bounded, however long it stands still.

use sessionmesh::simulation::Inspection;

use crate::cluster::Run;

pub(crate) fn look(run: &Run, nodes: &[Inspection]) {
    // Data up to outbox_bytes, control frames as much again, and what two passes have on their way.
    let scenario = run.scenario();
    let most = 2 * scenario.outbox_bytes() + 8 * ((64 << 10) + scenario.session_bytes);
    let most = most as usize;
    for node in nodes.iter().filter(|node| node.outbox_bytes > most) {
        run.history(|history| {
            history.violated("memory", format_args!("{} bytes wait on {}", node.outbox_bytes, node.boot));
        });
    }
}
