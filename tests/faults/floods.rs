//! Strangers on the port where links are accepted: many, silent, slow and loud.

use std::time::Duration;

use cluster_tests::{Load, Pace, eventually, figure, p99};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Size, Story, processes};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    Story::both("floods::strangers_on_the_replication_port_change_nothing_for_members", size, strangers)
}

const LORISES: usize = 100;
const LOUD: usize = 4;
/// What more is forgiven on a machine that does other things, too.
const NOISE: Duration = Duration::from_millis(40);

async fn strangers(mode: &'static str, size: Size) {
    let idle = size.pick(500, 2_000);
    more_descriptors();
    let mut cluster = processes(mode).with("--ack=all").start(3).await;
    let load = Load::at(
        4,
        &cluster.nodes.iter().collect::<Vec<_>>(),
        Pace { rest: Duration::from_millis(4), value_bytes: None },
    );
    let time = size.pick(Duration::from_secs(2), Duration::from_secs(10));
    let usual_from = Instant::now();
    tokio::time::sleep(time).await;
    let usual_to = Instant::now();

    let target = &cluster.nodes[0];
    let mut strangers = JoinSet::new();
    for _ in 0..idle {
        strangers.spawn(silent(target.address.clone()));
    }
    eventually("the excess is refused", || async {
        (target.counter("handshakes_over_limit").await as usize > idle / 2).then_some(())
    })
    .await;
    let idle_from = Instant::now();
    tokio::time::sleep(time).await;
    let idle_to = Instant::now();
    for _ in 0..LORISES {
        strangers.spawn(loris(target.address.clone()));
    }
    for _ in 0..LOUD {
        strangers.spawn(loud(target.address.clone()));
    }
    let flood_from = Instant::now();
    tokio::time::sleep(time).await;
    let flood_to = Instant::now();
    // Who has the secret gets in all the same: the flooded node can dial it.
    let begun = Instant::now();
    cluster.start_one("n4").await;
    cluster.formed().await;
    let joined = begun.elapsed();
    strangers.shutdown().await;

    let mut users = load.stop().await;
    for user in &mut users {
        assert_eq!(user.retries(), 0, "{:?}", user.refusals());
        for node in &cluster.nodes {
            let missing = user.check(node).await;
            assert!(missing.is_empty(), "{missing:?}");
        }
    }
    let (usual, _) = p99(&users, usual_from, usual_to);
    let (beside_idle, idle_count) = p99(&users, idle_from, idle_to);
    let (during, count) = p99(&users, flood_from, flood_to);
    let times = |p99: Duration| p99.as_secs_f64() / usual.as_secs_f64();
    let dropped = cluster.drops().await;
    let target = &cluster.nodes[0];
    figure(
        &format!(
            "{idle} silent connections, then also {LORISES} slow and {LOUD} loud ones on the link port, {mode}"
        ),
        format!(
            "p99 of writes at level all {usual:.1?} without, {beside_idle:.1?} ({idle_count}) with the silent: {:.2} x, {during:.1?} \
             ({count}) with all: {:.2} x; {} refused at the door, {} cut off, \
             {dropped} members dropped, none failed; a node joined meanwhile in {joined:.1?}; {} MiB resident",
            times(beside_idle),
            times(during),
            target.counter("handshakes_over_limit").await,
            target.cause("handshake failed").await,
            target.resident_bytes() >> 20,
        ),
    );
    assert_eq!(dropped, 0);
    // On two cores the strangers' own work shows.
    let noise = size.pick(NOISE, Duration::ZERO);
    assert!(beside_idle <= 3 * usual / 2 + noise, "{beside_idle:?} against {usual:?}");
    assert!(during <= 3 * usual + noise, "{during:?} against {usual:?}");
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
async fn loris(to: String) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(&to).await {
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
async fn loud(to: String) {
    let garbage = vec![0x16; 64 << 10];
    loop {
        if let Ok(mut stream) = TcpStream::connect(&to).await {
            while stream.write_all(&garbage).await.is_ok() {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// This process needs one for each stranger.
fn more_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
