//! From a connection to a link: headers, encryption, Hellos, verdicts.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::host::TcpStream;
use bytes::BytesMut;
use sessionmesh_core::membership::{LinkId, Said};
use sessionmesh_core::wire::{
    Frame, FrameDecoder, FrameLimit, HEADER_BYTES, Handshake, HandshakeError, Hello, PeerMisbehaved, Refusal,
    Role, SEAL_BYTES,
};
use tokio::sync::oneshot;

use super::channel::{Broken, Channel};
use crate::control::{Attached, Input};
use crate::events::fault;
use crate::host;
use crate::mesh::Mesh;
use crate::security::{Credentials, Opening};
use crate::stats::count;

/// A connection whose other side proved who it is and was admitted by this one.
pub(crate) struct Greeted {
    pub(crate) channel: Channel,
    pub(crate) peer: Hello,
    pub(crate) opening: Opening,
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

/// What this node says on a connection that it made.
#[derive(Debug)]
pub(crate) struct Dialed {
    pub(crate) link: LinkId,
    pub(crate) address: SocketAddr,
    pub(crate) hello: Hello,
}

/// Shakes hands within the time-out. What to say on a connection that the other made is asked for only once it has
/// opened it; the number that the link then has is told.
pub(crate) async fn greet(
    mesh: &Arc<Mesh>,
    stream: TcpStream,
    dialed: Option<Dialed>,
    link: &mut Option<LinkId>,
) -> Result<Greeted, Failed> {
    let channel = Channel::new(stream);
    let from = channel.peer_addr().map_or_else(|_| "unknown".into(), |address| address.to_string());
    let exchanged =
        tokio::time::timeout(mesh.config.handshake_timeout, exchange(mesh, channel, dialed, link));
    let (cause, detail) = match exchanged.await {
        Ok(Ok(result)) => return result,
        Ok(Err(error)) => (error.cause(), format!("{from}: {error}")),
        Err(_) => ("time-out".into(), from),
    };
    // A connection that ends before it says anything is a port scan or a health check.
    fault(mesh, "handshake failed", &cause, &detail);
    Err(Failed::Stranger)
}

/// How far two sides got before the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No header came.
    Header,
    /// A header came; the connection is not encrypted yet.
    Encryption,
    /// It is, or need not be, and no Hello came.
    Hello,
    /// Each has the other's Hello.
    Verdict,
}

/// Why two sides did not get to know each other.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShakeError {
    #[error("{0}")]
    Broken(Broken, Stage),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl ShakeError {
    /// One of few, for counting.
    fn cause(&self) -> String {
        match self {
            Self::Broken(Broken::Tls(failed), _) => failed.cause.into(),
            Self::Handshake(HandshakeError::TooLong(_)) => "a hello that is too long".into(),
            other => other.to_string(),
        }
    }
}

impl From<PeerMisbehaved> for ShakeError {
    fn from(error: PeerMisbehaved) -> Self {
        Self::Handshake(error.into())
    }
}

/// Who is on the other side.
pub(crate) struct Shaken {
    pub(crate) hello: Hello,
    pub(crate) opening: Opening,
}

fn at<E: Into<Broken>>(stage: Stage) -> impl Fn(E) -> ShakeError {
    move |error| ShakeError::Broken(error.into(), stage)
}

/// Headers, and encryption: nobody has said who it is.
pub(crate) async fn open(
    channel: &mut Channel,
    role: Role,
    credentials: &Credentials,
) -> Result<Handshake, ShakeError> {
    let Credentials { key, tls } = credentials;
    channel.set_nodelay().map_err(at(Stage::Header))?;
    let nonce = host::random().map_err(at(Stage::Header))?;
    let mut handshake = Handshake::new(role, tls.is_some(), nonce);

    // The dialer speaks first: a stranger learns nothing from connecting.
    let mut header = [0; HEADER_BYTES];
    if role == Role::Dialer {
        channel.write_all(&handshake.header(key)).await.map_err(at(Stage::Header))?;
    }
    let (magic, rest) = header.split_at_mut(4);
    channel.read_exact(magic).await.map_err(at(Stage::Header))?;
    if !Handshake::may_begin(magic) {
        return Err(HandshakeError::Foreign.into());
    }
    channel.read_exact(rest).await.map_err(at(Stage::Header))?;
    let read = handshake.read_header(key, &header);
    if role == Role::Acceptor && matches!(read, Ok(()) | Err(HandshakeError::Unauthenticated)) {
        channel.write_all(&handshake.header(key)).await.map_err(at(Stage::Encryption))?;
    }
    read?;
    if let Some(tls) = tls {
        channel.encrypt(tls, role).await.map_err(at(Stage::Encryption))?;
    }
    Ok(handshake)
}

