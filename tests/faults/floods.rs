//! Strangers on the port where links are accepted: many, silent, slow and loud.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster_tests::{Load, Pace, eventually, figure, p99};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Size, Story, median, processes};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    Story::both("floods::strangers_on_the_replication_port_change_nothing_for_members", size, strangers)
}

const LORISES: usize = 100;
const LOUD: usize = 4;
/// What more is forgiven on a machine that does other things, too.
const NOISE: Duration = Duration::from_millis(40);

async fn strangers(mode: &'static str, size: Size) {
    let idle = size.pick(500, 2_000);
    let rounds = size.pick(1, 7);
    more_descriptors();
    let mut cluster = processes(mode).with("--ack=all").start(3).await;
    let load = Load::at(
        4,
        &cluster.nodes.iter().collect::<Vec<_>>(),
        Pace { rest: Duration::from_millis(4), value_bytes: None },
    );

    let target = &cluster.nodes[0];
    let elsewhere = elsewhere();
    let mut strangers = JoinSet::new();
    let mut windows = Vec::new();
    // In turn, so that what else the machine does falls on all three alike.
    for _ in 0..rounds {
        strangers.shutdown().await;
        let usual = a_while().await;
        let refused = target.counter("handshakes_over_limit").await;
        for _ in 0..idle {
            strangers.spawn_on(silent(target.address.clone()), elsewhere.handle());
        }
        eventually("the excess is refused", || async {
            let refused = target.counter("handshakes_over_limit").await - refused;
            (refused as usize > idle / 2).then_some(())
        })
        .await;
        let beside_silent = a_while().await;
        let at_work = Arc::new(AtomicUsize::new(0));
        for _ in 0..LORISES {
            strangers.spawn_on(loris(target.address.clone(), at_work.clone()), elsewhere.handle());
        }
        for _ in 0..LOUD {
            strangers.spawn_on(loud(target.address.clone(), at_work.clone()), elsewhere.handle());
        }
        eventually("the slow and the loud are at work", || async {
            (at_work.load(Ordering::Relaxed) >= LORISES + LOUD).then_some(())
        })
        .await;
        windows.push([usual, beside_silent, a_while().await]);
    }
    // Who has the secret gets in all the same: the flooded node can dial it.
    let begun = Instant::now();
    cluster.start_one("n4").await;
    cluster.formed().await;
    let joined = begun.elapsed();
    strangers.shutdown().await;
    elsewhere.shutdown_background();

    let mut users = load.stop().await;
    for user in &mut users {
        assert_eq!(user.retries(), 0, "{:?}", user.refusals());
        for node in &cluster.nodes {
            let missing = user.check(node).await;
            assert!(missing.is_empty(), "{missing:?}");
        }
    }
    let [usual, beside_silent, beside_all] = std::array::from_fn(|which| {
        let p99s = windows.iter().map(|of_round| p99(&users, of_round[which].clone()).0.as_secs_f64());
        Duration::from_secs_f64(median(&p99s.collect::<Vec<_>>()))
    });
    let writes: usize = windows.iter().flatten().map(|window| p99(&users, window.clone()).1).sum();
    let times = |p99: Duration| p99.as_secs_f64() / usual.as_secs_f64();
    let dropped = cluster.drops().await;
    let target = &cluster.nodes[0];
    figure(
        &format!(
            "{idle} silent connections, then also {LORISES} slow and {LOUD} loud ones on the link port, {mode}"
        ),
        format!(
            "p99 of writes at level all, medians of {rounds} x 2 s each in turn, {writes} writes: {usual:.1?} without, \
             {beside_silent:.1?} with the silent: {:.2} x, {beside_all:.1?} with all: {:.2} x; \
             {} refused at the door, {} cut off, \
             {dropped} members dropped, none failed; a node joined meanwhile in {joined:.1?}; {} MiB resident",
            times(beside_silent),
            times(beside_all),
            target.counter("handshakes_over_limit").await,
            target.cause("handshake failed").await,
            target.resident_bytes() >> 20,
        ),
    );
    assert_eq!(dropped, 0);
    // On two cores what the kernel does for strangers shows.
    let noise = size.pick(NOISE, Duration::ZERO);
    assert!(beside_silent <= 3 * usual / 2 + noise, "{beside_silent:?} against {usual:?}");
    assert!(beside_all <= 3 * usual + noise, "{beside_all:?} against {usual:?}");
}

/// Time in which users' requests are counted.
async fn a_while() -> Range<Instant> {
    let from = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    from..Instant::now()
}

/// Says nothing; comes back a second after it is cut off: two thousand of them are up to two thousand connections a second.
async fn silent(to: String) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(&to).await {
            let _ = stream.read(&mut [0; 64]).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A byte of what could be a greeting each tenth of a second.
async fn loris(to: String, at_work: Arc<AtomicUsize>) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(&to).await {
            at_work.fetch_add(1, Ordering::Relaxed);
            for byte in b"SML1".iter().chain(std::iter::repeat_n(&0, 200)) {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// As many bytes as it takes.
async fn loud(to: String, at_work: Arc<AtomicUsize>) {
    let garbage = vec![0x16; 64 << 10];
    loop {
        if let Ok(mut stream) = TcpStream::connect(&to).await {
            at_work.fetch_add(1, Ordering::Relaxed);
            while stream.write_all(&garbage).await.is_ok() {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Stands for other machines: what strangers spend themselves yields to nodes and to the users whose requests are timed.
fn elsewhere() -> Runtime {
    // On Linux the priority is the calling thread's.
    let yields = || setpriority_process(None, 19).unwrap();
    Builder::new_multi_thread().worker_threads(1).on_thread_start(yields).enable_all().build().unwrap()
}

/// This process needs one for each stranger.
fn more_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
