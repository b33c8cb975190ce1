//! How requests fare while many sessions move. Long, and only worth something on an idle machine:
//! `cargo test --release -p cluster-tests --test processes -- --ignored --nocapture movement`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster_tests::{Browser, Processes, eventually};
use tokio::task::JoinHandle;

use crate::processes;

const SESSIONS: u64 = 100_000;
const USERS: usize = 8;

/// Users that write and read on all nodes in turn, with a short rest between requests.
struct Traffic {
    stop: Arc<AtomicBool>,
    users: Vec<JoinHandle<Vec<(Instant, Duration)>>>,
}

impl Traffic {
    #[allow(clippy::disallowed_methods)] // What a client sees is measured by the client's clock.
    fn start(urls: &[String]) -> Self {
        let started = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let client = Browser::new();
        let user = |number: usize| {
            let (mut browser, urls, stop) = (client.clone(), urls.to_vec(), stop.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                for turn in number.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let begun = Instant::now();
                    let path = format!("/put?k=k{}&v={turn}", turn % 10);
                    let answer = browser.try_post_to(&urls[turn % urls.len()], &path).await.unwrap();
                    if answer.status != 200 {
                        println!("{} at {:?} on {}", answer.status, started.elapsed(), turn % urls.len());
                    }
                    took.push((begun, begun.elapsed()));
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
                took
            })
        };
        let users = (0..USERS).map(user).collect();
        Self { stop, users }
    }

    async fn stop(self) -> Vec<(Instant, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for user in self.users {
            all.extend(user.await.unwrap());
        }
        all
    }
}

/// 99th percentile and number of the requests that began between two moments.
fn p99(requests: &[(Instant, Duration)], from: Instant, to: Instant) -> (Duration, usize) {
    let within = |request: &&(Instant, Duration)| (from..to).contains(&request.0);
    let mut took: Vec<Duration> = requests.iter().filter(within).map(|request| request.1).collect();
    took.sort_unstable();
    (took.get(took.len() * 99 / 100).copied().unwrap_or_default(), took.len())
}

async fn bulk(cluster: &Processes) {
    let share = SESSIONS / 3;
    for node in &cluster.nodes {
        let answer = Browser::new().post(node, &format!("/bulk?n={share}&attrs=4&bytes=100")).await;
        assert_eq!(answer.status, 200);
    }
    eventually("every session has its copies", || async {
        (cluster.copies().await >= 2 * 3 * share).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long, and a measurement"]
#[allow(clippy::disallowed_methods)]
async fn requests_while_a_third_of_100_000_sessions_moves() {
    let mut cluster = processes("backup-only")
        .with("--ack=one")
        .with("--set=fetch_timeout=50ms")
        .with("--set=drop_time=3s")
        .start(3)
        .await;
    bulk(&cluster).await;
    cluster.settled().await;
    let urls: Vec<String> = cluster.nodes.iter().take(2).map(|node| node.url("")).collect();
    let traffic = Traffic::start(&urls);
    let pause = Duration::from_secs(4);
    tokio::time::sleep(Duration::from_secs(1)).await;

    let begun = Instant::now();
    tokio::time::sleep(pause).await;
    let usual = (begun, Instant::now());

    let begun = Instant::now();
    cluster.start_one("n4").await;
    cluster.formed().await;
    cluster.settled().await;
    let joined = (begun, Instant::now());
    tokio::time::sleep(Duration::from_secs(1)).await;

    let begun = Instant::now();
    cluster.nodes[2].kill().await;
    for index in [0, 1, 3] {
        cluster.nodes[index].sees(2).await;
    }
    cluster.settled().await;
    let crashed = (begun, Instant::now());
    tokio::time::sleep(Duration::from_secs(1)).await;

    let begun = Instant::now();
    let answer = Browser::new().post(&cluster.nodes[3], "/leave").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let left = (begun, Instant::now());
    let requests = traffic.stop().await;
    let (usual_p99, _) = p99(&requests, usual.0, usual.1);
    for (what, (from, to)) in [("usual", usual), ("join", joined), ("crash", crashed), ("leave", left)] {
        let (p99, count) = p99(&requests, from, to);
        let ratio = p99.as_secs_f64() / usual_p99.as_secs_f64();
        println!("{what}: {:?} long, {count} requests, p99 {p99:?}, {ratio:.1} x the usual", to - from);
    }
}
