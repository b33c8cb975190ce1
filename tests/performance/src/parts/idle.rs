//! P11: eight nodes with 100,000 sessions each, and nobody who uses them.

use std::time::Duration;

use crate::Error;
use crate::load::ask;
use crate::machine::{Wire, cpu_of_all};
use crate::results::Results;
use crate::systems::{Bench, Mesh, System, wait};

const NODES: usize = 8;
const CPU: &str = "idle: of a core, each node";
const BYTES: &str = "idle: bytes, each node";
/// In which each node sums all of them up once more.
const FIRST: &str = "sessionmesh, the first minute after the sessions came";
const LATER: &str = "sessionmesh, the minute after that";

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let sessions = bench.pick(1_000, 100_000);
    let (rest, time) = bench.pick((0.5, 1.0), (10.0, 60.0));
    let system = System::Mesh(Mesh { nodes: NODES, ..Mesh::DEFAULT });
    let Some(running) = bench.start(system).await? else { return Ok(()) };
    ask(running.http[0], "POST", &format!("/bulk?n={sessions}&attrs=4&bytes=100")).await?;
    for node in &running.http {
        wait(*node, "/count", |said| said == sessions.to_string()).await?;
    }
    tokio::time::sleep(Duration::from_secs_f64(rest)).await;
    let pids = running.pids();
    for minute in [FIRST, LATER] {
        let (cpu, wire) = (cpu_of_all(&pids)?, Wire::now());
        tokio::time::sleep(Duration::from_secs_f64(time)).await;
        let cpu = (cpu_of_all(&pids)? - cpu).as_secs_f64() / time / NODES as f64 * 100.0;
        results.add(minute, CPU, "%", cpu);
        if bench.own_loopback {
            let bytes = Wire::now().since(wire).bytes as f64 / time / NODES as f64;
            results.add(minute, BYTES, "B/s", bytes);
        }
    }
    let (cpu, bytes) = (results.median(LATER, CPU), results.median(LATER, BYTES));
    results.at_most("P11", "processor time of a node that does nothing", cpu, 0.5, "% of a core");
    results.at_most("P11", "bytes of a node that does nothing", bytes, 2_000.0, "B/s");
    results.table(
        "A cluster that does nothing: 8 nodes, 100,000 sessions, all-peers",
        &[CPU, BYTES],
        &[FIRST, LATER],
        "A multicast is counted once for its sender.",
    );
    Ok(())
}
