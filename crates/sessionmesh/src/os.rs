//! What differs between operating systems, and the only clocks of the crate.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use sessionmesh_core::{BootId, Instant, Now, SessionId};

/// Both clocks.
pub(crate) fn now() -> Now {
    Now { mono: mono(), wall_ms: wall_ms() }
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
fn wall_ms() -> u64 {
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

/// How long until a point in time.
pub(crate) fn until(at: Instant) -> Duration {
    at - mono()
}

/// Random bytes of the operating system; only at start may it fail.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(format!("no random bytes: {error}")))?;
    Ok(bytes)
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
