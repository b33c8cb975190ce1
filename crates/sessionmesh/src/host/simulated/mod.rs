//! A simulated host: virtual time, a seeded random number generator, a network in memory. Built only with
//! `--cfg sessionmesh_simulation`; everything above it is the code that ships.
//!
//! | file | what |
//! |---|---|
//! | `world` | hosts: clocks, randomness, tasks that can be paused and killed |
//! | `net` | what happens to bytes between hosts |
//! | `bound` | the sockets of a node |
//! | `stream` | connections |
//! | `datagram` | UDP, multicast too |
//! | `inspection` | what a simulator sees of a node |

mod bound;
mod datagram;
mod inspection;
mod net;
mod stream;
mod world;

use std::future::Future;
use std::io;

use sessionmesh_core::Instant;

pub(crate) use bound::Bound;
pub(crate) use datagram::{Datagrams, UdpSocket};
pub use inspection::{Copy, Inspection};
pub use net::Cable;
pub use sessionmesh_core::mutants::{Mutant, choose};
pub use sessionmesh_core::wire::PROTOCOL_VERSIONS;
pub(crate) use stream::{TcpListener, TcpStream};
pub use world::{Host, HostId, World};

/// Few: a simulated node has few sessions.
pub(crate) const TABLE_PARTS: usize = 16;

/// Little: a thread has many connections, and frames are to come in parts.
pub(crate) const READ_BYTES: usize = 4 << 10;
pub(crate) const WRITE_BYTES: usize = 8 << 10;

/// Nobody listens, and encryption is as random as the operating system.
pub(crate) const ENCRYPTS: bool = false;

pub(crate) fn try_write_vectored(stream: &TcpStream, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
    stream.try_write(parts.first().map_or(&[], |part| part))
}

/// The same order in every run.
pub(crate) type Hashing = foldhash::fast::FixedState;

pub(crate) fn mono() -> Instant {
    world::mono()
}

pub(crate) fn protocol_versions() -> (u32, u32) {
    world::current().versions()
}

pub(crate) fn wall_ms() -> u64 {
    world::current().wall_ms()
}

pub(crate) fn steady_wall_ms() -> u64 {
    world::current().steady_wall_ms()
}

#[allow(clippy::unnecessary_wraps)] // As on a real host.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    world::current().random(&mut bytes);
    Ok(bytes)
}

/// A task of the host whose task this is.
pub(crate) fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    world::current().spawn(future)
}

#[allow(clippy::unused_async)] // As on a real host.
pub(crate) async fn blocking<R>(work: impl FnOnce() -> R) -> Result<R, tokio::task::JoinError> {
    Ok(work())
}

#[allow(clippy::unnecessary_wraps)] // As on a real host.
pub(crate) fn spawn_apart<F: Future<Output = ()> + Send + 'static>(
    _name: &str,
    sockets: (Datagrams, Option<Datagrams>),
    body: impl FnOnce(UdpSocket, Option<UdpSocket>) -> F,
) -> io::Result<()> {
    spawn(body(sockets.0, sockets.1));
    Ok(())
}
