//! What a node runs on: clocks, randomness, tasks, sockets. The only place that differs between a real
//! host and a simulated one (`--cfg sessionmesh_simulation`), and between operating systems.

#[cfg(not(sessionmesh_simulation))]
mod real;
#[cfg(sessionmesh_simulation)]
pub mod simulated;

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use sessionmesh_core::{BootId, Instant, Now, SessionId};

#[cfg(not(sessionmesh_simulation))]
pub(crate) use real::{
    Bound, Datagrams, ENCRYPTS, Hashing, READ_BYTES, TABLE_PARTS, TcpListener, TcpStream, UdpSocket,
    WRITE_BYTES, blocking, mono, protocol_versions, random, spawn, spawn_apart, steady_wall_ms,
    try_write_vectored, wall_ms,
};
#[cfg(sessionmesh_simulation)]
pub(crate) use simulated::{
    Bound, Datagrams, ENCRYPTS, Hashing, READ_BYTES, TABLE_PARTS, TcpListener, TcpStream, UdpSocket,
    WRITE_BYTES, blocking, mono, protocol_versions, random, spawn, spawn_apart, steady_wall_ms,
    try_write_vectored, wall_ms,
};

/// Both clocks.
pub(crate) fn now() -> Now {
    Now { mono: mono(), wall_ms: wall_ms() }
}

/// How long until a point in time.
pub(crate) fn until(at: Instant) -> Duration {
    at - mono()
}

/// A fresh boot id.
pub(crate) fn boot_id() -> io::Result<BootId> {
    loop {
        if let Some(boot) = BootId::new(u64::from_le_bytes(random()?)) {
            return Ok(boot);
        }
    }
}

/// A fresh session id.
pub(crate) fn session_id() -> io::Result<SessionId> {
    Ok(SessionId::from_bytes(random()?))
}

/// Names this host among others that share a cluster, for default node names.
pub(crate) fn process_label() -> &'static str {
    static LABEL: OnceLock<String> = OnceLock::new();
    LABEL.get_or_init(|| std::process::id().to_string())
}
