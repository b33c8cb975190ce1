//! The datagram that every node repeats.
//!
//! `"SMH1" | cluster tag (4) | keyed BLAKE3 tag (16) | Heartbeat`. A stranger's datagram costs one
//! comparison or one tag; it is decoded only if the tag is right.

use alloc::vec::Vec;
use core::net::SocketAddr;

use prost::Message;

use super::auth::{ClusterKey, TAG_BYTES};
use super::contact::{decode_address, encode_address};
use super::error::HeartbeatRejected;
use super::generated as pb;
use crate::BootId;
use crate::membership::MemberState;

const MAGIC: &[u8; 4] = b"SMH1";
const HEADER_BYTES: usize = 4 + 4 + TAG_BYTES;

/// The longest datagram sent or read, in bytes: fits an Ethernet frame with room for tunnels.
pub const MAX_DATAGRAM_BYTES: usize = 1_200;

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Of the sender.
    pub boot: BootId,
    /// Greater in every datagram of one boot: a doubled or late one is known by it.
    pub counter: u64,
    /// The sender's state.
    pub state: MemberState,
    /// Hash of the ready members that the sender sees.
    pub view: u64,
    /// Boots that the sender holds for alive.
    pub heard: Vec<BootId>,
    /// Where the sender accepts links.
    pub address: SocketAddr,
}

impl Heartbeat {
    /// As a datagram.
    pub fn seal(&self, key: &ClusterKey) -> Vec<u8> {
        let body = pb::Heartbeat {
            boot: self.boot.get(),
            counter: self.counter,
            state: self.state.to_wire().into(),
            view: self.view,
            heard: self.heard.iter().map(|boot| boot.get()).collect(),
            address: encode_address(self.address),
        }
        .encode_to_vec();
        let mut datagram = Vec::with_capacity(HEADER_BYTES + body.len());
        datagram.extend_from_slice(MAGIC);
        datagram.extend_from_slice(&key.cluster_tag());
        datagram.extend_from_slice(&key.tag_heartbeat(&body));
        datagram.extend_from_slice(&body);
        datagram
    }

    /// From a datagram.
    ///
    /// # Errors
    /// Why it must be ignored.
    pub fn open(key: &ClusterKey, datagram: &[u8]) -> Result<Self, HeartbeatRejected> {
        let (magic, rest) = datagram.split_first_chunk::<4>().ok_or(HeartbeatRejected::Foreign)?;
        let (cluster, rest) = rest.split_first_chunk::<4>().ok_or(HeartbeatRejected::Foreign)?;
        let (tag, body) = rest.split_first_chunk::<TAG_BYTES>().ok_or(HeartbeatRejected::Foreign)?;
        if magic != MAGIC || datagram.len() > MAX_DATAGRAM_BYTES {
            return Err(HeartbeatRejected::Foreign);
        }
        if *cluster != key.cluster_tag() {
            return Err(HeartbeatRejected::OtherCluster);
        }
        if !key.is_heartbeat_authentic(body, tag) {
            return Err(HeartbeatRejected::Unauthenticated);
        }
        Self::parse(body).ok_or(HeartbeatRejected::Undecodable)
    }

    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let heartbeat = pb::Heartbeat::decode(body).ok()?;
        Some(Self {
            boot: BootId::new(heartbeat.boot)?,
            counter: heartbeat.counter,
            state: MemberState::from_wire(heartbeat.state())?,
            view: heartbeat.view,
            heard: heartbeat.heard.iter().filter_map(|boot| BootId::new(*boot)).collect(),
            address: decode_address(&heartbeat.address)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    fn heartbeat() -> Heartbeat {
        Heartbeat {
            boot: BootId::new(7).unwrap(),
            counter: 3,
            state: MemberState::Ready,
            view: 9,
            heard: [1, 2].into_iter().filter_map(BootId::new).collect(),
            address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 4001),
        }
    }

    #[test]
    fn only_the_clusters_own_heartbeats_are_opened() {
        let key = ClusterKey::derive("shop", b"0123456789abcdef");
        let datagram = heartbeat().seal(&key);
        assert_eq!(Heartbeat::open(&key, &datagram), Ok(heartbeat()));
        let other = ClusterKey::derive("shop", b"another secret..");
        assert_eq!(Heartbeat::open(&other, &datagram), Err(HeartbeatRejected::Unauthenticated));
        let other = ClusterKey::derive("blog", b"0123456789abcdef");
        assert_eq!(Heartbeat::open(&other, &datagram), Err(HeartbeatRejected::OtherCluster));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_rejected() {
        let key = ClusterKey::derive("shop", b"0123456789abcdef");
        let datagram = heartbeat().seal(&key);
        for length in 0..datagram.len() {
            assert!(Heartbeat::open(&key, &datagram[..length]).is_err(), "truncated to {length}");
        }
        for bit in 0..datagram.len() * 8 {
            let mut flipped = datagram.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Heartbeat::open(&key, &flipped).is_err(), "bit {bit}");
        }
    }
}
