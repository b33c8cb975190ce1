//! P1 to P3: one attribute of 100 bytes changed in each request, 32 users, as fast as they are answered.

use crate::Error;
use crate::load::Load;
use crate::results::Results;
use crate::systems::{Bench, Mesh, System};
use crate::tomcat::Manager;

const MEMORY: System = System::Memory;
const REDIS: System = System::Redis { replica: false };
const REPLICA: System = System::Redis { replica: true };
const ASYNC: System = System::Mesh(Mesh::DEFAULT);
const ASYNC_LAYER: System = System::Mesh(Mesh { layer: true, ..Mesh::DEFAULT });
const BACKUP: System = System::Mesh(Mesh { backup_only: true, ack: "one", ..Mesh::DEFAULT });
const BACKUP_LAYER: System =
    System::Mesh(Mesh { backup_only: true, ack: "one", layer: true, ..Mesh::DEFAULT });
const ALONE: System = System::Mesh(Mesh { nodes: 1, ..Mesh::DEFAULT });
const INSECURE: System = System::Mesh(Mesh { insecure: true, ..Mesh::DEFAULT });
const TOMCAT: System = System::Tomcat(Manager::Alone);
const DELTA: System = System::Tomcat(Manager::DeltaAsync);
const TOMCAT_BACKUP: System = System::Tomcat(Manager::Backup);

const RATE: &str = "writes";
const CPU: &str = "processor time of a write";

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let systems = [
        System::Axum,
        MEMORY,
        ALONE,
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
        .rounds_of(&systems, results, async |system, running, results| {
            running.load(Load::saturated(bench.warm(system))).await?;
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

    let of = |results: &Results, system: System, what: &str| results.median(&system.name(), what);
    let deltas = 2.0;
    let cost = |results: &Results, with: System, without: System| {
        (of(results, with, CPU) - of(results, without, CPU)) / deltas
    };
    let (ours, layered) = (cost(results, ASYNC, MEMORY), cost(results, ASYNC_LAYER, MEMORY));
    let tomcat = cost(results, DELTA, TOMCAT);
    for (which, ours) in [("the store alone", ours), ("with the layer", layered)] {
        results.at_most("P1", &format!("processor time of a delta and peer, {which}"), ours, 2.0, "us");
        results.at_least(
            "P1",
            &format!("Tomcat's cost of a delta and peer, {which}"),
            tomcat / ours,
            15.0,
            "times ours",
        );
    }
    let rate = |results: &Results, system: System| of(results, system, RATE);
    for (which, system) in [("the store alone", ASYNC), ("with the layer", ASYNC_LAYER)] {
        for (than, bound) in [(MEMORY, 0.85), (REDIS, 1.5), (DELTA, 2.5)] {
            let ratio = rate(results, system) / rate(results, than);
            results.at_least(
                "P2",
                &format!("all-peers, async, {which}: writes"),
                ratio,
                bound,
                &format!("x {}", than.name()),
            );
        }
    }
    for (which, system) in [("the store alone", BACKUP), ("with the layer", BACKUP_LAYER)] {
        for (than, bound) in [(TOMCAT_BACKUP, 2.5), (REPLICA, 1.0)] {
            let ratio = rate(results, system) / rate(results, than);
            results.at_least(
                "P3",
                &format!("backup-only, one, {which}: writes"),
                ratio,
                bound,
                &format!("x {}", than.name()),
            );
        }
    }
    Ok(())
}
