//! The balancers people run, before three nodes: each with its own program and the file in `deploy/`.
//!
//! Where a program is not installed, its stories show as ignored.

#![allow(clippy::unwrap_used)] // A test that can't go on says so and stops.

mod program;

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_tests::{Browser, Load, Processes, Signal, User};
use libtest_mimic::{Arguments, Trial};
use tokio::time::Instant;

use program::{Balancer, Kind};

/// Where a user's next request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// To the next node.
    RoundRobin,
    /// To the same node.
    Sticky,
}

const FILES: [(Kind, &str, Policy); 9] = [
    (Kind::Nginx, "nginx/round-robin.conf", Policy::RoundRobin),
    (Kind::Nginx, "nginx/ip-hash.conf", Policy::Sticky),
    (Kind::Nginx, "nginx/sticky.conf", Policy::Sticky),
    (Kind::HaProxy, "haproxy/round-robin.cfg", Policy::RoundRobin),
    (Kind::HaProxy, "haproxy/sticky.cfg", Policy::Sticky),
    (Kind::Apache, "apache/round-robin.conf", Policy::RoundRobin),
    (Kind::Apache, "apache/sticky.conf", Policy::Sticky),
    (Kind::Envoy, "envoy/round-robin.yaml", Policy::RoundRobin),
    (Kind::Envoy, "envoy/sticky.yaml", Policy::Sticky),
];

#[allow(clippy::print_stderr)]
fn main() {
    let mut trials = Vec::new();
    for (kind, file, policy) in FILES {
        let missing = kind.missing();
        if let Some(missing) = &missing {
            eprintln!("NOT TESTED with {file}: {missing}");
        }
        for mode in ["all-peers", "backup-only"] {
            let name = file.replace(['/', '.', '-'], "_");
            let told = move || {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                runtime.unwrap().block_on(three_nodes_behind(kind, file, policy, mode));
                Ok(())
            };
            let name = format!("{}::three_nodes_behind_{name}", mode.replace('-', "_"));
            trials.push(Trial::test(name, told).with_ignored_flag(missing.is_some()));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Balancing, failover, and every node restarted in turn under load: nobody notices.
async fn three_nodes_behind(kind: Kind, file: &str, policy: Policy, mode: &str) {
    // Health checks come every 500 ms: longer than two of them.
    let mut cluster = Processes::new(env!("CARGO_BIN_EXE_session-node-under-test"))
        .with(&format!("--mode={mode}"))
        .with("--ack=one")
        .with("--drain=1200ms")
        .start(3)
        .await;
    let balancer = Balancer::start(kind, file, &cluster).await;
    let url = &balancer.url;

    let mut browser = Browser::new();
    assert_eq!(browser.post_to(url, "/put?k=cart&v=tea").await.status, 200);
    let id = browser.id();
    let (served, last) = who_serves(&mut browser, url, 12).await;
    println!("{file}, {mode}: 12 requests of a user were served by {served:?}");
    match policy {
        Policy::RoundRobin => {
            assert!(served.len() == 3 && served.values().all(|count| *count >= 2), "{served:?}");
        }
        Policy::Sticky => assert_eq!(served.len(), 1),
    }

    // The node that served last dies.
    let index = cluster.nodes.iter().position(|node| node.name() == last).unwrap();
    cluster.nodes[index].kill().await;
    let begun = Instant::now();
    let (first, _) = who_serves(&mut browser, url, 5).await;
    println!("{file}, {mode}: after kill -9 of {last} 5 requests took {:?}, by {first:?}", begun.elapsed());
    // Until the others have dropped it, a holder for them, the route may name the dead node; and who answers first
    // after that may be no holder: the route that it sets is one's.
    cluster.formed().await;
    who_serves(&mut browser, url, 1).await;
    let (served, _) = who_serves(&mut browser, url, 5).await;
    assert!(!served.contains_key(&last) && !first.contains_key(&last), "{first:?} {served:?}");
    assert!(policy == Policy::RoundRobin || served.len() == 1, "sticky on the next one: {served:?}");
    assert_eq!(browser.get_from(url, "/get?k=cart").await.body, "tea");
    assert_eq!(browser.id(), id);
    cluster.restart(index).await;
    cluster.formed().await;

    let load = Load::through(6, url);
    for index in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await; // Requests in between, on all three.
        cluster.nodes[index].signal(Signal::TERM);
        assert!(cluster.nodes[index].ended().await.success());
        cluster.restart(index).await;
        cluster.formed().await;
    }
    let users = load.stop().await;
    let writes: usize = users.iter().map(|user| user.writes()).sum();
    let refused: Vec<&String> = users.iter().flat_map(|user| user.refusals()).collect();
    println!("{file}, {mode}: {writes} writes while all three restarted in turn, {} refused", refused.len());
    assert!(refused.is_empty(), "{:?}", &refused[..refused.len().min(5)]);
    assert!(writes > 100, "{writes}");
    nobody_lost_anything(&cluster, users).await;

    // In the midst of requests: all but httpd send again what a dead node had not answered.
    let load = Load::through(6, url);
    for index in 0..2 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.nodes[index].kill().await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        cluster.restart(index).await;
        cluster.formed().await;
    }
    let users = load.stop().await;
    let told: Vec<&String> = users.iter().flat_map(|user| user.refusals()).collect();
    // 504: kept, but the dead node was awaited in vain. That is an answer, and the node's own.
    let (late, refused): (Vec<&String>, Vec<&String>) =
        told.into_iter().partition(|said| said.starts_with("504 1 of 2"));
    println!(
        "{file}, {mode}: two nodes killed -9 under load, {} requests failed, {} writes missed their level",
        refused.len(),
        late.len()
    );
    // In the moment until the others have dropped a dead node, all may say 503 for a session that it held.
    let writes: usize = users.iter().map(|user| user.writes()).sum();
    let few = refused.len() <= writes / 1_000;
    assert!(kind == Kind::Apache || few, "of {writes}: {:?}", &refused[..refused.len().min(5)]);
    nobody_lost_anything(&cluster, users).await;
    assert_eq!(browser.get_from(url, "/get?k=cart").await.body, "tea");
    assert_eq!(browser.id(), id);
}

async fn nobody_lost_anything(cluster: &Processes, mut users: Vec<User>) {
    cluster.settled().await;
    for user in &mut users {
        let missing = user.check(&cluster.nodes[0]).await;
        assert!(missing.is_empty(), "{missing:?}");
    }
}

/// Who serves so many requests of a user in a row, and who the last; every one must see the session.
async fn who_serves(browser: &mut Browser, url: &str, requests: usize) -> (BTreeMap<String, usize>, String) {
    let (mut served, mut last) = (BTreeMap::new(), String::new());
    for _ in 0..requests {
        let answer = browser.get_from(url, "/session").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let shown: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(shown["attributes"]["cart"], "tea");
        let node = shown["node"].as_str().unwrap().to_owned();
        last.clone_from(&node);
        *served.entry(node).or_default() += 1;
    }
    (served, last)
}
