//! Scenarios of Tomcat's own tests, and of what it never tested; `docs/tomcat.md` lists all of them and where
//! they are here.

use std::time::Duration;

use cluster_tests::{Net, eventually, in_both_modes};
use sessionmesh::{AckLevel, Cluster, CommitError, Event, MemberState};
use tokio::time::Instant;

in_both_modes! {
    ten_nodes_that_start_together_each_see_nine_others_within_five_seconds
    a_node_that_stops_starts_again_in_the_same_place_and_again
    values_of_all_sizes_arrive_unchanged
    of_values_written_by_twenty_at_once_none_is_lost_or_mixed_up
    a_write_in_an_event_listener_and_one_in_progress_do_not_block_each_other
    sessions_that_are_ended_as_they_expire_end_once
    a_changed_id_that_is_changed_again_at_once_is_one_session_in_the_end
}

/// `TestGroupChannelMemberArrival`.
async fn ten_nodes_that_start_together_each_see_nine_others_within_five_seconds(mode: &str) {
    let net = Net::multicast().with("mode", mode);
    let begun = Instant::now();
    let mut nodes = Vec::new();
    for n in 1..=10 {
        nodes.push(net.node(&format!("n{n}")).await);
    }
    for node in &nodes {
        eventually("nine others are ready", || async { (ready_members(node).await == 9).then_some(()) })
            .await;
    }
    println!("{mode}: 10 nodes see each other, all ready, after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

async fn ready_members(node: &Cluster) -> usize {
    node.members().await.iter().filter(|member| member.state == MemberState::Ready).count()
}

/// `TestDomainFilterInterceptor`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_nodes_of_ten_clusters_on_one_group_see_nobody() {
    let mut nodes = Vec::new();
    for _ in 0..10 {
        nodes.push(Net::multicast().node("n1").await);
    }
    for node in &nodes {
        node.ready().await.unwrap();
        eventually("it has heard the others", || async {
            (node.stats().causes.iter().any(|(cause, count)| cause.contains("other cluster") && *count >= 9))
                .then_some(())
        })
        .await;
        assert!(node.members().await.is_empty());
    }
}

/// `TestGroupChannelStartStop`.
async fn a_node_that_stops_starts_again_in_the_same_place_and_again(mode: &str) {
    let net = Net::multicast().with("mode", mode);
    let nodes = net.start(2).await;
    let id = nodes[0].at(AckLevel::All).create(|s| _ = s.set("k", "v")).await.unwrap().id;
    let mut stopping = nodes[1].clone();
    for _ in 0..3 {
        let address = stopping.address();
        stopping.leave().await.unwrap();
        // A second time is no error.
        stopping.leave().await.unwrap();
        let mut config = net.config("n2");
        config.bind(address);
        stopping = Cluster::start(config).await.unwrap();
        stopping.ready().await.unwrap();
        assert_eq!(stopping.address(), address);
        assert!(stopping.sessions().load(&id).await.unwrap().is_some());
    }
}

/// `TestGzipInterceptor`'s sizes, `TestGroupChannelSenderConnections`' large messages, and fragmentation, which is
/// never tested there.
async fn values_of_all_sizes_arrive_unchanged(mode: &str) {
    let net = Net::seeds().with("mode", mode).with("session_bytes", "2MiB");
    let nodes = net.start(3).await;
    let sizes = [0, 1, 1_024, 2_047, 2_048, 2_049, 4_096, 8_192, 21_480, 65_535, 65_536, 1_000_000];
    for (round, size) in sizes.into_iter().enumerate() {
        // No two are alike, so that one in another's place shows.
        let value: Vec<u8> = (0..size).map(|byte| (byte * 31 + round * 7) as u8).collect();
        let (first, second) = (&nodes[round % 3], &nodes[(round + 1) % 3]);
        let created = first.at(AckLevel::All).create(|s| _ = s.set("created", value.clone())).await;
        let id = created.unwrap().id;
        second.at(AckLevel::All).set(&id, "written", value.clone()).await.unwrap();
        for node in &nodes {
            let session = node.sessions().load(&id).await.unwrap().unwrap();
            for name in ["created", "written"] {
                assert!(session.get(name).unwrap()[..] == value[..], "{name}, {size} bytes");
            }
        }
    }
}

/// `TestDataIntegrity`: twenty threads, payloads whose every byte says whose they are.
async fn of_values_written_by_twenty_at_once_none_is_lost_or_mixed_up(mode: &str) {
    let net = Net::seeds().with("mode", mode);
    let nodes = net.start(3).await;
    for (level, writes) in [(AckLevel::Async, 500), (AckLevel::One, 100), (AckLevel::All, 100)] {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..20u8 {
            let sessions = nodes[usize::from(writer) % 3].at(level);
            writers.spawn(async move {
                let id = sessions.create(|_| {}).await.unwrap().id;
                for write in 0..writes {
                    let size = (usize::from(writer) * 131 + write * 17) % 4_096;
                    sessions.set(&id, &format!("k{}", write % 8), vec![writer; size]).await.unwrap();
                }
                (writer, id)
            });
        }
        while let Some(written) = writers.join_next().await {
            let (writer, id) = written.unwrap();
            for node in &nodes {
                eventually("all eight attributes are there as they were written last", || async {
                    let session = node.sessions().load(&id).await.unwrap()?;
                    for (name, value) in session.iter() {
                        assert!(value.iter().all(|byte| *byte == writer), "{name} of {writer} at {level:?}");
                    }
                    let last = |key: usize| {
                        let write = (0..writes).rev().find(|write| write % 8 == key).unwrap();
                        (usize::from(writer) * 131 + write * 17) % 4_096
                    };
                    let sizes = (0..8).map(|key| session.get(&format!("k{key}")).map(|value| value.len()));
                    sizes.enumerate().all(|(key, size)| size == Some(last(key))).then_some(())
                })
                .await;
            }
        }
    }
}

/// `TestDeltaSession`: there a listener that writes while another thread writes has been a dead-lock.
async fn a_write_in_an_event_listener_and_one_in_progress_do_not_block_each_other(mode: &str) {
    let net = Net::seeds().with("mode", mode);
    let nodes = net.start(2).await;
    let log = nodes[0].at(AckLevel::All).create(|_| {}).await.unwrap().id;
    // An end is told on one node, whichever.
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    for node in &nodes {
        let (mut events, node, tell) = (node.events(), node.clone(), tell.clone());
        tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                let Event::SessionDestroyed { id, .. } = event else { continue };
                let again = node.at(AckLevel::All).set(&id, "late", "1").await;
                assert!(matches!(again, Err(CommitError::NotFound | CommitError::Ended)), "{again:?}");
                node.at(AckLevel::All).set(&log, &format!("{id:?}"), "1").await.unwrap();
                tell.send(()).await.unwrap();
            }
        });
    }
    for _ in 0..50 {
        let id = nodes[0].at(AckLevel::All).create(|_| {}).await.unwrap().id;
        let writer = nodes[0].at(AckLevel::All);
        let writing =
            tokio::spawn(async move { while writer.update(&id, |s| _ = s.set("k", "v")).await.is_ok() {} });
        nodes[0].at(AckLevel::All).destroy(&id).await.unwrap();
        writing.await.unwrap();
    }
    let all_told = async {
        for _ in 0..50 {
            told.recv().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_told).await.expect("no dead-lock");
    let session = nodes[1].sessions().load(&log).await.unwrap().unwrap();
    assert_eq!(session.iter().count(), 50);
}

