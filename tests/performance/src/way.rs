//! The stages in one thread, over the core that ships: a table, an outbox, TLS and a socket as a link has them, and no tasks.

use std::cell::RefCell;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use sessionmesh_core::replication::commit::{self, Origin, Streams};
use sessionmesh_core::replication::{Inbox, Outbox, Table, receive};
use sessionmesh_core::session::{Change, ChangeError, Record, SessionLimits};
use sessionmesh_core::wire::{Frame, FrameDecoder, FrameLimit};
use sessionmesh_core::{BootId, HybridClock, Now, SessionId};

use crate::Error;
use crate::tables::{Sessions, id};
use crate::tls::Encrypted;

/// Changes that go together: about what a link encrypts and writes at once.
pub const BATCH: usize = 400;
/// More than a processor's caches hold.
const SESSIONS: usize = 10_000;
const BUFFER_BYTES: usize = 128 << 10;

/// What is done with a change, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Into the table of the node that makes it; its delta is made.
    Commit,
    /// The delta as bytes.
    Encode,
    /// Into the outbox, and from there into the link's buffer.
    Queue,
    /// TLS.
    Encrypt,
    /// The system call.
    Write,
    /// The system call.
    Read,
    /// TLS.
    Decrypt,
    /// Bytes as a delta.
    Decode,
    /// Merged into the table of the other node, and counted for its acknowledgement.
    Apply,
}

/// How long each stage took for a batch.
pub type Times = [Duration; Stage::ALL.len()];

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 9] = [
        Self::Commit,
        Self::Encode,
        Self::Queue,
        Self::Encrypt,
        Self::Write,
        Self::Read,
        Self::Decrypt,
        Self::Decode,
        Self::Apply,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Encode => "encode",
            Self::Queue => "queue",
            Self::Encrypt => "encrypt",
            Self::Write => "write",
            Self::Read => "read",
            Self::Decrypt => "decrypt",
            Self::Decode => "decode",
            Self::Apply => "apply",
        }
    }
}

/// Keeps what is sent.
#[derive(Default)]
struct Kept(RefCell<Vec<Bytes>>);

impl Streams for Kept {
    fn is_awaited(&self, _: &SessionId) -> bool {
        false
    }

    fn send(&self, _: &SessionId, frame: &Bytes) {
        self.0.borrow_mut().push(frame.clone());
    }
}

/// Changes of one attribute of 100 bytes, each of another session, and none that changes nothing.
pub fn changes(batch: usize) -> Vec<(SessionId, Change)> {
    let change = |n: usize| {
        let mut value = vec![b'x'; 100];
        value[..8].copy_from_slice(&n.to_be_bytes());
        Change { attributes: vec![("k".into(), Some(Bytes::from(value)))], limits: None }
    };
    (batch * BATCH..(batch + 1) * BATCH).map(|n| (id(n % SESSIONS), change(n))).collect()
}

/// Two nodes' halves of a link.
pub struct Way {
    boot: BootId,
    clocks: [HybridClock; 2],
    tables: [Sessions; 2],
    outbox: Outbox<()>,
    inboxes: [Inbox; 2],
    tls: Encrypted,
    sockets: [TcpStream; 2],
    batches: usize,
}

