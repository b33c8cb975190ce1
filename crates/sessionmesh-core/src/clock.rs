//! The hybrid logical clock (Kulkarni et al. 2014): physical milliseconds with a counter, never
//! behind anything that the node has seen.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::{BootId, mutated};

/// A hybrid time: 48 bits of milliseconds, 16 bits of counter. Zero is before every write.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(u64);

impl Hlc {
    /// Before every write.
    pub const ZERO: Self = Self(0);

    /// As it travels.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Beyond any clock, however wrong: a stamp past it would leave none after it.
    pub(crate) const ABSURD: Self = Self(1 << 63);

    /// From the wire.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The physical part, in milliseconds since the Unix epoch of whoever was fastest.
    pub const fn millis(self) -> u64 {
        self.0 >> 16
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.0 & 0xffff)
    }
}

/// A write's place in the order that decides between writes of one attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// When. Greater wins.
    pub hlc: Hlc,
    /// Where; breaks ties.
    pub origin: BootId,
}

/// One node's hybrid clock, shared by all request threads.
///
/// Stamps from other nodes are never clamped: causality wins over wall time. How far the fastest
/// clock is ahead shows in [`HybridClock::ahead_ms`].
#[derive(Debug, Default)]
pub struct HybridClock(AtomicU64);

impl HybridClock {
    /// A clock that has seen nothing.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// A stamp greater than all that this clock gave or saw, and than `floor`.
    pub fn tick(&self, wall_ms: u64, floor: Hlc) -> Hlc {
        let wall = wall_ms << 16;
        let floor = if mutated!(ClockNotObserved) { Hlc::ZERO } else { floor };
        let next = |last: u64| wall.max(last.max(floor.0).saturating_add(1));
        let last = match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))) {
            Ok(last) | Err(last) => last,
        };
        Hlc(next(last))
    }

    /// Takes note of another node's stamp.
    pub fn observe(&self, seen: Hlc) {
        if !mutated!(ClockNotObserved) {
            self.0.fetch_max(seen.0, Ordering::Relaxed);
        }
    }

    /// The newest stamp given or seen.
    pub fn latest(&self) -> Hlc {
        Hlc(self.0.load(Ordering::Relaxed))
    }

    /// How far stamps run ahead of this node's wall clock, in milliseconds.
    pub fn ahead_ms(&self, wall_ms: u64) -> u64 {
        self.latest().millis().saturating_sub(wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_exceeds_wall_time_everything_seen_and_the_floor() {
        let clock = HybridClock::new();
        let first = clock.tick(1_000, Hlc::ZERO);
        assert_eq!(first.millis(), 1_000);
        assert!(clock.tick(900, Hlc::ZERO) > first, "a clock stepped back");
        let ahead = Hlc::from_raw(5_000 << 16);
        clock.observe(ahead);
        assert!(clock.tick(1_001, Hlc::ZERO) > ahead);
        let floor = Hlc::from_raw(9_000 << 16);
        assert!(clock.tick(1_002, floor) > floor);
        assert_eq!(clock.ahead_ms(1_002), 9_000 - 1_002);
    }
}
