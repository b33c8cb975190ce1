//! A session as a request sees it.

use serde::de::DeserializeOwned;
use sessionmesh_core::session::{Attributes, Limits, SessionState, Token, Version};
use sessionmesh_core::{Instant, SessionId};

/// A session at one moment. Reading it touches no lock; it does not change.
#[derive(Clone, Debug)]
pub struct Snapshot {
    id: SessionId,
    attributes: Attributes,
    version: Version,
    limits: Limits,
}

impl Snapshot {
    pub(crate) fn of(id: SessionId, state: &SessionState, now: Instant) -> Self {
        let (attributes, limits) = (state.attributes().clone(), limits_left(state, now));
        Self { id, attributes, version: state.version().clone(), limits }
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Which writes it contains.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// What a client to whom it is shown has seen.
    pub fn token(&self) -> Token {
        // Made for who asks: a load without a token in its request needs none.
        Token::of_parts(&self.version, &self.attributes)
    }

    /// The session's own limits, as durations from the moment in which it was read.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether a client that has seen this sees nothing older here.
    pub fn covers(&self, seen: &Token) -> bool {
        seen.is_covered_by(self.version(), &self.attributes)
    }

    /// An attribute's value.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.attributes.get(name)
    }

    /// An attribute's value, from JSON.
    ///
    /// # Errors
    /// It is not JSON of a `T`.
    pub fn get_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, serde_json::Error> {
        self.get(name).map(serde_json::from_slice).transpose()
    }

    /// All attributes, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.attributes.present()
    }

    pub(crate) fn attributes(&self) -> &Attributes {
        &self.attributes
    }
}

/// A session's own limits, as durations from now.
pub(super) fn limits_left(state: &SessionState, now: Instant) -> Limits {
    let limits = state.limits();
    let left = |at: Option<Instant>| at.map(|at| at - now);
    Limits { idle: limits.idle, remaining: left(limits.deadline), absolute: left(limits.absolute) }
}
