//! The sockets of a simulated node.

use std::net::SocketAddr;

use super::datagram::{Datagrams, open_datagrams};
use super::stream::TcpListener;
use crate::config::Config;
use crate::error::StartError;

/// What a node listens on.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) unicast: Datagrams,
    pub(crate) multicast: Option<Datagrams>,
    pub(crate) address: SocketAddr,
}

impl Bound {
    #[allow(clippy::unnecessary_wraps)] // As on a real host.
    pub(crate) fn open(config: &Config) -> Result<Self, StartError> {
        let (listener, address) = TcpListener::listen(config.bind.port());
        let group = config.uses_multicast().then(|| SocketAddr::new(config.address, config.port));
        let (unicast, multicast) = open_datagrams(address, group);
        Ok(Self { listener, unicast, multicast, address })
    }
}
