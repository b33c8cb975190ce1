//! Cables and switches that fail, and what members make of it.

use std::sync::Arc;
use std::time::Duration;

use cluster_tests::{Browser, Lan, Traffic, eventually};
use tokio::time::Instant;

use crate::{Story, processes, stories};

pub(crate) fn stories() -> Vec<Story> {
    stories! {
        hosts_find_each_other_by_multicast on 4
        hosts_find_each_other_by_multicast_over_ipv6 on 3
        a_pulled_cable_in_all_peers_loses_nothing on 3
        a_pulled_cable_in_backup_only_loses_nothing on 3
        a_host_that_hears_and_is_not_heard_is_dropped_until_it_is on 3
        heartbeats_lost_while_connections_work_drop_nobody on 3
        one_whose_heartbeats_reach_nobody_joins_and_all_see_it_ready on 3
        one_whose_connections_stop_is_dropped_though_its_heartbeats_come on 3
        one_that_is_heard_and_can_not_be_reached_is_never_a_member on 3
        a_tenth_of_all_frames_lost_drops_nobody_and_loses_nothing on 3
        two_clusters_on_one_group_do_not_meet on 4
        where_the_network_drops_multicast_seeds_find_each_other on 2
        a_host_with_two_networks_uses_the_one_it_is_told on 2
    }
}

async fn hosts_find_each_other_by_multicast(lan: Lan) {
    let lan = Arc::new(lan);
    let begun = Instant::now();
    let cluster = processes(&lan).with("--ack=all").start(4).await;
    println!("4 hosts formed by IPv4 multicast, TTL 1, in {:?}", begun.elapsed());
    assert_eq!(cluster.nodes[3].address, "10.77.0.14:4000", "advertised by the interface's address");
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[0], "k", "v").await;
    for node in &cluster.nodes {
        assert_eq!(browser.value(node, "k").await.as_deref(), Some("v"));
    }
}

async fn hosts_find_each_other_by_multicast_over_ipv6(lan: Lan) {
    let lan = Arc::new(lan);
    let begun = Instant::now();
    let cluster = processes(&lan)
        .with("--set=address=ff02::5e55")
        .with("--bind=[::]:4000")
        .with("--ack=all")
        .start(3)
        .await;
    println!("3 hosts formed by IPv6 multicast, link-local scope, in {:?}", begun.elapsed());
    assert_eq!(
        cluster.nodes[2].address, "[fd77::13]:4000",
        "not the link-local address, which needs a scope"
    );
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[0], "k", "v").await;
    for node in &cluster.nodes {
        assert_eq!(browser.value(node, "k").await.as_deref(), Some("v"));
    }
}

async fn a_pulled_cable_in_all_peers_loses_nothing(lan: Lan) {
    a_pulled_cable_loses_nothing(lan, "all-peers").await;
}

async fn a_pulled_cable_in_backup_only_loses_nothing(lan: Lan) {
    a_pulled_cable_loses_nothing(lan, "backup-only").await;
}

async fn a_pulled_cable_loses_nothing(lan: Lan, mode: &str) {
    let lan = Arc::new(lan);
    let cluster = processes(&lan).with("--ack=one").with(&format!("--mode={mode}")).start(3).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    // Sessions that the cut-off host holds, whatever the mode.
    let mut kept = Browser::held_by(a, c, "before").await;
    let mut ended = Browser::held_by(b, c, "before").await;
    lan.pull(2);
    let pulled = Instant::now();
    a.sees(1).await;
    b.sees(1).await;
    println!("{mode}: dropped {:?} after the cable was pulled (drop_time 1 s)", pulled.elapsed());
    kept.put(b, "k", "meanwhile").await;
    let stolen = ended.clone();
    assert_eq!(ended.post(a, "/logout").await.status, 200);
    lan.plug(2);
    let plugged = Instant::now();
    cluster.formed().await;
    println!("{mode}: together again {:?} after it was plugged in", plugged.elapsed());
    // In all-peers mode the healed node answers from memory until it has compared.
    eventually("the healed node has caught up", || async {
        (kept.clone().get(c, "/get?k=k").await.body == "meanwhile").then_some(())
    })
    .await;
    eventually("the session that ended meanwhile is gone there", || async {
        (stolen.clone().get(c, "/session").await.status == 404).then_some(())
    })
    .await;
    cluster.settled().await;
    for node in &cluster.nodes {
        assert_eq!(kept.value(node, "k").await.as_deref(), Some("meanwhile"));
        assert_eq!(stolen.clone().get(node, "/session").await.status, 404);
    }
}

