//! A session as a request sees it.

use serde::de::DeserializeOwned;
use sessionmesh_core::SessionId;
use sessionmesh_core::session::{Attributes, SessionState, Token, Version};

/// A session at one moment. Reading it touches no lock; it does not change.
#[derive(Clone, Debug)]
pub struct Snapshot {
    id: SessionId,
    attributes: Attributes,
    token: Token,
}

impl Snapshot {
    pub(crate) fn of(id: SessionId, state: &SessionState) -> Self {
        Self { id, attributes: state.attributes().clone(), token: Token::of(state) }
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Which writes it contains.
    pub fn version(&self) -> &Version {
        self.token.version()
    }

    /// What a client to whom it is shown has seen.
    pub fn token(&self) -> &Token {
        &self.token
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
