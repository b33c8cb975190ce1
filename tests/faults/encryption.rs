//! What encryption costs: the same load on nodes with a secret and without.

use std::time::Duration;

use cluster_tests::{Browser, Load, NodeProcess, Processes, eventually, figure};
use tokio::time::Instant;

use crate::{Size, Story, median, processes};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    Story::one("encryption::costs_less_than_fifteen_percent", size, costs)
}

/// What it may cost; asserted in full only, on an idle machine.
const MOST: f64 = 0.15;

async fn costs(size: Size) {
    let (rounds, time, records) =
        size.pick((1, Duration::from_millis(500), 2_000), (9, Duration::from_secs(4), 200_000));
    let (mut requests, mut replication) = (Pairs::default(), Pairs::default());
    for round in 0..rounds {
        // Alternating, so that neither is always the first on a warm machine.
        for encrypted in [round % 2 == 0, round % 2 != 0] {
            let cluster = || {
                let cluster = processes("all-peers");
                if encrypted { cluster } else { cluster.insecure() }
            };
            requests.of(encrypted).push(by_requests(cluster(), time).await);
            replication.of(encrypted).push(by_replication(cluster(), records).await);
        }
    }
    for (what, pairs) in
        [("written by HTTP requests", requests), ("made at once and replicated", replication)]
    {
        let (with, without) = (median(&pairs.with), median(&pairs.without));
        // Of two that ran one after the other: a machine is not as fast all the time.
        let ratios: Vec<f64> =
            pairs.with.iter().zip(&pairs.without).map(|(with, without)| with / without).collect();
        let cost = 1.0 - median(&ratios);
        figure(
            &format!("encryption, 3 nodes, all-peers, async, {what}"),
            format!(
                "{with:.0} a CPU-second with ({}), {without:.0} without ({}): {:.1} % fewer (medians of {rounds}, the last \
                 of each pair)",
                spread(&pairs.with),
                spread(&pairs.without),
                cost * 100.0
            ),
        );
        assert!(size == Size::Quick || cost < MOST, "{what}: {cost}");
    }
}

/// Per CPU-second.
#[derive(Default)]
struct Pairs {
    with: Vec<f64>,
    without: Vec<f64>,
}

impl Pairs {
    fn of(&mut self, encrypted: bool) -> &mut Vec<f64> {
        if encrypted { &mut self.with } else { &mut self.without }
    }
}

/// Users that write as fast as they are answered.
async fn by_requests(cluster: Processes, time: Duration) -> f64 {
    let cluster = cluster.start(3).await;
    let nodes: Vec<&NodeProcess> = cluster.running().collect();
    let load = Load::start(16, &nodes);
    eventually("users write", || async { (cluster.sum("commits").await > 500).then_some(()) }).await;
    let (cpu, commits) = (cpu(&nodes), cluster.sum("commits").await);
    let begun = Instant::now();
    while begun.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (cpu, commits) = (self::cpu(&nodes) - cpu, cluster.sum("commits").await - commits);
    load.stop().await;
    commits as f64 / cpu.as_secs_f64()
}

/// Sessions of 100 bytes that one node makes at once, until the others have them.
async fn by_replication(cluster: Processes, records: u64) -> f64 {
    let cluster = cluster.start(3).await;
    let nodes: Vec<&NodeProcess> = cluster.running().collect();
    let cpu = cpu(&nodes);
    let mut browser = Browser::new();
    let made = browser.post(nodes[0], &format!("/bulk?n={records}&attrs=1&bytes=100")).await;
    assert_eq!(made.status, 200, "{}", made.body);
    eventually("all nodes have them", || async { (cluster.records().await == 3 * records).then_some(()) })
        .await;
    records as f64 / (self::cpu(&nodes) - cpu).as_secs_f64()
}

/// What these processes have used of all cores.
fn cpu(nodes: &[&NodeProcess]) -> Duration {
    nodes.iter().map(|node| node.cpu()).sum()
}

fn spread(figures: &[f64]) -> String {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(0.0, f64::max);
    format!("{least:.0} to {most:.0}")
}
