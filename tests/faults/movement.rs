//! How requests fare while many sessions move.

use std::time::Duration;

use cluster_tests::{Browser, Load, Pace, Processes, figure, p99, within};
use tokio::time::Instant;

use crate::{Size, Story, processes};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    Story::one("movement::requests_while_a_third_of_all_sessions_moves", size, requests_while_sessions_move)
}

const USERS: usize = 8;

async fn bulk(cluster: &Processes, sessions: u64) {
    let share = sessions / 3;
    for node in &cluster.nodes {
        let answer = Browser::new().post(node, &format!("/bulk?n={share}&attrs=4&bytes=100")).await;
        assert_eq!(answer.status, 200);
    }
    within(Duration::from_secs(60), "every session has its copies", || async {
        (cluster.copies().await >= 2 * 3 * share).then_some(())
    })
    .await;
}

async fn requests_while_sessions_move(size: Size) {
    let mut cluster = processes("backup-only")
        .with("--ack=one")
        .with("--set=fetch_timeout=50ms")
        .with("--set=drop_time=3s")
        .start(3)
        .await;
    let sessions = size.pick(3_000, 100_000);
    bulk(&cluster, sessions).await;
    cluster.settled().await;
    let nodes = [&cluster.nodes[0], &cluster.nodes[1]];
    let load = Load::at(USERS, &nodes, Pace { rest: Duration::from_millis(4), value_bytes: None });
    let pause = size.pick(Duration::from_secs(1), Duration::from_secs(4));
    tokio::time::sleep(pause / 2).await;

    let begun = Instant::now();
    tokio::time::sleep(pause).await;
    let usual = (begun, Instant::now());

    let begun = Instant::now();
    cluster.start_one("n4").await;
    cluster.formed().await;
    cluster.settled().await;
    let joined = (begun, Instant::now());
    tokio::time::sleep(pause / 4).await;

    let begun = Instant::now();
    cluster.nodes[2].kill().await;
    for index in [0, 1, 3] {
        cluster.nodes[index].sees(2).await;
    }
    cluster.settled().await;
    let crashed = (begun, Instant::now());
    tokio::time::sleep(pause / 4).await;

    let begun = Instant::now();
    let answer = Browser::new().post(&cluster.nodes[3], "/leave").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let left = (begun, Instant::now());
    let mut users = load.stop().await;
    for user in &mut users {
        let missing = user.check(&cluster.nodes[0]).await;
        assert!(missing.is_empty(), "{missing:?}");
    }
    let (usual_p99, _) = p99(&users, usual.0..usual.1);
    for (what, (from, to)) in [("usual", usual), ("join", joined), ("crash", crashed), ("leave", left)] {
        let (p99, count) = p99(&users, from..to);
        let ratio = p99.as_secs_f64() / usual_p99.as_secs_f64();
        figure(
            &format!("{sessions} sessions, backup-only, {what}"),
            format!("{:.1?} long, {count} writes, p99 {p99:.1?}, {ratio:.1} x the usual", to - from),
        );
    }
    let refused: usize = users.iter().map(cluster_tests::User::retries).sum();
    figure(
        &format!("{sessions} sessions, backup-only, all of it"),
        format!("{refused} writes had to be sent again"),
    );
}
