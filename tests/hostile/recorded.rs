//! What somebody on the path has recorded, played again or changed: worth nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use cluster_tests::{Net, eventually};
use sessionmesh_core::wire::{HEADER_BYTES, Hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::liar::{Liar, hello};
use super::target::{Target, caused, closed};

/// Somebody between two: forwards one connection, and records what each side says.
struct Tap {
    address: SocketAddr,
    dialer: Said,
    acceptor: Said,
}

/// What one side says, and what is done to it.
#[derive(Clone, Debug, Default)]
struct Said {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// At this offset a bit is changed.
    flip: Option<usize>,
    /// No more than so much comes through, then the connection ends.
    cut: Option<usize>,
}

impl Said {
    fn flipped_at(offset: usize) -> Self {
        Self { flip: Some(offset), ..Self::default() }
    }

    fn cut_at(length: usize) -> Self {
        Self { cut: Some(length), ..Self::default() }
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    async fn forward(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 64 << 10];
        let mut at = 0;
        while self.cut.is_none_or(|cut| at < cut) {
            let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
            self.bytes.lock().unwrap().extend_from_slice(&buffer[..read]);
            if let Some(flip) = self.flip.filter(|flip| (at..at + read).contains(flip)) {
                buffer[flip - at] ^= 1 << (flip % 8);
            }
            let through = self.cut.map_or(read, |cut| read.min(cut - at));
            if to.write_all(&buffer[..through]).await.is_err() {
                return;
            }
            at += read;
        }
    }
}

impl Tap {
    async fn on(to: SocketAddr) -> Self {
        Self::that(to, Said::default(), Said::default()).await
    }

    async fn that(to: SocketAddr, dialer: Said, acceptor: Said) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialers, acceptors) = (dialer.clone(), acceptor.clone());
        tokio::spawn(async move {
            // The first connection is what is listened to.
            let (dialing, _) = listener.accept().await.unwrap();
            let accepting = TcpStream::connect(to).await.unwrap();
            let ((from_dialer, to_dialer), (from_acceptor, to_acceptor)) =
                (dialing.into_split(), accepting.into_split());
            tokio::spawn(acceptors.forward(from_acceptor, to_dialer));
            dialers.forward(from_dialer, to_acceptor).await;
        });
        Self { address, dialer, acceptor }
    }
}

/// Whether an offset is in a part of a TLS record's header that stands for nothing: the version, and, once it is
/// encrypted, the type (RFC 8446, 5.1 and 5.2). What is within is what was said all the same.
fn is_ignored(said: &[u8], offset: usize) -> bool {
    const APPLICATION_DATA: u8 = 23;
    let mut at = HEADER_BYTES;
    while let Some(&[kind, _, _, high, low]) = said.get(at..at + 5) {
        if offset == at + 1 || offset == at + 2 || offset == at && kind == APPLICATION_DATA {
            return true;
        }
        at += 5 + usize::from(u16::from_be_bytes([high, low]));
    }
    false
}

/// A member's whole life on a link, its goodbye at the end.
#[tokio::test]
async fn what_a_member_said_on_a_link_is_worth_nothing_said_again() {
    let target = Target::new().await;
    let node = &target.nodes[0];
    let tap = Tap::on(node.address()).await;
    let mut config = target.net.config("n3");
    config.seeds([tap.address.to_string()]);
    let third = sessionmesh::Cluster::start(config).await.unwrap();
    third.ready().await.unwrap();
    eventually("it has spoken through the tap", || async { (tap.dialer.bytes().len() > 500).then_some(()) })
        .await;
    third.sessions().set(&target.id, "k", "v").await.unwrap();
    third.leave().await.unwrap();

    let recorded = tap.dialer.bytes();
    let (handshakes, failed) = (node.stats().counts.handshakes, caused(node, "handshake failed"));
    for _ in 0..3 {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        stream.write_all(&recorded).await.unwrap();
        closed(&mut stream).await;
    }
    eventually("each is counted", || async {
        (caused(node, "handshake failed") >= failed + 3).then_some(())
    })
    .await;
    assert_eq!(node.stats().counts.handshakes, handshakes, "none got as far as a Hello");
    target.unharmed().await;
}

/// Nodes that do not wait long for the rest of a record whose length was changed.
async fn impatient() -> (Target, Liar) {
    let target = Target::on(Net::seeds().with("handshake_timeout", "300ms")).await;
    let prober = Liar { hello: Hello { probe: true, ..hello(66) }, ..target.liar() };
    (target, prober)
}

