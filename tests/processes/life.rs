//! The ordinary life of a cluster: start, serve, deploy, stop.

use cluster_tests::{Browser, Signal, eventually, in_both_modes};
use serde_json::json;

use crate::{holders, processes};

in_both_modes! {
    a_session_follows_its_user_over_three_nodes
    an_equal_value_is_no_write_and_reads_make_no_session
    login_changes_the_id_and_logout_ends_it_on_every_node
    a_slow_request_learns_that_the_session_ended_meanwhile
    two_slow_requests_that_write_different_attributes_both_count
    a_node_that_leaves_hands_over_and_serves_no_more
    a_rolling_restart_loses_nothing
    idle_sessions_end_on_every_node_and_are_announced_once
    a_node_told_to_stop_is_not_ready_serves_what_still_comes_and_exits_cleanly
}

async fn a_session_follows_its_user_over_three_nodes(mode: &str) {
    let cluster = processes(mode).with("--ack=all").start(3).await;
    let [a, b, c] = &cluster.nodes[..] else { unreachable!() };
    let mut browser = Browser::new();
    browser.put(a, "k", "1").await;
    let id = browser.id();
    for node in [a, b, c] {
        assert_eq!(browser.value(node, "k").await.as_deref(), Some("1"));
    }
    browser.put(b, "k", "2").await;
    browser.post(c, "/del?k=absent").await;
    browser.put(c, "long", "v").await;
    assert_eq!(browser.post(a, "/put?k=long&v=v&n=10").await.body, "v");
    assert_eq!(browser.value(b, "long").await.as_deref(), Some("v:xxxxxxxx"));
    browser.post(a, "/del?k=long").await;
    assert_eq!(browser.value(c, "long").await, None);
    assert_eq!(browser.id(), id);

    let shown = browser.get(b, "/session").await;
    let shown: serde_json::Value = serde_json::from_str(&shown.body).unwrap();
    assert_eq!((&shown["node"], &shown["attributes"]), (&json!("n2"), &json!({"k": "2"})));
    assert_eq!(shown["id"].as_str(), id.as_deref());
}

async fn an_equal_value_is_no_write_and_reads_make_no_session(mode: &str) {
    let cluster = processes(mode).by_seeds().start(1).await;
    let node = &cluster.nodes[0];
    let mut browser = Browser::new();
    assert_eq!(browser.get(node, "/get?k=a").await.status, 404);
    assert_eq!(browser.get(node, "/session").await.status, 404);
    assert_eq!(browser.post(node, "/logout").await.status, 200);
    assert_eq!(browser.cookie, None);
    assert_eq!(browser.get(node, "/count").await.body, "0");
    browser.put(node, "a", "1").await;
    let before = node.counter("commits").await;
    browser.put(node, "a", "1").await;
    assert_eq!(node.counter("commits").await, before);
    assert_eq!(browser.post(node, "/bulk?n=50&attrs=2&bytes=10").await.body, "51");
}

async fn login_changes_the_id_and_logout_ends_it_on_every_node(mode: &str) {
    let cluster = processes(mode).with("--ack=all").start(2).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let mut browser = Browser::new();
    browser.put(a, "cart", "tea").await;
    let mut planted = browser.clone();
    assert_eq!(browser.post(b, "/login?user=ada").await.status, 200);
    assert_ne!(browser.id(), planted.id());
    for node in [a, b] {
        assert_eq!(browser.value(node, "cart").await.as_deref(), Some("tea"));
        assert_eq!(browser.value(node, "user").await.as_deref(), Some("ada"));
        assert_eq!(planted.clone().get(node, "/session").await.status, 404);
    }
    let stolen = browser.clone();
    assert_eq!(browser.post(a, "/logout").await.status, 200);
    assert_eq!(browser.cookie, None);
    for node in [a, b] {
        assert_eq!(stolen.clone().get(node, "/session").await.status, 404);
    }
    // A write with the dead cookie begins another session; the old one stays dead.
    planted.put(b, "new", "1").await;
    assert_eq!(planted.value(a, "cart").await, None);
    let destroyed = a.counter("destroyed").await + b.counter("destroyed").await;
    assert_eq!(destroyed, 1, "one logout, one event; the change of id is none");
}