impl Way {
    /// Connects and encrypts, over loopback, and begins the sessions on both sides.
    ///
    /// # Errors
    /// No loopback, or no TLS.
    pub fn new() -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let here = TcpStream::connect(listener.local_addr()?)?;
        let (there, _) = listener.accept()?;
        for socket in [&here, &there] {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
        }
        let mut outbox = Outbox::new(1 << 30);
        outbox.open(sessionmesh_core::Instant::ZERO);
        let mut way = Self {
            boot: BootId::new(7).ok_or("no boot")?,
            clocks: [HybridClock::new(), HybridClock::new()],
            tables: [Sessions::default(), Sessions::default()],
            outbox,
            inboxes: [Inbox::new(), Inbox::new()],
            tls: Encrypted::new()?,
            sockets: [here, there],
            batches: 0,
        };
        while way.batches * BATCH < SESSIONS {
            way.carry()?;
        }
        Ok(way)
    }

    /// A batch from commit to applied.
    ///
    /// # Errors
    /// The socket's, or TLS's.
    pub fn carry(&mut self) -> Result<Times, Error> {
        let mut times = Times::default();
        let mut timed = |stage: Stage, took: Duration| times[stage as usize] += took;
        let now = Now { mono: sessionmesh_core::Instant::ZERO, wall_ms: 1_000_000 + self.batches as u64 };
        let limits = SessionLimits::default();
        let origin = Origin { boot: self.boot, clock: &self.clocks[0], limits: &limits, now };

        let (batch, kept) = (changes(self.batches), Kept::default());
        kept.0.borrow_mut().reserve(BATCH);
        let begins = self.batches * BATCH < SESSIONS;
        self.batches += 1;
        let begun = Instant::now();
        for (id, change) in batch {
            if begins {
                commit::create(&self.tables[0], &kept, origin, id, change)?;
            } else {
                commit::change::<ChangeError>(&self.tables[0], &kept, origin, id, |_| Ok(change))?;
            }
        }
        let committed = begun.elapsed();

        let frames = kept.0.into_inner();
        let decoder = FrameDecoder::new(self.boot, FrameLimit(1 << 20));
        let mut encoded: BytesMut = frames.iter().flatten().copied().collect();
        let mut again = Vec::with_capacity(BATCH);
        while let Some(frame) = decoder.next(&mut encoded)? {
            again.push(frame);
        }
        let begun = Instant::now();
        let bytes: Vec<Bytes> = again.into_iter().map(Frame::encode).collect();
        // A commit encodes, too.
        let took = begun.elapsed();
        timed(Stage::Encode, took);
        timed(Stage::Commit, committed.saturating_sub(took));
        drop(bytes);

        let mut plain = BytesMut::with_capacity(BUFFER_BYTES);
        let begun = Instant::now();
        for frame in &frames {
            let _ = self.outbox.append(frame, None, now.mono);
        }
        let _ = self.outbox.fill(&mut self.inboxes[0], &mut plain, BUFFER_BYTES, now.mono, Duration::ZERO);
        timed(Stage::Queue, begun.elapsed());

        let mut cipher = Vec::with_capacity(BUFFER_BYTES);
        let begun = Instant::now();
        self.tls.encrypt(&plain, &mut cipher)?;
        timed(Stage::Encrypt, begun.elapsed());

        let (mut written, mut came, mut buffer) = (0, 0, vec![0; BUFFER_BYTES]);
        while came < cipher.len() {
            let begun = Instant::now();
            written += some(self.sockets[0].write(&cipher[written..]))?;
            timed(Stage::Write, begun.elapsed());
            let begun = Instant::now();
            came += some(self.sockets[1].read(&mut buffer[came..]))?;
            timed(Stage::Read, begun.elapsed());
        }

        let mut wire = BytesMut::with_capacity(BUFFER_BYTES);
        let begun = Instant::now();
        self.tls.decrypt(&buffer[..came], &mut wire)?;
        timed(Stage::Decrypt, begun.elapsed());
        if wire != plain {
            return Err("what arrived is not what was sent".into());
        }

        let mut arrived = Vec::with_capacity(BATCH);
        let begun = Instant::now();
        while let Some(frame) = decoder.next(&mut wire)? {
            arrived.push(frame);
        }
        timed(Stage::Decode, begun.elapsed());
        let begun = Instant::now();
        for frame in arrived {
            let (table, clock, inbox) = (&self.tables[1], &self.clocks[1], &mut self.inboxes[1]);
            let _ = receive(table, clock, inbox, frame, Duration::ZERO, now.into(), |_| ());
        }
        timed(Stage::Apply, begun.elapsed());
        let _ = self.inboxes[1].take_ack(true);
        Ok(times)
    }

    /// The digests of a batch's sessions, as a pass compares them; all in one.
    pub fn digest(&self) -> u64 {
        let digest = |n| self.tables[1].read(&id(n), |record| record.map_or(0, Record::digest));
        (0..BATCH).map(digest).fold(0, |all, digest| all ^ digest)
    }
}

/// None for now is zero bytes.
fn some(result: std::io::Result<usize>) -> std::io::Result<usize> {
    match result {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
