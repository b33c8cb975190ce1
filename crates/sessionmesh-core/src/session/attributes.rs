//! A session's attributes: last writer wins, per attribute, removal included.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::{Stamp, mutated};

/// An attribute's name.
pub type Name = Arc<str>;

/// An attribute's value: bytes that the cluster never looks into.
pub type Value = Bytes;

/// One attribute or the mark of its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: Name,
    /// Of the write that set or removed it.
    pub stamp: Stamp,
    /// `None` marks a removal, so that an older write that arrives late does not bring it back.
    pub value: Option<Value>,
}

/// Attributes in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<Attribute>);

impl Attributes {
    fn position(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|attribute| (*attribute.name).cmp(name))
    }

    /// The value of a present attribute.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let index = self.position(name).ok()?;
        self.0.get(index)?.value.as_ref()
    }

    /// Takes a write if it is newer than what is here; says whether it was.
    pub fn merge(&mut self, write: Attribute) -> bool {
        match self.position(&write.name) {
            Ok(index) => match self.0.get_mut(index) {
                Some(_) if write.value.is_none() && mutated!(RemovalNotMarked) => {
                    self.0.remove(index);
                    true
                }
                Some(present) if present.stamp < write.stamp || mutated!(MergeByArrival) => {
                    present.stamp = write.stamp;
                    present.value = write.value;
                    true
                }
                _ => false,
            },
            Err(index) => {
                self.0.insert(index, write);
                true
            }
        }
    }

    /// The present attributes, by name.
    pub fn present(&self) -> impl Iterator<Item = (&Name, &Value)> {
        self.0.iter().filter_map(|attribute| Some((&attribute.name, attribute.value.as_ref()?)))
    }

    /// All, removal marks too.
    pub fn iter(&self) -> impl Iterator<Item = &Attribute> {
        self.0.iter()
    }

    /// Forgets removal marks older than `before` (milliseconds of their hybrid time).
    pub fn forget_removals(&mut self, before_ms: u64) {
        self.0.retain(|attribute| attribute.value.is_some() || attribute.stamp.hlc.millis() >= before_ms);
    }

    /// How many removal marks there are.
    pub fn removals(&self) -> usize {
        self.0.iter().filter(|attribute| attribute.value.is_none()).count()
    }

    /// Forgets the oldest removal marks, so that at most so many are left: a client that sets and
    /// removes ever new names must not grow the session without bound.
    pub fn trim_removals(&mut self, limit: usize) {
        let mut stamps: Vec<Stamp> = self
            .0
            .iter()
            .filter(|attribute| attribute.value.is_none())
            .map(|attribute| attribute.stamp)
            .collect();
        let Some(excess) = stamps.len().checked_sub(limit).filter(|excess| *excess > 0) else { return };
        stamps.sort_unstable();
        if let Some(newest) = excess.checked_sub(1).and_then(|index| stamps.get(index)).copied() {
            self.0.retain(|attribute| attribute.value.is_some() || attribute.stamp > newest);
        }
    }

    /// Bytes of names and values of the present attributes.
    pub fn payload_bytes(&self) -> usize {
        self.present().map(|(name, value)| name.len() + value.len()).sum()
    }
}
