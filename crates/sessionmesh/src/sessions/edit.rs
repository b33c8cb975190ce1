//! A change being made: what a closure of [`Sessions::update`](super::Sessions::update) gets.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sessionmesh_core::session::{Attributes, Change, Limits, Name};

/// Reads and changes one session. What it changes is committed when the closure returns; nothing can
/// be forgotten.
#[derive(Debug)]
pub struct Edit<'a> {
    base: &'a Attributes,
    read: Vec<Name>,
    changes: BTreeMap<Name, Option<Bytes>>,
    limits: Option<Limits>,
}

impl<'a> Edit<'a> {
    pub(super) fn new(base: &'a Attributes) -> Self {
        Self { base, read: Vec::new(), changes: BTreeMap::new(), limits: None }
    }

    /// An attribute's value, with this edit's changes.
    pub fn get(&mut self, name: &str) -> Option<Bytes> {
        if let Some(change) = self.changes.get(name) {
            return change.clone();
        }
        if !self.read.iter().any(|read| **read == *name) {
            self.read.push(name.into());
        }
        self.base.value(name)
    }

    /// An attribute's value, from JSON.
    ///
    /// # Errors
    /// It is not JSON of a `T`.
    pub fn get_json<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, serde_json::Error> {
        self.get(name).map(|value| serde_json::from_slice(&value)).transpose()
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &str, value: impl Into<Bytes>) -> &mut Self {
        self.changes.insert(name.into(), Some(value.into()));
        self
    }

    /// Sets an attribute to a value as JSON.
    ///
    /// # Errors
    /// The value can't be written as JSON. The attribute stays as it was.
    pub fn set_json(&mut self, name: &str, value: &impl Serialize) -> Result<&mut Self, serde_json::Error> {
        let value = serde_json::to_vec(value)?;
        Ok(self.set(name, value))
    }

    /// Removes an attribute.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.changes.insert(name.into(), None);
        self
    }

    /// Removes all attributes.
    pub fn clear(&mut self) -> &mut Self {
        self.changes.clear();
        self.changes.extend(self.base.present().map(|(name, _)| (name.into(), None)));
        self
    }

    /// Limits of this session: instead of the cluster's idle limit, and until its absolute end.
    pub fn limit(&mut self, idle: Option<Duration>, remaining: Option<Duration>) -> &mut Self {
        self.limits = Some(Limits { idle, remaining, absolute: None });
        self
    }

    /// What the closure read, and wants changed.
    pub(super) fn finish(self) -> (Vec<Name>, Change) {
        (self.read, Change { attributes: self.changes.into_iter().collect(), limits: self.limits })
    }
}
