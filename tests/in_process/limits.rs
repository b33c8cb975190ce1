//! Every limit, at its edge: just under passes, just over fails as said, and nothing else is lost.
//!
//! | limit | twins |
//! |---|---|
//! | `session_bytes`, `session_attributes`, `name_bytes` | here; `session/laws.rs` |
//! | `max_sessions` | here; `tests/faults/resources.rs` |
//! | `max_ends` | here |
//! | `unknown_ends` | `in_process/main.rs` |
//! | `frame_bytes` | `wire/tests.rs`; `tests/hostile` |
//! | `outbox_bytes` | `replication/tests`; `tests/faults/stops.rs` |
//! | `max_members` | `membership/tests` |
//! | `handshakes`, `handshake_timeout` | `tests/hostile` |
//! | `lookups` | `tests/hostile` |
//! | options themselves | `config/tests.rs` |

use cluster_tests::{Net, eventually};
use sessionmesh::{AckLevel, ChangeError, Cluster, CommitError, SessionId};

async fn two(net: Net) -> [Cluster; 2] {
    net.start(2).await.try_into().unwrap()
}

/// What the other node has of a session.
async fn there(node: &Cluster, id: &SessionId) -> Vec<(String, usize)> {
    let session = node.sessions().load(id).await.unwrap().unwrap();
    session.iter().map(|(name, value)| (name.to_owned(), value.len())).collect()
}

#[tokio::test]
async fn a_session_is_filled_to_its_limits_and_not_past_them() {
    let net =
        Net::seeds().with("session_bytes", "100").with("session_attributes", "3").with("name_bytes", "10");
    let [a, b] = two(net).await;
    let sessions = a.at(AckLevel::All);
    let id = sessions.create(|_| {}).await.unwrap().id;
    let set = async |name: &str, bytes: usize| sessions.set(&id, name, vec![7; bytes]).await.map(|_| ());
    let over = |error: ChangeError| Err(CommitError::OverLimit(error));

    set("0123456789", 90).await.unwrap();
    assert_eq!(set("0123456789", 91).await, over(ChangeError::TooLarge { bytes: 101, limit: 100 }));
    assert_eq!(set("k", 0).await, over(ChangeError::TooLarge { bytes: 101, limit: 100 }));
    assert_eq!(there(&b, &id).await, [("0123456789".to_owned(), 90)], "what was refused is nowhere");
    assert_eq!(set("0123456789a", 1).await, over(ChangeError::NameTooLong { bytes: 11, limit: 10 }));

    set("0123456789", 1).await.unwrap();
    set("b", 1).await.unwrap();
    set("c", 1).await.unwrap();
    assert_eq!(set("d", 1).await, over(ChangeError::TooManyAttributes { count: 4, limit: 3 }));
    // One out makes room for one.
    sessions.update(&id, |s| _ = s.remove("b")).await.unwrap();
    set("d", 1).await.unwrap();
    let expected = [("0123456789", 1), ("c", 1), ("d", 1)].map(|(name, bytes)| (name.to_owned(), bytes));
    assert_eq!(there(&b, &id).await, expected);
    assert_eq!(a.stats().counts.over_limit, 4);
}

#[tokio::test]
async fn the_last_session_that_there_is_room_for_begins_and_the_next_does_not() {
    let [a, b] = two(Net::seeds().with("max_sessions", "3")).await;
    let mut ids = Vec::new();
    for node in [&a, &b, &a] {
        ids.push(node.at(AckLevel::All).create(|s| _ = s.set("k", "v")).await.unwrap().id);
    }
    for node in [&a, &b] {
        let refused = node.at(AckLevel::All).create(|_| {}).await;
        assert_eq!(refused, Err(CommitError::Full { limit: 3 }));
    }
    // Those who are there write, and change their id.
    a.at(AckLevel::All).set(&ids[1], "k", "w").await.unwrap();
    ids[1] = b.at(AckLevel::All).change_id(&ids[1]).await.unwrap().id;
    assert_eq!((a.session_count(), b.session_count()), (3, 3), "nothing was thrown out");
    assert!(matches!(a.sessions().create(|_| {}).await, Err(CommitError::Full { .. })), "an old id is none");
    // An end is not in the way.
    a.at(AckLevel::All).destroy(&ids[0]).await.unwrap();
    a.at(AckLevel::All).create(|_| {}).await.unwrap();
    assert_eq!(b.at(AckLevel::All).create(|_| {}).await, Err(CommitError::Full { limit: 3 }));
    assert_eq!((a.stats().counts.over_limit, b.stats().counts.over_limit), (2, 2));
}

#[tokio::test]
async fn as_many_ends_as_there_is_room_for_are_remembered_and_of_more_the_newest() {
    // The sweep comes each twentieth of the idle limit.
    let [a, b] = two(Net::seeds().with("max_ends", "4").with("idle", "10s")).await;
    let sessions = a.at(AckLevel::All);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(sessions.create(|_| {}).await.unwrap().id);
    }
    for id in &ids {
        sessions.destroy(id).await.unwrap();
    }
    for node in [&a, &b] {
        eventually("one is forgotten", || async { (node.stats().counts.ends_forgotten > 0).then_some(()) })
            .await;
        let remembered: Vec<bool> = ids.iter().map(|id| node.sessions().has_ended(id)).collect();
        assert_eq!(remembered, [false, true, true, true, true], "the oldest");
        assert_eq!(node.stats().counts.ends_forgotten, 1);
        assert!(node.stats().causes.contains_key("ends forgotten: max_ends"), "{:?}", node.stats().causes);
    }
}
