//! P10: what a write costs in clusters of 2 to 16 nodes.

use std::time::Duration;

use crate::Error;
use crate::load::Load;
use crate::results::Results;
use crate::systems::{Bench, Mesh, System};

const CPU: &str = "processor time of a write";

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let sizes = [2, 4, 8, 16];
    let backup = |nodes| System::Mesh(Mesh { nodes, backup_only: true, ..Mesh::DEFAULT });
    let all = |nodes| System::Mesh(Mesh { nodes, ..Mesh::DEFAULT });
    let systems: Vec<System> = sizes.into_iter().map(backup).chain(sizes.into_iter().map(all)).collect();
    bench
        .rounds_of(&systems, results, async |system, running, results| {
            // The same on every node, and little: at saturation each would have less of the machine with every
            // other, and what travels in one piece with others would travel alone.
            let System::Mesh(Mesh { nodes, .. }) = system else { return Ok(()) };
            let rate = Some(50.0 * nodes as f64);
            let load = Load { users: 4 * nodes, rate, time: Duration::from_secs(bench.pick(1, 8)) };
            running.load(Load { time: load.time / 2, ..load }).await?;
            let (_, cost) = running.load(load).await?;
            results.add(&system.name(), CPU, "us", cost.each_us);
            Ok(())
        })
        .await?;
    let names: Vec<String> = systems.iter().map(|system| system.name()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    results.table(
        "Larger clusters: 50 writes a second on each node",
        &[CPU],
        &names,
        "Users stay on their nodes, which need not hold their sessions.",
    );
    let costs: Vec<f64> = sizes.iter().map(|nodes| results.median(&backup(*nodes).name(), CPU)).collect();
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let most = costs.iter().copied().fold(0.0, f64::max);
    results.at_most("P10", "backup-only, the dearest of 2 to 16 nodes", most / least, 1.15, "x the cheapest");
    // The slope from 2 to 16, by peer.
    let cost = |nodes| results.median(&all(nodes).name(), CPU);
    let slope = (cost(16) - cost(2)) / 14.0;
    results.at_most("P10", "all-peers, processor time of each further peer", slope, 2.0, "us");
    Ok(())
}
