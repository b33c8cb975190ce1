//! Which network interface heartbeats use, and which address others reach this node by.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use if_addrs::IfAddr;

use crate::config::Config;
use crate::error::StartError;

/// An interface that exists.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) address: IpAddr,
}

fn list() -> Result<Vec<Interface>, std::io::Error> {
    let mut interfaces = if_addrs::get_if_addrs()?;
    // A link-local address means nothing to others without their name of the network: last.
    interfaces.sort_by_key(if_addrs::Interface::is_link_local);
    Ok(interfaces
        .into_iter()
        .map(|interface| Interface {
            index: interface.index.unwrap_or_default(),
            address: match &interface.addr {
                IfAddr::V4(v4) => v4.ip.into(),
                IfAddr::V6(v6) => v6.ip.into(),
            },
            name: interface.name,
        })
        .collect())
}

/// The interface that the configuration means, with an address of the wanted version.
pub(crate) fn choose(config: &Config) -> Result<Interface, StartError> {
    let v4 = config.address.is_ipv4();
    let all = list()?;
    let fits = |interface: &&Interface| interface.address.is_ipv4() == v4;
    let wanted = config.interface.clone();
    let failed = |wanted: &str, detail: String| {
        let known: Vec<String> = all
            .iter()
            .filter(fits)
            .map(|interface| format!("{} ({})", interface.name, interface.address))
            .collect();
        let detail = format!("{detail}; there are: {}", known.join(", "));
        StartError::Interface { interface: wanted.into(), detail }
    };
    if let Some(wanted) = wanted {
        let address: Option<IpAddr> = wanted.parse().ok();
        let found = all.iter().filter(fits).find(|interface| match address {
            Some(address) => interface.address == address,
            None => interface.name == wanted,
        });
        return match (found, address) {
            (Some(interface), _) => Ok(interface.clone()),
            // All of 127.0.0.0/8 is the loopback interface.
            (None, Some(IpAddr::V4(address))) if address.is_loopback() => {
                let loopback = all.iter().filter(fits).find(|interface| interface.address.is_loopback());
                let mut interface = loopback
                    .cloned()
                    .ok_or_else(|| failed(&wanted, "there is no loopback interface".into()))?;
                interface.address = address.into();
                Ok(interface)
            }
            (None, Some(_)) => Err(failed(&wanted, "no interface has this address".into())),
            (None, None) => {
                Err(failed(&wanted, "there is no interface of this name with a usable address".into()))
            }
        };
    }
    let bind = config.bind.ip();
    let address = if bind.is_unspecified() { route_to(config)? } else { bind };
    let found = all.iter().find(|interface| interface.address == address);
    let loopback = || all.iter().find(|interface| address.is_loopback() && interface.address.is_loopback());
    found
        .or_else(loopback)
        .map(|interface| Interface { address, ..interface.clone() })
        .ok_or_else(|| failed(&address.to_string(), "no interface has this address".into()))
}

/// The address from which this host would send to the group. Sends nothing.
fn route_to(config: &Config) -> Result<IpAddr, StartError> {
    let failed = |detail: String| StartError::NoAddress { bind: config.bind, detail };
    let any: SocketAddr = match config.address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let probe = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((config.address, config.port))?;
        socket.local_addr()
    });
    match probe {
        Ok(local) if !local.ip().is_unspecified() => Ok(local.ip()),
        Ok(_) => Err(failed("no route".into())),
        Err(error) => Err(failed(format!("no route to {}: {error}", config.address))),
    }
}
