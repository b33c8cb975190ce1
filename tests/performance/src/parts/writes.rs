//! P1 to P3: one attribute of 100 bytes changed in each request, 32 users, as fast as they are answered.

use crate::Error;
use crate::load::Load;
use crate::results::Results;
use crate::systems::{Bench, Mesh, System};
use crate::tomcat::Manager;

const MEMORY: System = System::Memory { nodes: 1 };
/// What three processes cost that one does not: nothing of it is replication.
const APART: System = System::Memory { nodes: 3 };
const REDIS: System = System::Redis { replica: false };
const REPLICA: System = System::Redis { replica: true };
const ASYNC: System = System::Mesh(Mesh::DEFAULT);
const ASYNC_LAYER: System = System::Mesh(Mesh { layer: true, ..Mesh::DEFAULT });
const BACKUP: System = System::Mesh(Mesh { backup_only: true, ack: "one", ..Mesh::DEFAULT });
const BACKUP_LAYER: System =
    System::Mesh(Mesh { backup_only: true, ack: "one", layer: true, ..Mesh::DEFAULT });
const ALONE: System = System::Mesh(Mesh { nodes: 1, ..Mesh::DEFAULT });
const ALONE_LAYER: System = System::Mesh(Mesh { nodes: 1, layer: true, ..Mesh::DEFAULT });
const INSECURE: System = System::Mesh(Mesh { insecure: true, ..Mesh::DEFAULT });
const TOMCAT: System = System::Tomcat(Manager::Alone);
const DELTA: System = System::Tomcat(Manager::DeltaAsync);
const TOMCAT_BACKUP: System = System::Tomcat(Manager::Backup);

/// A change of three nodes goes to two.
const DELTAS: f64 = 2.0;

const RATE: &str = "writes";
const CPU: &str = "processor time of a write";

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let systems = [
        System::Axum,
        MEMORY,
        APART,
        ALONE,
        ALONE_LAYER,
        ASYNC,
        ASYNC_LAYER,
        INSECURE,
        BACKUP,
        BACKUP_LAYER,
        REDIS,
        REPLICA,
        TOMCAT,
        DELTA,
        TOMCAT_BACKUP,
    ];
    bench
        .side_by_side(&systems, results, async |system, running, results| {
            let (done, cost) = running.load(Load::saturated(bench.secs())).await?;
            let name = system.name();
            results.add(&name, RATE, "/s", done.per_second());
            results.add(&name, CPU, "us", cost.each_us);
            results.add(&name, "p50", "us", done.quantile(0.5));
            results.add(&name, "p99", "us", done.quantile(0.99));
            results.add(&name, "machine used by others", "%", cost.others_percent);
            Ok(())
        })
        .await?;
    let names: Vec<String> = systems.iter().map(|system| system.name()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    results.table(
        "Requests that write",
        &[RATE, CPU, "p50", "p99", "machine used by others"],
        &names,
        "All servers and what makes the load share the machine, so writes a second are what the whole machine \
         does; processor time is of all servers together, Redis included.",
    );

    let name = |system: System| system.name();
    let cost = |with: System, without: System| {
        results.by_round(CPU, [&name(with), &name(without)], |[with, without]| (with - without) / DELTAS)
    };
    let costs = [("the store alone", ASYNC), ("with the layer", ASYNC_LAYER)].map(|(which, ours)| {
        let systems = [&*name(ours), &name(MEMORY), &name(DELTA), &name(TOMCAT)];
        let times =
            results.by_round(CPU, systems, |[ours, memory, delta, alone]| (delta - alone) / (ours - memory));
        (which, cost(ours, MEMORY), times)
    });
    let apart = cost(APART, MEMORY);
    // Shared among two peers that are not there.
    let layer = cost(ALONE_LAYER, ALONE);
    for (which, ours, times) in costs {
        results.at_most("P1", &format!("processor time of a delta and peer, {which}"), ours, 2.0, "us");
        results.at_least(
            "P1",
            &format!("Tomcat's cost of a delta and peer, {which}"),
            times,
            15.0,
            "times ours",
        );
    }
    results.floor("P1", "processor time of a delta and peer, of three nodes that share nothing", apart, "us");
    results.floor(
        "P1",
        "processor time of the layer, for each delta and peer, on one node that replicates nothing",
        layer,
        "us",
    );
    for (what, floor) in [
        ("writes of three nodes that share nothing", APART),
        ("writes of one node with the layer, that replicates nothing", ALONE_LAYER),
    ] {
        let ratio = results.by_round(RATE, [&name(floor), &name(MEMORY)], |[floor, memory]| floor / memory);
        results.floor("P2", what, ratio, &format!("x {}", name(MEMORY)));
    }
    let one = [
        (ASYNC, MEMORY, 0.85),
        (ASYNC, REDIS, 1.5),
        (ASYNC, DELTA, 2.5),
        (ASYNC_LAYER, MEMORY, 0.85),
        (ASYNC_LAYER, REDIS, 1.5),
        (ASYNC_LAYER, DELTA, 2.5),
    ];
    let other = [
        (BACKUP, TOMCAT_BACKUP, 2.5),
        (BACKUP, REPLICA, 1.0),
        (BACKUP_LAYER, TOMCAT_BACKUP, 2.5),
        (BACKUP_LAYER, REPLICA, 1.0),
    ];
    for (target, (ours, than, bound)) in
        one.map(|ratio| ("P2", ratio)).into_iter().chain(other.map(|ratio| ("P3", ratio)))
    {
        let ratio = results.by_round(RATE, [&name(ours), &name(than)], |[ours, than]| ours / than);
        results.at_least(
            target,
            &format!("writes, {}", name(ours)),
            ratio,
            bound,
            &format!("x {}", name(than)),
        );
    }
    Ok(())
}
