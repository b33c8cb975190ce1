//! P12: requests while one of three nodes stands still.

use std::time::Duration;

use rustix::process::Signal;

use crate::Error;
use crate::load::Load;
use crate::results::Results;
use crate::systems::{Bench, Mesh, Running, System};

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let mut names = Vec::new();
    let levels = ["async", "one", "all"].map(|ack| System::Mesh(Mesh { ack, ..Mesh::DEFAULT }));
    bench
        .rounds_of(&levels, results, async |system, running, results| {
            let load = Load {
                // So many that nobody has to wait for an answer before the next request is due.
                users: 400,
                rate: Some(500.0),
                // Longer than a silent member stays one.
                time: Duration::from_secs_f64(bench.pick(0.5, 5.0)),
                routed: None,
            };
            let name = system.name();
            // Users of the two that run.
            let two = Running { http: running.http[..2].to_vec(), servers: Vec::new() };
            load.run(&two.http).await?;
            let usual = load.run(&two.http).await?;
            let users = load.users(&two.http).await?;
            running.servers[2].signal(Signal::STOP);
            let stopped = load.run_with(users).await?;
            running.servers[2].signal(Signal::CONT);
            results.add(&name, "usual p99", "us", usual.quantile(0.99));
            results.add(&name, "p99 with one stopped", "us", stopped.quantile(0.99));
            results.add(&name, "slowest with one stopped", "us", stopped.latency.max() as f64);
            results.add(&name, "missed their level", "writes", stopped.failed as f64);
            Ok(())
        })
        .await?;
    names.extend(levels.map(System::name));
    let shown: Vec<&str> = names.iter().map(String::as_str).collect();
    results.table(
        "One of three nodes stands still, 500 writes a second on the others",
        &["usual p99", "p99 with one stopped", "slowest with one stopped", "missed their level"],
        &shown,
        "Five seconds each: at `all` a write waits until ack_timeout (500 ms) and is answered as missed, until the node is dropped.",
    );
    let of = |name: &str, what: &str| results.median(name, what);
    let ratio = of(&names[0], "p99 with one stopped") / of(&names[0], "usual p99");
    let one = of(&names[1], "p99 with one stopped") / of(&names[1], "usual p99");
    let slowest = of(&names[2], "slowest with one stopped") / 1e3;
    results.at_most("P12", "99th percentile with one node stopped, async", ratio, 2.0, "x the usual");
    results.at_most("P12", "99th percentile with one node stopped, one", one, 2.0, "x the usual");
    results.at_most("P12", "the slowest write with one node stopped, all", slowest, 600.0, "ms");
    Ok(())
}
