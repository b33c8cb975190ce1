//! Keys from the cluster's secret, and tags made with them.

use alloc::string::String;
use core::fmt;

use constant_time_eq::constant_time_eq;

/// Bytes of a heartbeat's tag.
pub(super) const TAG_BYTES: usize = 16;

/// Tells clusters on one multicast group apart without a secret; no protection.
pub type ClusterTag = [u8; 4];

/// What proves membership: keys derived from the cluster's secret and name, one per purpose.
#[derive(Clone)]
pub struct ClusterKey {
    tag: ClusterTag,
    heartbeat: [u8; 32],
    link: [u8; 32],
    probe: [u8; 32],
}

impl ClusterKey {
    /// The shortest secret accepted, in bytes.
    pub const MIN_SECRET_BYTES: usize = 16;

    /// From the cluster's name and secret. An empty secret gives the key of an insecure cluster,
    /// which anybody can make.
    pub fn derive(cluster: &str, secret: &[u8]) -> Self {
        let derive = |context: &str| {
            let mut hasher = blake3::Hasher::new_derive_key(context);
            hasher.update(&(secret.len() as u64).to_le_bytes());
            hasher.update(secret);
            hasher.update(cluster.as_bytes());
            *hasher.finalize().as_bytes()
        };
        let [a, b, c, d, ..] = blake3::derive_key("sessionmesh 2026 cluster tag v1", cluster.as_bytes());
        Self {
            tag: [a, b, c, d],
            heartbeat: derive("sessionmesh 2026 heartbeat key v1"),
            link: derive("sessionmesh 2026 link key v1"),
            probe: derive("sessionmesh 2026 probe key v1"),
        }
    }

    /// Tells an operator whether two nodes have the same secret. Says no more of it than a heartbeat does to
    /// whoever hears it.
    pub fn fingerprint(&self) -> String {
        let [a, b, c, d, ..] = self.tag_probe(b"fingerprint");
        alloc::format!("{a:02x}{b:02x}{c:02x}{d:02x}")
    }

    pub(super) fn cluster_tag(&self) -> ClusterTag {
        self.tag
    }

    pub(super) fn tag_heartbeat(&self, body: &[u8]) -> [u8; TAG_BYTES] {
        short_tag(&self.heartbeat, body)
    }

    pub(super) fn tag_probe(&self, body: &[u8]) -> [u8; TAG_BYTES] {
        short_tag(&self.probe, body)
    }

    pub(super) fn is_probe_authentic(&self, body: &[u8], tag: &[u8]) -> bool {
        constant_time_eq(&self.tag_probe(body), tag)
    }

    pub(super) fn is_heartbeat_authentic(&self, body: &[u8], tag: &[u8]) -> bool {
        constant_time_eq(&self.tag_heartbeat(body), tag)
    }

    pub(super) fn seal_hello(&self, role: u8, dialer: &[u8], acceptor: &[u8], body: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.link);
        hasher.update(&[role]);
        hasher.update(dialer);
        hasher.update(acceptor);
        hasher.update(body);
        *hasher.finalize().as_bytes()
    }
}

fn short_tag(key: &[u8; 32], body: &[u8]) -> [u8; TAG_BYTES] {
    let full = blake3::keyed_hash(key, body);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(full.as_bytes().split_at(TAG_BYTES).0);
    tag
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}