#[tokio::test]
async fn a_bit_changed_in_what_a_caller_says_ends_the_connection() {
    let (target, prober) = impatient().await;
    let node = &target.nodes[0];
    let tap = Tap::on(node.address()).await;
    prober.greet(tap.address).await.unwrap();
    assert_eq!(node.stats().counts.probes_answered, 1);
    let length = tap.dialer.bytes().len();
    assert!(length > 700, "{length}");

    let (failed, mut passed) = (caused(node, "handshake failed"), Vec::new());
    for flip in 0..length {
        let tap = Tap::that(node.address(), Said::flipped_at(flip), Said::default()).await;
        if prober.greet(tap.address).await.is_ok() {
            let said = tap.dialer.bytes();
            assert!(flip >= said.len() || is_ignored(&said, flip), "a change at {flip} of {length} passed");
            passed.push(flip);
        }
    }
    assert!(passed.len() <= 16, "{passed:?}");
    eventually("each is counted", || async {
        (caused(node, "handshake failed") - failed >= (length - passed.len()) as u64).then_some(())
    })
    .await;
    assert_eq!(node.stats().counts.probes_answered, 1 + passed.len() as u64);
    target.unharmed().await;
}

/// The one who is deceived is this crate: it calls, as nodes do, and asks who is there.
#[tokio::test]
async fn a_bit_changed_in_what_is_answered_ends_the_connection() {
    let (target, _) = impatient().await;
    let node = &target.nodes[0];
    let call = async |tap: &Tap| {
        let mut config = target.net.config("caller");
        config.seeds([tap.address.to_string()]);
        let found = sessionmesh::diagnose(&config).await;
        found.iter().any(|finding| finding.text.contains("shares the secret, clocks"))
    };
    let tap = Tap::on(node.address()).await;
    assert!(call(&tap).await, "unchanged, it is understood");
    let length = tap.acceptor.bytes().len();
    assert!(length > 700, "{length}");

    let mut passed = Vec::new();
    for flip in 0..length {
        let tap = Tap::that(node.address(), Said::default(), Said::flipped_at(flip)).await;
        if call(&tap).await {
            let said = tap.acceptor.bytes();
            assert!(flip >= said.len() || is_ignored(&said, flip), "a change at {flip} of {length} passed");
            passed.push(flip);
        }
    }
    assert!(passed.len() <= 24, "{passed:?}");
    target.unharmed().await;
}

#[tokio::test]
async fn an_exchange_that_breaks_off_after_any_byte_is_forgotten() {
    let (target, prober) = impatient().await;
    let node = &target.nodes[0];
    let tap = Tap::on(node.address()).await;
    prober.greet(tap.address).await.unwrap();
    // A certificate's number may make it some bytes shorter or longer.
    let length = tap.dialer.bytes().len() - 16;
    let failed = caused(node, "handshake failed");
    for cut in 1..length {
        let tap = Tap::that(node.address(), Said::cut_at(cut), Said::default()).await;
        assert!(prober.greet(tap.address).await.is_err(), "{cut} of {length} bytes did");
    }
    eventually("each is counted", || async {
        (caused(node, "handshake failed") - failed >= length as u64 - 1).then_some(())
    })
    .await;
    assert_eq!(node.stats().counts.probes_answered, 1);
    target.unharmed().await;
}

#[tokio::test]
async fn heartbeats_of_an_earlier_start_admit_nobody_and_keep_nobody() {
    // Where seeds are, heartbeats go: one of them is a listener.
    let listener = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = Target::on(Net::seeds()).await;
    let node = &target.nodes[0];
    let mut config = target.net.config("n3");
    config.seeds([node.address().to_string(), listener.local_addr().unwrap().to_string()]);
    let third = sessionmesh::Cluster::start(config).await.unwrap();
    third.ready().await.unwrap();
    let mut recorded = Vec::new();
    for _ in 0..5 {
        let mut buffer = vec![0; 2_000];
        let length = listener.recv(&mut buffer).await.unwrap();
        recorded.push(buffer[..length].to_vec());
    }
    third.leave().await.unwrap();
    // Said again to those who have heard it, and to one who has not.
    let fresh = target.net.node("n4").await;
    fresh.ready().await.unwrap();
    let replayed = || node.stats().counts.heartbeats_replayed;
    let before = replayed();
    for _ in 0..20 {
        for heartbeat in &recorded {
            for to in [node.address(), fresh.address()] {
                listener.send_to(heartbeat, to).await.unwrap();
            }
        }
        for node in [node, &fresh] {
            assert!(node.members().await.iter().all(|member| member.name.as_str() != "n3"));
        }
    }
    eventually("they are counted", || async { (replayed() > before).then_some(()) }).await;
    fresh.leave().await.unwrap();
    target.unharmed().await;
}
