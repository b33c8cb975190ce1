//! The sockets of a node: bound before anything else, so that a node either has all of them or does
//! not start.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::interface::{self, Interface};
use crate::config::{Config, ConfigError};
use crate::error::StartError;

/// What a node listens on.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    /// Sends all heartbeats and hears unicast ones; the listener's port number.
    pub(crate) unicast: UdpSocket,
    pub(crate) multicast: Option<UdpSocket>,
    /// Where others reach this node.
    pub(crate) address: SocketAddr,
}

impl Bound {
    pub(crate) fn open(config: &Config) -> Result<Self, StartError> {
        let interface = if config.uses_multicast() { Some(interface::choose(config)?) } else { None };
        // By its name it could not be told before.
        if let Some(far) = interface.as_ref().filter(|found| config.insecure && !found.address.is_loopback())
        {
            let value = far.name.clone();
            return Err(ConfigError::InsecureBeyondLoopback { option: "interface", value }.into());
        }
        // Before what takes any port: it could be the group's.
        let multicast = match &interface {
            None => None,
            Some(interface) => {
                Some(open_group(config, interface).map_err(|error| refused(config, interface, error))?)
            }
        };
        let (listener, unicast) = open_pair(config)?;
        let local = listener.local_addr()?;
        if let Some(interface) = &interface {
            prepare_sender(&unicast, config, interface).map_err(|error| refused(config, interface, error))?;
        }
        let address = advertised(config, local, interface.as_ref())?;
        Ok(Self { listener, unicast, multicast, address })
    }
}

/// Sockets that send to the group and hear it beside those of a node: one of any port, one of the group's.
pub(crate) fn open_probe(
    config: &Config,
    interface: &Interface,
) -> Result<(UdpSocket, UdpSocket), StartError> {
    let open = || {
        let receiver = open_group(config, interface)?;
        let sender = UdpSocket::bind(SocketAddr::new(config.bind.ip(), 0))?;
        sender.set_nonblocking(true)?;
        prepare_sender(&sender, config, interface)?;
        Ok((sender, receiver))
    };
    open().map_err(|error| refused(config, interface, error))
}

fn refused(config: &Config, interface: &Interface, source: io::Error) -> StartError {
    let group = SocketAddr::new(config.address, config.port);
    StartError::Multicast { group, interface: interface.name.clone(), source }
}

/// Where others reach this node: as told, else where it listens, else by the interface.
fn advertised(
    config: &Config,
    local: SocketAddr,
    interface: Option<&Interface>,
) -> Result<SocketAddr, StartError> {
    if let Some(advertise) = config.advertise {
        let port = if advertise.port() == 0 { local.port() } else { advertise.port() };
        return Ok(SocketAddr::new(advertise.ip(), port));
    }
    if !local.ip().is_unspecified() {
        return Ok(local);
    }
    match interface {
        Some(interface) => Ok(SocketAddr::new(interface.address, local.port())),
        None => interface::choose(config).map(|interface| SocketAddr::new(interface.address, local.port())),
    }
}

/// A TCP and a UDP socket with the same port number, the first of the range that is free for both.
fn open_pair(config: &Config) -> Result<(TcpListener, UdpSocket), StartError> {
    let first = config.bind;
    let tries = if first.port() == 0 { 16 } else { config.auto_bind };
    let mut last = first;
    let mut source = io::Error::from(io::ErrorKind::AddrInUse);
    for offset in 0..tries {
        if first.port() != 0 {
            let Some(port) = first.port().checked_add(offset) else { break };
            last.set_port(port);
        }
        match open_at(last) {
            Ok(pair) => {
                if offset > 0 && first.port() != 0 {
                    tracing::warn!(wanted = %first, taken = %last, "port taken, using the next that is free");
                }
                return Ok(pair);
            }
            // Only a taken port is worth trying the next.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => source = error,
            Err(error) => return Err(StartError::Ports { first, last, source: error }),
        }
    }
    Err(StartError::Ports { first, last, source })
}

fn open_at(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not find its own port taken by connections that are fading away.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from_std(socket.into())?;
    let local = listener.local_addr()?;
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&local.into())?;
    socket.set_nonblocking(true)?;
    Ok((listener, socket.into()))
}

/// Heartbeats leave by the chosen interface.
fn prepare_sender(socket: &UdpSocket, config: &Config, interface: &Interface) -> io::Result<()> {
    let socket = socket2::SockRef::from(socket);
    match interface.address {
        IpAddr::V4(address) => {
            socket.set_multicast_if_v4(&address)?;
            socket.set_multicast_ttl_v4(config.ttl)?;
            socket.set_multicast_loop_v4(true)
        }
        IpAddr::V6(_) => {
            socket.set_multicast_if_v6(interface.index)?;
            socket.set_multicast_hops_v6(config.ttl)?;
            socket.set_multicast_loop_v6(true)
        }
    }
}

fn open_group(config: &Config, interface: &Interface) -> io::Result<UdpSocket> {
    let group = SocketAddr::new(config.address, config.port);
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    // Several nodes of one host hear the same group.
    socket.set_reuse_address(true)?;
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
    socket.set_reuse_port(true)?;
    let any: IpAddr = match group {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::new(any, config.port).into())?;
    match (config.address, interface.address) {
        (IpAddr::V4(group), IpAddr::V4(address)) => {
            // Without this, Linux delivers groups that other sockets joined.
            #[cfg(any(target_os = "linux", target_os = "android"))]
            socket.set_multicast_all_v4(false)?;
            socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Address(address))?;
        }
        (IpAddr::V6(group), _) => {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            socket.set_multicast_all_v6(false)?;
            socket.join_multicast_v6(&group, interface.index)?;
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the interface has no IPv4 address"));
        }
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
