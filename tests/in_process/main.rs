//! Clusters of several nodes in one process, on loopback.

#![allow(clippy::unwrap_used)] // A test that can't go on says so and stops.

mod limits;
mod tomcat;

use std::time::Duration;

use cluster_tests::{Net, eventually, in_both_modes};
use sessionmesh::{AckLevel, Change, CommitError, Event};

in_both_modes! {
    three_nodes_find_each_other_by_multicast_and_hold_the_same_sessions
    a_node_that_joins_later_has_every_session_when_it_is_ready
    a_leaving_node_loses_nothing_and_is_gone_at_once
    a_destroyed_session_stays_destroyed_on_every_node
    a_change_of_what_has_ended_elsewhere_is_refused_on_every_node
    a_changed_id_takes_everything_along_and_kills_the_old_one
    parallel_writes_of_different_attributes_on_different_nodes_all_survive
    an_idle_session_ends_once_and_not_while_any_node_uses_it
    a_node_that_leaves_while_another_joins_hands_everything_over_first
    a_change_of_id_that_meets_a_logout_leaves_no_session
}

async fn three_nodes_find_each_other_by_multicast_and_hold_the_same_sessions(mode: &str) {
    let net = Net::multicast().with("mode", mode);
    let nodes = net.start(3).await;
    let created = nodes[0].at(AckLevel::All).create(|s| _ = s.set("user", "ada")).await.unwrap();
    let holders = if mode == "all-peers" { 3 } else { 2 };
    assert_eq!((created.outcome.have, created.outcome.want), (holders, holders));
    for node in &nodes {
        let session = node.sessions().load(&created.id).await.unwrap().expect("the session is on every node");
        assert_eq!(session.get("user"), Some(&b"ada"[..]));
    }
}

#[tokio::test]
async fn a_current_thread_runtime_and_seeds_do_as_well() {
    let net = Net::seeds();
    let nodes = net.start(2).await;
    let id = nodes[0].at(AckLevel::One).create(|s| _ = s.set("a", "1")).await.unwrap().id;
    nodes[1].at(AckLevel::One).set(&id, "b", "2").await.unwrap();
    let session = nodes[0].sessions().load(&id).await.unwrap().unwrap();
    assert_eq!(session.iter().count(), 2);
}

async fn a_node_that_joins_later_has_every_session_when_it_is_ready(mode: &str) {
    let net = Net::seeds().with("mode", mode);
    let first = net.node("n1").await;
    first.ready().await.unwrap();
    let mut ids = Vec::new();
    for n in 0..500 {
        ids.push(first.sessions().create(|s| _ = s.set("n", format!("{n}"))).await.unwrap().id);
    }
    first.sessions().destroy(&ids[0]).await.unwrap();
    let second = net.node("n2").await;
    second.ready().await.unwrap();
    assert_eq!(second.session_count(), 499);
    assert!(second.sessions().load(&ids[0]).await.unwrap().is_none());
    assert!(second.sessions().load(&ids[499]).await.unwrap().is_some());
}

async fn a_leaving_node_loses_nothing_and_is_gone_at_once(mode: &str) {
    let net = Net::seeds().with("mode", mode);
    let nodes = net.start(3).await;
    let mut ids = Vec::new();
    for n in 0..200 {
        ids.push(nodes[0].sessions().create(|s| _ = s.set("n", format!("{n}"))).await.unwrap().id);
    }
    nodes[0].leave().await.unwrap();
    assert_eq!(nodes[1].members().await.len(), 1);
    for id in &ids {
        assert!(nodes[1].sessions().load(id).await.unwrap().is_some());
        assert!(nodes[2].sessions().load(id).await.unwrap().is_some());
    }
    assert!(nodes[0].sessions().load(&ids[0]).await.is_err());
}

/// A visitor's copy hears of no end: only the holders are told.
async fn a_change_of_what_has_ended_elsewhere_is_refused_on_every_node(mode: &str) {
    let net = Net::seeds().with("mode", mode);
    let nodes = net.start(4).await;
    let id = nodes[0].at(AckLevel::All).create(|s| _ = s.set("user", "ada")).await.unwrap().id;
    for node in &nodes {
        assert!(node.sessions().load(&id).await.unwrap().is_some());
        assert!(!node.sessions().is_over(&id).await);
    }
    nodes[1].at(AckLevel::All).destroy(&id).await.unwrap();
    for node in &nodes {
        let change = Change { attributes: vec![("late".into(), Some("1".into()))], limits: None };
        let late = node.at(AckLevel::One).apply(&id, change).await;
        assert!(matches!(late, Err(CommitError::Ended | CommitError::NotFound)), "{late:?}");
        assert!(node.sessions().is_over(&id).await);
    }
}

