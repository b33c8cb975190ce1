//! P7: memory that sessions take, as the kernel counts it.

use crate::Error;
use crate::load::ask;
use crate::machine::resident_bytes;
use crate::results::Results;
use crate::systems::{Bench, Mesh, System, wait};

const HERE: &str = "sessionmesh, the node that made them";
const THERE: &str = "sessionmesh, a node that holds copies";
const REDIS: &str = "Redis, one copy";

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let sessions = bench.pick(2_000, 200_000_u64);
    let bulk = format!("/bulk?n={sessions}&attrs=4&bytes=100");
    for _ in 0..bench.rounds().min(3) {
        let system = System::Mesh(Mesh { nodes: 2, ..Mesh::DEFAULT });
        if let Some(running) = bench.start(system).await? {
            let before = running.pids().into_iter().map(resident_bytes).collect::<Vec<_>>();
            ask(running.http[0], "POST", &bulk).await?;
            for node in &running.http {
                wait(*node, "/count", |said| said == sessions.to_string()).await?;
            }
            for ((pid, before), what) in running.pids().into_iter().zip(before).zip([HERE, THERE]) {
                let each = (resident_bytes(pid) - before) as f64 / sessions as f64;
                results.add(what, "memory of a session", "B", each);
            }
        }
        let redis = System::Redis { replica: false };
        match bench.start(redis).await? {
            Some(running) => {
                let server = running.pids()[0];
                let before = resident_bytes(server);
                ask(running.http[0], "POST", &bulk).await?;
                let each = (resident_bytes(server) - before) as f64 / sessions as f64;
                results.add(REDIS, "memory of a session", "B", each);
            }
            None => results.leave_out(&format!("{}: not installed", redis.name())),
        }
    }
    results.table(
        "Memory for each session of 4 x 100 bytes",
        &["memory of a session"],
        &[HERE, THERE, REDIS],
        "Resident memory after 200,000 sessions, less that before.",
    );
    for what in [HERE, THERE] {
        results.at_most("P7", what, results.median(what, "memory of a session"), 750.0, "B");
    }
    Ok(())
}