async fn a_host_that_hears_and_is_not_heard_is_dropped_until_it_is(lan: Lan) {
    let lan = Arc::new(lan);
    let cluster = processes(&lan).with("--ack=one").start(3).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let mut browser = Browser::new();
    browser.put(a, "k", "before").await;
    for to in [0, 1] {
        lan.block(2, to, Traffic::All);
    }
    let cut = Instant::now();
    a.sees(1).await;
    b.sees(1).await;
    // It hears both, and that they do not hear it.
    c.sees(0).await;
    println!("cut one way: both sides agree after {:?} (drop_time 1 s)", cut.elapsed());
    browser.put(b, "k", "meanwhile").await;
    lan.mend();
    let mended = Instant::now();
    cluster.formed().await;
    println!("mended: together again after {:?}", mended.elapsed());
    eventually("caught up", || async {
        (browser.clone().get(c, "/get?k=k").await.body == "meanwhile").then_some(())
    })
    .await;
}

/// Tomcat's `TestTcpFailureDetector`: heartbeats stopped, connections alive, still a member.
async fn heartbeats_lost_while_connections_work_drop_nobody(lan: Lan) {
    let lan = Arc::new(lan);
    let cluster = processes(&lan).with("--ack=all").start(3).await;
    for from in 0..3 {
        for to in 0..3 {
            lan.block(from, to, Traffic::Udp);
        }
    }
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[0], "k", "0").await;
    let heard = cluster.sum("heartbeats_heard").await;
    let begun = Instant::now();
    let mut writes = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        writes += 1;
        browser.put(&cluster.nodes[writes % 3], "k", &writes.to_string()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cluster.sum("heartbeats_heard").await, heard, "they are lost");
    println!("no heartbeat for 4 s (drop_time 1 s): {writes} writes at level all, every one acknowledged");
    for node in &cluster.nodes {
        node.sees(2).await;
        assert_eq!(node.cause("member dropped").await, 0);
    }
}

async fn one_whose_heartbeats_reach_nobody_joins_and_all_see_it_ready(lan: Lan) {
    let lan = Arc::new(lan);
    let mut cluster = processes(&lan).with("--mode=backup-only").start(2).await;
    for to in [0, 1] {
        lan.block(2, to, Traffic::Udp);
    }
    cluster.start_one("n3").await;
    cluster.formed().await;
    // All place sessions alike.
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let mut browser = Browser::held_by(a, c, "v").await;
    let holders = browser.holders(a).await;
    assert_eq!((browser.holders(b).await, browser.holders(c).await), (holders.clone(), holders));
}

/// Tomcat's `TestTcpFailureDetector`: a member's receiver stops, its heartbeats go on: dropped.
async fn one_whose_connections_stop_is_dropped_though_its_heartbeats_come(lan: Lan) {
    let lan = Arc::new(lan);
    let cluster = processes(&lan).with("--ack=one").start(3).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let mut browser = Browser::new();
    browser.put(a, "k", "before").await;
    for other in [0, 1] {
        lan.block(2, other, Traffic::Tcp);
        lan.block(other, 2, Traffic::Tcp);
    }
    let cut = Instant::now();
    // A write shows that the stream stands still; the connection that is tried then is not made.
    eventually("it is dropped", || async {
        browser.clone().post(a, "/put?k=k&v=meanwhile").await;
        (a.json("/members").await?.as_array()?.len() == 1).then_some(())
    })
    .await;
    a.sees(1).await;
    b.sees(1).await;
    println!("connections cut, heartbeats heard: dropped after {:?}", cut.elapsed());
    lan.mend();
    cluster.formed().await;
    eventually("caught up", || async {
        (browser.clone().get(c, "/get?k=k").await.body == "meanwhile").then_some(())
    })
    .await;
}

