//! Many that start at once, and one that starts when all its seeds are dead.

use std::time::Duration;

use cluster_tests::{Browser, Processes, eventually, figure};
use tokio::time::Instant;

use crate::{Size, Story, holders, processes, usual_times};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    [
        Story::both("joins::eight_that_start_in_the_same_moment_are_one_cluster", size, eight_found),
        Story::both("joins::eight_that_join_in_the_same_moment_are_filled", size, eight_join),
        Story::both(
            "joins::a_seed_that_comes_back_while_all_seeds_are_dead_finds_the_cluster",
            size,
            seeds_dead,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn names(from: usize, count: usize) -> Vec<String> {
    (from..from + count).map(|n| format!("n{n}")).collect()
}

/// Until each sees all others, and until all are ready.
async fn formed(cluster: &Processes, begun: Instant) -> (Duration, Duration) {
    let others = cluster.nodes.len() - 1;
    for node in &cluster.nodes {
        eventually(&format!("{} sees all", node.name()), || async {
            (node.json("/members").await?.as_array()?.len() == others).then_some(())
        })
        .await;
    }
    let seen = begun.elapsed();
    cluster.formed().await;
    (seen, begun.elapsed())
}

async fn eight_found(mode: &'static str, _size: Size) {
    // As it is when nothing is set: two seconds of listening are in it.
    let mut cluster = usual_times(processes(mode));
    let begun = Instant::now();
    cluster.start_together(&names(1, 8)).await;
    let started = begun.elapsed();
    let (seen, ready) = formed(&cluster, begun).await;
    figure(
        &format!("8 nodes start at once, {mode}"),
        format!(
            "processes up after {started:.1?}, one view after {seen:.1?}, all ready after {ready:.1?} (join_wait 2 s)"
        ),
    );
    assert!(seen <= Duration::from_secs(2) + started, "{seen:?}");
    assert!(ready <= Duration::from_secs(5), "{ready:?}");
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[0], "k", "v").await;
    for node in &cluster.nodes {
        assert_eq!(browser.value(node, "k").await.as_deref(), Some("v"));
    }
}

async fn eight_join(mode: &'static str, size: Size) {
    let sessions: u64 = size.pick(2_000, 20_000);
    let mut cluster = usual_times(processes(mode)).start(1).await;
    Browser::new().post(&cluster.nodes[0], &format!("/bulk?n={sessions}&attrs=4&bytes=100")).await;
    let begun = Instant::now();
    cluster.start_together(&names(2, 8)).await;
    let (seen, ready) = formed(&cluster, begun).await;
    cluster.settled().await;
    let settled = begun.elapsed();
    figure(
        &format!("8 nodes join one with {sessions} sessions at once, {mode}"),
        format!("one view after {seen:.1?}, all ready after {ready:.1?}, all compared after {settled:.1?}"),
    );
    assert!(seen <= Duration::from_secs(2), "{seen:?}");
    assert!(ready <= size.pick(Duration::from_secs(5), Duration::from_secs(15)), "{ready:?}");
    let copies = holders(mode, 9) as u64 * sessions;
    eventually("each is where it belongs", || async { (cluster.copies().await == copies).then_some(()) })
        .await;
}

/// Members have told each other of members: the cluster lives on without its seeds, and knows where they were.
async fn seeds_dead(mode: &'static str, _size: Size) {
    let mut cluster = usual_times(processes(mode)).by_seeds().start(2).await;
    // From now on all are told of these two only.
    let seeds = cluster.nodes.iter().map(|node| node.address.clone()).collect();
    cluster.tell_seeds(seeds);
    for name in ["n3", "n4"] {
        cluster.start_one(name).await;
    }
    cluster.formed().await;
    cluster.settled().await;
    let mut browser = Browser::held_by(&cluster.nodes[2], &cluster.nodes[3], "v").await;
    for index in [0, 1] {
        cluster.nodes[index].kill().await;
    }
    for index in [2, 3] {
        cluster.nodes[index].sees(1).await;
    }
    assert_eq!(browser.value(&cluster.nodes[3], "k").await.as_deref(), Some("v"));
    // All that it is told are itself and one that is dead. It listens for 2 s before it founds a cluster.
    let begun = Instant::now();
    cluster.restart(0).await;
    cluster.formed().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "it has not founded a cluster of its own: {took:?}");
    assert_eq!(browser.value(&cluster.nodes[0], "k").await.as_deref(), Some("v"));
    figure(
        &format!("a seed starts while all seeds are dead, {mode}"),
        format!("joined the cluster after {took:.1?}"),
    );
}
