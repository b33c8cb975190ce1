//! G6: what waits for one member is bounded, however long it stands still.

use crate::cluster::Run;

pub(crate) fn look(run: &Run) {
    // Data up to outbox_bytes, control frames as much again, and what two passes have on their way.
    let scenario = run.scenario();
    let most = 2 * scenario.outbox_bytes() + 8 * ((64 << 10) + scenario.session_bytes);
    let most = most as usize;
    for node in run.nodes() {
        let waiting = node.cluster.inspect().outbox_bytes;
        if waiting > most {
            run.history(|history| {
                history.violated("memory", format_args!("{waiting} bytes wait on {}", node.boot));
            });
        }
    }
}
