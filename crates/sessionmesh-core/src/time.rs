//! Time as the core sees it: handed in, never read.

use core::fmt;
use core::num::NonZeroU64;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A point on one node's monotonic clock, which must go on while the machine sleeps.
///
/// Nanoseconds since an origin of the driver's choice; never compared between nodes. One more than these is kept, so that
/// none takes no room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

impl Instant {
    /// The driver's origin.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// From nanoseconds since the driver's origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// Nanoseconds since the driver's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Time since `earlier`; zero if that lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.as_nanos().saturating_sub(earlier.as_nanos()))
    }

    /// This much earlier, not before the origin.
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self::from_nanos(self.as_nanos().saturating_sub(nanos(by)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t+{:?}", Duration::from_nanos(self.as_nanos()))
    }
}

/// The two readings that a decision may need.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// The monotonic clock.
    pub mono: Instant,
    /// Milliseconds since the Unix epoch. Only breaks ties between writes that do not know of each
    /// other; nothing expires by it.
    pub wall_ms: u64,
}