/// Hellos, both ways.
pub(crate) async fn introduce(
    channel: &mut Channel,
    handshake: &Handshake,
    credentials: &Credentials,
    hello: Hello,
) -> Result<Shaken, ShakeError> {
    let key = &credentials.key;
    // The clock as it is when it is said, not when the connection was made.
    let seal = || handshake.seal(key, &Hello { clock_ms: host::now().wall_ms, ..hello.clone() });
    if handshake.role() == Role::Dialer {
        channel.write_all(&seal()).await.map_err(at(Stage::Hello))?;
    }
    let mut sealed = [0; SEAL_BYTES];
    channel.read_exact(&mut sealed).await.map_err(at(Stage::Hello))?;
    let mut body = vec![0; Handshake::hello_bytes(&sealed)?];
    channel.read_exact(&mut body).await.map_err(at(Stage::Hello))?;
    let (peer, secret) = handshake.open(key, &sealed, &body)?;
    channel.check_identity(&peer).map_err(at(Stage::Hello))?;
    if handshake.role() == Role::Acceptor {
        channel.write_all(&seal()).await.map_err(at(Stage::Hello))?;
    }
    Ok(Shaken { hello: peer, opening: credentials.opening(secret) })
}

/// Differences of clocks that an operator should know of.
pub(crate) const CLOCKS_DIFFER_MS: u64 = 2_000;

async fn exchange(
    mesh: &Arc<Mesh>,
    mut channel: Channel,
    dialed: Option<Dialed>,
    told: &mut Option<LinkId>,
) -> Result<Result<Greeted, Failed>, ShakeError> {
    let role = if dialed.is_some() { Role::Dialer } else { Role::Acceptor };
    let credentials = mesh.credentials();
    let handshake = open(&mut channel, role, &credentials).await?;
    let (link, hello, dialed) = match dialed {
        Some(Dialed { link, address, hello }) => (link, hello, Some(address)),
        None => {
            let (answer, answered) = oneshot::channel();
            mesh.tell(Input::Accepted(answer));
            let Ok((link, hello)) = answered.await else { return Ok(Err(Failed::Refused(None))) };
            (link, hello, None)
        }
    };
    *told = Some(link);
    let said = Said::from(&hello);
    let Shaken { hello: peer, opening } = introduce(&mut channel, &handshake, &credentials, hello).await?;
    drop(credentials);
    if peer.probe {
        count(&mesh.counters.probes_answered);
        return Ok(Err(Failed::Probe));
    }
    let differ_ms = peer.clock_ms.abs_diff(host::now().wall_ms);
    if differ_ms > CLOCKS_DIFFER_MS {
        fault(mesh, "clocks differ", peer.name.as_str(), &format!("by {differ_ms} ms: set both by NTP"));
    }
    count(&mesh.counters.handshakes);

    // Secrets may have been changed meanwhile.
    if !mesh.credentials().accept(&opening) {
        return Err(HandshakeError::Unauthenticated.into());
    }
    let (verdict, judged) = oneshot::channel();
    mesh.tell(Input::Hello { link, hello: Box::new(peer.clone()), dialed, said, verdict });
    let refusal = judged.await.unwrap_or_else(|_| {
        let detail = "this node is stopping".into();
        Err(Refusal { reason: sessionmesh_core::wire::RefusalReason::Leaving, detail })
    });
    let refusal = refusal.err();
    let at_verdict = |error: Broken| ShakeError::Broken(error, Stage::Verdict);
    let verdict = Frame::Verdict(refusal.clone()).encode();
    channel.write_all(&verdict).await.map_err(|error| at_verdict(error.into()))?;
    let mut buffer = BytesMut::with_capacity(16 << 10);
    let theirs = read_verdict(mesh, &mut channel, &peer, &mut buffer).await?;
    if refusal.is_some() || theirs.is_some() {
        return Ok(Err(Failed::Refused(theirs)));
    }
    let (attach, attached) = oneshot::channel();
    mesh.tell(Input::LinkUp { link, attach });
    Ok(match attached.await {
        Ok(attached) => Ok(Greeted { channel, peer, opening, buffer, attached }),
        Err(_) => Err(Failed::Refused(None)),
    })
}

async fn read_verdict(
    mesh: &Mesh,
    channel: &mut Channel,
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
        channel.read_buf(buffer).await.map_err(|error| ShakeError::Broken(error, Stage::Verdict))?;
    }
}
