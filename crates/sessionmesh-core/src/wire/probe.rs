//! The datagram by which a host that is no member (yet) finds out who hears it: members answer with
//! their next heartbeat.
//!
//! `"SMP1" | cluster tag (4) | keyed BLAKE3 tag (16) | nonce (16)`. The tag's key is for probes alone.

use alloc::vec::Vec;

use super::auth::{ClusterKey, TAG_BYTES};
use super::error::HeartbeatRejected;

const MAGIC: &[u8; 4] = b"SMP1";
const NONCE_BYTES: usize = 16;

/// A probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Tells a sender its own probes from others'.
    pub nonce: [u8; NONCE_BYTES],
}

impl Probe {
    /// As a datagram.
    pub fn seal(&self, key: &ClusterKey) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(8 + TAG_BYTES + NONCE_BYTES);
        datagram.extend_from_slice(MAGIC);
        datagram.extend_from_slice(&key.cluster_tag());
        datagram.extend_from_slice(&key.tag_probe(&self.nonce));
        datagram.extend_from_slice(&self.nonce);
        datagram
    }

    /// From a datagram; `None` if it is none at all, of whatever cluster.
    pub fn open(key: &ClusterKey, datagram: &[u8]) -> Option<Result<Self, HeartbeatRejected>> {
        let rest = datagram.strip_prefix(MAGIC)?;
        let (cluster, rest) = rest.split_first_chunk::<4>()?;
        let (tag, nonce) = rest.split_first_chunk::<TAG_BYTES>()?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        if *cluster != key.cluster_tag() {
            return Some(Err(HeartbeatRejected::OtherCluster));
        }
        if !key.is_probe_authentic(&nonce, tag) {
            return Some(Err(HeartbeatRejected::Unauthenticated));
        }
        Some(Ok(Self { nonce }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Heartbeat;

    #[test]
    fn only_the_clusters_own_probes_are_opened_and_none_is_a_heartbeat() {
        let key = ClusterKey::derive("shop", b"0123456789abcdef");
        let probe = Probe { nonce: [7; 16] };
        let datagram = probe.seal(&key);
        assert_eq!(Probe::open(&key, &datagram), Some(Ok(probe)));
        assert_eq!(Heartbeat::open(&key, &datagram), Err(HeartbeatRejected::Foreign));
        let other = ClusterKey::derive("shop", b"another secret..");
        assert_eq!(Probe::open(&other, &datagram), Some(Err(HeartbeatRejected::Unauthenticated)));
        let other = ClusterKey::derive("blog", b"0123456789abcdef");
        assert_eq!(Probe::open(&other, &datagram), Some(Err(HeartbeatRejected::OtherCluster)));
        for length in 0..datagram.len() {
            assert_eq!(Probe::open(&key, &datagram[..length]), None);
        }
        for bit in 0..datagram.len() * 8 {
            let mut flipped = datagram.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(Probe::open(&key, &flipped), Some(Ok(_))), "bit {bit}");
        }
    }
}
