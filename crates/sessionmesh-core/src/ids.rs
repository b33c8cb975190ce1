//! Names of things: sessions, boots, nodes.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What logs call a session depends on it.
static SALT: AtomicU64 = AtomicU64::new(0);

/// The name of a session: 128 bits from the operating system's random source.
///
/// Whoever holds it is the user, so `Debug` shows a short salted hash and there is no `Display`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// From 16 random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Salts what `Debug` shows of all ids in this process, so that nobody who guesses an id can find it in a log. The
    /// same on all nodes of a cluster, so that their logs can be read together.
    pub fn salt_debug(salt: u64) {
        SALT.store(salt, Ordering::Relaxed);
    }

    /// The bytes, for a cookie or the wire.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first 16 hex digits as a number: the key by which passes sort and sum sessions.
    pub(crate) fn prefix_bits(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let salt = SALT.load(Ordering::Relaxed);
        write!(f, "session#{:08x}", xxh3_64_with_seed(&self.0, salt) as u32)
    }
}

/// One start of one node: a random number that no other start shares.
///
/// Zero stands for "none" on the wire and is never minted.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(u64);

impl BootId {
    /// From a random number; `None` for zero.
    pub const fn new(random: u64) -> Option<Self> {
        if random == 0 { None } else { Some(Self(random)) }
    }

    /// As it travels.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot:{:016x}", self.0)
    }
}

/// A node's label, and its route in a sticky cookie: 1 to 64 of `A-Z a-z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// A text that can't be a [`NodeName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node name is 1 to 64 of the characters A-Z a-z 0-9 _ -")]
pub struct InvalidName;

impl NodeName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`InvalidName`] if it is empty, too long, or has another character.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > Self::MAX_BYTES || !name.bytes().all(allowed) {
            return Err(InvalidName);
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    #[test]
    fn a_name_at_its_limit_passes_and_one_past_it_does_not() {
        let limit = String::from_iter(core::iter::repeat_n('n', NodeName::MAX_BYTES));
        assert!(NodeName::new(&limit).is_ok());
        assert_eq!(NodeName::new(&format!("{limit}n")), Err(InvalidName));
        assert_eq!(NodeName::new(""), Err(InvalidName));
        assert_eq!(NodeName::new("a.b"), Err(InvalidName));
    }

    #[test]
    fn debug_never_shows_a_session_id() {
        let id = SessionId::from_bytes([0xab; 16]);
        assert!(!format!("{id:?}").contains("abab"));
    }
}
