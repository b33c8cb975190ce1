//! The timing of membership.

use core::time::Duration;

/// How often, how long. Every node of a cluster should have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipConfig {
    /// Between heartbeats. Default 500 ms.
    pub frequency: Duration,
    /// A member silent for so long is dropped. Default 3 s, at least 3 x `frequency`.
    pub drop_time: Duration,
    /// How long a node that hears nobody waits before it founds a cluster. Default 2 s.
    pub join_wait: Duration,
    /// How long a process may take to answer a ping. Default 500 ms.
    pub ping_timeout: Duration,
    /// Between attempts to reach an address again. Default 1 s.
    pub redial: Duration,
    /// Between comparisons with one member in turn. Default 60 s.
    pub pass_interval: Duration,
    /// For how long ends are remembered. Two sides of a longer cut do not merge: the smaller starts
    /// empty. Default 24 h.
    pub horizon: Duration,
    /// Members at most, this node included. Default 64.
    pub max_members: usize,
    /// Found a cluster though a seed is silent. Default no: it may be on the other side of a cut.
    pub found: bool,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self {
            frequency: Duration::from_millis(500),
            drop_time: Duration::from_millis(3_000),
            join_wait: Duration::from_secs(2),
            ping_timeout: Duration::from_millis(500),
            redial: Duration::from_secs(1),
            pass_interval: Duration::from_secs(60),
            horizon: Duration::from_secs(24 * 3600),
            max_members: 64,
            found: false,
        }
    }
}

/// A combination that can't work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipConfigError {
    /// Heartbeats too often or never.
    #[error("frequency = {0:?} is out of range: use 10ms to 60s")]
    Frequency(Duration),
    /// One lost datagram would drop a member.
    #[error(
        "drop_time = {drop_time:?} is less than 3 x frequency ({frequency:?}): one lost heartbeat would drop a \
         member; use at least {least:?}"
    )]
    DropTime {
        /// As given.
        drop_time: Duration,
        /// As given.
        frequency: Duration,
        /// That would do.
        least: Duration,
    },
}

impl MembershipConfig {
    /// How often [`super::Node`] wants to be called.
    pub fn tick(&self) -> Duration {
        self.frequency / 4
    }

    /// How late a tick may be before the node doubts itself: a third of `drop_time`, and 500 ms at most. Nobody
    /// drops a node for so short a pause, yet what it would serve from memory is that old.
    pub fn lateness(&self) -> Duration {
        (self.drop_time / 3).min(Duration::from_millis(500))
    }

    /// Checks the combination.
    ///
    /// # Errors
    /// The first that can't work.
    pub fn validate(&self) -> Result<(), MembershipConfigError> {
        if self.frequency < Duration::from_millis(10) || self.frequency > Duration::from_secs(60) {
            return Err(MembershipConfigError::Frequency(self.frequency));
        }
        let least = self.frequency * 3;
        if self.drop_time < least {
            let (drop_time, frequency) = (self.drop_time, self.frequency);
            return Err(MembershipConfigError::DropTime { drop_time, frequency, least });
        }
        Ok(())
    }
}
