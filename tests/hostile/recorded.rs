//! What somebody on the path has recorded, played again or changed: worth nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_tests::{Net, eventually, within};
use sessionmesh_core::wire::{HEADER_BYTES, Hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::liar::{Liar, hello};
use super::target::{Target, caused, closed};

/// Somebody between two: forwards, records what the dialer says, and changes a bit of it.
struct Tap {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// `flip`: the offset of the byte that is changed.
    async fn on(to: SocketAddr, flip: Option<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let recorder = heard.clone();
        tokio::spawn(async move {
            // The first connection is what is listened to.
            let (dialer, _) = listener.accept().await.unwrap();
            let acceptor = TcpStream::connect(to).await.unwrap();
            let ((dialer_in, dialer_out), (acceptor_in, acceptor_out)) =
                (dialer.into_split(), acceptor.into_split());
            tokio::spawn(forward(acceptor_in, dialer_out, |_| {}));
            let mut at = 0;
            forward(dialer_in, acceptor_out, move |bytes| {
                recorder.lock().unwrap().extend_from_slice(bytes);
                if let Some(byte) =
                    flip.and_then(|flip| flip.checked_sub(at)).and_then(|at| bytes.get_mut(at))
                {
                    *byte ^= 1 << (flip.unwrap_or(0) % 8);
                }
                at += bytes.len();
            })
            .await;
        });
        Self { address, heard }
    }

    fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut each: impl FnMut(&mut [u8])) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        each(&mut buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
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
    let tap = Tap::on(node.address(), None).await;
    let mut config = target.net.config("n3");
    config.seeds([tap.address.to_string()]);
    let third = sessionmesh::Cluster::start(config).await.unwrap();
    third.ready().await.unwrap();
    eventually("it has spoken through the tap", || async { (tap.heard().len() > 500).then_some(()) }).await;
    third.sessions().set(&target.id, "k", "v").await.unwrap();
    third.leave().await.unwrap();

    let recorded = tap.heard();
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

#[tokio::test]
async fn a_bit_changed_anywhere_on_the_way_ends_the_connection() {
    let target = Target::new().await;
    let node = &target.nodes[0];
    let prober = Liar { hello: Hello { probe: true, ..hello(66) }, ..target.liar() };
    let tap = Tap::on(node.address(), None).await;
    prober.greet(tap.address).await.unwrap();
    assert_eq!(node.stats().counts.probes_answered, 1);
    let length = tap.heard().len();
    assert!(length > 700, "{length}");

    let (failed, mut passed) = (caused(node, "handshake failed"), Vec::new());
    for flip in 0..length {
        let tap = Tap::on(node.address(), Some(flip)).await;
        if within(Duration::from_secs(5), "it ends", || async {
            Some(prober.greet(tap.address).await.is_ok())
        })
        .await
        {
            assert!(is_ignored(&tap.heard(), flip), "a change at {flip} of {length} passed");
            passed.push(flip);
        }
    }
    assert!(passed.len() <= 10, "{passed:?}");
    eventually("each is counted", || async {
        (caused(node, "handshake failed") - failed >= (length - passed.len()) as u64).then_some(())
    })
    .await;
    assert_eq!(node.stats().counts.probes_answered, 1 + passed.len() as u64);
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
