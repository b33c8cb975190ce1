//! What a client has seen of a session.

use alloc::vec::Vec;
use core::time::Duration;

use super::attributes::Attributes;
use super::state::SessionState;
use super::version::Version;
use crate::{BootId, Stamp};

/// A write that is older than the newest by more than this is not one past a gap, which the next pass mends: its
/// boot has been forgotten.
const MAX_GAP: Duration = Duration::from_secs(3_600);

/// What a client has seen of a session: the version of its last answer, and what that answer contained beyond it.
///
/// Past a gap a write is applied and the version stays. Whoever was shown it must not be shown less, and a version
/// that took it up would say too much: these writes are named one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    version: Version,
    beyond: Vec<Stamp>,
}

impl Token {
    /// From what it says.
    pub fn new(version: Version, beyond: Vec<Stamp>) -> Self {
        Self { version, beyond }
    }

    /// Of one who is shown this state.
    pub fn of(state: &SessionState) -> Self {
        Self::of_parts(state.version(), state.attributes())
    }

    /// Of one who is shown these attributes of a state of this version.
    pub fn of_parts(version: &Version, attributes: &Attributes) -> Self {
        let since_ms =
            version.newest().millis().saturating_sub(u64::try_from(MAX_GAP.as_millis()).unwrap_or(u64::MAX));
        let beyond = |stamp: &Stamp| !version.contains(*stamp) && stamp.hlc.millis() >= since_ms;
        let mut beyond: Vec<Stamp> =
            attributes.iter().map(|attribute| attribute.stamp).filter(beyond).collect();
        beyond.sort_unstable();
        beyond.dedup();
        Self { version: version.clone(), beyond }
    }

    /// Every write of each boot up to a stamp.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Single writes beyond that, in order.
    pub fn beyond(&self) -> &[Stamp] {
        &self.beyond
    }

    /// Whether nothing in a state of this version and these attributes is older.
    pub fn is_covered_by(&self, version: &Version, attributes: &Attributes) -> bool {
        let has = |stamp: &Stamp| {
            version.contains(*stamp) || attributes.iter().any(|attribute| attribute.stamp == *stamp)
        };
        version.covers(&self.version) && self.beyond.iter().all(has)
    }

    /// Whose writes such a state lacks.
    pub fn lacks(&self, version: &Version, attributes: &Attributes) -> Vec<BootId> {
        let newer = self.version.entries().filter(|(boot, hlc)| version.get(*boot) < *hlc);
        let mut lacking: Vec<BootId> = newer.map(|(boot, _)| boot).collect();
        for stamp in &self.beyond {
            let single = Self { version: Version::new(), beyond: alloc::vec![*stamp] };
            if !lacking.contains(&stamp.origin) && !single.is_covered_by(version, attributes) {
                lacking.push(stamp.origin);
            }
        }
        lacking
    }
}

impl From<Version> for Token {
    fn from(version: Version) -> Self {
        Self { version, beyond: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::session::{Delta, Record};
    use crate::{Hlc, Instant, SessionId};

    const WRITER: BootId = BootId::new(7).unwrap();

    fn hlc(number: u64) -> Hlc {
        Hlc::from_raw((number * 1_000) << 16)
    }

    /// The state after these of one node's writes.
    fn state(numbers: &[u64]) -> SessionState {
        let mut slot = None;
        for number in numbers {
            let delta = Delta {
                id: SessionId::from_bytes([1; 16]),
                stamp: Stamp { hlc: hlc(*number), origin: WRITER },
                previous: hlc(number - 1),
                create: *number == 1,
                ack_later: false,
                changes: alloc::vec![(alloc::format!("k{number}").into(), Some("x".into()))],
                limits: None,
            };
            let _ = Record::apply(&mut slot, &delta, Duration::ZERO, Instant::ZERO + Duration::from_secs(1));
        }
        match slot {
            Some(Record::Held(state)) => *state,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_seen_past_a_gap_is_demanded_and_the_gap_is_not() {
        let (first, gap, all) = (state(&[1]), state(&[1, 3]), state(&[1, 2, 3]));
        let covers =
            |state: &SessionState, token: &Token| token.is_covered_by(state.version(), state.attributes());
        let token = Token::of(&gap);
        assert_eq!(token.beyond().len(), 1);
        assert!(!covers(&first, &token), "it lacks the third write");
        assert!(covers(&gap, &token), "nobody is asked for what this client has not seen");
        assert!(covers(&all, &token));
        let token = Token::of(&all);
        assert!(token.beyond().is_empty());
        assert!(!covers(&gap, &token), "it lacks the second write");
        assert_eq!(token.lacks(gap.version(), gap.attributes()), [WRITER]);
    }
}
