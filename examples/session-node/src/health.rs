//! Asks a running node whether it is ready, without any other program.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the node that serves at this address is ready.
pub(crate) fn check(served: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let mut address = served;
    // Served on all addresses: asked on this host's own.
    if served.ip().is_unspecified() {
        address.set_ip(if served.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
        .map_err(|error| format!("nothing serves HTTP on {address}: {error}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        _ => Err(format!("not ready: {}", answer.lines().last().unwrap_or_default()).into()),
    }
}
