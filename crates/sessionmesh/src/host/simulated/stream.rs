//! Connections: bytes come in order, late, or not until a cable is mended.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::net::{Network, host_of, ip_of};
use super::world::{HostId, current, lock};

/// What the kernels on both sides hold of one direction.
const WINDOW_BYTES: usize = 128 << 10;

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Pipe {
    net: Arc<Network>,
    from: HostId,
    to: HostId,
    state: Mutex<Flow>,
    readable: Notify,
    writable: Notify,
}

#[derive(Debug, Default)]
struct Flow {
    chunks: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    last_at: Option<Instant>,
    /// The writer is gone: the end follows what was written.
    ended_at: Option<Instant>,
    /// The reader is gone: writing is an error.
    deaf: bool,
    /// One side's host is off: nothing happens any more.
    silent: bool,
    held_up: bool,
}

impl Pipe {
    fn new(net: &Arc<Network>, from: HostId, to: HostId) -> Arc<Self> {
        let pipe = Arc::new(Self {
            net: net.clone(),
            from,
            to,
            state: Mutex::default(),
            readable: Notify::new(),
            writable: Notify::new(),
        });
        net.connect(&pipe);
        pipe
    }

    pub(super) fn touches(&self, host: HostId) -> bool {
        self.from == host || self.to == host
    }

    pub(super) fn silence(&self) {
        lock(&self.state).silent = true;
    }

    /// The process of one side is killed.
    pub(super) fn close(&self) {
        self.end();
        self.deafen();
    }

    fn end(&self) {
        let at = self.net.arrival(self.from, self.to, 0);
        let mut flow = lock(&self.state);
        if flow.ended_at.is_none() {
            flow.ended_at = Some(flow.last_at.map_or(at, |last| last.max(at)));
        }
        self.readable.notify_one();
    }

