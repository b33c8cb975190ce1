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

const CPU: &str = "processor time of a write";
const TCP: &str = "bare TCP, a message of 100 bytes by itself, 750 a second";

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
            let _awake = bench.keep_awake()?;
            let rate = Some(50.0 * nodes as f64);
            let load = Load { users: 4 * nodes, rate, time: Duration::from_secs(bench.pick(1, 8)) };
            running.load(Load { time: load.time / 2, ..load }).await?;
            let (_, cost) = running.load(load).await?;
            results.add(&system.name(), CPU, "us", cost.each_us);
            Ok(())
        })
        .await?;
    {
        let _awake = bench.keep_awake()?;
        for _ in 0..bench.rounds().min(3) {
            results.add(TCP, CPU, "us", bare_messages(bench.pick(200, 4_000))?);
        }
    }
    let names: Vec<String> = systems.iter().map(|system| system.name()).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.push(TCP);
    results.table(
        "Larger clusters: 50 writes a second on each node",
        &[CPU],
        &names,
        "Users stay on their nodes, which need not hold their sessions. Processes of the lowest priority keep the cores awake.",
    );
    let costs: Vec<f64> = sizes.iter().map(|nodes| results.median(&backup(*nodes).name(), CPU)).collect();
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let most = costs.iter().copied().fold(0.0, f64::max);
    results.at_most("P10", "backup-only, the dearest of 2 to 16 nodes", most / least, 1.15, "x the cheapest");
    // The slope from 2 to 16, by peer.
    let cost = |nodes| results.median(&all(nodes).name(), CPU);
    let slope = (cost(16) - cost(2)) / 14.0;
    results.at_most("P10", "all-peers, processor time of each further peer", slope, 2.0, "us");
    let bare = results.median(TCP, CPU);
    results.floor(
        "P10",
        "processor time of one message of 100 bytes that travels alone, bare TCP",
        bare,
        "us",
    );
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
