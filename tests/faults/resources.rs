//! What a node runs out of: descriptors, the network's buffers, room for sessions.

use std::process::Stdio;
use std::time::Duration;

use cluster_tests::{Browser, eventually, figure, has};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;

use crate::{Size, Story, processes};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    let no_strace = if !has("strace") {
        Some("strace is not installed, so no system call can be made to fail".into())
    } else {
        (!rustix::process::geteuid().is_root()).then(|| "to make system calls fail needs root".into())
    };
    let mut stories =
        Story::both("resources::without_descriptors_members_go_on_and_one_joins_later", size, descriptors);
    stories.extend(Story::both(
        "resources::a_full_table_refuses_new_sessions_and_nothing_else",
        size,
        full_table,
    ));
    stories.extend(Story::both("resources::a_full_disk_behind_the_log_stops_nobody", size, full_disk));
    let failing = Story::both("resources::heartbeats_that_the_system_refuses_are_counted", size, no_buffers);
    stories.extend(failing.into_iter().map(|story| story.needs(no_strace.clone())));
    stories
}

/// EMFILE: connections wait at the door, links that are there go on.
async fn descriptors(mode: &'static str, _size: Size) {
    let mut cluster = processes(mode).with("--ack=all").start(2).await;
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[0], "k", "before").await;
    let node = &cluster.nodes[0];
    // Two connections to keep: a request that comes just before the last one's is free again must not need a third, which
    // would wait at the door.
    let mut another = browser.clone();
    tokio::join!(browser.get(node, "/session"), another.get(node, "/session"));
    let taken = std::fs::read_dir(format!("/proc/{}/fd", node.id())).unwrap().count() as u64;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = Rlimit { current: Some(taken + 4), maximum };
    let before = prlimit(Pid::from_raw(node.id()), Resource::Nofile, limit).unwrap();
    // Users take what is left.
    let mut idle = Vec::new();
    for _ in 0..16 {
        idle.push(TcpStream::connect(node.http()).await.unwrap());
    }
    eventually("none is left", || async {
        let open = std::fs::read_dir(format!("/proc/{}/fd", node.id())).unwrap().count() as u64;
        (open >= taken + 4).then_some(())
    })
    .await;
    // On the connections that the browser has kept, and to the other node.
    for n in 0..20 {
        browser.put(node, "k", &n.to_string()).await;
        assert_eq!(browser.value(&cluster.nodes[1], "k").await, Some(n.to_string()));
    }
    let address = node.address.clone();
    let strangers: Vec<TcpStream> = futures_of((0..4).map(|_| TcpStream::connect(address.clone()))).await;
    eventually("it is counted", || async {
        let stats: serde_json::Value =
            serde_json::from_str(&browser.clone().get(node, "/stats").await.body).ok()?;
        (stats["counts"]["accepts_failed"].as_u64()? > 0).then_some(())
    })
    .await;
    drop((idle, strangers));
    let begun = Instant::now();
    cluster.start_one("n3").await;
    cluster.formed().await;
    let joined = begun.elapsed();
    let node = &cluster.nodes[0];
    prlimit(Pid::from_raw(node.id()), Resource::Nofile, before).unwrap();
    let failed = node.counter("accepts_failed").await;
    let dropped = node.cause("member dropped").await;
    figure(
        &format!("no descriptors left, {mode}"),
        format!(
            "{failed} connections could not be accepted and were counted; 20 writes at level all went on; {dropped} members dropped; \
             when there were some again a third node joined after {joined:.1?}"
        ),
    );
    assert_eq!(dropped, 0);
    browser.put(&cluster.nodes[2], "k", "after").await;
    assert_eq!(browser.value(&cluster.nodes[0], "k").await.as_deref(), Some("after"));
}

async fn futures_of<T>(connects: impl Iterator<Item = impl Future<Output = std::io::Result<T>>>) -> Vec<T> {
    let mut made = Vec::new();
    for connect in connects {
        made.push(connect.await.unwrap());
    }
    made
}

