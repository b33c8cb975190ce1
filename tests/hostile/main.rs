//! Strangers, garbage and liars at the doors of running nodes: refused, counted, and without effect.

#![allow(clippy::unwrap_used)] // A test that can't go on says so and stops.

mod certificates;
mod encryption;
mod liar;
mod recorded;
mod rotation;
mod target;

use std::time::Duration;

use cluster_tests::{Net, eventually};
use liar::{Liar, SECRET, hello};
use sessionmesh::{AckLevel, BootId, CommitError, LoadError, MemberState, Mode, SessionId};
use sessionmesh_core::wire::{Ack, ClusterKey, Frame, HEADER_BYTES, Handshake, Heartbeat, Hello, Role};
use target::{Target, closed, counted};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

#[tokio::test]
async fn garbage_datagrams_and_those_of_others_change_nothing() {
    let target = Target::new().await;
    let node = &target.nodes[0];
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let heartbeat = Heartbeat {
        boot: BootId::new(66).unwrap(),
        counter: 1,
        state: MemberState::Ready,
        view: 0,
        heard: Vec::new(),
        address: "127.0.0.1:9".parse().unwrap(),
    };
    let wrong = heartbeat.seal(&ClusterKey::derive(&target.net.name(), b"another secret.."));
    let foreign = heartbeat.seal(&ClusterKey::derive("another cluster", SECRET));
    let ours = heartbeat.seal(&target.liar().key());
    let mut flipped = ours.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let long = vec![b'S'; 2_000];
    for datagram in
        [&b""[..], b"SMH1", b"M-SEARCH * HTTP/1.1", &wrong, &foreign, &flipped, &ours[..40], &long]
    {
        socket.send_to(datagram, node.address()).await.unwrap();
    }
    counted(node, "not a sessionmesh heartbeat").await;
    counted(node, "of another cluster").await;
    counted(node, "not made with this cluster's secret").await;
    // An authentic heartbeat of somebody who is not there admits nobody.
    for _ in 0..3 {
        socket.send_to(&ours, node.address()).await.unwrap();
    }
    eventually("the replays are counted", || async {
        (node.stats().counts.heartbeats_replayed == 2).then_some(())
    })
    .await;
    target.unharmed().await;
}

#[tokio::test]
async fn strangers_on_the_link_port_get_nothing_and_are_cut_off_in_time() {
    let target = Target::new().await;
    let node = &target.nodes[0];
    let mut browser = TcpStream::connect(node.address()).await.unwrap();
    browser.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), browser.read_to_end(&mut heard)).await.unwrap();
    assert!(heard.is_empty(), "a stranger learns nothing");
    counted(node, "handshake failed: not a sessionmesh node").await;

    let wrong = Liar { secret: b"another secret..".into(), ..target.liar() };
    assert!(wrong.greet(node.address()).await.is_err());
    counted(node, "handshake failed: not made with this cluster's secret").await;
    let foreign = Liar::new("another cluster", 66);
    assert!(foreign.greet(node.address()).await.is_err());
    counted(node, "handshake failed: of another cluster").await;

    // One that says nothing is cut off after handshake_timeout.
    let begun = tokio::time::Instant::now();
    let mut silent = TcpStream::connect(node.address()).await.unwrap();
    closed(&mut silent).await;
    assert!((1..4).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    counted(node, "handshake failed: time-out").await;
    target.unharmed().await;
}

#[tokio::test]
async fn a_flood_of_silent_connections_does_not_keep_members_out() {
    let target = Target::new().await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(target.nodes[0].address()).await.unwrap());
    }
    eventually("the excess is refused", || async {
        (target.nodes[0].stats().counts.handshakes_over_limit > 0).then_some(())
    })
    .await;
    target.unharmed().await;
    drop(idle);
    let joiner = target.net.node("n3").await;
    joiner.ready().await.unwrap();
}

