//! Prefixes of session ids, in hex digits.

use core::ops::RangeInclusive;

use crate::wire::Prefix;

impl Prefix {
    /// The longest, in hex digits.
    pub const MAX_DEPTH: u8 = 16;
    /// All ids.
    pub const ROOT: Self = Self { bits: 0, depth: 0 };

    /// With the bits past the depth cleared.
    pub fn new(bits: u64, depth: u8) -> Self {
        let depth = depth.min(Self::MAX_DEPTH);
        Self { bits: bits & Self::mask(depth), depth }
    }

    fn mask(depth: u8) -> u64 {
        match depth {
            0 => 0,
            depth => u64::MAX << (64 - 4 * u32::from(depth)),
        }
    }

    /// One digit longer; `None` at the longest.
    pub fn child(self, digit: u8) -> Option<Self> {
        let depth = self.depth + 1;
        let shift = 64u32.checked_sub(4 * u32::from(depth))?;
        Some(Self { bits: self.bits | u64::from(digit & 15) << shift, depth })
    }

    /// The first 64 bits of the ids below.
    pub fn range(self) -> RangeInclusive<u64> {
        self.bits..=self.bits | !Self::mask(self.depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_split_their_parent_without_gap_or_overlap() {
        let parent = Prefix::new(0xabcd_0000_0000_0000, 3);
        assert_eq!(parent.bits, 0xabc0_0000_0000_0000);
        let mut next = *parent.range().start();
        for digit in 0..16 {
            let child = parent.child(digit).unwrap();
            assert_eq!(*child.range().start(), next);
            next = child.range().end().wrapping_add(1);
        }
        assert_eq!(next, parent.range().end().wrapping_add(1));
        assert_eq!(Prefix::ROOT.range(), 0..=u64::MAX);
        assert_eq!(Prefix::new(u64::MAX, 16).child(0), None);
    }
}
