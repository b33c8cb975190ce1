//! Keys from the cluster's secret, and tags made with them.

use alloc::string::String;
use core::fmt;

use constant_time_eq::constant_time_eq;
use zeroize::Zeroize;

/// Bytes of the tag of what is short: a datagram, a link's header.
pub(super) const TAG_BYTES: usize = 16;
pub(super) type ShortTag = [u8; TAG_BYTES];

/// Tells clusters on one multicast group apart without a secret; no protection.
pub type ClusterTag = [u8; 4];

/// Which secret something was made with: a hash, against which guesses could be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

/// What proves membership: keys derived from the cluster's name and secret, one per purpose. While secrets are
/// rotated, those of a second one are accepted too.
#[derive(Clone)]
pub struct ClusterKey {
    tag: ClusterTag,
    own: Keys,
    other: Option<Keys>,
}

/// Of one secret. Wiped from memory when dropped.
#[derive(Clone)]
struct Keys {
    heartbeat: [u8; 32],
    probe: [u8; 32],
    header: [u8; 32],
    hello: [u8; 32],
    id: KeyId,
}

impl Drop for Keys {
    fn drop(&mut self) {
        for key in [&mut self.heartbeat, &mut self.probe, &mut self.header, &mut self.hello] {
            key.zeroize();
        }
    }
}

impl Keys {
    fn derive(cluster: &str, secret: &[u8]) -> Self {
        let derive = |context: &str| {
            let mut hasher = blake3::Hasher::new_derive_key(context);
            hasher.update(&(secret.len() as u64).to_le_bytes());
            hasher.update(secret);
            hasher.update(cluster.as_bytes());
            let key = *hasher.finalize().as_bytes();
            hasher.zeroize();
            key
        };
        let [a, b, c, d, e, f, g, h, ..] = derive("sessionmesh 2026 key id v1");
        Self {
            heartbeat: derive("sessionmesh 2026 heartbeat key v1"),
            probe: derive("sessionmesh 2026 probe key v1"),
            header: derive("sessionmesh 2026 link header key v1"),
            hello: derive("sessionmesh 2026 link key v1"),
            id: KeyId([a, b, c, d, e, f, g, h]),
        }
    }
}

impl ClusterKey {
    /// The shortest secret accepted, in bytes.
    pub const MIN_SECRET_BYTES: usize = 16;

    /// From the cluster's name and secret. An empty secret gives the key of an insecure cluster,
    /// which anybody can make.
    pub fn derive(cluster: &str, secret: &[u8]) -> Self {
        let [a, b, c, d, ..] = blake3::derive_key("sessionmesh 2026 cluster tag v1", cluster.as_bytes());
        Self { tag: [a, b, c, d], own: Keys::derive(cluster, secret), other: None }
    }

    /// Accepts what is made with this secret too; what this node makes is made with the first.
    #[must_use]
    pub fn accepting(mut self, cluster: &str, secret: &[u8]) -> Self {
        self.other = Some(Keys::derive(cluster, secret));
        self
    }

    /// Whether what was made with this key is accepted.
    pub fn accepts(&self, id: KeyId) -> bool {
        self.all().any(|keys| keys.id == id)
    }

    /// Tells an operator whether two nodes have the same secret. Says no more of it than a heartbeat does to
    /// whoever hears it.
    pub fn fingerprint(&self) -> String {
        let short = |keys: &Keys| {
            let [a, b, c, d, ..] = short_tag(&keys.probe, &[b"fingerprint"]);
            alloc::format!("{a:02x}{b:02x}{c:02x}{d:02x}")
        };
        match &self.other {
            None => short(&self.own),
            Some(other) => alloc::format!("{} (and accepts {})", short(&self.own), short(other)),
        }
    }

    /// For [`crate::SessionId::salt_debug`].
    pub fn log_salt(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = short_tag(&self.own.probe, &[b"log salt"]);
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    fn all(&self) -> impl Iterator<Item = &Keys> {
        core::iter::once(&self.own).chain(&self.other)
    }

    pub(super) fn cluster_tag(&self) -> ClusterTag {
        self.tag
    }

    pub(super) fn tag_heartbeat(&self, body: &[u8]) -> ShortTag {
        short_tag(&self.own.heartbeat, &[body])
    }

    pub(super) fn is_heartbeat_authentic(&self, body: &[u8], tag: &[u8]) -> bool {
        self.all().any(|keys| constant_time_eq(&short_tag(&keys.heartbeat, &[body]), tag))
    }

    pub(super) fn tag_probe(&self, body: &[u8]) -> ShortTag {
        short_tag(&self.own.probe, &[body])
    }

    pub(super) fn is_probe_authentic(&self, body: &[u8], tag: &[u8]) -> bool {
        self.all().any(|keys| constant_time_eq(&short_tag(&keys.probe, &[body]), tag))
    }

    pub(super) fn tag_header(&self, sender: u8, header: &[u8]) -> ShortTag {
        short_tag(&self.own.header, &[&[sender], header])
    }

    pub(super) fn is_header_authentic(&self, sender: u8, header: &[u8], tag: &[u8]) -> bool {
        self.all().any(|keys| constant_time_eq(&short_tag(&keys.header, &[&[sender], header]), tag))
    }

    pub(super) fn tag_hello(&self, parts: &[&[u8]]) -> [u8; 32] {
        full_tag(&self.own.hello, parts)
    }

    /// Whose secret a Hello's tag was made with, if it is one of ours.
    pub(super) fn open_hello(&self, parts: &[&[u8]], tag: &[u8]) -> Option<KeyId> {
        self.all().find(|keys| constant_time_eq(&full_tag(&keys.hello, parts), tag)).map(|keys| keys.id)
    }
}

fn full_tag(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

fn short_tag(key: &[u8; 32], parts: &[&[u8]]) -> ShortTag {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(full_tag(key, parts).split_at(TAG_BYTES).0);
    tag
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_secrets_are_rotated_both_are_accepted_and_the_first_signs() {
        let (old, new) = (b"the old secret..", b"the new secret..");
        let only_old = ClusterKey::derive("shop", old);
        let both = ClusterKey::derive("shop", new).accepting("shop", old);
        let only_new = ClusterKey::derive("shop", new);
        assert!(both.is_heartbeat_authentic(b"beat", &only_old.tag_heartbeat(b"beat")));
        assert!(both.is_heartbeat_authentic(b"beat", &only_new.tag_heartbeat(b"beat")));
        assert!(only_new.is_heartbeat_authentic(b"beat", &both.tag_heartbeat(b"beat")));
        assert!(!only_old.is_heartbeat_authentic(b"beat", &both.tag_heartbeat(b"beat")));
        let made_with_old = both.open_hello(&[b"hello"], &only_old.tag_hello(&[b"hello"])).unwrap();
        assert!(both.accepts(made_with_old) && !only_new.accepts(made_with_old));
    }

    #[test]
    fn debug_shows_nothing_of_a_key() {
        assert_eq!(std::format!("{:?}", ClusterKey::derive("shop", b"0123456789abcdef")), "ClusterKey(..)");
    }
}