/// As many as may be unproved at once are heard; one more is closed at the door, and counted.
#[tokio::test]
async fn the_last_connection_that_there_is_room_for_is_heard_and_the_next_is_not() {
    let target = Target::on(Net::seeds().with("handshakes", "3").with("handshake_timeout", "5s")).await;
    let node = &target.nodes[0];
    let connect = async || TcpStream::connect(node.address()).await.unwrap();
    let _silent = [connect().await, connect().await];
    let prober = Liar { hello: Hello { probe: true, ..hello(66) }, ..target.liar() };
    let mut third = prober.greet(node.address()).await.unwrap();
    closed(&mut third).await;
    assert_eq!(node.stats().counts.handshakes_over_limit, 0);
    let _also_silent = connect().await;
    let mut fourth = connect().await;
    closed(&mut fourth).await;
    assert_eq!(node.stats().counts.handshakes_over_limit, 1);
    target.unharmed().await;
}

/// Slow, and in time; slow, and too late.
#[tokio::test]
async fn a_handshake_that_ends_within_its_time_counts_and_one_that_does_not_is_cut_off() {
    let target = Target::on(Net::seeds().with("handshake_timeout", "2s")).await;
    let node = &target.nodes[0];
    let key = target.liar().key();
    let greeting = Handshake::new(Role::Dialer, true, [7; 24]).header(&key);
    for (rest, in_time) in [(Duration::from_millis(1_000), true), (Duration::from_millis(3_000), false)] {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        stream.write_all(&greeting[..greeting.len() - 1]).await.unwrap();
        let mut answer = [0; HEADER_BYTES];
        // Nothing is said to one who has not finished the first word.
        let early = tokio::time::timeout(rest, stream.read(&mut answer)).await;
        assert_eq!(early.is_err(), in_time, "{early:?}");
        if in_time {
            stream.write_all(&greeting[greeting.len() - 1..]).await.unwrap();
            stream.read_exact(&mut answer).await.unwrap();
        } else {
            assert_eq!(early.unwrap().unwrap_or(0), 0, "closed");
        }
    }
    counted(node, "handshake failed: time-out").await;
    target.unharmed().await;
}

/// One request may wait for other nodes; a second one is told at once that too many do.
#[tokio::test]
async fn the_last_look_up_that_there_is_room_for_waits_and_the_next_is_refused() {
    // Shorter than the time after which the silent one is dropped.
    let net = Net::seeds().with("lookups", "1").with("fetch_timeout", "1s").with("drop_time", "8s");
    let target = Target::on(net).await;
    let node = &target.nodes[0];
    // A member that answers nothing.
    let mut deaf = target.liar().greet(node.address()).await.unwrap();
    deaf.write_all(&Frame::Verdict(None).encode()).await.unwrap();
    eventually("the deaf one is a member", || async {
        node.members().await.iter().any(|member| member.name.as_str() == "liar").then_some(())
    })
    .await;
    let sessions = node.sessions();
    let unknown = SessionId::from_bytes([9; 16]);
    let (first, second) = tokio::join!(sessions.load(&unknown), async {
        eventually("the first waits", || async { (node.stats().counts.lookups > 0).then_some(()) }).await;
        let begun = tokio::time::Instant::now();
        (sessions.load(&SessionId::from_bytes([8; 16])).await, begun.elapsed())
    });
    assert!(matches!(first, Err(LoadError::Unavailable { .. })), "{first:?}");
    assert!(matches!(second.0, Err(LoadError::Overloaded)), "{:?}", second.0);
    assert!(second.1 < Duration::from_millis(500), "{:?}", second.1);
    // There is room again.
    assert!(!matches!(sessions.load(&unknown).await, Err(LoadError::Overloaded)));
}

#[tokio::test]
async fn a_peer_of_an_unknown_protocol_version_is_refused_by_name() {
    let target = Target::new().await;
    let newer = Liar { hello: Hello { versions: (9, 12), ..hello(66) }, ..target.liar() };
    let mut stream = newer.greet(target.nodes[0].address()).await.unwrap();
    let mut said = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut said)).await.unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("liar speaks protocol versions 9 to 12"), "{said}");
    counted(&target.nodes[0], "refused: Version").await;
    target.unharmed().await;
}

