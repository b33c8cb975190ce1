//! P10: what a write costs in clusters of 2 to 16 nodes.

use std::net::TcpListener;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::engine::runtime;
use crate::Error;
use crate::load::Load;
use crate::machine::Wire;
use crate::results::Results;
use crate::systems::{Bench, Mesh, System};

const IDLE: &str = "of a core, all nodes, without writes";
const ALONE: &str = "processor time that a write adds, 50 a second on each node";
const PACKETS: &str = "its packets, requests and answers among them";
const TOGETHER: &str = "processor time of a write, 32 users on each node";
const TCP: &str = "bare TCP, a message of 100 bytes by itself, 750 a second";
const SIZES: [usize; 4] = [2, 4, 8, 16];

/// Sixteen nodes, always: in more or fewer clusters. So the machine does the same in all that is not replication.
const NODES: usize = 16;
const APART: System = System::Memory { nodes: NODES };

fn backup_only(nodes: usize) -> System {
    System::Mesh(Mesh { clusters: NODES / nodes, nodes, backup_only: true, layer: true, ..Mesh::DEFAULT })
}

fn all_peers(nodes: usize) -> System {
    System::Mesh(Mesh { clusters: NODES / nodes, nodes, ..Mesh::DEFAULT })
}

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let clusters = [backup_only, all_peers].into_iter().flat_map(|of| SIZES.map(of));
    let systems: Vec<System> = clusters.chain([APART]).collect();
    bench
        .rounds_of(&systems, results, async |system, running, results| {
            // To who holds its session, in backup-only: a balancer does that by the cookie.
            let routed = match system {
                System::Mesh(Mesh { backup_only: true, nodes, .. }) => Some(nodes),
                _ => None,
            };
            let time = Duration::from_secs(bench.pick(1, 6));
            // Little: a change travels alone, whatever the size.
            let alone = Load { users: 4 * NODES, rate: Some(50.0 * NODES as f64), time, routed };
            // So much that changes travel together, as they do for P1.
            let together = Load { users: 32 * NODES, rate: None, time, routed };
            let name = system.name();
            let _awake = bench.keep_awake()?;
            running.load(Load { time: time / 2, ..alone }).await?;
            let wire = Wire::now();
            let (done, cost) = running.load(alone).await?;
            if bench.own_loopback {
                let packets = Wire::now().since(wire).packets as f64;
                results.add(&name, PACKETS, "", packets / done.written as f64);
            }
            // What a node does anyway, P11 measures.
            let idle = running.idle(time / 2).await?;
            let anyway_us = idle * 1e6 * cost.window.as_secs_f64() / done.written as f64;
            results.add(&name, IDLE, "%", idle * 100.0);
            results.add(&name, ALONE, "us", cost.each_us - anyway_us);
            running.load(Load { time: time / 2, ..together }).await?;
            let (_, cost) = running.load(together).await?;
            results.add(&name, TOGETHER, "us", cost.each_us);
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
        "Larger clusters: sixteen nodes in clusters of 2 to 16",
        &[IDLE, ALONE, PACKETS, TOGETHER],
        &names,
        "In backup-only users go where their cookies say. Processes of the lowest priority keep the cores awake. What a write adds is \
         without what the nodes use when nobody writes. With 32 users on each node all cores are busy all the time.",
    );
    let dearest = |of: fn(usize) -> System| {
        let costs = SIZES.map(|nodes| results.median(&of(nodes).name(), ALONE));
        let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
        costs.iter().copied().fold(0.0, f64::max) / least
    };
    results.at_most("P10", "backup-only, the dearest size", dearest(backup_only), 1.15, "x the cheapest");
    // From 2 to 16, for each peer.
    let [many, few] = [16, 2].map(|nodes| all_peers(nodes).name());
    let slope = results.by_round(TOGETHER, [&many, &few], |[many, few]| (many - few) / 14.0);
    results.at_most("P10", "all-peers, processor time of each further peer", slope, 2.0, "us");
    let bare = results.median(TCP, ALONE);
    results.floor("P10", "processor time of one message that travels alone, bare TCP", bare, "us");
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
