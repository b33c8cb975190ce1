//! G6: the data that waits for one member is bounded, however long it stands still.

use crate::cluster::Run;

pub(crate) fn look(run: &Run) {
    let most = run.scenario().outbox_bytes() as usize;
    for node in run.nodes() {
        let waiting = node.cluster.inspect().outbox_bytes;
        if waiting > most {
            run.history(|history| {
                history.violated("memory", format_args!("{waiting} bytes wait on {}", node.boot));
            });
        }
    }
}
