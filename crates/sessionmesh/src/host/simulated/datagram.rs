//! UDP: what is sent may be lost, doubled, and overtaken.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::net::{Network, ip_of};
use super::world::{HostId, current, lock};

/// A kernel's buffer holds so many.
const MAX_WAITING: usize = 1_024;

/// What has come to one socket, by time of arrival.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_time: BTreeMap<(Instant, u64), (Vec<u8>, SocketAddr)>,
}

impl Inbox {
    fn push(&self, at: Instant, datagram: &[u8], from: SocketAddr) {
        let mut waiting = lock(&self.waiting);
        if waiting.by_time.len() >= MAX_WAITING {
            return;
        }
        waiting.next += 1;
        let number = waiting.next;
        waiting.by_time.insert((at, number), (datagram.to_vec(), from));
        self.more.notify_one();
    }

    async fn pop(&self) -> (Vec<u8>, SocketAddr) {
        loop {
            let first = lock(&self.waiting).by_time.first_key_value().map(|((at, _), _)| *at);
            match first {
                Some(at) if at <= Instant::now() => {
                    if let Some((_, datagram)) = lock(&self.waiting).by_time.pop_first() {
                        return datagram;
                    }
                }
                // A later one may overtake it.
                Some(at) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(at) => {}
                    () = self.more.notified() => {}
                },
                None => self.more.notified().await,
            }
        }
    }
}

/// A socket: the same whether a runtime has taken it or not.
pub(crate) type Datagrams = UdpSocket;

/// A UDP socket.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    net: Arc<Network>,
    host: HostId,
    address: SocketAddr,
    inbox: Arc<Inbox>,
}

/// A node's sockets: its own, and one in the group.
pub(crate) fn open_datagrams(
    address: SocketAddr,
    group: Option<SocketAddr>,
) -> (Datagrams, Option<Datagrams>) {
    let host = current();
    let open = |address: SocketAddr| UdpSocket {
        net: host.net.clone(),
        host: host.id,
        address,
        inbox: Arc::default(),
    };
    let own = open(address);
    host.net.bind(address, &own.inbox);
    let group = group.map(|group| {
        let socket = open(SocketAddr::new(ip_of(host.id), group.port()));
        host.net.join(host.id, group, &socket.inbox);
        socket
    });
    (own, group)
}

impl UdpSocket {
    #[allow(clippy::unused_async)] // As on a real host.
    pub(crate) async fn send_to(&self, datagram: &[u8], to: &SocketAddr) -> io::Result<usize> {
        for (host, inbox) in self.net.hearers(*to) {
            let arrivals =
                if host == self.host { vec![Instant::now()] } else { self.net.arrivals(self.host, host) };
            for at in arrivals {
                inbox.push(at, datagram, self.address);
            }
        }
        Ok(datagram.len())
    }

    pub(crate) async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (datagram, from) = self.inbox.pop().await;
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        Ok((length, from))
    }
}
