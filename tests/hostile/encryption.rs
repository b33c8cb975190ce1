//! Links are encrypted, and both sides prove who they are: what does not, is refused.

use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use sessionmesh_core::wire::{HEADER_BYTES, Handshake, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::liar::{Liar, Shows};
use super::target::{Target, closed, counted};

/// Tries to become a member; nobody hears from it.
async fn is_refused(liar: &Liar, target: &Target, cause: &str) {
    let node = &target.nodes[0];
    if let Ok(mut stream) = liar.greet(node.address()).await {
        closed(&mut stream).await;
        panic!("{liar:?} was greeted");
    }
    counted(node, cause).await;
    target.unharmed().await;
}

#[tokio::test]
async fn whoever_is_right_is_greeted() {
    let target = Target::new().await;
    let hello = sessionmesh_core::wire::Hello { probe: true, ..super::hello(66) };
    Liar { hello, ..target.liar() }.greet(target.nodes[0].address()).await.unwrap();
    assert_eq!(target.nodes[0].stats().counts.probes_answered, 1);
    target.unharmed().await;
}

#[tokio::test]
async fn a_peer_that_does_not_encrypt_is_refused() {
    let target = Target::new().await;
    let (node, liar) = (&target.nodes[0], target.liar());
    let plain = Handshake::new(Role::Dialer, false, [7; 24]);
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    stream.write_all(&plain.header(&liar.key())).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "nothing is said to it");
    counted(node, "handshake failed: not encrypted: it runs with insecure = true").await;

    // Right up to the header, then as if nothing had to be encrypted.
    let (mut stream, handshake) = liar.headers(node.address()).await.unwrap();
    assert!(liar.hellos(&mut stream, &handshake).await.is_err());
    counted(node, "handshake failed: no TLS").await;
    target.unharmed().await;
}

#[tokio::test]
async fn a_node_without_a_secret_is_no_member() {
    let target = Target::new().await;
    let mut config = sessionmesh::Config::new();
    config.set("cluster", &target.net.name()).unwrap().name("liar").unwrap();
    config.insecure(true).set("bind", "127.0.0.1:0").unwrap();
    config.seeds([target.nodes[0].address().to_string()]);
    let stranger = sessionmesh::Cluster::start(config).await.unwrap();
    counted(&target.nodes[0], "handshake failed: not encrypted").await;
    counted(&target.nodes[0], "heartbeat rejected: not made with this cluster's secret").await;
    target.unharmed().await;
    assert!(stranger.members().await.is_empty());
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused() {
    let target = Target::new().await;
    let liar = Liar { shows: Shows::Nothing, ..target.liar() };
    is_refused(&liar, &target, "handshake failed: it shows no certificate").await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let target = Target::new().await;
    let liar = Liar { shows: Shows::OtherAuthority, ..target.liar() };
    is_refused(&liar, &target, "handshake failed: its certificate is not accepted").await;
}

#[tokio::test]
async fn a_peer_that_says_another_name_than_its_certificate_is_refused() {
    let target = Target::new().await;
    for shows in [Shows::Another(66, "n2"), Shows::Another(67, "liar")] {
        let liar = Liar { shows, ..target.liar() };
        is_refused(&liar, &target, "handshake failed: its certificate is another node's").await;
    }
}

#[tokio::test]
async fn tls_of_another_protocol_is_refused() {
    let target = Target::new().await;
    for protocol in [Some("h2"), None] {
        let liar = Liar { shows: Shows::OtherProtocol(protocol), ..target.liar() };
        is_refused(&liar, &target, "handshake failed: another TLS").await;
    }
}

#[tokio::test]
async fn a_goodbye_in_the_middle_of_a_handshake_ends_it() {
    let target = Target::new().await;
    let (mut stream, _) = target.liar().headers(target.nodes[0].address()).await.unwrap();
    // TLS's close_notify, and more after it.
    stream.write_all(b"\x15\x03\x03\x00\x02\x01\x00\x16\x03\x03\x00\x04more").await.unwrap();
    closed(&mut stream).await;
    counted(&target.nodes[0], "handshake failed: no TLS").await;
    target.unharmed().await;
}

/// A node calls somebody who claims to be a member.
#[tokio::test]
async fn an_impostor_that_is_called_is_refused() {
    let target = Target::new().await;
    let (knows_nothing, other_authority) = (
        Liar { secret: b"another secret..".into(), ..target.liar() },
        Liar { shows: Shows::OtherAuthority, ..target.liar() },
    );
    for (liar, cause) in [
        (knows_nothing, "handshake failed: not made with this cluster's secret"),
        (other_authority, "handshake failed: its certificate is not accepted"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let seed = listener.local_addr().unwrap().to_string();
        let (hears, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let impostor = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // An error: it was hung up on.
                let _ = hears.send(pretend(&liar, stream).await.unwrap_or_default());
            }
        });
        let mut config = target.net.config("n3");
        config.seeds([seed]);
        let caller = sessionmesh::Cluster::start(config).await.unwrap();
        counted(&caller, cause).await;
        assert!(caller.members().await.is_empty());
        assert_eq!(heard.recv().await.unwrap(), b"", "a Hello for an impostor");
        impostor.abort();
    }
    target.unharmed().await;
}

/// Accepts, as far as it is let. Gives back what it is told.
async fn pretend(liar: &Liar, mut stream: TcpStream) -> std::io::Result<Vec<u8>> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    stream.write_all(&Handshake::new(Role::Acceptor, true, [8; 24]).header(&liar.key())).await?;
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let (certificate, key) = liar.certificate().expect("it shows one");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    config.alpn_protocols = vec!["sessionmesh/1".into()];
    let mut stream = TlsAcceptor::from(std::sync::Arc::new(config)).accept(stream).await?;
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    Ok(heard)
}
