//! A token as bytes, for a client to keep.

use alloc::vec::Vec;

use bytes::BufMut as _;
use prost::Message as _;
use smallvec::SmallVec;

use super::fields::{self, Field, open_block};
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
        let mut entries: SmallVec<[(BootId, Hlc); 4]> = self.version().entries().collect();
        if entries.len() > MAX_ENTRIES {
            entries.sort_unstable_by_key(|(boot, hlc)| (core::cmp::Reverse(*hlc), *boot));
            entries.truncate(MAX_ENTRIES);
            entries.sort_unstable();
        }
        // In order: the last are the newest.
        let newest = self.beyond().len().saturating_sub(MAX_ENTRIES);
        let beyond = self.beyond().get(newest..).unwrap_or_default();
        let mut bytes =
            Vec::with_capacity((entries.len() + beyond.len()) * 2 * NUMBER_BYTES + 4 * LIST_BYTES);
        put_list(tag::BOOTS, entries.iter().map(|(boot, _)| boot.get()), &mut bytes);
        put_list(tag::STAMPS, entries.iter().map(|(_, hlc)| hlc.get()), &mut bytes);
        put_list(tag::BEYOND_BOOTS, beyond.iter().map(|stamp| stamp.origin.get()), &mut bytes);
        put_list(tag::BEYOND_STAMPS, beyond.iter().map(|stamp| stamp.hlc.get()), &mut bytes);
        bytes
    }

    /// From bytes that a client showed. They may say anything: believe none of it.
    ///
    /// # Errors
    /// They are not what [`Token::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoToken> {
        if let Some(lists) = take_lists(bytes) {
            return Self::of_lists(lists.map(numbers));
        }
        // Another encoder may split lists, or leave them unpacked.
        let token = pb::Token::decode(bytes).map_err(|_| NoToken)?;
        let lists = [&token.boots, &token.stamps, &token.beyond_boots, &token.beyond_stamps];
        Self::of_lists(lists.map(|list| list.iter().copied()))
    }

    fn of_lists<L: ExactSizeIterator<Item = u64>>(lists: [L; 4]) -> Result<Self, NoToken> {
        let [boots, stamps, beyond_boots, beyond_stamps] = lists;
        let version = pairs(boots, stamps)?.collect::<Option<Version>>().ok_or(NoToken)?;
        let beyond = pairs(beyond_boots, beyond_stamps)?;
        let stamp = |pair: Option<(BootId, Hlc)>| pair.map(|(origin, hlc)| Stamp { hlc, origin });
        Ok(Self::new(version, beyond.map(stamp).collect::<Option<_>>().ok_or(NoToken)?))
    }
}

/// Every request shows one and every answer has one: encoded and decoded by hand, as prost does it.
mod tag {
    pub(super) const BOOTS: u32 = 1;
    pub(super) const STAMPS: u32 = 2;
    pub(super) const BEYOND_BOOTS: u32 = 3;
    pub(super) const BEYOND_STAMPS: u32 = 4;
}

const NUMBER_BYTES: usize = 8;
/// Of a list's tag and length.
const LIST_BYTES: usize = 3;

fn put_list(tag: u32, numbers: impl ExactSizeIterator<Item = u64>, bytes: &mut Vec<u8>) {
    if numbers.len() > 0 {
        open_block(tag, numbers.len() * NUMBER_BYTES, bytes);
        numbers.for_each(|number| bytes.put_u64_le(number));
    }
}

/// Each list at most once and packed; `None`: they come otherwise, or are none.
fn take_lists(mut bytes: &[u8]) -> Option<[&[u8]; 4]> {
    let mut lists = [&[][..]; 4];
    while !bytes.is_empty() {
        let (tag, Field::Block(block)) = fields::next(&mut bytes)? else { return None };
        let list = lists.get_mut(usize::try_from(tag).ok()?.checked_sub(1)?)?;
        if !list.is_empty() || block.is_empty() || !block.len().is_multiple_of(NUMBER_BYTES) {
            return None;
        }
        *list = block;
    }
    Some(lists)
}

fn numbers(list: &[u8]) -> impl ExactSizeIterator<Item = u64> {
    list.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number))
}

/// `None` for a boot that can't be one.
fn pairs<L: ExactSizeIterator<Item = u64>>(
    boots: L,
    stamps: L,
) -> Result<impl Iterator<Item = Option<(BootId, Hlc)>>, NoToken> {
    if boots.len() != stamps.len() || boots.len() > MAX_ENTRIES {
        return Err(NoToken);
    }
    Ok(boots.zip(stamps).map(|(boot, stamp)| Some((BootId::new(boot)?, Hlc::from_raw(stamp)))))
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
            let bytes = token.encode();
            let back = Token::decode(&bytes).unwrap();
            // As the generated type says it, who may also say it in another way.
            let generated = pb::Token::decode(&*bytes).unwrap();
            assert_eq!(generated.encode_to_vec(), bytes);
            let [first, second] =
                [&generated.boots, &generated.stamps].map(|list| list.split_at(list.len() / 2));
            let half = |boots: &[u64], stamps: &[u64]| pb::Token {
                boots: boots.to_vec(),
                stamps: stamps.to_vec(),
                ..pb::Token::default()
            };
            let mut split = half(first.0, second.0).encode_to_vec();
            split.extend(
                pb::Token { boots: first.1.to_vec(), stamps: second.1.to_vec(), ..generated }.encode_to_vec(),
            );
            assert_eq!(Token::decode(&split), Ok(back.clone()));
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