    fn deafen(&self) {
        lock(&self.state).deaf = true;
        self.writable.notify_one();
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let at = self.net.arrival(self.from, self.to, bytes.len());
        let reset = self.is_reset();
        let mut flow = lock(&self.state);
        if reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let room = WINDOW_BYTES.saturating_sub(flow.bytes).min(bytes.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let at = flow.last_at.map_or(at, |last| last.max(at));
        flow.last_at = Some(at);
        flow.bytes += room;
        flow.chunks.push_back((at, Bytes::copy_from_slice(&bytes[..room])));
        self.readable.notify_one();
        Ok(room)
    }

    /// When there is something to read, or the end; `None` if nothing is on its way.
    fn next_at(&self) -> Option<Instant> {
        let cut = self.net.is_cut(self.from, self.to);
        let mut flow = lock(&self.state);
        if cut || flow.silent {
            flow.held_up |= !flow.silent;
            return None;
        }
        if std::mem::take(&mut flow.held_up) {
            // What was held up is sent again a little later.
            let again = Instant::now() + self.net.resend_delay();
            for (at, _) in &mut flow.chunks {
                *at = (*at).max(again);
            }
            flow.last_at = flow.last_at.max(Some(again));
            flow.ended_at = flow.ended_at.map(|at| at.max(again));
        }
        // What crept over a slow cable does so no longer once that is mended.
        let latest = self.net.latest_arrival(self.from, self.to);
        if let Some(latest) = latest.filter(|latest| flow.last_at > Some(*latest)) {
            for (at, _) in &mut flow.chunks {
                *at = (*at).min(latest);
            }
            flow.last_at = Some(latest);
            flow.ended_at = flow.ended_at.map(|at| at.min(latest));
        }
        flow.chunks.front().map(|(at, _)| *at).or(flow.ended_at)
    }

    fn try_read(&self, most: usize) -> io::Result<Bytes> {
        if self.next_at().is_none_or(|at| at > Instant::now()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut flow = lock(&self.state);
        let Some((at, mut chunk)) = flow.chunks.pop_front() else { return Ok(Bytes::new()) };
        let taken = chunk.split_to(most.min(chunk.len()));
        if chunk.has_remaining() {
            flow.chunks.push_front((at, chunk));
        }
        flow.bytes -= taken.len();
        self.writable.notify_one();
        Ok(taken)
    }

    async fn until_readable(&self) {
        loop {
            let changed = self.net.changed.notified();
            match self.next_at() {
                Some(at) if at <= Instant::now() => return,
                Some(at) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(at) => {}
                    () = changed => {}
                },
                None => tokio::select! {
                    biased;
                    () = self.readable.notified() => {}
                    () = changed => {}
                },
            }
        }
    }

    async fn until_writable(&self) {
        loop {
            let changed = self.net.changed.notified();
            if self.is_reset() || lock(&self.state).bytes < WINDOW_BYTES {
                return;
            }
            tokio::select! {
                biased;
                () = self.writable.notified() => {}
                () = changed => {}
            }
        }
    }

    /// The reader is gone, and its reset has come.
    fn is_reset(&self) -> bool {
        let cut = self.net.is_cut(self.from, self.to) || self.net.is_cut(self.to, self.from);
        let flow = lock(&self.state);
        flow.deaf && !flow.silent && !cut
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct TcpStream {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
    peer: SocketAddr,
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let net = &self.outgoing.net;
        if !net.is_silent(self.outgoing.from) {
            self.outgoing.end();
            self.incoming.deafen();
        }
    }
}

impl TcpStream {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let host = current();
        let net = host.net.clone();
        let Some(to) = host_of(address) else { return std::future::pending().await };
        // There and back; cut either way, nobody answers.
        tokio::time::sleep_until(net.arrival(host.id, to, 0)).await;
        if net.is_cut(host.id, to) || net.is_cut(to, host.id) {
            return std::future::pending().await;
        }
        let acceptor = net.acceptor(address);
        tokio::time::sleep_until(net.arrival(to, host.id, 0)).await;
        let acceptor = acceptor.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (there, back) = (Pipe::new(&net, host.id, to), Pipe::new(&net, to, host.id));
        let own = SocketAddr::new(ip_of(host.id), net.free_port());
        acceptor.push(Self { incoming: there.clone(), outgoing: back.clone(), peer: own });
        Ok(Self { incoming: back, outgoing: there, peer: address })
    }

    #[allow(clippy::unnecessary_wraps)] // As on a real host.
    pub(crate) fn set_nodelay(&self, _on: bool) -> io::Result<()> {
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps)] // As on a real host.
    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.incoming.until_readable().await;
        Ok(())
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.outgoing.until_writable().await;
        Ok(())
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.try_write(bytes)
    }

    pub(crate) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let bytes = self.incoming.try_read(buffer.chunk_mut().len())?;
        buffer.put_slice(&bytes);
        Ok(bytes.len())
    }

    pub(crate) async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        buffer.reserve(1);
        loop {
            self.readable().await?;
            match self.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    pub(crate) async fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.readable().await?;
            let bytes = match self.incoming.try_read(buffer.len() - filled) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                read => read?,
            };
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer[filled..filled + bytes.len()].copy_from_slice(&bytes);
            filled += bytes.len();
        }
        Ok(filled)
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.writable().await?;
            match self.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Where connections arrive.
#[derive(Debug)]
pub(super) struct Acceptor {
    pub(super) host: HostId,
    waiting: Mutex<VecDeque<TcpStream>>,
    more: Notify,
}

impl Acceptor {
    fn push(&self, stream: TcpStream) {
        lock(&self.waiting).push_back(stream);
        self.more.notify_one();
    }
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct TcpListener(Arc<Acceptor>);

impl TcpListener {
    pub(crate) fn listen(port: u16) -> (Self, SocketAddr) {
        let host = current();
        let address = SocketAddr::new(ip_of(host.id), port);
        let acceptor = Arc::new(Acceptor { host: host.id, waiting: Mutex::default(), more: Notify::new() });
        host.net.listen(address, &acceptor);
        (Self(acceptor), address)
    }

    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let accepted = lock(&self.0.waiting).pop_front();
            if let Some(stream) = accepted {
                let peer = stream.peer;
                return Ok((stream, peer));
            }
            self.0.more.notified().await;
        }
    }
}