async fn a_destroyed_session_stays_destroyed_on_every_node(mode: &str) {
    let net = Net::seeds().with("mode", mode);
    let nodes = net.start(3).await;
    let mut events = nodes[2].events();
    let id = nodes[0].at(AckLevel::All).create(|s| _ = s.set("a", "1")).await.unwrap().id;
    nodes[1].at(AckLevel::All).destroy(&id).await.unwrap();
    for node in &nodes {
        assert!(node.sessions().load(&id).await.unwrap().is_none());
        assert!(matches!(node.sessions().set(&id, "a", "2").await, Err(CommitError::NotFound)));
    }
    let ended: u64 = eventually("the end is told", || async {
        let ended: u64 = nodes.iter().map(|node| node.stats().counts.destroyed).sum();
        (ended > 0).then_some(ended)
    })
    .await;
    assert_eq!(ended, 1, "once in the cluster");
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::SessionCreated { .. }));
    }
}

async fn a_changed_id_takes_everything_along_and_kills_the_old_one(mode: &str) {
    let net = Net::seeds().with("mode", mode);
    let nodes = net.start(2).await;
    let old = nodes[0].at(AckLevel::All).create(|s| _ = s.set("cart", "tea")).await.unwrap().id;
    let new = nodes[1].at(AckLevel::All).change_id(&old).await.unwrap().id;
    assert_ne!(old, new);
    for node in &nodes {
        assert!(node.sessions().load(&old).await.unwrap().is_none());
        let session = node.sessions().load(&new).await.unwrap().unwrap();
        assert_eq!(session.get("cart"), Some(&b"tea"[..]));
        assert_eq!(node.stats().counts.destroyed, 0, "a change of id is no end");
    }
}