async fn a_slow_request_learns_that_the_session_ended_meanwhile(mode: &str) {
    // Each access is told that comes a millisecond after the one before.
    let cluster = processes(mode).with("--ack=all").with("--set=touch_interval=1ms").start(2).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let mut browser = Browser::new();
    browser.put(a, "k", "1").await;
    let mut slow = browser.clone();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let touches = cluster.sum("touches").await;
    let (late, ()) = tokio::join!(slow.post(a, "/slow?k=late&v=1&ms=3000"), async {
        eventually("the slow request has its session", || async {
            (cluster.sum("touches").await > touches).then_some(())
        })
        .await;
        assert_eq!(browser.clone().post(b, "/logout").await.status, 200);
    });
    assert_eq!(late.status, 409, "{late:?}");
    assert!(late.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    for node in [a, b] {
        assert_eq!(browser.clone().get(node, "/session").await.status, 404);
    }
}

async fn two_slow_requests_that_write_different_attributes_both_count(mode: &str) {
    let cluster = processes(mode).with("--ack=all").start(2).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let mut browser = Browser::new();
    browser.put(a, "base", "0").await;
    let (mut one, mut two) = (browser.clone(), browser.clone());
    let (x, y) = tokio::join!(one.post(a, "/slow?k=x&v=1&ms=200"), two.post(b, "/slow?k=y&v=2&ms=200"));
    assert_eq!((x.status, y.status), (200, 200));
    for node in [a, b] {
        for (key, value) in [("base", "0"), ("x", "1"), ("y", "2")] {
            assert_eq!(browser.value(node, key).await.as_deref(), Some(value));
        }
    }
}

async fn a_node_that_leaves_hands_over_and_serves_no_more(mode: &str) {
    let mut cluster = processes(mode).start(3).await;
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[0], "k", "v").await;
    browser.post(&cluster.nodes[0], "/bulk?n=500&attrs=2&bytes=100").await;
    assert_eq!(browser.post(&cluster.nodes[0], "/leave").await.status, 200);
    for node in &cluster.nodes[1..] {
        node.sees(1).await;
        assert_eq!(browser.get(node, "/count").await.body, "501");
        assert_eq!(browser.value(node, "k").await.as_deref(), Some("v"));
    }
    let refused = browser.get(&cluster.nodes[0], "/get?k=k").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(browser.cookie.is_some(), "a node that does not serve takes no cookie away");
    assert_eq!(browser.get(&cluster.nodes[0], "/readyz").await.status, 503);
    assert_eq!(browser.get(&cluster.nodes[0], "/livez").await.status, 200);
    cluster.nodes[0].signal(Signal::TERM);
    assert!(cluster.nodes[0].ended().await.success());
}

async fn a_rolling_restart_loses_nothing(mode: &str) {
    let mut cluster = processes(mode).with("--ack=one").start(3).await;
    let mut browser = Browser::new();
    browser.post(&cluster.nodes[0], "/bulk?n=200&attrs=1&bytes=50").await;
    for index in 0..3 {
        browser.put(&cluster.nodes[(index + 1) % 3], &format!("k{index}"), "v").await;
        cluster.nodes[index].signal(Signal::TERM);
        assert!(cluster.nodes[index].ended().await.success());
        browser.put(&cluster.nodes[(index + 2) % 3], &format!("gone{index}"), "v").await;
        cluster.restart(index).await;
        cluster.formed().await;
    }
    cluster.settled().await;
    assert_eq!(cluster.copies().await, 201 * holders(mode, 3) as u64);
    for node in &cluster.nodes {
        for index in 0..3 {
            assert_eq!(browser.value(node, &format!("k{index}")).await.as_deref(), Some("v"));
            assert_eq!(browser.value(node, &format!("gone{index}")).await.as_deref(), Some("v"));
        }
    }
}

async fn idle_sessions_end_on_every_node_and_are_announced_once(mode: &str) {
    let cluster = processes(mode).with("--idle=1s").with("--ack=all").start(3).await;
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[0], "k", "v").await;
    let used = browser.clone();
    let mut unused = Browser::new();
    unused.put(&cluster.nodes[1], "k", "v").await;
    // Reads spread over the nodes keep a session alive.
    for round in 0..16 {
        let mut used = used.clone();
        assert_eq!(used.value(&cluster.nodes[round % 3], "k").await.as_deref(), Some("v"), "round {round}");
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    for node in &cluster.nodes {
        assert_eq!(unused.clone().get(node, "/session").await.status, 404);
    }
    eventually("the used one ends too", || async {
        let mut counts = Vec::new();
        for node in &cluster.nodes {
            counts.push(browser.clone().get(node, "/count").await.body);
        }
        (counts == ["0", "0", "0"]).then_some(())
    })
    .await;
    let expired = async || {
        let mut expired = 0;
        for node in &cluster.nodes {
            expired += node.counter("expired").await;
        }
        expired
    };
    eventually("both ends are told", || async { (expired().await >= 2).then_some(()) }).await;
    // By then another holder would have ended it by itself: touch_interval, drop_time and some.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(expired().await, 2);
}

async fn a_node_told_to_stop_is_not_ready_serves_what_still_comes_and_exits_cleanly(mode: &str) {
    let mut cluster = processes(mode).with("--set=fetch_timeout=1s").start(2).await;
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[0], "k", "v").await;
    cluster.nodes[0].signal(Signal::TERM);
    let node = &cluster.nodes[0];
    let unready = eventually("it says that it drains", || async {
        let answer = Browser::new().try_get(node, "/readyz").await?;
        (answer.status == 503).then_some(answer.body)
    })
    .await;
    assert_eq!(unready.trim(), "draining");
    assert_eq!(browser.value(node, "k").await.as_deref(), Some("v"));
    assert!(cluster.nodes[0].ended().await.success());
    assert_eq!(browser.value(&cluster.nodes[1], "k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_node_bound_to_all_addresses_advertises_that_of_its_interface() {
    let secret = std::env::temp_dir().join(format!("sessionmesh-secret-{}", std::process::id()));
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    let program = env!("CARGO_BIN_EXE_session-node-under-test");
    let mut child = tokio::process::Command::new(program)
        .args(["--http=127.0.0.1:0", "--bind=0.0.0.0:0", "--interface=127.0.0.1", "--set=cluster=advertises"])
        .arg(format!("--secret-file={}", secret.display()))
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = tokio::io::BufReader::new(child.stdout.take().unwrap());
    tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line).await.unwrap();
    std::fs::remove_file(&secret).unwrap();
    let place: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(place["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
}