/// `TestStandardSession`'s races of expiry, over two nodes.
async fn sessions_that_are_ended_as_they_expire_end_once(mode: &str) {
    let net = Net::seeds().with("mode", mode).with("idle", "1s");
    let nodes = net.start(2).await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(nodes[0].at(AckLevel::All).create(|_| {}).await.unwrap().id);
    }
    // About when they expire: some are ended by their user, some by idleness, some by both.
    tokio::time::sleep(Duration::from_millis(950)).await;
    for (n, id) in ids.iter().enumerate() {
        let _ = nodes[n % 2].at(AckLevel::All).destroy(id).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let told = || -> u64 {
        let counts = nodes.iter().map(|node| node.stats().counts);
        counts.map(|counts| counts.destroyed + counts.expired).sum()
    };
    eventually("every end is told", || async { (told() >= 100).then_some(()) }).await;
    eventually("no session is left", || async {
        (nodes.iter().all(|node| node.session_count() == 0)).then_some(())
    })
    .await;
    assert_eq!(told(), 100, "each once in the cluster");
}

/// The order of changes of id, which is never tested there.
async fn a_changed_id_that_is_changed_again_at_once_is_one_session_in_the_end(mode: &str) {
    let net = Net::seeds().with("mode", mode);
    let nodes = net.start(3).await;
    let mut id = nodes[0].at(AckLevel::All).create(|s| _ = s.set("k", "v")).await.unwrap().id;
    let mut former = Vec::new();
    for round in 0..30 {
        former.push(id);
        id = nodes[round % 3].at(AckLevel::One).change_id(&id).await.unwrap().id;
    }
    for node in &nodes {
        let session = node.sessions().load(&id).await.unwrap().expect("the last is there");
        assert_eq!(session.get("k"), Some(&b"v"[..]));
        for old in &former {
            // One other node has heard of each end at once, the third a moment later.
            eventually("the former id is dead", || async {
                node.sessions().load(old).await.unwrap().is_none().then_some(())
            })
            .await;
        }
    }
}
