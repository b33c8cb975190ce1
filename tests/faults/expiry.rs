//! Idle sessions: not too early, not too late, and each once.

use std::time::Duration;

use cluster_tests::{Browser, Signal, eventually, figure};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Size, Story, holders, processes};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    let used = "expiry::sessions_last_as_long_as_they_are_used_anywhere_and_end_once";
    let slept = "expiry::what_a_node_served_before_it_stood_still_lives_when_it_goes_on";
    let mut stories = Story::both(used, size, in_time_and_once);
    stories.extend(Story::both(slept, size, served_before_a_stop));
    stories
}

const IDLE: Duration = Duration::from_secs(3);
/// A tenth of it: the default.
const TOUCH_INTERVAL: Duration = Duration::from_millis(300);
const DROP_TIME: Duration = Duration::from_secs(1);
/// Until a count is asked for and answered.
const LOOK: Duration = Duration::from_millis(250);

async fn in_time_and_once(mode: &'static str, size: Size) {
    let cluster = processes(mode).with("--idle=3s").start(3).await;
    cluster.settled().await;
    let users = size.pick(20, 200);
    let begun = Instant::now();
    // Each reads for another time, on one node after the other; when its last read was sent, and answered.
    let mut readers = JoinSet::new();
    for number in 0..users {
        let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("")).collect();
        readers.spawn(async move {
            let mut browser = Browser::new();
            assert_eq!(browser.post_to(&urls[number % 3], "/put?k=k&v=v").await.status, 200);
            let until = IDLE + Duration::from_millis(4_000 * number as u64 / users as u64);
            let mut turn = number;
            loop {
                // Longer than touches are told, shorter than the limit.
                tokio::time::sleep(Duration::from_millis(350 + 7 * (turn as u64 * 31 % 100))).await;
                turn += 1;
                let sent = Instant::now();
                let answer = browser.get_from(&urls[turn % 3], "/get?k=k").await;
                assert_eq!((answer.status, &*answer.body), (200, "v"), "it was in use");
                if begun.elapsed() >= until {
                    return (sent, Instant::now());
                }
            }
        });
    }
    let mut last_reads = Vec::new();
    while let Some(reader) = readers.join_next().await {
        last_reads.push(reader.unwrap());
    }
    // Counts, because a look at a session is an access of it.
    let copies = holders(mode, 3) as u64;
    let (mut early, mut late) = (Duration::MAX, Duration::ZERO);
    loop {
        let asked = Instant::now();
        let counted = cluster.copies().await;
        let answered = Instant::now();
        let alive = last_reads.iter().filter(|(sent, _)| answered < *sent + IDLE).count() as u64;
        assert!(
            counted >= copies * alive,
            "{counted} copies though {alive} sessions are in use: one ended too early"
        );
        let latest = IDLE + TOUCH_INTERVAL + DROP_TIME + LOOK;
        let may_live = last_reads.iter().filter(|(_, answered)| asked < *answered + latest).count() as u64;
        assert!(
            counted <= copies * may_live,
            "{counted} copies though only {may_live} sessions may live: one ended too late"
        );
        // How near the bounds it comes.
        let live = counted.div_ceil(copies);
        let ended = users as u64 - live;
        let mut order: Vec<Instant> = last_reads.iter().map(|(_, answered)| *answered).collect();
        order.sort_unstable();
        if ended > 0 {
            early = early.min(answered - order[usize::try_from(ended).unwrap() - 1]);
        }
        if live > 0 {
            late = late.max(asked - order[usize::try_from(ended).unwrap()]);
        }
        if counted == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let expired = eventually("all ends are counted", || async {
        let expired = cluster.sum("expired").await;
        (expired >= users as u64).then_some(expired)
    })
    .await;
    // Whoever would announce one again has by then.
    tokio::time::sleep(DROP_TIME).await;
    assert_eq!(cluster.sum("expired").await, users as u64, "each is announced once in the cluster");
    figure(
        &format!("idle limit 3 s, reads on all nodes, {mode}"),
        format!(
            "{users} sessions: the first to end was unused for {early:.2?} or less, the last for {late:.2?} or more (at most {:?} promised); \
             {expired} ends announced",
            IDLE + TOUCH_INTERVAL + DROP_TIME
        ),
    );
}

/// The last access is younger than what others are told of, so that they let the session end: its node knows better.
async fn served_before_a_stop(mode: &'static str, _: Size) {
    let (idle, untold) = (Duration::from_secs(8), Duration::from_millis(2_500));
    let cluster = processes(mode).with("--idle=8s").with("--set=touch_interval=4s").start(2).await;
    cluster.settled().await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let mut browser = Browser::new();
    browser.put(a, "k", "v").await;
    tokio::time::sleep(untold).await;
    let read = Instant::now();
    assert_eq!(browser.get(a, "/get?k=k").await.status, 200);
    a.stop().await;
    eventually("the other lets it end", || async { (b.counter("expired").await == 1).then_some(()) }).await;
    a.signal(Signal::CONT);
    let answer = eventually("it knows what it may serve", || async {
        let answer = browser.bare().get(a, "/get?k=k").await;
        (answer.status != 503).then_some(answer)
    })
    .await;
    assert!(read.elapsed() < idle, "the machine is too slow for this story: {:?}", read.elapsed());
    assert_eq!((answer.status, &*answer.body), (200, "v"), "read {:?} ago", read.elapsed());
    eventually("the other hears of it", || async {
        (browser.bare().get(b, "/get?k=k").await.status == 200).then_some(())
    })
    .await;
}
