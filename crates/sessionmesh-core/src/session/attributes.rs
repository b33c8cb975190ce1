//! A session's attributes: last writer wins, per attribute, removal included.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::slice;

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

use crate::{BootId, Hlc, Stamp, mutated};

/// An attribute's name.
pub type Name = ByteString;

/// An attribute's value: bytes that the cluster never looks into.
pub type Value = Bytes;

/// What a name's length is kept in. Longer ones are refused, whatever the limit that is set.
pub(crate) const MAX_NAME_BYTES: usize = u16::MAX as usize;

/// A longer value is kept apart as it came, so that a write of another attribute does not copy it.
pub(crate) const INLINE_BYTES: usize = 256;

/// Attributes in the order of their names.
///
/// A node keeps many sessions and reads few of them: all attributes of one are in one block, which readers share.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Per attribute: a kind, its origin unless that is the last one's, its time, the lengths, the name, the value.
    block: Arc<[u8]>,
    /// Values that are not in the block, in the order of their names.
    apart: Option<Arc<Vec<Value>>>,
}

/// One attribute or the mark of its removal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    pub(super) name: &'a [u8],
    /// Of the write that set or removed it.
    pub stamp: Stamp,
    value: Held<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Held<'a> {
    /// So that an older write that arrives late does not bring it back.
    Removed,
    Inline(&'a [u8]),
    Apart(&'a Value),
}

/// All attributes of a session, to look up several.
pub(super) type Listed<'a> = SmallVec<[Attribute<'a>; 8]>;

const REMOVED: u8 = 0;
const INLINE: u8 = 1;
const APART: u8 = 2;
const HLC_BYTES: usize = 8;
const LENGTH_BYTES: usize = 2;
/// Added to the kind: another origin than the attribute's before.
const NEW_ORIGIN: u8 = 4;

/// What a core fetches from memory at once.
const LINE_BYTES: usize = 64;
const PREFETCHED_LINES: usize = 16;

impl<'a> Attribute<'a> {
    /// A write; without a value, a removal.
    pub fn new(name: &'a str, stamp: Stamp, value: Option<&'a Value>) -> Self {
        let value = match value {
            None => Held::Removed,
            Some(value) if value.len() > INLINE_BYTES => Held::Apart(value),
            Some(value) => Held::Inline(value),
        };
        Self { name: name.as_bytes(), stamp, value }
    }

    /// The write of a value that is where it came; `None` if it is too long to be copied from there.
    pub(crate) fn inline(name: &'a str, stamp: Stamp, value: &'a [u8]) -> Option<Self> {
        let value = (value.len() <= INLINE_BYTES).then_some(Held::Inline(value))?;
        Some(Self { name: name.as_bytes(), stamp, value })
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        // It came as text.
        str::from_utf8(self.name).unwrap_or_default()
    }

    /// Its value; `None` marks a removal.
    pub fn value(&self) -> Option<&'a [u8]> {
        match self.value {
            Held::Removed => None,
            Held::Inline(value) => Some(value),
            Held::Apart(value) => Some(value),
        }
    }

    /// The same, for one who keeps it.
    pub fn to_value(&self) -> Option<Value> {
        match self.value {
            Held::Removed => None,
            Held::Inline(value) => Some(Value::copy_from_slice(value)),
            Held::Apart(value) => Some(value.clone()),
        }
    }

    /// Whether it marks a removal.
    pub fn is_removal(&self) -> bool {
        self.value == Held::Removed
    }

    /// Bytes of name and value.
    pub fn payload_bytes(&self) -> usize {
        self.name.len() + self.value().map_or(0, <[u8]>::len)
    }
}

impl fmt::Debug for Attribute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.value().map(<[u8]>::len);
        f.debug_struct("Attribute")
            .field("name", &self.name())
            .field("stamp", &self.stamp)
            .field("bytes", &bytes)
            .finish()
    }
}

