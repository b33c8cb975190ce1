//! From a connection to a link: headers, Hellos, verdicts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::host::TcpStream;
use bytes::BytesMut;
use sessionmesh_core::membership::LinkId;
use sessionmesh_core::wire::{
    ClusterKey, Frame, FrameDecoder, FrameLimit, Handshake, HandshakeError, Hello, PREAMBLE_BYTES,
    PeerMisbehaved, Refusal, Role, SEAL_BYTES,
};
#[cfg(not(sessionmesh_simulation))]
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::control::{Attached, Input};
use crate::events::fault;
use crate::host;
use crate::mesh::Mesh;
use crate::stats::count;

/// A connection whose other side proved who it is and was admitted by this one.
pub(crate) struct Greeted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: Hello,
    /// What was read past the handshake.
    pub(crate) buffer: BytesMut,
    pub(crate) attached: Attached,
}

/// How a handshake failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The other side is no node of this cluster, or broke off.
    Stranger,
    /// One of both refused the other; `Some` if it was the other.
    Refused(Option<Refusal>),
    /// The other side only asked who is here.
    Probe,
}

/// Shakes hands within the time-out.
pub(crate) async fn greet(
    mesh: &Arc<Mesh>,
    stream: TcpStream,
    link: LinkId,
    dialed: Option<SocketAddr>,
    hello: Hello,
) -> Result<Greeted, Failed> {
    let from = stream.peer_addr().map_or_else(|_| "unknown".into(), |address| address.to_string());
    let exchanged =
        tokio::time::timeout(mesh.config.handshake_timeout, exchange(mesh, stream, link, dialed, hello));
    let cause = match exchanged.await {
        Ok(Ok(result)) => return result,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "time-out".into(),
    };
    // A connection that ends before it says anything is a port scan or a health check.
    fault(mesh, "handshake failed", &cause, &from);
    Err(Failed::Stranger)
}

/// How far two sides got before the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No header came.
    Header,
    /// A header came, and no Hello.
    Hello,
    /// Each has the other's Hello.
    Verdict,
}

/// Why two sides did not get to know each other.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShakeError {
    #[error("connection {}", .0.kind())]
    Io(io::Error, Stage),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl From<PeerMisbehaved> for ShakeError {
    fn from(error: PeerMisbehaved) -> Self {
        Self::Handshake(error.into())
    }
}

/// Headers and Hellos, both ways. Gives back the other's.
pub(crate) async fn shake(
    stream: &mut TcpStream,
    role: Role,
    key: &ClusterKey,
    hello: Hello,
) -> Result<Hello, ShakeError> {
    let at = |stage| move |error| ShakeError::Io(error, stage);
    stream.set_nodelay(true).map_err(at(Stage::Header))?;
    let mut handshake = Handshake::new(role, host::random().map_err(at(Stage::Header))?);
    // The clock as it is when it is said, not when the connection was made.
    let seal = |handshake: &Handshake| {
        handshake.seal(key, &Hello { clock_ms: host::now().wall_ms, ..hello.clone() })
    };

    // The dialer speaks first: a stranger learns nothing from connecting.
    let mut preamble = [0; PREAMBLE_BYTES];
    if role == Role::Dialer {
        stream.write_all(&handshake.preamble(key)).await.map_err(at(Stage::Header))?;
    }
    stream.read_exact(&mut preamble).await.map_err(at(Stage::Header))?;
    handshake.read_preamble(key, &preamble)?;
    let mut say = Vec::new();
    if role == Role::Acceptor {
        say.extend_from_slice(&handshake.preamble(key));
    } else {
        say.extend_from_slice(&seal(&handshake));
    }
    stream.write_all(&say).await.map_err(at(Stage::Hello))?;

    let mut sealed = [0; SEAL_BYTES];
    stream.read_exact(&mut sealed).await.map_err(at(Stage::Hello))?;
    let mut body = vec![0; Handshake::hello_bytes(&sealed)?];
    stream.read_exact(&mut body).await.map_err(at(Stage::Hello))?;
    let peer = handshake.open(key, &sealed, &body)?;
    if role == Role::Acceptor {
        stream.write_all(&seal(&handshake)).await.map_err(at(Stage::Hello))?;
    }
    Ok(peer)
}

/// Differences of clocks that an operator should know of.
pub(crate) const CLOCKS_DIFFER_MS: u64 = 2_000;

async fn exchange(
    mesh: &Arc<Mesh>,
    mut stream: TcpStream,
    link: LinkId,
    dialed: Option<SocketAddr>,
    hello: Hello,
) -> Result<Result<Greeted, Failed>, ShakeError> {
    let at_verdict = |error| ShakeError::Io(error, Stage::Verdict);
    let role = if dialed.is_some() { Role::Dialer } else { Role::Acceptor };
    let dial = hello.dial;
    let peer = shake(&mut stream, role, &mesh.key, hello).await?;
    if peer.probe {
        count(&mesh.counters.probes_answered);
        return Ok(Err(Failed::Probe));
    }
    let differ_ms = peer.clock_ms.abs_diff(host::now().wall_ms);
    if differ_ms > CLOCKS_DIFFER_MS {
        fault(mesh, "clocks differ", peer.name.as_str(), &format!("by {differ_ms} ms: set both by NTP"));
    }
    count(&mesh.counters.handshakes);

    let (verdict, judged) = oneshot::channel();
    let dialed = dialed.map(|address| (address, dial));
    mesh.tell(Input::Hello { link, hello: peer.clone(), dialed, verdict });
    let refusal = judged.await.unwrap_or_else(|_| {
        let detail = "this node is stopping".into();
        Err(Refusal { reason: sessionmesh_core::wire::RefusalReason::Leaving, detail })
    });
    let refusal = refusal.err();
    stream.write_all(&Frame::Verdict(refusal.clone()).encode()).await.map_err(at_verdict)?;
    let mut buffer = BytesMut::with_capacity(16 << 10);
    let theirs = read_verdict(mesh, &mut stream, &peer, &mut buffer).await?;
    if refusal.is_some() || theirs.is_some() {
        return Ok(Err(Failed::Refused(theirs)));
    }
    let (attach, attached) = oneshot::channel();
    mesh.tell(Input::LinkUp { link, attach });
    Ok(match attached.await {
        Ok(attached) => Ok(Greeted { stream, peer, buffer, attached }),
        Err(_) => Err(Failed::Refused(None)),
    })
}

async fn read_verdict(
    mesh: &Mesh,
    stream: &mut TcpStream,
    peer: &Hello,
    buffer: &mut BytesMut,
) -> Result<Option<Refusal>, ShakeError> {
    let decoder = FrameDecoder::new(peer.boot, FrameLimit(mesh.config.frame_bytes));
    loop {
        if let Some(frame) = decoder.next(buffer)? {
            return match frame {
                Frame::Verdict(refusal) => Ok(refusal),
                _ => Err(PeerMisbehaved::Unexpected("frame before the verdict").into()),
            };
        }
        let read = stream.read_buf(buffer).await.map_err(|error| ShakeError::Io(error, Stage::Verdict))?;
        if read == 0 {
            return Err(ShakeError::Io(io::ErrorKind::UnexpectedEof.into(), Stage::Verdict));
        }
    }
}
