//! Large clusters: that they settle, and what heartbeats and passes cost a node.

use std::process::ExitCode;
use std::time::Duration;

use crate::cluster::Run;
use crate::invariants::convergence::{self, Copies};
use crate::run::on_virtual_time;
use crate::scenario::Scenario;

/// How many nodes, and with how many seeds.
const SIZES: [(usize, u64); 4] = [(8, 4), (50, 2), (100, 1), (200, 1)];
const SESSIONS: usize = 2_000;
/// How long traffic is counted, when nothing happens.
const CALM: Duration = Duration::from_secs(60);

/// What one cluster did.
struct Figures {
    settled_after: Duration,
    joined_after: Duration,
    heartbeats_per_s: f64,
    heartbeat_bytes_per_s: f64,
    pass_bytes_per_s: f64,
    link_bytes_per_s: f64,
}

/// Plays the sizes in both modes and prints what each node sends.
pub(crate) fn report() -> ExitCode {
    println!(
        "{SESSIONS} sessions, frequency 500 ms, a routine pass each 60 s; per node and second, when idle:"
    );
    println!(
        "| nodes | mode | all agree after | a joiner is ready after | heartbeats | bytes of them | bytes of passes | bytes over links |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (nodes, seeds) in SIZES {
        for backup_only in [false, true] {
            for seed in 0..seeds {
                match play(nodes, backup_only, seed) {
                    Ok(figures) => {
                        let Figures { settled_after, joined_after, heartbeats_per_s, .. } = figures;
                        println!(
                            "| {nodes} | {} | {:.1} s | {:.2} s | {heartbeats_per_s:.1} | {:.0} | {:.0} | {:.0} |",
                            if backup_only { "backup-only" } else { "all-peers" },
                            settled_after.as_secs_f64(),
                            joined_after.as_secs_f64(),
                            figures.heartbeat_bytes_per_s,
                            figures.pass_bytes_per_s,
                            figures.link_bytes_per_s
                        );
                    }
                    Err(lacks) => {
                        println!("FAILED: {nodes} nodes, seed {seed}: {lacks}");
                        return ExitCode::FAILURE;
                    }
                }
            }
        }
    }
    ExitCode::SUCCESS
}

fn play(nodes: usize, backup_only: bool, seed: u64) -> Result<Figures, String> {
    on_virtual_time(seed, story(Scenario::large(seed, nodes, backup_only)))
}

async fn story(scenario: Scenario) -> Result<Figures, String> {
    let run = Run::new(&scenario);
    let last = run.hosts() - 1;
    // All at once, but one.
    for host in 0..last {
        let run = run.clone();
        tokio::task::spawn_local(async move { run.start(host, false).await });
    }
    let settled_after = settle(&run, last).await?;
    for number in 0..SESSIONS {
        let node = run.node(number % last).ok_or("a node is gone")?;
        let cluster = node.cluster.clone();
        let created = run.host(node.host).spawn(async move {
            cluster.sessions().create(|session| _ = session.set("cart", vec![7; 100])).await.is_ok()
        });
        if !created.await.unwrap_or(false) {
            return Err("a session could not be created".into());
        }
    }
    let before_join = run.elapsed();
    run.start(last, false).await;
    let joined_after = loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if run.node(last).is_some_and(|node| node.cluster.inspect().serving) {
            break run.elapsed() - before_join;
        }
        if run.elapsed() - before_join > Duration::from_secs(60) {
            return Err("the joiner is not ready after a minute".into());
        }
    };
    settle(&run, run.hosts()).await?;
    let before = totals(&run);
    tokio::time::sleep(CALM).await;
    let after = totals(&run);
    let rate = |index: usize| (after[index] - before[index]) as f64 / CALM.as_secs_f64() / run.hosts() as f64;
    Ok(Figures {
        settled_after,
        joined_after,
        heartbeats_per_s: rate(0),
        heartbeat_bytes_per_s: rate(1),
        pass_bytes_per_s: rate(2),
        link_bytes_per_s: rate(3),
    })
}

/// Until so many nodes agree on everything.
async fn settle(run: &Run, nodes: usize) -> Result<Duration, String> {
    let begun = run.elapsed();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let Some(lacks) = convergence::lacks(run, nodes, Copies::All) else {
            return Ok(run.elapsed() - begun);
        };
        if run.elapsed() - begun > Duration::from_secs(120) {
            return Err(lacks);
        }
    }
}

/// Of all nodes: heartbeats, their bytes, bytes of passes, bytes over links.
fn totals(run: &Run) -> [u64; 4] {
    let mut totals = [0; 4];
    for node in run.nodes() {
        let stats = run.host(node.host).run(|| node.cluster.stats());
        totals[0] += stats.counts.heartbeats_sent;
        totals[1] += stats.counts.heartbeat_bytes_sent;
        totals[2] += stats.counts.pass_bytes_sent;
        totals[3] += stats.peers.iter().map(|peer| peer.bytes_sent).sum::<u64>();
    }
    totals
}