/// Of a list in the order of names.
pub(super) fn find(listed: &[Attribute<'_>], name: &[u8]) -> Result<usize, usize> {
    listed.binary_search_by(|attribute| attribute.name.cmp(name))
}

impl Attributes {
    /// All, removal marks too.
    pub fn iter(&self) -> Iter<'_> {
        let apart = self.apart.as_deref().map_or(&[][..], Vec::as_slice);
        Iter { rest: &self.block, origin: BootId::default(), apart: apart.iter() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Bytes of all, names and stamps included.
    pub(crate) fn bytes(&self) -> usize {
        self.block.len() + self.apart.iter().flat_map(|apart| apart.iter()).map(Value::len).sum::<usize>()
    }

    /// Fetches the block from memory, or its begin if it is long; the number means nothing.
    pub(super) fn prefetch(&self) -> u64 {
        self.block.iter().step_by(LINE_BYTES).take(PREFETCHED_LINES).map(|byte| u64::from(*byte)).sum()
    }

    pub(super) fn listed(&self) -> Listed<'_> {
        self.iter().collect()
    }

    /// The present attributes, by name.
    pub fn present(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.iter().filter_map(|attribute| Some((attribute.name(), attribute.value()?)))
    }

    fn at(&self, name: &[u8]) -> Option<Attribute<'_>> {
        self.iter().find(|attribute| attribute.name >= name).filter(|attribute| attribute.name == name)
    }

    /// The value of a present attribute.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.at(name.as_bytes())?.value()
    }

    /// The value of a present attribute, for one who keeps it.
    pub fn value(&self, name: &str) -> Option<Value> {
        self.at(name.as_bytes())?.to_value()
    }

    /// Takes each write that is newer than what is here; says how many were not.
    pub(super) fn merge<'a>(&mut self, writes: impl IntoIterator<Item = Attribute<'a>>) -> usize {
        let mut lost = 0;
        let mut left: Listed<'a> = SmallVec::new();
        for write in writes {
            match if left.is_empty() { self.overwrite(&write) } else { None } {
                Some(won) => lost += usize::from(!won),
                None => left.push(write),
            }
        }
        if left.is_empty() {
            return lost;
        }
        let mut all = self.listed();
        for write in left {
            match find(&all, write.name) {
                Ok(index) if write.value == Held::Removed && mutated!(RemovalNotMarked) => {
                    all.remove(index);
                }
                Ok(index) => match all.get_mut(index) {
                    Some(present) if is_newer(&write, present.stamp) => *present = write,
                    _ => lost += 1,
                },
                Err(index) => all.insert(index, write),
            }
        }
        let merged = Self::of(&all);
        drop(all);
        *self = merged;
        lost
    }

    /// The usual write, a value as long as the one before and by the same node: in place, if no reader shares the
    /// block. `None` if it is not like that; otherwise whether it was newer.
    fn overwrite(&mut self, write: &Attribute<'_>) -> Option<bool> {
        let mut attributes = self.iter();
        let present = attributes.find(|attribute| attribute.name >= write.name)?;
        let end = self.block.len() - attributes.rest.len();
        let (Held::Inline(old), Held::Inline(new)) = (present.value, write.value) else { return None };
        if present.name != write.name || present.stamp.origin != write.stamp.origin || old.len() != new.len()
        {
            return None;
        }
        if !is_newer(write, present.stamp) {
            return Some(false);
        }
        let value_at = end - new.len();
        let hlc_at = value_at - write.name.len() - 2 * LENGTH_BYTES - HLC_BYTES;
        let block = Arc::get_mut(&mut self.block)?;
        block.get_mut(value_at..end)?.copy_from_slice(new);
        let hlc = write.stamp.hlc.get().to_le_bytes();
        block.get_mut(hlc_at..hlc_at + HLC_BYTES)?.copy_from_slice(&hlc);
        Some(true)
    }

    /// Forgets removal marks older than `before` (milliseconds of their hybrid time).
    pub(super) fn forget_removals(&mut self, before_ms: u64) {
        self.retain(|attribute| !attribute.is_removal() || attribute.stamp.hlc.millis() >= before_ms);
    }

    /// How many removal marks there are.
    pub fn removals(&self) -> usize {
        self.iter().filter(Attribute::is_removal).count()
    }

    /// Forgets the oldest removal marks, so that at most so many are left: a client that sets and
    /// removes ever new names must not grow the session without bound.
    pub(super) fn trim_removals(&mut self, limit: usize) {
        let Some(excess) = self.removals().checked_sub(limit).filter(|excess| *excess > 0) else { return };
        let mut stamps: Vec<Stamp> =
            self.iter().filter(Attribute::is_removal).map(|attribute| attribute.stamp).collect();
        stamps.sort_unstable();
        if let Some(newest) = excess.checked_sub(1).and_then(|index| stamps.get(index)).copied() {
            self.retain(|attribute| !attribute.is_removal() || attribute.stamp > newest);
        }
    }

    fn retain(&mut self, keeps: impl Fn(&Attribute<'_>) -> bool) {
        if !self.iter().all(|attribute| keeps(&attribute)) {
            *self = self.iter().filter(keeps).collect();
        }
    }

    /// Of these, in the order of their names.
    fn of(all: &[Attribute<'_>]) -> Self {
        let mut block: SmallVec<[u8; 1024]> = SmallVec::new();
        let mut apart = Vec::new();
        let mut origin = BootId::default();
        for attribute in all {
            let kind = match attribute.value {
                Held::Removed => REMOVED,
                Held::Inline(_) => INLINE,
                Held::Apart(_) => APART,
            };
            if attribute.stamp.origin == origin {
                block.push(kind);
            } else {
                origin = attribute.stamp.origin;
                block.push(kind + NEW_ORIGIN);
                block.extend_from_slice(&origin.get().to_le_bytes());
            }
            block.extend_from_slice(&attribute.stamp.hlc.get().to_le_bytes());
            block.extend_from_slice(&length(attribute.name));
            match attribute.value {
                Held::Removed => block.extend_from_slice(attribute.name),
                Held::Inline(value) => {
                    block.extend_from_slice(&length(value));
                    block.extend_from_slice(attribute.name);
                    block.extend_from_slice(value);
                }
                Held::Apart(value) => {
                    block.extend_from_slice(attribute.name);
                    apart.push(value.clone());
                }
            }
        }
        apart.shrink_to_fit();
        Self { block: Arc::from(&*block), apart: (!apart.is_empty()).then(|| Arc::new(apart)) }
    }
}

impl<'a> FromIterator<Attribute<'a>> for Attributes {
    /// Of one name the newest counts.
    fn from_iter<I: IntoIterator<Item = Attribute<'a>>>(attributes: I) -> Self {
        let attributes: Listed<'a> = attributes.into_iter().collect();
        // As they come from a node that has them.
        if !attributes.is_empty() && attributes.is_sorted_by(|one, next| one.name < next.name) {
            return Self::of(&attributes);
        }
        let mut made = Self::default();
        made.merge(attributes);
        made
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn is_newer(write: &Attribute<'_>, present: Stamp) -> bool {
    present < write.stamp || mutated!(MergeByArrival)
}

/// Names are bounded where they come in, inline values by what is inline.
fn length(text: &[u8]) -> [u8; LENGTH_BYTES] {
    u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes()
}

/// Over all attributes of a session.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
    origin: BootId,
    apart: slice::Iter<'a, Value>,
}

impl<'a> Iter<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    fn number<const BYTES: usize>(&mut self) -> Option<[u8; BYTES]> {
        let (number, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*number)
    }

    fn length(&mut self) -> Option<usize> {
        Some(usize::from(u16::from_le_bytes(self.number()?)))
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let [kind] = self.number()?;
        if kind & NEW_ORIGIN != 0 {
            self.origin = BootId::new(u64::from_le_bytes(self.number()?)).unwrap_or_default();
        }
        let hlc = Hlc::from_raw(u64::from_le_bytes(self.number()?));
        let name_bytes = self.length()?;
        let (name, value) = match kind & !NEW_ORIGIN {
            REMOVED => (self.take(name_bytes)?, Held::Removed),
            INLINE => {
                let value_bytes = self.length()?;
                (self.take(name_bytes)?, Held::Inline(self.take(value_bytes)?))
            }
            _ => (self.take(name_bytes)?, Held::Apart(self.apart.next()?)),
        };
        Some(Attribute { name, stamp: Stamp { hlc, origin: self.origin }, value })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Model = std::collections::BTreeMap<std::string::String, (Stamp, Option<Value>)>;

    fn writes() -> impl Strategy<Value = Vec<(Name, Stamp, Option<Value>)>> {
        // Around what is kept inline, and of a length that comes again.
        let bytes = prop_oneof![Just(8), 0..4usize, INLINE_BYTES - 1..INLINE_BYTES + 2];
        let value = prop::option::weighted(0.8, (any::<u8>(), bytes));
        let write = (0..6u8, 1..40u64, 1..3u64, value).prop_map(|(name, hlc, origin, value)| {
            let stamp = Stamp { hlc: Hlc::from_raw(hlc), origin: BootId::new(origin).unwrap() };
            let value = value.map(|(byte, bytes)| Value::from(std::vec![byte; bytes]));
            (std::format!("k{name}").into(), stamp, value)
        });
        prop::collection::vec(write, 0..40)
    }

    proptest! {
        /// Whatever a block looks like inside, it is a map by name in which the newer write wins.
        #[test]
        fn a_block_is_what_a_map_would_be(batches in prop::collection::vec(writes(), 0..6), shared in any::<bool>()) {
            let mut attributes = Attributes::default();
            let mut model = Model::new();
            for batch in &batches {
                let reader = shared.then(|| (attributes.clone(), std::format!("{attributes:?}")));
                let writes = batch.iter().map(|(name, stamp, value)| Attribute::new(name, *stamp, value.as_ref()));
                let lost = attributes.merge(writes);
                let mut model_lost = 0;
                for (name, stamp, value) in batch {
                    match model.get(&**name) {
                        Some((present, _)) if present >= stamp => model_lost += 1,
                        _ => { model.insert((**name).into(), (*stamp, value.clone())); }
                    }
                }
                prop_assert_eq!(lost, model_lost);
                if let Some((reader, before)) = reader {
                    prop_assert_eq!(std::format!("{reader:?}"), before, "a reader's copy does not change");
                }
            }
            let got: Vec<_> = attributes.iter().map(|a| (a.name(), a.stamp, a.value())).collect();
            let expected: Vec<_> = model.iter().map(|(name, (stamp, value))| (&**name, *stamp, value.as_deref())).collect();
            prop_assert_eq!(got, expected);
            for (name, (_, value)) in &model {
                prop_assert_eq!(attributes.get(name), value.as_deref());
                prop_assert_eq!(attributes.value(name), value.clone());
            }
            prop_assert_eq!(attributes.get("k"), None);
            prop_assert_eq!(attributes.iter().collect::<Attributes>(), attributes);
        }
    }
}
