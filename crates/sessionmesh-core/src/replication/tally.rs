//! Counting acknowledgements of one write.

use core::fmt;

/// How many holders must have applied a write before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AckLevel {
    /// None besides this node: it is applied here and on its way. Lost if this node crashes now.
    #[default]
    Async,
    /// One other holder: survives any one crash.
    One,
    /// Every holder: survives all crashes but one.
    All,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Holders known to have it, this node included.
    pub have: usize,
    /// Holders that the level asked for, this node included.
    pub want: usize,
}

impl Outcome {
    /// Whether the level was reached.
    pub fn is_met(&self) -> bool {
        self.have >= self.want
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.have, self.want)
    }
}

/// The acknowledgements of one write at one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckTally {
    level: AckLevel,
    awaited: usize,
    acked: usize,
    gone: usize,
}

impl AckTally {
    /// Awaits nobody yet.
    pub fn new(level: AckLevel) -> Self {
        Self { level, awaited: 0, acked: 0, gone: 0 }
    }

    /// One more holder is awaited.
    pub fn await_one(&mut self) {
        self.awaited += 1;
    }

    /// A holder has applied the write.
    pub fn ack(&mut self) {
        self.acked += 1;
    }

    /// A holder was dropped before it said so.
    pub fn gone(&mut self) {
        self.gone += 1;
    }

    /// Holders awaited and not dropped since.
    fn remaining(&self) -> usize {
        self.awaited.saturating_sub(self.gone)
    }

    /// Whether the level is reached by those that remain; with nobody left it is not decided here.
    pub fn is_met(&self) -> bool {
        match self.level {
            AckLevel::Async => true,
            AckLevel::One => self.acked >= 1 || self.awaited == 0,
            AckLevel::All => self.acked >= self.remaining(),
        }
    }

    /// Whether all that were awaited have been dropped: others must take their place.
    pub fn is_deserted(&self) -> bool {
        self.awaited > 0 && self.acked == 0 && self.remaining() == 0
    }

    /// Whether every holder has applied it, whatever the level.
    pub fn is_everywhere(&self) -> bool {
        self.awaited > 0 && self.acked == self.awaited
    }

    /// Whether a holder was dropped before it said so.
    pub fn is_lost(&self) -> bool {
        self.gone > 0
    }

    /// `have of want`, this node included.
    pub fn outcome(&self) -> Outcome {
        let want = match self.level {
            AckLevel::Async => 0,
            AckLevel::One => self.remaining().min(1),
            AckLevel::All => self.remaining(),
        };
        Outcome { have: 1 + self.acked, want: 1 + want }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(level: AckLevel, awaited: usize, acked: usize, gone: usize) -> AckTally {
        AckTally { level, awaited, acked, gone }
    }

    #[test]
    fn levels_ask_for_none_one_or_all_of_the_holders_not_dropped() {
        let cases = [
            // level, awaited, acked, gone -> met, deserted, have, want
            (AckLevel::Async, 2, 0, 0, true, false, 1, 1),
            (AckLevel::One, 0, 0, 0, true, false, 1, 1),
            (AckLevel::One, 2, 0, 0, false, false, 1, 2),
            (AckLevel::One, 2, 1, 0, true, false, 2, 2),
            (AckLevel::One, 1, 0, 1, false, true, 1, 1),
            (AckLevel::All, 2, 1, 0, false, false, 2, 3),
            (AckLevel::All, 2, 1, 1, true, false, 2, 2),
            (AckLevel::All, 2, 2, 0, true, false, 3, 3),
        ];
        for (level, awaited, acked, gone, met, deserted, have, want) in cases {
            let tally = tally(level, awaited, acked, gone);
            assert_eq!(tally.is_met(), met, "{tally:?}");
            assert_eq!(tally.is_deserted(), deserted, "{tally:?}");
            assert_eq!(tally.outcome(), Outcome { have, want }, "{tally:?}");
        }
    }
}
