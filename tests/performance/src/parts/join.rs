//! P8: a node that joins 100,000 sessions.

use std::time::{Duration, Instant};

use performance::{Step, Transfer};

use crate::Error;
use crate::load::{Load, ask};
use crate::machine;
use crate::results::Results;
use crate::systems::{Bench, Mesh, Running, wait};

const MESH: &str = "sessionmesh, all-peers";
const TOMCAT: &str = "Tomcat DeltaManager async (8)";
const USUAL: &str = "usual p99";
const MEANWHILE: &str = "p99 while one joins";
const BESIDE: &str = "p99 beside two processes that work as long";
const TIME: &str = "time of a session";
const BOTH: &str = "all steps, one after the other";
const MEASURED: &str = "measured between two nodes, from the transfer's start to its end";
const SIZES: [(u64, &str); 3] =
    [(0, "ready with none"), (100_000, "ready with 100,000"), (1_000_000, "ready with 1,000,000")];

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    for _ in 0..bench.rounds().min(3) {
        for (sessions, what) in SIZES {
            if sessions > 0 && bench.quick {
                continue;
            }
            if !bench.quick {
                // More than donor and joiner will need.
                bench.touch(500_000_000 + sessions * 2_000)?;
            }
            let time = mesh(bench, sessions, results).await?;
            results.add(MESH, what, "s", time);
        }
        if !bench.quick {
            tomcat(bench, results).await?;
        }
    }
    let columns = [SIZES[0].1, SIZES[1].1, SIZES[2].1, USUAL, MEANWHILE, BESIDE];
    results.table(
        "A node that joins sessions of 4 x 100 bytes",
        &columns,
        &[MESH, TOMCAT],
        "From the start of the process. Nobody asks for anything meanwhile, but for the 99th percentiles: those are of 500 writes a \
         second on the donor.",
    );
    let [(_, none), (_, some), (_, many)] = SIZES;
    let tomcat = results.of_rounds(
        [(TOMCAT, some), (TOMCAT, none), (MESH, some), (MESH, none)],
        |[theirs, their_start, ours, start]| (theirs - their_start) / (ours - start),
    );
    let million = results.of_rounds([(MESH, many), (MESH, some), (MESH, none)], |[many, some, none]| {
        (many - none) / (some - none)
    });
    results.at_least("P8", "Tomcat's transfer of 100,000 sessions", tomcat, 15.0, "times ours");
    stages(bench, results)?;
    let least = results.of_rounds([(TOMCAT, some), (TOMCAT, none), (BOTH, TIME)], |[theirs, start, both]| {
        (theirs - start) / (both / 2.0 * 1e-9 * 100_000.0)
    });
    let what = "Tomcat's transfer, of one that is nothing but its steps, spread evenly over two cores";
    results.floor("P8", what, least, "times as long");
    results.at_most("P8", "a million sessions", million, 12.0, "times as long as 100,000");
    let p99 = |what| results.of_rounds([(MESH, what), (MESH, USUAL)], |[meanwhile, usual]| meanwhile / usual);
    let (joining, beside) = (p99(MEANWHILE), p99(BESIDE));
    results.at_most("P8", "99th percentile on the donor meanwhile", joining, 2.0, "x the usual");
    let what = "99th percentile beside two processes that work as long as the joiner";
    results.floor("P8", what, beside, "x the usual");
    Ok(())
}

