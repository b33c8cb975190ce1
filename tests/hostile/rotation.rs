//! A new secret for a running cluster, in three steps; and what the old one is worth then.

use cluster_tests::eventually;
use sessionmesh::{Cluster, Config, ReloadError};
use sessionmesh_core::wire::Hello;

use super::liar::{Liar, NEW_SECRET as NEW, SECRET, hello};
use super::target::{Target, counted};

/// Gives a node these secrets.
fn give(target: &Target, node: &Cluster, secret: &[u8], other: Option<&[u8]>) {
    let mut config = target.net.config(node.name().as_str());
    config.secret(secret).unwrap();
    if let Some(other) = other {
        config.other_secret(other).unwrap();
    }
    node.reload_secrets(&config).unwrap();
}

/// Every node, one after the other.
async fn reload(target: &Target, secret: &[u8], other: Option<&[u8]>) {
    for node in &target.nodes {
        give(target, node, secret, other);
        target.unharmed().await;
    }
}

fn with(secret: &[u8], target: &Target) -> Liar {
    Liar { secret: secret.into(), hello: Hello { probe: true, ..hello(66) }, ..target.liar() }
}

#[tokio::test]
async fn secrets_are_rotated_without_losing_a_member_or_a_write() {
    let target = Target::new().await;
    let node = &target.nodes[0];
    let links = || node.stats().peers.iter().map(|peer| peer.links).sum::<u64>();
    let before = links();

    // Both are accepted before anybody uses the new one, and nobody uses the old one when it is accepted no longer.
    reload(&target, SECRET, Some(NEW)).await;
    with(NEW, &target).greet(node.address()).await.unwrap();
    with(SECRET, &target).greet(node.address()).await.unwrap();
    reload(&target, NEW, Some(SECRET)).await;
    with(NEW, &target).greet(node.address()).await.unwrap();
    with(SECRET, &target).greet(node.address()).await.unwrap();
    assert_eq!(links(), before, "links stay up while what opened them is accepted");
    reload(&target, NEW, None).await;

    // What the old secret has opened is closed, and was opened again with the new one.
    eventually("the link is made anew", || async { (links() > before).then_some(()) }).await;
    target.unharmed().await;
    assert!(with(SECRET, &target).greet(node.address()).await.is_err());
    counted(node, "handshake failed: not made with this cluster's secret").await;
    with(NEW, &target).greet(node.address()).await.unwrap();

    let mut config = target.net.config("n3");
    config.secret(NEW).unwrap();
    let joiner = Cluster::start(config).await.unwrap();
    joiner.ready().await.unwrap();
    joiner.leave().await.unwrap();
    target.unharmed().await;
}

#[tokio::test]
async fn a_node_that_was_forgotten_in_a_rotation_is_dropped_and_comes_back_with_the_new_secret() {
    let target = Target::new().await;
    let third = target.net.node("n3").await;
    third.ready().await.unwrap();
    for (secret, other) in [(SECRET, Some(NEW)), (NEW, Some(SECRET)), (NEW, None)] {
        for node in &target.nodes {
            give(&target, node, secret, other);
        }
    }
    eventually("it is dropped", || async { (target.nodes[0].members().await.len() == 1).then_some(()) })
        .await;
    give(&target, &third, NEW, None);
    eventually("it is a member again", || async {
        (target.nodes[0].members().await.len() == 2 && third.is_ready().is_ok()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_can_not_be_taken_changes_nothing() {
    let target = Target::new().await;
    let node = &target.nodes[0];
    let mut without = Config::new();
    without.insecure(true).set("bind", "127.0.0.1:0").unwrap().set("cluster", &target.net.name()).unwrap();
    assert!(matches!(node.reload_secrets(&without), Err(ReloadError::Restart(_))));
    let mut other = target.net.config("n1");
    other.set("cluster", "another").unwrap();
    assert!(matches!(node.reload_secrets(&other), Err(ReloadError::Restart("cluster"))));
    let mut missing = target.net.config("n1");
    for option in ["certificate_file", "key_file", "authority_file"] {
        missing.set(option, "/nonexistent.pem").unwrap();
    }
    let error = node.reload_secrets(&missing).unwrap_err();
    assert!(matches!(error, ReloadError::Security(_)));
    assert!(error.to_string().contains("/nonexistent.pem"), "{error}");
    with(SECRET, &target).greet(node.address()).await.unwrap();
    target.unharmed().await;
}
