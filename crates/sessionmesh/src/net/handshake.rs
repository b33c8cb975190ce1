//! From a connection to a link: headers, Hellos, verdicts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use sessionmesh_core::membership::LinkId;
use sessionmesh_core::wire::{
    Frame, FrameDecoder, FrameLimit, Handshake, HandshakeError, Hello, PREAMBLE_BYTES, PeerMisbehaved,
    Refusal, Role, SEAL_BYTES,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::control::{Attached, Input};
use crate::events::fault;
use crate::mesh::Mesh;
use crate::os;
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
    let shaken =
        tokio::time::timeout(mesh.config.handshake_timeout, exchange(mesh, stream, link, dialed, hello));
    let error = match shaken.await {
        Ok(Ok(result)) => return result,
        Ok(Err(error)) => error,
        Err(_) => Error::Late,
    };
    let cause = match &error {
        Error::Io(error) => format!("connection {}", error.kind()),
        Error::Handshake(error) => error.to_string(),
        Error::Late => "time-out".into(),
    };
    // A connection that ends before it says anything is a port scan or a health check.
    fault(mesh, "handshake failed", &cause, &from);
    Err(Failed::Stranger)
}

enum Error {
    Io(io::Error),
    Handshake(HandshakeError),
    Late,
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<HandshakeError> for Error {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

impl From<PeerMisbehaved> for Error {
    fn from(error: PeerMisbehaved) -> Self {
        Self::Handshake(error.into())
    }
}

async fn exchange(
    mesh: &Arc<Mesh>,
    mut stream: TcpStream,
    link: LinkId,
    dialed: Option<SocketAddr>,
    hello: Hello,
) -> Result<Result<Greeted, Failed>, Error> {
    stream.set_nodelay(true)?;
    let role = if dialed.is_some() { Role::Dialer } else { Role::Acceptor };
    let mut handshake = Handshake::new(role, os::random()?);

    // The dialer speaks first: a stranger learns nothing from connecting.
    let mut preamble = [0; PREAMBLE_BYTES];
    if role == Role::Dialer {
        stream.write_all(&handshake.preamble(&mesh.key)).await?;
    }
    stream.read_exact(&mut preamble).await?;
    handshake.read_preamble(&mesh.key, &preamble)?;
    let dial = hello.dial;
    let mut say = Vec::new();
    if role == Role::Acceptor {
        say.extend_from_slice(&handshake.preamble(&mesh.key));
    } else {
        say.extend_from_slice(&handshake.seal(&mesh.key, &hello));
    }
    stream.write_all(&say).await?;

    let mut seal = [0; SEAL_BYTES];
    stream.read_exact(&mut seal).await?;
    let mut body = vec![0; Handshake::hello_bytes(&seal)?];
    stream.read_exact(&mut body).await?;
    let peer = handshake.open(&mesh.key, &seal, &body)?;
    if role == Role::Acceptor {
        stream.write_all(&handshake.seal(&mesh.key, &hello)).await?;
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
    stream.write_all(&Frame::Verdict(refusal.clone()).encode()).await?;
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
) -> Result<Option<Refusal>, Error> {
    let decoder = FrameDecoder::new(peer.boot, FrameLimit(mesh.config.frame_bytes));
    loop {
        if let Some(frame) = decoder.next(buffer)? {
            return match frame {
                Frame::Verdict(refusal) => Ok(refusal),
                _ => Err(PeerMisbehaved::Unexpected("frame before the verdict").into()),
            };
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