async fn parallel_writes_of_different_attributes_on_different_nodes_all_survive(mode: &str) {
    let net = Net::seeds().with("mode", mode);
    let nodes = net.start(3).await;
    let id = nodes[0].at(AckLevel::All).create(|_| {}).await.unwrap().id;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..30 {
        let sessions = nodes[writer % 3].at(AckLevel::All);
        writers.spawn(async move { sessions.set(&id, &format!("k{writer}"), format!("v{writer}")).await });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap().unwrap();
    }
    for node in &nodes {
        eventually("all attributes are there", || async {
            let session = node.sessions().load(&id).await.unwrap().unwrap();
            (session.iter().count() == 30).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn read_modify_writes_on_one_node_lose_nothing() {
    let net = Net::seeds();
    let nodes = net.start(1).await;
    let id = nodes[0].sessions().create(|_| {}).await.unwrap().id;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let sessions = nodes[0].sessions();
        writers.spawn(async move {
            sessions
                .update(&id, |s| {
                    let count: u32 = s.get_json("count").unwrap().unwrap_or(0);
                    s.set_json("count", &(count + 1)).unwrap();
                })
                .await
        });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap().unwrap();
    }
    let session = nodes[0].sessions().load(&id).await.unwrap().unwrap();
    assert_eq!(session.get_json::<u32>("count").unwrap(), Some(50));
}

async fn an_idle_session_ends_once_and_not_while_any_node_uses_it(mode: &str) {
    let net = Net::seeds().with("mode", mode).with("idle", "1s");
    let nodes = net.start(3).await;
    let used = nodes[0].at(AckLevel::All).create(|_| {}).await.unwrap().id;
    let unused = nodes[0].at(AckLevel::All).create(|_| {}).await.unwrap().id;
    for round in 0..15 {
        assert!(nodes[round % 3].sessions().load(&used).await.unwrap().is_some(), "round {round}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for node in &nodes {
        assert!(node.sessions().load(&unused).await.unwrap().is_none());
    }
    let expired = || nodes.iter().map(|node| node.stats().counts.expired).sum::<u64>();
    eventually("its end is told", || async { (expired() > 0).then_some(()) }).await;
    assert_eq!(expired(), 1);
}

#[tokio::test]
async fn alone_a_write_is_answered_one_of_one_or_refused() {
    let net = Net::seeds();
    let node = net.start(1).await.remove(0);
    let created = node.at(AckLevel::All).create(|_| {}).await.unwrap();
    assert_eq!((created.outcome.have, created.outcome.want), (1, 1));
    assert_eq!(node.stats().counts.alone, 1);

    let net = Net::seeds().with("alone", "refuse");
    let node = net.start(1).await.remove(0);
    assert!(matches!(node.at(AckLevel::One).create(|_| {}).await, Err(CommitError::Alone)));
    assert!(node.at(AckLevel::Async).create(|_| {}).await.is_ok());
}

async fn a_node_that_leaves_while_another_joins_hands_everything_over_first(mode: &str) {
    let net = Net::seeds().with("mode", mode);
    let first = net.start(1).await.remove(0);
    for n in 0..20_000 {
        let value = vec![b'x'; 200];
        first.sessions().create(|s| _ = s.set("v", value)).await.unwrap();
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let second = net.node("n2").await;
    eventually("the joiner is a member", || async { (!first.members().await.is_empty()).then_some(()) })
        .await;
    first.leave().await.unwrap();
    second.ready().await.unwrap();
    assert_eq!(second.session_count(), 20_000);
}

async fn a_change_of_id_that_meets_a_logout_leaves_no_session(mode: &str) {
    let net = Net::seeds().with("mode", mode);
    let nodes = net.start(2).await;
    for round in 0..20 {
        let old = nodes[0].at(AckLevel::All).create(|s| _ = s.set("user", "ada")).await.unwrap().id;
        let (changer, leaver) = (nodes[0].at(AckLevel::All), nodes[round % 2].at(AckLevel::All));
        let (changed, left) = tokio::join!(changer.change_id(&old), leaver.destroy(&old));
        left.unwrap();
        if let Ok(changed) = changed {
            // It was first: then the logout found the old id dead, and the user has the new one.
            assert!(nodes[0].sessions().load(&changed.id).await.unwrap().is_some());
        }
        assert!(nodes[0].sessions().load(&old).await.unwrap().is_none());
    }
    let live = nodes[0].session_count();
    eventually("both hold the same", || async { (nodes[1].session_count() == live).then_some(()) }).await;
}

#[tokio::test]
async fn ends_of_ids_that_nobody_knew_are_told_while_somebody_may_be_beyond_a_cut_and_are_bounded() {
    // Who founded can't tell, for the horizon.
    let net = Net::seeds().with("unknown_ends", "10");
    let nodes = net.start(2).await;
    let end = async |from: u8| {
        for n in from..from + 50 {
            nodes[0].sessions().destroy(&sessionmesh::SessionId::from_bytes([n; 16])).await.unwrap();
        }
    };
    end(0).await;
    // Ten are told; of the others ten stay at home for a while.
    assert_eq!(nodes[1].stats().records, 10);
    assert_eq!(nodes[0].stats().records, 20);
    assert_eq!(nodes[0].stats().causes["limit: unknown_ends"], 40 + 30);
    end(100).await;
    assert_eq!((nodes[0].stats().records, nodes[1].stats().records), (20, 10));
}

#[tokio::test]
async fn ends_of_ids_that_nobody_knew_stay_at_home_once_nobody_can_be_beyond_a_cut() {
    let net = Net::seeds().with("unknown_ends", "10").with("drop_time", "100ms").with("frequency", "20ms");
    let nodes = net.with("horizon", "2s").start(2).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let end = async |n: u8| {
        nodes[0].sessions().destroy(&sessionmesh::SessionId::from_bytes([n; 16])).await.unwrap()
    };
    // Some twice, as from a page that is loaded again: that makes them no better known.
    for n in [101, 102, 103, 101, 102, 103].into_iter().chain(0..50) {
        end(n).await;
    }
    assert_eq!((nodes[0].stats().records, nodes[1].stats().records), (10, 0));
    assert_eq!(nodes[0].stats().causes["limit: unknown_ends"], 43);
    // Nor does a request elsewhere, which would keep it for longer than the node that it is from.
    for n in [101, 102, 103] {
        let id = sessionmesh::SessionId::from_bytes([n; 16]);
        assert!(nodes[1].sessions().load(&id).await.unwrap().is_none());
    }
    assert_eq!(nodes[1].stats().records, 0);
}
