//! The operating system's clocks and sockets, tokio's tasks.

use std::future::Future;
use std::io;
use std::sync::OnceLock;

use sessionmesh_core::Instant;

pub(crate) use tokio::net::{TcpListener, TcpStream, UdpSocket};
pub(crate) use tokio::spawn;

pub(crate) use crate::net::bind::Bound;

/// A bound socket that no runtime has taken yet.
pub(crate) type Datagrams = std::net::UdpSocket;
/// How the session table spreads ids.
pub(crate) type Hashing = foldhash::fast::RandomState;

/// In how many parts the session table is: a scan rests in between.
pub(crate) const TABLE_PARTS: usize = 256;

/// Read from a connection at once.
pub(crate) const READ_BYTES: usize = 64 << 10;
/// Put into a connection's write buffer at once.
pub(crate) const WRITE_BYTES: usize = 128 << 10;

/// Whether links are encrypted if there is a secret.
pub(crate) const ENCRYPTS: bool = true;

pub(crate) fn try_write_vectored(stream: &TcpStream, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
    stream.try_write_vectored(parts)
}

/// What this node speaks.
pub(crate) fn protocol_versions() -> (u32, u32) {
    sessionmesh_core::wire::PROTOCOL_VERSIONS
}

/// Time since boot, sleep included: a node that was suspended must know it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn mono() -> Instant {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Instant::from_nanos(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default())
}

/// Elsewhere the standard clock, which may stand still while the machine sleeps. Untested.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[allow(clippy::disallowed_methods)]
pub(crate) fn mono() -> Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    let origin = *ORIGIN.get_or_init(std::time::Instant::now);
    Instant::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

#[allow(clippy::disallowed_methods)]
pub(crate) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The wall clock as it was at the process's start, plus the time since: it does not step. Old marks
/// are forgotten by it, so neither a stepped clock here nor a fast one elsewhere forgets them early.
pub(crate) fn steady_wall_ms() -> u64 {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    let (mono_then, wall_then) = *START.get_or_init(|| (mono(), wall_ms()));
    let since = mono() - mono_then;
    wall_then.saturating_add(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Random bytes of the operating system; only at start may it fail.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(format!("no random bytes: {error}")))?;
    Ok(bytes)
}

/// Runs what takes its time beside the tasks of the runtime.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await
}

/// Runs a future on a thread of its own, with sockets: a busy application neither delays nor stops it.
pub(crate) fn spawn_apart<F: Future<Output = ()>>(
    name: &str,
    sockets: (Datagrams, Option<Datagrams>),
    body: impl FnOnce(UdpSocket, Option<UdpSocket>) -> F + Send + 'static,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (first, second) = {
        let _entered = runtime.enter();
        (UdpSocket::from_std(sockets.0)?, sockets.1.map(UdpSocket::from_std).transpose()?)
    };
    std::thread::Builder::new().name(name.into()).spawn(move || runtime.block_on(body(first, second)))?;
    Ok(())
}
