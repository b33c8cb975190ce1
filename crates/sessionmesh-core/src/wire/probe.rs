//! The datagram by which a host that is no member (yet) finds out who hears it: members name it among those
//! whom they hear in their next heartbeat. So asking brings no datagram that would not be sent anyway.
//!
//! `"SMP1" | cluster tag (4) | keyed BLAKE3 tag (16) | boot id (8)`. The tag's key is for probes alone.

use alloc::vec::Vec;

use super::auth::{ClusterKey, TAG_BYTES};
use super::error::HeartbeatRejected;
use crate::BootId;

const MAGIC: &[u8; 4] = b"SMP1";
const BOOT_BYTES: usize = 8;

/// A probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who asks: a boot id of no node.
    pub boot: BootId,
}

impl Probe {
    /// As a datagram.
    pub fn seal(&self, key: &ClusterKey) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(8 + TAG_BYTES + BOOT_BYTES);
        datagram.extend_from_slice(MAGIC);
        datagram.extend_from_slice(&key.cluster_tag());
        let boot = self.boot.get().to_be_bytes();
        datagram.extend_from_slice(&key.tag_probe(&boot));
        datagram.extend_from_slice(&boot);
        datagram
    }

    /// From a datagram; `None` if it is none at all, of whatever cluster.
    pub fn open(key: &ClusterKey, datagram: &[u8]) -> Option<Result<Self, HeartbeatRejected>> {
        let rest = datagram.strip_prefix(MAGIC)?;
        let (cluster, rest) = rest.split_first_chunk::<4>()?;
        let (tag, boot) = rest.split_first_chunk::<TAG_BYTES>()?;
        let boot: [u8; BOOT_BYTES] = boot.try_into().ok()?;
        if *cluster != key.cluster_tag() {
            return Some(Err(HeartbeatRejected::OtherCluster));
        }
        if !key.is_probe_authentic(&boot, tag) {
            return Some(Err(HeartbeatRejected::Unauthenticated));
        }
        Some(
            BootId::new(u64::from_be_bytes(boot))
                .map(|boot| Self { boot })
                .ok_or(HeartbeatRejected::Undecodable),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Heartbeat;

    #[test]
    fn only_the_clusters_own_probes_are_opened_and_none_is_a_heartbeat() {
        let key = ClusterKey::derive("shop", b"0123456789abcdef");
        let probe = Probe { boot: BootId::new(7).unwrap() };
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
