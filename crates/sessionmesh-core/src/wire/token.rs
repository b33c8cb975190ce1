//! A token as bytes, for a client to keep.

use alloc::vec::Vec;

use prost::Message as _;

use super::generated as pb;
use crate::session::{Token, Version};
use crate::{BootId, Hlc, Stamp};

/// The most boots and single writes that a token names. A session that more boots have written to within a
/// horizon forgets the oldest in its tokens: whoever is connected has had them for long.
const MAX_ENTRIES: usize = 48;

/// These bytes are no token. Whoever showed them is told, and gets what is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token")]
pub struct NoToken;

impl Token {
    /// As bytes: 16 for each boot.
    pub fn encode(&self) -> Vec<u8> {
        let mut entries: Vec<(BootId, Hlc)> = self.version().entries().collect();
        if entries.len() > MAX_ENTRIES {
            entries.sort_unstable_by_key(|(boot, hlc)| (core::cmp::Reverse(*hlc), *boot));
            entries.truncate(MAX_ENTRIES);
            entries.sort_unstable();
        }
        // In order: the last are the newest.
        let newest = self.beyond().len().saturating_sub(MAX_ENTRIES);
        let beyond = self.beyond().get(newest..).unwrap_or_default();
        let token = pb::Token {
            boots: entries.iter().map(|(boot, _)| boot.get()).collect(),
            stamps: entries.iter().map(|(_, hlc)| hlc.get()).collect(),
            beyond_boots: beyond.iter().map(|stamp| stamp.origin.get()).collect(),
            beyond_stamps: beyond.iter().map(|stamp| stamp.hlc.get()).collect(),
        };
        token.encode_to_vec()
    }

    /// From bytes that a client showed. They may say anything: believe none of it.
    ///
    /// # Errors
    /// They are not what [`Token::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoToken> {
        let token = pb::Token::decode(bytes).map_err(|_| NoToken)?;
        let pairs = |boots: &[u64], stamps: &[u64]| -> Result<Vec<(BootId, Hlc)>, NoToken> {
            if boots.len() != stamps.len() || boots.len() > MAX_ENTRIES {
                return Err(NoToken);
            }
            let pair = |(boot, stamp): (&u64, &u64)| Some((BootId::new(*boot)?, Hlc::from_raw(*stamp)));
            boots.iter().zip(stamps).map(pair).collect::<Option<_>>().ok_or(NoToken)
        };
        let version: Version = pairs(&token.boots, &token.stamps)?.into_iter().collect();
        let beyond = pairs(&token.beyond_boots, &token.beyond_stamps)?;
        let beyond = beyond.into_iter().map(|(origin, hlc)| Stamp { hlc, origin }).collect();
        Ok(Self::new(version, beyond))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> (BootId, Hlc) {
        (BootId::new(number + 1).unwrap(), Hlc::from_raw((1_790_000_000_000 + number) << 16))
    }

    #[test]
    fn a_token_comes_back_as_it_went_and_the_newest_boots_stay_at_the_limit() {
        for count in [0, 1, 3, MAX_ENTRIES, MAX_ENTRIES + 1] {
            let version: Version = (0..count as u64).map(entry).collect();
            let (origin, hlc) = entry(99);
            let token = Token::new(version.clone(), alloc::vec![Stamp { hlc, origin }]);
            let back = Token::decode(&token.encode()).unwrap();
            assert_eq!(back.beyond(), token.beyond());
            let forgotten = count.saturating_sub(MAX_ENTRIES) as u64;
            assert_eq!(*back.version(), (forgotten..count as u64).map(entry).collect());
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let token = Token::from(core::iter::once(entry(1)).collect::<Version>()).encode();
        assert_eq!(Token::decode(&token[..token.len() - 1]), Err(NoToken));
        assert_eq!(Token::decode(b"whatever"), Err(NoToken));
        let lopsided = pb::Token { boots: alloc::vec![1, 2], stamps: alloc::vec![1], ..pb::Token::default() };
        assert_eq!(Token::decode(&lopsided.encode_to_vec()), Err(NoToken));
        let endless =
            pb::Token { boots: alloc::vec![1; 1_000], stamps: alloc::vec![1; 1_000], ..pb::Token::default() };
        assert_eq!(Token::decode(&endless.encode_to_vec()), Err(NoToken));
    }
}