/// Tomcat's `TestTcpFailureDetector`: announced, but its receiver can't be reached: never added.
async fn one_that_is_heard_and_can_not_be_reached_is_never_a_member(lan: Lan) {
    let lan = Arc::new(lan);
    let mut cluster = processes(&lan).with("--ack=one").start(2).await;
    for other in [0, 1] {
        lan.block(2, other, Traffic::Tcp);
        lan.block(other, 2, Traffic::Tcp);
    }
    cluster.start_one("n3").await;
    eventually("it has heard them", || async {
        let waiting = Browser::new().get(&cluster.nodes[2], "/readyz").await;
        waiting.body.contains("not linked with it yet").then_some(())
    })
    .await;
    let begun = Instant::now();
    let mut browser = Browser::new();
    while begun.elapsed() < Duration::from_secs(3) {
        for node in &cluster.nodes[..2] {
            browser.put(node, "k", "v").await;
            assert_eq!(node.json("/members").await.unwrap().as_array().unwrap().len(), 1);
        }
        let waiting = Browser::new().get(&cluster.nodes[2], "/readyz").await;
        assert_eq!(waiting.status, 503, "it has heard a cluster whose sessions it does not have");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let waiting = Browser::new().get(&cluster.nodes[2], "/readyz").await;
    assert!(waiting.body.contains("not linked with it yet"), "{}", waiting.body);
    lan.mend();
    cluster.formed().await;
    assert_eq!(browser.value(&cluster.nodes[2], "k").await.as_deref(), Some("v"));
}

async fn a_tenth_of_all_frames_lost_drops_nobody_and_loses_nothing(lan: Lan) {
    let lan = Arc::new(lan);
    lan.lose(10);
    let begun = Instant::now();
    let cluster = processes(&lan).with("--ack=all").with("--ack-timeout=5s").start(3).await;
    println!("formed with 10 % of all frames lost in {:?}", begun.elapsed());
    let mut browser = Browser::new();
    let begun = Instant::now();
    let (mut writes, mut slowest) = (0, Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(5) {
        writes += 1;
        let sent = Instant::now();
        browser.put(&cluster.nodes[writes % 3], "k", &writes.to_string()).await;
        slowest = slowest.max(sent.elapsed());
        let seen = browser.value(&cluster.nodes[(writes + 1) % 3], "k").await;
        assert_eq!(seen, Some(writes.to_string()));
    }
    println!("{writes} writes at level all, each read on the next node; the slowest took {slowest:?}");
    for node in &cluster.nodes {
        assert_eq!(node.cause("member dropped").await, 0, "drop_time is ten heartbeats");
    }
}

async fn two_clusters_on_one_group_do_not_meet(lan: Lan) {
    let lan = Arc::new(lan);
    let mut shop = processes(&lan);
    let mut blog = processes(&lan);
    shop.start_on("n1", 0, &[]).await;
    blog.start_on("n1", 1, &[]).await;
    shop.start_on("n2", 2, &[]).await;
    blog.start_on("n2", 3, &[]).await;
    for cluster in [&shop, &blog] {
        cluster.formed().await;
        for node in &cluster.nodes {
            let (heard, linked) = (node.cause("other cluster").await, node.counter("handshakes").await);
            assert!(heard > 0, "they share the group");
            assert_eq!(linked, 1, "yet each connects to its own only");
        }
    }
    let mut browser = Browser::new();
    browser.put(&shop.nodes[0], "k", "v").await;
    assert_eq!(browser.get(&blog.nodes[0], "/get?k=k").await.status, 404);
}

async fn where_the_network_drops_multicast_seeds_find_each_other(lan: Lan) {
    let lan = Arc::new(lan);
    lan.drop_multicast();
    let mut alone = processes(&lan);
    for name in ["n1", "n2"] {
        alone.start_one(name).await;
    }
    for node in &alone.nodes {
        // Nothing tells a network without multicast from one without other nodes.
        node.ready().await;
        node.sees(0).await;
    }
    drop(alone);
    let mut cluster = processes(&lan);
    cluster.start_on("n1", 0, &["--set=seeds=10.77.0.12:4000", "--set=multicast=false"]).await;
    cluster.start_on("n2", 1, &["--set=seeds=10.77.0.11:4000", "--set=multicast=true"]).await;
    cluster.formed().await;
}

async fn a_host_with_two_networks_uses_the_one_it_is_told(lan: Lan) {
    let lan = Arc::new(lan);
    // A second network whose route everything else takes, and on which nobody is.
    for host in [0, 1] {
        lan.run(host, "ip", &["link", "add", "eth1", "type", "bridge"]);
        lan.run(host, "ip", &["addr", "add", "10.88.0.1/24", "dev", "eth1"]);
        lan.run(host, "ip", &["link", "set", "eth1", "up", "multicast", "on"]);
        lan.run(host, "ip", &["route", "replace", "default", "dev", "eth1"]);
    }
    // Told the wrong one, each is alone on it.
    let mut lost = processes(&lan).with("--interface=eth1");
    lost.start_one("n1").await;
    lost.start_one("n2").await;
    for node in &lost.nodes {
        node.ready().await;
        node.sees(0).await;
        assert_eq!(node.address, "10.88.0.1:4000");
    }
    for node in &mut lost.nodes {
        node.kill().await;
    }
    let cluster = processes(&lan).start(2).await;
    assert_eq!(cluster.nodes[0].address, "10.77.0.11:4000");
}
