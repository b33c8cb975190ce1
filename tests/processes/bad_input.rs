//! Wrong configurations and wrong requests: each gets its error, and nothing is lost.

use std::net::{TcpListener, UdpSocket};

use cluster_tests::Browser;

use crate::processes;

#[tokio::test]
async fn a_node_that_can_not_start_says_what_would_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--set=drop_tme=3s"], &["drop_tme", "did you mean \"drop_time\""]),
        (&["--set=drop_time=250ms"], &["drop_time = 250ms is less than 3 x frequency", "300ms"]),
        (&["--set=interface=nosuch0"], &["interface = \"nosuch0\" can't be used", "lo (127.0.0.1)"]),
        (&["--mode=backup"], &["mode = \"backup\" is not usable: use all-peers or backup-only"]),
        (&["--copies=8"], &["copies = \"8\"", "1 to 7"]),
        (&["--config=/nonexistent.toml"], &["/nonexistent.toml"]),
        (&["--secret-file=/nonexistent.secret"], &["/nonexistent.secret"]),
        (&["--set=auto_bind=1", "--set", &format!("bind={taken}")], &[&taken, "auto_bind"]),
        (
            &["--set=multicast=true", "--set=bind=127.0.0.1:0", "--set=address=10.0.0.1"],
            &["no multicast address"],
        ),
    ];
    for (flags, expected) in cases {
        let said = processes("all-peers").start_failing("n1", flags).await;
        for words in expected {
            assert!(said.contains(words), "{flags:?}: {words:?} is not in: {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[tokio::test]
async fn multicast_that_the_system_refuses_is_an_error_with_the_way_out() {
    // Somebody else has the group's port, and does not share it.
    let taken = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let said = processes("all-peers").start_failing("n1", &[&format!("--set=port={port}")]).await;
    let group = format!("can't use multicast 228.0.0.4:{port} on lo");
    assert!(said.contains(&group) && said.contains("seeds = "), "{said}");
}

#[tokio::test]
async fn without_a_secret_a_node_refuses_to_start_and_says_how_to_make_one() {
    let program = env!("CARGO_BIN_EXE_session-node-under-test");
    for (flags, expected) in [
        (vec!["--bind=127.0.0.1:0"], "openssl rand -hex 32"),
        (vec!["--insecure", "--bind=0.0.0.0:0"], "without a secret a node only starts on loopback"),
    ] {
        let output = tokio::process::Command::new(program)
            .args(["--http=127.0.0.1:0"])
            .args(&flags)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{flags:?}: {said}");
    }
}

#[tokio::test]
async fn a_taken_port_slides_to_the_next_and_a_restart_takes_its_own_again() {
    // UDP alone makes the pair unusable too.
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let mut cluster = processes("all-peers").by_seeds().with(&format!("--set=bind=127.0.0.1:{port}"));
    cluster.start_one("n1").await;
    let slid = cluster.nodes[0].address.clone();
    assert_ne!(slid, format!("127.0.0.1:{port}"));
    assert!(UdpSocket::bind(&slid).is_err(), "heartbeats come to the same number");
    drop(first);

    let mut cluster = processes("all-peers").start(2).await;
    let own = cluster.nodes[0].address.clone();
    cluster.nodes[0].kill().await;
    cluster.restart(0).await;
    assert_eq!(cluster.nodes[0].address, own);
}

#[tokio::test]
async fn a_name_that_a_live_node_has_is_refused_and_the_error_names_both() {
    let cluster = processes("all-peers").start(2).await;
    let said = cluster.start_failing("n2", &[]).await;
    assert!(said.contains("the name n2") && said.contains(&cluster.nodes[1].address), "{said}");
    cluster.formed().await;
}

#[tokio::test]
async fn an_id_that_nobody_issued_is_never_adopted() {
    let cluster = processes("all-peers").with("--ack=all").start(2).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    for bogus in ["AAAAAAAAAAAAAAAAAAAAAA", "not-an-id", "%00", ""] {
        let mut browser = Browser::new();
        browser.cookie = Some(bogus.into());
        assert_eq!(browser.get(a, "/get?k=k").await.status, 404, "{bogus:?}");
        browser.cookie = Some(bogus.into());
        browser.put(b, "k", "v").await;
        assert_ne!(browser.cookie.as_deref(), Some(bogus));
        assert_eq!(browser.value(a, "k").await.as_deref(), Some("v"));
        browser.cookie = Some(bogus.into());
        assert_eq!(browser.post(a, "/logout").await.status, 200);
    }
}

#[tokio::test]
async fn past_a_limit_is_413_and_the_session_stays_as_it_was() {
    let flags = ["--set=session_bytes=1000", "--set=session_attributes=3", "--set=name_bytes=8"];
    let mut cluster = processes("all-peers").by_seeds();
    for flag in flags {
        cluster = cluster.with(flag);
    }
    let cluster = cluster.start(1).await;
    let node = &cluster.nodes[0];
    let mut browser = Browser::new();
    browser.put(node, "a", "1").await;
    // One byte of name and two quotes of JSON; 997 leaves one for "a" and its quoted value.
    for (request, status) in [
        ("/put?k=b&v=x&n=993", 200),
        ("/put?k=b&v=x&n=994", 413),
        ("/put?k=b&v=x&n=2", 200),
        ("/put?k=12345678&v=1", 200),
        ("/put?k=d&v=1", 413),
        ("/del?k=12345678", 200),
        ("/put?k=123456789&v=1", 413),
    ] {
        let answer = browser.post(node, request).await;
        assert_eq!(answer.status, status, "{request}: {}", answer.body);
    }
    assert_eq!(browser.value(node, "a").await.as_deref(), Some("1"));
    assert_eq!(node.counter("over_limit").await, 3);
}
