//! A member's name and address, as told on.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use super::error::PeerMisbehaved;
use super::generated as pb;
use crate::{BootId, NodeName};

/// A member as one node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Its boot.
    pub boot: BootId,
    /// How often that boot has started empty again.
    pub incarnation: u32,
    /// Its name.
    pub name: NodeName,
    /// Where it accepts links.
    pub address: SocketAddr,
}

impl Contact {
    pub(super) fn to_wire(&self) -> pb::Contact {
        pb::Contact {
            boot: self.boot.get(),
            incarnation: self.incarnation,
            name: self.name.as_str().into(),
            address: encode_address(self.address),
        }
    }

    pub(super) fn from_wire(contact: pb::Contact) -> Result<Self, PeerMisbehaved> {
        Ok(Self {
            boot: BootId::new(contact.boot).ok_or(PeerMisbehaved::Invalid("boot"))?,
            incarnation: contact.incarnation,
            name: NodeName::new(&contact.name).map_err(|_| PeerMisbehaved::Invalid("name"))?,
            address: decode_address(&contact.address).ok_or(PeerMisbehaved::Invalid("address"))?,
        })
    }
}

/// An address as it travels: 4 or 16 bytes of IP, 2 of port.
pub fn encode_address(address: SocketAddr) -> Bytes {
    let mut bytes = Vec::with_capacity(18);
    match address.ip() {
        IpAddr::V4(ip) => bytes.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
    }
    bytes.extend_from_slice(&address.port().to_be_bytes());
    bytes.into()
}

/// An address from the wire; `None` unless it is one that can be dialled.
pub fn decode_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    let ip = match ip.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
        _ => return None,
    };
    (port != 0 && !ip.is_unspecified() && !ip.is_multicast()).then(|| SocketAddr::new(ip, port))
}
