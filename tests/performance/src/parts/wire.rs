//! P6: what a change of 100 bytes is on the wire.

use std::time::Duration;

use crate::Error;
use crate::machine::Wire;
use crate::parts::engine::Pair;
use crate::results::Results;
use crate::systems::{Bench, Mesh};

const MESH: &str = "sessionmesh, to one peer";

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    if !bench.own_loopback {
        results.leave_out("P6, bytes on the wire: needs a network namespace");
        return Ok(());
    }
    let (single, batched) = bench.pick((20, 2_000), (1_000, 300_000));
    for _ in 0..bench.rounds().min(5) {
        let pair = Pair::start(bench, Mesh::DEFAULT)?;
        // What the two have to tell each other at first is no change's.
        tokio::time::sleep(Duration::from_secs(bench.pick(0, 4))).await;
        for (what, all, deltas, pause) in [
            ("payload, one at a time", "with headers and acknowledgements, one at a time", single, 5),
            ("payload, flat out", "with headers and acknowledgements, flat out", batched, 0),
        ] {
            let (idle, begun) = (Wire::now(), std::time::Instant::now());
            tokio::time::sleep(Duration::from_secs(2)).await;
            let idle = Wire::now().since(idle);
            let waited = begun.elapsed();
            let (before, begun) = (Wire::now(), std::time::Instant::now());
            pair.write(deltas, Duration::from_millis(pause))?;
            let wire = Wire::now().since(before);
            let share = begun.elapsed().as_secs_f64() / waited.as_secs_f64();
            let less = |bytes: u64, idle: u64| (bytes as f64 - idle as f64 * share) / deltas as f64;
            results.add(MESH, what, "B", less(wire.payload_bytes(), idle.payload_bytes()));
            results.add(MESH, all, "B", less(wire.bytes, idle.bytes));
        }
    }
    results.table(
        "Bytes on the wire for a change of 100 bytes",
        &[
            "payload, one at a time",
            "payload, flat out",
            "with headers and acknowledgements, one at a time",
            "with headers and acknowledgements, flat out",
        ],
        &[MESH],
        "Encrypted; both ways; without heartbeats. Payload is what TCP carries, flat out by estimate: 66 bytes of headers a packet.",
    );
    results.at_most(
        "P6",
        "bytes of a delta, flat out",
        results.median(MESH, "payload, flat out"),
        160.0,
        "B",
    );
    results.at_most(
        "P6",
        "bytes of a delta, one at a time",
        results.median(MESH, "payload, one at a time"),
        260.0,
        "B",
    );
    Ok(())
}
