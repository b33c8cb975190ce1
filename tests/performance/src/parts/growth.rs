//! P10: what a write costs in clusters of 2 to 16 nodes.

use std::net::TcpListener;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::engine::runtime;
use crate::Error;
use crate::load::Load;
use crate::results::Results;
use crate::systems::{Bench, Mesh, System};

const ALONE: &str = "processor time of a write, 50 a second on each node";
const TOGETHER: &str = "processor time of a write, 32 users on each node";
const TCP: &str = "bare TCP, a message of 100 bytes by itself, 750 a second";
const SIZES: [usize; 4] = [2, 4, 8, 16];

fn backup_only(nodes: usize) -> System {
    System::Mesh(Mesh { nodes, backup_only: true, layer: true, ..Mesh::DEFAULT })
}

fn all_peers(nodes: usize) -> System {
    System::Mesh(Mesh { nodes, ..Mesh::DEFAULT })
}

/// What more processes cost that are no cluster.
fn apart(nodes: usize) -> System {
    System::Memory { nodes }
}

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let systems: Vec<System> =
        [backup_only, all_peers, apart].into_iter().flat_map(|of| SIZES.map(of)).collect();
    bench
        .rounds_of(&systems, results, async |system, running, results| {
            let nodes = running.http.len();
            // To who holds its session, in backup-only: a balancer does that by the cookie.
            let routed = matches!(system, System::Mesh(Mesh { backup_only: true, .. }));
            let time = Duration::from_secs(bench.pick(1, 6));
            let loads = [
                // The same on every node, and little: a change travels alone, whatever the size.
                (ALONE, Load { users: 4 * nodes, rate: Some(50.0 * nodes as f64), time, routed }),
                // So much that changes travel together, as they do for P1.
                (TOGETHER, Load { users: 32 * nodes, rate: None, time, routed }),
            ];
            for (what, load) in loads {
                let _awake = bench.keep_awake()?;
                running.load(Load { time: load.time / 2, ..load }).await?;
                let (_, cost) = running.load(load).await?;
                results.add(&system.name(), what, "us", cost.each_us);
            }
            Ok(())
        })
        .await?;
    {
        let _awake = bench.keep_awake()?;
        for _ in 0..bench.rounds().min(3) {
            results.add(TCP, ALONE, "us", bare_messages(bench.pick(200, 4_000))?);
        }
    }
    let names: Vec<String> = systems.iter().map(|system| system.name()).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.push(TCP);
    results.table(
        "Larger clusters",
        &[ALONE, TOGETHER],
        &names,
        "In backup-only users go where their cookies say. Processes of the lowest priority keep the cores awake. With 32 users on \
         each node all cores are busy all the time: the more nodes, the less of the machine each has, and the fewer changes it has to \
         send together.",
    );
    let dearest = |of: fn(usize) -> System| {
        let costs = SIZES.map(|nodes| results.median(&of(nodes).name(), ALONE));
        let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
        costs.iter().copied().fold(0.0, f64::max) / least
    };
    let (backup_only, nothing) = (dearest(backup_only), dearest(apart));
    results.at_most("P10", "backup-only, the dearest of 2 to 16 nodes", backup_only, 1.15, "x the cheapest");
    results.floor("P10", "2 to 16 nodes that share nothing, the dearest", nothing, "x the cheapest");
    // From 2 to 16, for each peer.
    let slope = |of: fn(usize) -> System, what| {
        results.by_round(what, [&of(16).name(), &of(2).name()], |[many, few]| (many - few) / 14.0)
    };
    let together = slope(all_peers, TOGETHER);
    let floors = [
        ("processor time of each further process that shares nothing", slope(apart, TOGETHER)),
        ("processor time of one message that travels alone, bare TCP", results.median(TCP, ALONE)),
    ];
    results.at_most("P10", "all-peers, processor time of each further peer", together, 2.0, "us");
    for (what, floor) in floors {
        results.floor("P10", what, floor, "us");
    }
    Ok(())
}

/// Processor time of a message of 100 bytes from one thread to another, 750 a second, in microseconds: what one of 16 nodes
/// hears from the others, each change by itself.
fn bare_messages(messages: u32) -> Result<f64, Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let before = clock_gettime(ClockId::ProcessCPUTime);
    let reader = std::thread::spawn(move || -> std::io::Result<()> {
        runtime()?.block_on(async {
            let (mut stream, _) = tokio::net::TcpListener::from_std(listener)?.accept().await?;
            let mut message = [0; 100];
            while stream.read_exact(&mut message).await.is_ok() {}
            Ok(())
        })
    });
    let writer = std::thread::spawn(move || -> std::io::Result<()> {
        runtime()?.block_on(async {
            let mut stream = tokio::net::TcpStream::connect(at).await?;
            stream.set_nodelay(true)?;
            let mut due = tokio::time::Instant::now();
            for _ in 0..messages {
                due += Duration::from_secs(1) / 750;
                tokio::time::sleep_until(due).await;
                stream.write_all(&[7; 100]).await?;
            }
            Ok(())
        })
    });
    writer.join().map_err(|_| "the writer panicked")??;
    reader.join().map_err(|_| "the reader panicked")??;
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = (spent.tv_sec - before.tv_sec) as f64 * 1e9 + (spent.tv_nsec - before.tv_nsec) as f64;
    Ok(nanos / 1e3 / f64::from(messages))
}
