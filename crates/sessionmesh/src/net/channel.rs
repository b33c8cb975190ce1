//! A connection's bytes: as they are, or encrypted.
//!
//! Both ways are driven the same: whoever holds a channel reads and writes plain bytes, and never waits in the middle
//! of a record.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use rustls::Connection;
use sessionmesh_core::wire::{Hello, Role};
#[cfg(not(sessionmesh_simulation))]
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::host::{READ_BYTES, TcpStream, try_write_vectored};
use crate::security::{Tls, TlsFailed};

/// Why a channel can't be used any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("connection {}", .0.kind())]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsFailed),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: TcpStream,
    encrypted: Option<Box<Encrypted>>,
}

#[derive(Debug)]
struct Encrypted {
    tls: Tls,
    connection: Connection,
    /// As it came.
    received: BytesMut,
}

impl Channel {
    /// Not encrypted (yet).
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, encrypted: None }
    }

    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// From here on all is encrypted: proves who this side is, and has the other prove it.
    pub(crate) async fn encrypt(&mut self, tls: &Tls, role: Role) -> Result<(), Broken> {
        let connection = tls.begin(role)?;
        let encrypted = Encrypted { tls: tls.clone(), connection, received: BytesMut::new() };
        let encrypted = &mut **self.encrypted.insert(Box::new(encrypted));
        loop {
            send(&mut self.stream, encrypted).await?;
            if !encrypted.connection.is_handshaking() {
                break;
            }
            receive(&mut self.stream, encrypted).await?;
        }
        Ok(Tls::check_protocol(&encrypted.connection)?)
    }

    /// Whether the other side is who its Hello says, as far as its certificate tells.
    pub(crate) fn check_identity(&self, hello: &Hello) -> Result<(), TlsFailed> {
        match &self.encrypted {
            Some(encrypted) => encrypted.tls.check_identity(&encrypted.connection, hello),
            None => Ok(()),
        }
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(encrypted) = &mut self.encrypted else { return self.stream.write_all(bytes).await };
        encrypted.connection.writer().write_all(bytes)?;
        send(&mut self.stream, encrypted).await
    }

    /// Fills the buffer. Reads no further.
    pub(crate) async fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<(), Broken> {
        let Some(encrypted) = &mut self.encrypted else {
            self.stream.read_exact(buffer).await?;
            return Ok(());
        };
        while !buffer.is_empty() {
            let taken = take(&mut encrypted.connection, |plain| {
                let length = plain.len().min(buffer.len());
                let (filled, rest) = std::mem::take(&mut buffer).split_at_mut(length);
                filled.copy_from_slice(&plain[..length]);
                buffer = rest;
                length
            })?;
            if taken == 0 {
                receive(&mut self.stream, encrypted).await?;
            }
        }
        Ok(())
    }

    /// Appends what has come, at least one byte.
    ///
    /// # Errors
    /// The connection's end among them.
    pub(crate) async fn read_buf(&mut self, buffer: &mut BytesMut) -> Result<(), Broken> {
        let before = buffer.len();
        loop {
            self.try_read_buf(buffer)?;
            if buffer.len() > before {
                return Ok(());
            }
            self.stream.readable().await?;
        }
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Appends what has come: perhaps nothing. Gives back how many bytes the socket gave.
    ///
    /// # Errors
    /// The connection's end among them, once all that came before it was given.
    pub(crate) fn try_read_buf(&mut self, buffer: &mut BytesMut) -> Result<usize, Broken> {
        let Some(encrypted) = &mut self.encrypted else {
            buffer.reserve(READ_BYTES);
            return Ok(came(self.stream.try_read_buf(buffer))?);
        };
        // What came with the end of the handshake.
        let before = buffer.len();
        encrypted.give_all(buffer)?;
        if buffer.len() > before {
            return Ok(0);
        }
        encrypted.received.reserve(READ_BYTES);
        let read = came(self.stream.try_read_buf(&mut encrypted.received))?;
        encrypted.give_all(buffer)?;
        Ok(read)
    }

    /// Writes as far as the socket takes it. What it does not take is still in the buffer, or encrypted and
    /// waiting: [`Channel::is_blocked`].
    pub(crate) fn try_write(&mut self, bytes: &mut BytesMut) -> io::Result<()> {
        let Some(encrypted) = &mut self.encrypted else {
            while !bytes.is_empty() {
                match self.stream.try_write(bytes) {
                    Ok(written) => bytes.advance(written),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            return Ok(());
        };
        loop {
            while encrypted.connection.wants_write() {
                match encrypted.connection.write_tls(&mut Socket(&self.stream)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            if bytes.is_empty() {
                return Ok(());
            }
            // All at once: records are filled, and go out in one call.
            encrypted.connection.writer().write_all(bytes)?;
            bytes.clear();
        }
    }

    /// Whether encrypted bytes wait for the socket.
    pub(crate) fn is_blocked(&self) -> bool {
        self.encrypted.as_ref().is_some_and(|encrypted| encrypted.connection.wants_write())
    }
}

impl Encrypted {
    /// Appends all that has come. What comes before the connection's end is given before the end is told.
    fn give_all(&mut self, buffer: &mut BytesMut) -> Result<(), Broken> {
        let before = buffer.len();
        loop {
            let mut all = |plain: &[u8]| {
                buffer.extend_from_slice(plain);
                plain.len()
            };
            let decrypted = take(&mut self.connection, &mut all)
                .map_err(Broken::from)
                .and_then(|taken| if taken > 0 { Ok(true) } else { self.decrypt() });
            match decrypted {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(Broken::Io(error))
                    if error.kind() == io::ErrorKind::UnexpectedEof && buffer.len() > before =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Decrypts some of what has come; `false` if nothing is left that could be.
    fn decrypt(&mut self) -> Result<bool, Broken> {
        if self.received.is_empty() {
            return Ok(false);
        }
        let mut rest = &self.received[..];
        let taken = self.connection.read_tls(&mut rest)?;
        if taken == 0 {
            // The other side has said that it ends; what comes after that is nobody's.
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.received.advance(taken);
        self.connection.process_new_packets().map_err(TlsFailed::from)?;
        Ok(true)
    }
}

/// Writes what is encrypted.
async fn send(stream: &mut TcpStream, encrypted: &mut Encrypted) -> io::Result<()> {
    let mut waiting = Vec::new();
    while encrypted.connection.wants_write() {
        encrypted.connection.write_tls(&mut waiting)?;
    }
    if waiting.is_empty() { Ok(()) } else { stream.write_all(&waiting).await }
}

/// Reads and decrypts something.
async fn receive(stream: &mut TcpStream, encrypted: &mut Encrypted) -> Result<(), Broken> {
    encrypted.received.reserve(READ_BYTES);
    if encrypted.received.is_empty() && stream.read_buf(&mut encrypted.received).await? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let decrypted = encrypted.decrypt();
    if decrypted.is_err() {
        // Tells the other side why, as far as it listens.
        let _ = send(stream, encrypted).await;
    }
    decrypted.map(drop)
}

fn came(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        read => read,
    }
}

/// Hands out decrypted bytes; `taker` says how many it took.
fn take(connection: &mut Connection, mut taker: impl FnMut(&[u8]) -> usize) -> io::Result<usize> {
    let mut reader = connection.reader();
    let taken = match reader.fill_buf() {
        // The other side has said that it ends.
        Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(plain) => taker(plain),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
        Err(error) => return Err(error),
    };
    reader.consume(taken);
    Ok(taken)
}

/// Where rustls puts records.
struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, records: &[io::IoSlice<'_>]) -> io::Result<usize> {
        try_write_vectored(self.0, records)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
