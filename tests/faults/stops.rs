//! A node that stands still under load (SIGSTOP), with more written meanwhile than every buffer for it holds.

use std::time::Duration;

use cluster_tests::{Browser, Load, NodeProcess, Pace, Processes, Signal, figure, p99};
use tokio::time::Instant;

use crate::{Size, Story, processes, usual_times};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    Story::both("stops::a_node_that_stands_still_harms_nobody_and_serves_nothing_old", size, stands_still)
}

const USERS: usize = 6;
const VALUE_BYTES: usize = 32 << 10;
/// Small, so that a second of writing is more than all that may wait: the outbox, as much of control frames, two passes.
const OUTBOX_BYTES: u64 = 2 << 20;
/// What a process may grow by, at its peak, when a peer stands still: what may wait for it, and as much for the allocator.
const GROWTH_BYTES: u64 = 8 * OUTBOX_BYTES;
/// What more than twice the usual is forgiven on a machine that does other things, too.
const NOISE: Duration = Duration::from_millis(40);

async fn stands_still(mode: &'static str, size: Size) {
    for seconds in size.pick(vec![1, 3], vec![1, 5, 60]) {
        for_so_long(mode, Duration::from_secs(seconds), size).await;
    }
}

async fn for_so_long(mode: &'static str, stop: Duration, size: Size) {
    // Shorter than the stop, and than the time that the load takes to begin.
    let idle = Duration::from_secs(4).max(stop / 3);
    let mut cluster = processes(mode)
        .with(&format!("--set=outbox_bytes={OUTBOX_BYTES}"))
        .with("--set=session_bytes=262144")
        .with("--set=frame_bytes=1MiB")
        .with(&format!("--idle={}ms", idle.as_millis()));
    if size == Size::Full {
        cluster = usual_times(cluster);
    }
    let cluster = cluster.start(3).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };

    let load =
        Load::at(USERS, &[a, b], Pace { rest: Duration::from_millis(4), value_bytes: Some(VALUE_BYTES) });
    // One that the stopped node holds and others go on with, one that is ended meanwhile, one that nobody uses.
    let mut used = Browser::held_by(a, c, "before").await;
    let mut ended = Browser::held_by(a, c, "before").await;
    let unused = Browser::held_by(a, c, "before").await;
    let usual_from = Instant::now();
    let mut round = 0;
    keep_using(&mut used, a, &mut round, size.pick(Duration::from_secs(2), Duration::from_secs(5))).await;
    let usual_to = Instant::now();
    let before = [a.forget_peak_bytes(), b.forget_peak_bytes()];
    let written = sum(&cluster, "commits", &[0, 1]).await;

    c.stop().await;
    let stopped = Instant::now();
    let mut most_waiting = 0;
    keep_using(&mut used, a, &mut round, stop / 4).await;
    for node in [a, b] {
        most_waiting = most_waiting.max(outbox_bytes(node, c.name()).await);
    }
    keep_using(&mut used, a, &mut round, stop / 4).await;
    let stolen = ended.clone();
    let logout = ended.post(b, "/logout").await;
    assert!(matches!(logout.status, 200 | 504), "{logout:?}");
    keep_using(&mut used, b, &mut round, stop.saturating_sub(stopped.elapsed())).await;
    let peaks = [a.peak_bytes(), b.peak_bytes()].into_iter().zip(before);
    let grown: Vec<u64> = peaks.map(|(peak, before)| peak.saturating_sub(before)).collect();
    let overflows = sum(&cluster, "outbox_overflows", &[0, 1]).await;
    let bytes = (sum(&cluster, "commits", &[0, 1]).await - written) * VALUE_BYTES as u64;
    // The oldest state that may be seen from now on.
    let current = round;

    c.signal(Signal::CONT);
    let woken = Instant::now();
    let (mut undecided, mut answers) = (0, 0);
    // From the first moment, and with nothing but the id.
    let (probe, dead) = (used.bare(), stolen.bare());
    let equal = loop {
        let said = probe.clone().get(c, "/get?k=k").await;
        answers += 1;
        match said.status {
            200 => assert!(
                said.body.parse::<usize>().unwrap() >= current,
                "served from before: {said:?}, not {current}"
            ),
            503 => undecided += 1,
            status => panic!("{status}: {}", said.body),
        }
        let gone = dead.clone().get(c, "/get?k=k").await;
        assert!(matches!(gone.status, 404 | 503), "a logout was undone: {gone:?}");
        if said.status == 200 && gone.status == 404 && is_settled(c).await {
            break woken.elapsed();
        }
        assert!(woken.elapsed() < Duration::from_secs(20), "not in 20 s: {said:?} {gone:?}");
    };
    cluster.formed().await;
    let mut users = load.stop().await;
    cluster.settled().await;
    for user in &mut users {
        let missing = user.check(c).await;
        assert!(missing.is_empty(), "{missing:?}");
    }
    // What others used is there, what nobody used is not.
    for node in [a, b, c] {
        assert!(probe.clone().value(node, "k").await.is_some(), "it was used on {}", node.name());
        if stop > idle {
            assert_eq!(unused.clone().get(node, "/get?k=k").await.status, 404);
        }
    }

    let (usual, usual_count) = p99(&users, usual_from..usual_to);
    let (during, count) = p99(&users, stopped..woken);
    figure(
        &format!("SIGSTOP for {} s, {mode}", stop.as_secs()),
        format!(
            "p99 of writes on the others {during:.1?} ({count}), fault-free {usual:.1?} ({usual_count}): {:.2} x; {} MiB written \
             meanwhile, {overflows} outboxes cut, {} KiB waiting in between, processes grew by {:?} MiB at their peak; woken: {undecided} of {answers} \
             answers undecided (503), none from before, equal after {equal:.0?}",
            during.as_secs_f64() / usual.as_secs_f64(),
            bytes >> 20,
            most_waiting >> 10,
            grown.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>(),
        ),
    );
    let noise = size.pick(NOISE, Duration::ZERO);
    assert!(during <= 2 * usual + noise, "{during:?} is more than twice {usual:?}");
    assert!(grown.iter().all(|grown| *grown <= GROWTH_BYTES), "{grown:?}");
    assert!(most_waiting <= 2 * OUTBOX_BYTES, "{most_waiting}");
    // In the quick size it is dropped before that much was written.
    assert!(size == Size::Quick || overflows > 0, "more was written than may wait");
}

/// Writes a number that grows, each 20 ms, for so long.
async fn keep_using(browser: &mut Browser, node: &NodeProcess, round: &mut usize, time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        let answer = browser.post(node, &format!("/put?k=k&v={}", *round + 1)).await;
        match answer.status {
            200 => *round += 1,
            // A visitor that has no answer yet from the holder that stands still.
            503 => {}
            status => panic!("{status}: {}", answer.body),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_settled(node: &NodeProcess) -> bool {
    let stats = node.json("/stats").await.unwrap();
    stats["placement"]["settled"].as_bool().unwrap() && stats["placement"]["ready"].as_u64() == Some(3)
}

async fn outbox_bytes(node: &NodeProcess, peer: &str) -> u64 {
    let stats = node.json("/stats").await.unwrap();
    let peers = stats["peers"].as_array().unwrap();
    peers.iter().filter(|one| one["name"] == peer).map(|one| one["outbox_bytes"].as_u64().unwrap()).sum()
}

async fn sum(cluster: &Processes, counter: &str, nodes: &[usize]) -> u64 {
    let mut sum = 0;
    for index in nodes {
        sum += cluster.nodes[*index].counter(counter).await;
    }
    sum
}