/// New ones are refused; those that are there go on, also through a login; nothing is thrown out.
async fn full_table(mode: &'static str, _size: Size) {
    const ROOM: usize = 50;
    let cluster =
        processes(mode).with("--ack=all").with(&format!("--set=max_sessions={ROOM}")).start(2).await;
    let [a, b] = &cluster.nodes[..] else { unreachable!() };
    let mut users = Vec::new();
    for n in 0..ROOM {
        let mut browser = Browser::new();
        browser.put([a, b][n % 2], "k", &n.to_string()).await;
        users.push(browser);
    }
    let mut refused = 0;
    for node in [a, b] {
        let mut one_more = Browser::new();
        let answer = one_more.post(node, "/put?k=k&v=v").await;
        assert_eq!((answer.status, one_more.cookie), (503, None), "{answer:?}");
        assert!(answer.body.contains("max_sessions"), "{answer:?}");
        refused += node.counter("over_limit").await;
    }
    // Those who are there, write and log in.
    for (n, browser) in users.iter_mut().enumerate() {
        let (here, there) = if n % 2 == 0 { (a, b) } else { (b, a) };
        browser.put(there, "k", &format!("again{n}")).await;
        let login = browser.post(here, &format!("/login?user=u{n}")).await;
        assert_eq!(login.status, 200, "{login:?}");
    }
    for (n, browser) in users.iter_mut().enumerate() {
        for node in [a, b] {
            assert_eq!(browser.value(node, "k").await, Some(format!("again{n}")));
            assert_eq!(browser.value(node, "user").await, Some(format!("u{n}")));
        }
    }
    // One that goes makes room for one.
    assert_eq!(users[0].post(a, "/logout").await.status, 200);
    let mut next = Browser::new();
    next.put(a, "k", "v").await;
    assert_eq!(Browser::new().post(a, "/put?k=k&v=v").await.status, 503);
    figure(
        &format!("table of {ROOM} sessions full, {mode}"),
        format!(
            "{refused} new sessions refused (503) and counted, {ROOM} sessions written and logged in all the same, none thrown out; a logout made room"
        ),
    );
}

/// ENOSPC on every line that is logged.
async fn full_disk(mode: &'static str, _size: Size) {
    let mut cluster = processes(mode).with("--ack=all").logging_to("/dev/full").start(2).await;
    let mut browser = Browser::new();
    let begun = Instant::now();
    for n in 0..100 {
        browser.put(&cluster.nodes[n % 2], "k", &n.to_string()).await;
    }
    let took = begun.elapsed();
    cluster.start_one("n3").await;
    cluster.formed().await;
    assert_eq!(browser.value(&cluster.nodes[2], "k").await.as_deref(), Some("99"));
    figure(
        &format!("no room on the disk behind the log, {mode}"),
        format!(
            "100 writes at level all in {took:.1?}, a third node joined; nothing is kept on disk but logs"
        ),
    );
    // What it says where it is, too.
    let mut mute = cluster.command("n4", 3);
    let mut child =
        mute.stdout(std::fs::File::options().append(true).open("/dev/full").unwrap()).spawn().unwrap();
    for node in &cluster.nodes {
        node.sees(3).await;
    }
    assert!(child.try_wait().unwrap().is_none(), "it serves all the same");
    child.kill().await.unwrap();
}

/// ENOBUFS on every heartbeat: the links show that all live.
async fn no_buffers(mode: &'static str, size: Size) {
    let cluster = processes(mode).with("--ack=all").start(3).await;
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[0], "k", "before").await;
    let sender = cluster.nodes[0].thread("sessionmesh-heartbeat");
    let mut strace = Command::new("strace")
        .args([
            "-q",
            "-p",
            &sender.to_string(),
            "-e",
            "trace=sendto",
            "-e",
            "inject=sendto:error=ENOBUFS",
            "-o",
            "/dev/null",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually("they fail", || async {
        (cluster.nodes[0].counter("heartbeats_failed").await > 0).then_some(())
    })
    .await;
    let sent = cluster.nodes[0].counter("heartbeats_sent").await;
    // Longer than drop_time.
    let time = size.pick(Duration::from_secs(2), Duration::from_secs(5));
    let begun = Instant::now();
    let mut writes = 0;
    while begun.elapsed() < time {
        writes += 1;
        browser.put(&cluster.nodes[writes % 3], "k", &writes.to_string()).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let failed = cluster.nodes[0].counter("heartbeats_failed").await;
    assert_eq!(cluster.nodes[0].counter("heartbeats_sent").await, sent, "none got out");
    assert!(strace.try_wait().unwrap().is_none(), "strace was there all the time");
    strace.kill().await.unwrap();
    eventually("they go out again", || async {
        (cluster.nodes[0].counter("heartbeats_sent").await > sent + 3).then_some(())
    })
    .await;
    let dropped = cluster.drops().await;
    figure(
        &format!("ENOBUFS on all heartbeats of a node for {} s, {mode}", time.as_secs()),
        format!("{failed} counted, {writes} writes at level all acknowledged, {dropped} members dropped"),
    );
    assert_eq!(dropped, 0);
    assert_eq!(browser.value(&cluster.nodes[1], "k").await, Some(writes.to_string()));
}