#[tokio::test]
async fn a_peer_of_another_mode_is_refused_and_both_are_named() {
    let target = Target::new().await;
    let other = Hello { mode: Mode::BackupOnly { copies: 2 }, ..hello(66) };
    let other = Liar { hello: other, ..target.liar() };
    let mut stream = other.greet(target.nodes[0].address()).await.unwrap();
    let mut said = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut said)).await.unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("liar is backup-only with copies = 2, n1 is all-peers"), "{said}");
    target.unharmed().await;
}

/// A liar with the secret becomes a member, breaks the protocol, and is dropped for it.
async fn misbehaves(bytes: Vec<u8>, cause: &str) {
    let target = Target::new().await;
    let node = &target.nodes[0];
    let mut stream = target.liar().greet(node.address()).await.unwrap();
    stream.write_all(&Frame::Verdict(None).encode()).await.unwrap();
    eventually("the liar is a member", || async {
        node.members().await.iter().any(|member| member.name.as_str() == "liar").then_some(())
    })
    .await;
    let _ = stream.write_all(&bytes).await;
    counted(node, cause).await;
    drop(stream);
    target.unharmed().await;
}

#[tokio::test]
async fn a_write_that_missed_its_level_misses_it_again_when_repeated() {
    // Shorter than the time after which the silent one is dropped.
    let target = Target::on(Net::seeds().with("ack_timeout", "200ms")).await;
    let node = &target.nodes[0];
    let mut deaf = target.liar().greet(node.address()).await.unwrap();
    deaf.write_all(&Frame::Verdict(None).encode()).await.unwrap();
    eventually("the one that never acknowledges is a member", || async {
        node.members().await.iter().any(|member| member.name.as_str() == "liar").then_some(())
    })
    .await;
    let sessions = node.at(AckLevel::All);
    let (first, again) = tokio::join!(sessions.set(&target.id, "k", "w"), async {
        eventually("the first has written", || async {
            let session = node.sessions().load(&target.id).await.unwrap().unwrap();
            (session.get("k") == Some(&b"w"[..])).then_some(())
        })
        .await;
        sessions.set(&target.id, "k", "w").await
    });
    for written in [first, again] {
        assert!(
            matches!(&written, Err(CommitError::LevelMissed(c)) if c.outcome.have < c.outcome.want),
            "{written:?}"
        );
    }
}

#[tokio::test]
async fn a_frame_longer_than_the_limit_closes_the_link() {
    misbehaves(u32::MAX.to_be_bytes().to_vec(), "peer misbehaved: a frame of 4294967295 bytes").await;
}

#[tokio::test]
async fn a_garbage_frame_closes_the_link() {
    misbehaves(
        [&8u32.to_be_bytes()[..], &[0xff; 8]].concat(),
        "peer misbehaved: a frame that can't be decoded",
    )
    .await;
}

#[tokio::test]
async fn an_empty_frame_closes_the_link() {
    misbehaves(0u32.to_be_bytes().to_vec(), "peer misbehaved: a frame with an invalid frame kind").await;
}

#[tokio::test]
async fn an_acknowledgement_of_what_was_never_sent_closes_the_link() {
    let ack = Ack { epoch: 1_000, upto: 1_000, ..Ack::default() };
    misbehaves(Frame::Ack(ack).encode().to_vec(), "peer misbehaved: a frame with an invalid ack").await;
}

#[tokio::test]
async fn a_second_verdict_closes_the_link() {
    misbehaves(Frame::Verdict(None).encode().to_vec(), "peer misbehaved: an unexpected verdict").await;
}

#[tokio::test]
async fn a_peer_that_vanishes_in_the_middle_of_a_frame_harms_nobody() {
    let target = Target::new().await;
    let node = &target.nodes[0];
    let mut stream = target.liar().greet(node.address()).await.unwrap();
    stream.write_all(&Frame::Verdict(None).encode()).await.unwrap();
    let frame = Frame::Ping(7).encode();
    stream.write_all(&frame[..frame.len() - 1]).await.unwrap();
    drop(stream);
    target.unharmed().await;
}