/// What donor and joiner do for each session, by itself.
fn stages(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let sessions = bench.pick(2_000, 100_000);
    if !bench.quick {
        bench.touch(500_000_000)?;
    }
    let mut transfer = Transfer::new(usize::try_from(sessions)?)?;
    transfer.carry()?;
    for _ in 0..bench.rounds().min(3) {
        let times = transfer.carry()?.map(|took| took.as_nanos() as f64 / sessions as f64);
        for (step, time) in Step::ALL.iter().zip(times) {
            results.add(step.name(), TIME, "ns", time);
        }
        results.add(BOTH, TIME, "ns", times.iter().sum());
    }
    for round in 0..results.figure(MESH, SIZES[1].1).map_or(0, |figure| figure.values.len()) {
        let seconds = |what| results.figure(MESH, what).map_or(f64::NAN, |figure| figure.values[round]);
        let time = (seconds(SIZES[1].1) - seconds(SIZES[0].1)) * 1e9 / 100_000.0;
        results.add(MEASURED, TIME, "ns", time);
    }
    let mut rows: Vec<&str> = Step::ALL.iter().map(|step| step.name()).collect();
    rows.extend([BOTH, MEASURED]);
    results.table(
        "A session of 4 x 100 bytes to a joiner, step by step",
        &[TIME],
        &rows,
        "One thread, 100,000 sessions. What two nodes take longer than half of the steps is sockets, pages of memory that the \
         joiner asks the kernel for, tasks and waiting for each other.",
    );
    Ok(())
}

async fn mesh(bench: &Bench, sessions: u64, results: &mut Results) -> Result<f64, Error> {
    let mesh = Mesh { nodes: 1, ..Mesh::DEFAULT };
    let name = Bench::cluster_name();
    let mut running = Running { http: Vec::new(), servers: Vec::new() };
    bench.join(&mut running, mesh, &name, "donor")?;
    bench.formed(&running, 1).await?;
    let donor = running.http[0];
    if sessions > 0 {
        ask(donor, "POST", &format!("/bulk?n={sessions}&attrs=4&bytes=100")).await?;
    }
    // The donor had requests until now, and would rest between two steps: that is the other figure.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    bench.join(&mut running, mesh, &name, "joiner")?;
    let joiner = running.http[1];
    wait(joiner, "/ready", |said| said == "ready").await?;
    let time = begun.elapsed().as_secs_f64();
    let (_, count) = ask(joiner, "GET", "/count").await?;
    if count != sessions.to_string() {
        return Err(format!("the joiner has {count} of {sessions} sessions").into());
    }
    if sessions == 100_000 {
        let leave = async |running: &mut Running| {
            running.servers.pop();
            running.http.pop();
            wait(donor, "/members", |said| said == "0").await
        };
        leave(&mut running).await?;
        // Again, under load: the donor's users before and meanwhile. Several times: one 99th percentile says little.
        let load = Load { users: 8, rate: Some(500.0), time: Duration::from_secs(3), routed: None };
        for n in 0..3 {
            load.run(&[donor]).await?;
            let usual = load.run(&[donor]).await?;
            bench.join(&mut running, mesh, &name, &format!("beside-load-{n}"))?;
            let meanwhile = load.run(&[donor]).await?;
            wait(running.http[1], "/ready", |said| said == "ready").await?;
            results.add(MESH, USUAL, "us", usual.quantile(0.99));
            results.add(MESH, MEANWHILE, "us", meanwhile.quantile(0.99));
            // What it takes from the users if all that happens is that somebody works as long as joiner and donor did.
            let worked = machine::cpu(running.servers[1].pid())?.as_secs_f64();
            leave(&mut running).await?;
            let burners = [bench.burn(worked)?, bench.burn(worked)?];
            let beside = load.run(&[donor]).await?;
            drop(burners);
            results.add(MESH, BESIDE, "us", beside.quantile(0.99));
        }
    }
    Ok(time)
}

async fn tomcat(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let Some(tomcat) = bench.tomcat() else {
        results.leave_out("Tomcat: not installed");
        return Ok(());
    };
    for (sessions, what) in &SIZES[..2] {
        let manager = crate::tomcat::Manager::DeltaAsync;
        let mut running = Running { http: Vec::new(), servers: Vec::new() };
        let group = crate::systems::free_port()?;
        tomcat.join(&mut running, manager, group).await?;
        if *sessions > 0 {
            ask(running.http[0], "POST", &format!("/bulk?n={sessions}&attrs=4&bytes=100")).await?;
        }
        let begun = Instant::now();
        tomcat.join(&mut running, manager, group).await?;
        wait(running.http[1], "/count", |said| said == sessions.to_string()).await?;
        results.add(TOMCAT, what, "s", begun.elapsed().as_secs_f64());
    }
    Ok(())
}
