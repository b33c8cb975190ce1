//! A link: one task that reads, applies, acknowledges and writes.
//!
//! Reading and applying never wait for writing, so two nodes that send to each other at full speed
//! can't block each other; what can't be sent waits in the outbox, which is bounded.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::host::WRITE_BYTES;
use bytes::BytesMut;
use sessionmesh_core::membership::LinkId;
use sessionmesh_core::replication::fetch::{self, Standing};
use sessionmesh_core::replication::{Arrival, Inbox, Strays, Table, receive, rest};
use sessionmesh_core::wire::{
    Fetch, FetchOutcome, Fetched, Frame, FrameDecoder, FrameLimit, PassStep, PeerMisbehaved,
};
use sessionmesh_core::{Instant, SessionId};
use tokio::sync::{Notify, mpsc};

use super::channel::{Broken, Channel};
use super::handshake::Greeted;
use super::sync::{self, SyncInput};
use crate::ack::AckWait;
use crate::control::{Attached, Input};
use crate::events::fault;
use crate::host;
use crate::mesh::Mesh;
use crate::peer::Peer;
use crate::stats::{add, count};

/// Pulls on their way at once; more sessions wait for the pass.
const MAX_PULLS: usize = 4_096;
/// Whether sessions of which only part has come are whole by now is looked at so often.
const RECHECK: Duration = Duration::from_millis(250);
/// What nobody waits for is acknowledged with whatever goes next, or by itself after so long and what that may rest.
const ACK_DELAY: Duration = Duration::from_millis(5);

enum Closed {
    /// By this node or the other.
    Ended,
    Broken(Broken),
    Misbehaved(PeerMisbehaved),
    /// The peer leaves for good.
    Left,
}

impl From<io::Error> for Closed {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.into())
    }
}

impl From<Broken> for Closed {
    fn from(error: Broken) -> Self {
        Self::Broken(error)
    }
}

impl From<PeerMisbehaved> for Closed {
    fn from(error: PeerMisbehaved) -> Self {
        Self::Misbehaved(error)
    }
}

/// Runs a link to its end.
pub(crate) async fn run(mesh: &Arc<Mesh>, greeted: Greeted) {
    let Greeted { channel, peer: hello, opening, buffer, attached } = greeted;
    let Attached { link: id, peer, wake, close, sync: to_sync, passes } = attached;
    let sync = host::spawn(sync::run(mesh.clone(), peer.clone(), id, passes));
    let mut link = Link {
        id,
        wake,
        mesh,
        peer: &peer,
        channel,
        decoder: FrameDecoder::new(hello.boot, FrameLimit(mesh.config.frame_bytes)),
        read: buffer,
        write: BytesMut::with_capacity(WRITE_BYTES),
        inbox: Inbox::new(),
        pulls: BTreeMap::new(),
        next_pull: u64::MAX / 2,
        recheck_at: tokio::time::Instant::now(),
        rests_until: None,
        sync: to_sync,
        asked_at: host::mono(),
    };
    let closed = tokio::select! {
        biased;
        // Whoever has what is accepted comes back at once.
        () = mesh.until_not_accepted(&opening) => Closed::Ended,
        () = close.notified() => Closed::Ended,
        closed = link.exchange() => closed.err().unwrap_or(Closed::Ended),
    };
    sync.abort();
    peer.detach(id);
    match closed {
        Closed::Ended => {}
        Closed::Left => mesh.tell(Input::PeerLeft(peer.boot)),
        Closed::Broken(Broken::Io(error)) => tracing::debug!(member = %peer.name, %error, "link lost"),
        Closed::Broken(Broken::Tls(failed)) => {
            fault(mesh, "link broken", failed.cause, &format!("{}: {failed}", peer.name));
        }
        Closed::Misbehaved(error) => {
            fault(mesh, "peer misbehaved", &error.to_string(), &peer.name);
            mesh.tell(Input::Misbehaved(peer.boot));
        }
    }
}

struct Link<'a> {
    id: LinkId,
    wake: Arc<Notify>,
    mesh: &'a Arc<Mesh>,
    peer: &'a Arc<Peer>,
    channel: Channel,
    decoder: FrameDecoder,
    read: BytesMut,
    write: BytesMut,
    inbox: Inbox,
    /// Sessions asked for because a delta did not follow on what was here.
    pulls: BTreeMap<u64, SessionId>,
    next_pull: u64,
    recheck_at: tokio::time::Instant,
    /// What waits in the outbox rests until then.
    rests_until: Option<Instant>,
    sync: mpsc::Sender<SyncInput>,
    /// When the link was opened, or the newest ping was sent that is answered. What comes after the answer has not lain in the
    /// socket since before.
    asked_at: Instant,
}

impl Link<'_> {
    async fn exchange(&mut self) -> Result<(), Closed> {
        // One timer of each kind for all turns.
        let (pay, rested) = (tokio::time::sleep(ACK_DELAY), tokio::time::sleep(ACK_DELAY));
        tokio::pin!(pay, rested);
        let (mut pays, mut resting) = (false, None);
        // The peer may have sent frames right behind its verdict.
        self.handle_frames().await?;
        self.read()?;
        self.handle_frames().await?;
        loop {
            // A peer that always has more to say must not keep its end from being noticed.
            tokio::task::coop::consume_budget().await;
            self.flush()?;
            let blocked = self.is_blocked();
            if !pays && self.inbox.owes() {
                pays = true;
                pay.as_mut().reset(tokio::time::Instant::now() + self.rest() + ACK_DELAY);
            }
            if let Some(until) = self.rests_until
                && resting != self.rests_until
            {
                resting = Some(until);
                rested.as_mut().reset(tokio::time::Instant::now() + host::until(until));
            }
            tokio::select! {
                ready = self.channel.readable() => {
                    ready?;
                    self.read()?;
                    self.handle_frames().await?;
                }
                ready = self.channel.writable(), if blocked => ready?,
                // What else is ready to run may have more to send.
                () = self.wake.notified(), if !blocked => tokio::task::yield_now().await,
                () = &mut pay, if pays => {
                    pays = false;
                    self.inbox.pay();
                }
                () = &mut rested, if resting.is_some() && self.rests_until.is_some() => resting = None,
                // The rest may come from anybody.
                () = tokio::time::sleep_until(self.recheck_at), if self.inbox.is_incomplete() => {
                    self.complete_excepted();
                    self.recheck_at = tokio::time::Instant::now() + RECHECK;
                }
            }
        }
    }

    /// Writes what waits, as far as the socket takes it.
    fn flush(&mut self) -> Result<(), Closed> {
        loop {
            if !self.is_blocked() {
                let rest = self.rest();
                let filled = self.peer.fill(self.id, &mut self.inbox, &mut self.write, WRITE_BYTES, rest);
                // Another link has taken this one's place.
                let filled = filled.ok_or(Closed::Ended)?;
                self.rests_until = filled.rests_until;
                if filled.pass_due {
                    self.mesh.tell(Input::PassDue(self.peer.boot));
                }
                if !filled.wrote {
                    return Ok(());
                }
            }
            let most = self.write.len();
            self.channel.try_write(&mut self.write)?;
            if self.write.is_empty() && most > WRITE_BYTES * 2 {
                // A burst, or a large session: not kept for as long as the link lasts.
                self.write = BytesMut::with_capacity(WRITE_BYTES);
            }
            if self.is_blocked() {
                return Ok(());
            }
        }
    }

    /// How long data that nobody waits for rests after the last.
    fn rest(&self) -> Duration {
        rest(self.mesh.routes.current().peers.len())
    }

    /// Whether something is written that the socket has not taken.
    fn is_blocked(&self) -> bool {
        !self.write.is_empty() || self.channel.is_blocked()
    }

    fn read(&mut self) -> Result<(), Closed> {
        let bytes = self.channel.try_read_buf(&mut self.read)?;
        self.peer.count_received(bytes);
        Ok(())
    }

    async fn handle_frames(&mut self) -> Result<(), Closed> {
        // What came together came at one time.
        let mut now = host::now();
        while let Some(mut frame) = self.decoder.next(&mut self.read)? {
            self.peer.traffic.frames_received.fetch_add(1, Ordering::Relaxed);
            if let Frame::Pong(nonce) = frame {
                self.asked_at = self.asked_at.max(Instant::from_nanos(nonce).min(now.mono));
            }
            let age = self.mesh.arrival_age(self.asked_at, now.mono);
            if !age.is_zero() {
                frame.age(age);
            }
            let for_pass = match frame {
                frame if frame.is_data() => {
                    self.apply(frame, Arrival { age, now });
                    continue;
                }
                Frame::PassRequest(request) => SyncInput::Request(request),
                Frame::PassReply(reply) => SyncInput::Reply(reply),
                frame => {
                    self.control(frame)?;
                    continue;
                }
            };
            self.pass_on(for_pass).await;
            now = host::now();
        }
        Ok(())
    }

    fn apply(&mut self, frame: Frame, arrival: Arrival) {
        let mesh = self.mesh;
        let note = |id: &SessionId| mesh.note_arrival(id);
        let received =
            receive(&mesh.table, &mesh.clock, &mut self.inbox, frame, mesh.config.idle, arrival, note);
        let Some(id) = received.id else { return };
        if let Some(version) = received.pull {
            self.pull(id, version);
        }
        add(&mesh.counters.conflicts, received.conflicts as u64);
        if received.late {
            count(&mesh.counters.late_deltas);
            mesh.meet_unknown_ends([id]);
        }
        if received.outlived {
            mesh.outlive(id, arrival.now);
        }
        if let Some(end) = received.ended {
            mesh.ended(id, end);
        }
    }

    /// Asks the sender for what is missing of a session.
    fn pull(&mut self, id: SessionId, version: Option<sessionmesh_core::session::Version>) {
        count(&self.mesh.counters.pulls);
        if self.pulls.len() >= MAX_PULLS {
            self.mesh.tell(Input::PassDue(self.peer.boot));
            return;
        }
        self.next_pull += 1;
        self.pulls.insert(self.next_pull, id);
        let view = self.mesh.routes.current().view.hash();
        let (request, access, any_copy) = (self.next_pull, false, true);
        self.peer.send(Frame::Fetch(Fetch { request, id, version, view, access, any_copy }));
    }

    fn control(&mut self, frame: Frame) -> Result<(), Closed> {
        let (mesh, peer) = (self.mesh, self.peer);
        match frame {
            Frame::Epoch(epoch) => self.inbox.begin_epoch(epoch),
            Frame::Ack(ack) => {
                peer.traffic.acks_received.fetch_add(1, Ordering::Relaxed);
                let ended = peer.outbox_on(self.id, |outbox| outbox.acknowledge(&ack, host::mono()));
                let ended = ended.transpose()?.unwrap_or_default();
                for wait in ended {
                    wait.ack();
                }
            }
            Frame::Fetch(fetch) => {
                count(&mesh.counters.fetches_answered);
                let outcome = self.answer(&fetch);
                peer.send(Frame::Fetched(Fetched { request: fetch.request, outcome }));
            }
            Frame::Fetched(Fetched { request, outcome }) => self.fetched(request, outcome),
            Frame::Ping(nonce) => peer.send(Frame::Pong(nonce)),
            Frame::Pong(_) => mesh.tell(Input::Pong(peer.boot)),
            Frame::Members(contacts) => mesh.tell(Input::Told(contacts)),
            Frame::Standing(standing) => mesh.tell(Input::Standing(peer.boot, standing)),
            Frame::Leave => return Err(Closed::Left),
            Frame::Verdict(_) => return Err(PeerMisbehaved::Unexpected("verdict").into()),
            // Handled by the caller.
            Frame::Delta(_)
            | Frame::Ended(..)
            | Frame::Record(_)
            | Frame::PassRequest(_)
            | Frame::PassReply(_) => {}
        }
        Ok(())
    }

    fn answer(&self, fetch: &Fetch) -> FetchOutcome {
        let mesh = self.mesh;
        let routes = mesh.routes.current();
        let standing = if mesh.is_doubting() {
            Standing::Doubting
        } else {
            Standing::of(&routes.view, mesh.is_settled_in(&routes.view), fetch)
        };
        // A visitor's copy is worth nothing beside its holders: it may lack a logout.
        let clean =
            |strays: &mut Strays<Arc<AckWait>>| strays.is_clean(&fetch.id, |wait| wait.is_everywhere());
        if standing == Standing::Stranger && mesh.routes.strays(clean) {
            return FetchOutcome::Undecided;
        }
        if mesh.unknown_ends().contains_key(&fetch.id) {
            if fetch.version.is_none() {
                // Forgotten here soon: whoever kept it would let it meet the session when this node has it again.
                return fetch::nothing(standing);
            }
            mesh.meet_unknown_ends([fetch.id]);
        }
        if fetch.access && matches!(standing, Standing::Holder | Standing::Settled) {
            let is_doubted = fetch.version.is_some() && routes.view.is_holder(&fetch.id, self.peer.boot);
            mesh.touch_if_due(&fetch.id, is_doubted);
        }
        fetch::answer(&mesh.table, fetch, standing, host::now())
    }

    fn fetched(&mut self, request: u64, outcome: FetchOutcome) {
        let mesh = self.mesh;
        let Some(id) = self.pulls.remove(&request) else {
            // Too late for whoever asked, or answered twice: nobody's any more.
            let _ = self.peer.fetched(request, outcome);
            return;
        };
        let applied = fetch::apply(&mesh.table, &mesh.clock, id, outcome, host::now());
        if let Some(end) = applied.as_ref().and_then(|applied| applied.ended) {
            mesh.ended(id, end);
        }
        let whole = mesh.table.read(&id, |record| record.is_some_and(|record| !record.is_partial()));
        if whole {
            self.inbox.completed(&id);
            // While it was only part no pass took it for a stray; others may hold the session by now.
            mesh.tell_again(&[id]);
        }
    }

    async fn pass_on(&mut self, input: SyncInput) {
        if matches!(&input, SyncInput::Reply(_))
            || matches!(&input, SyncInput::Request(request) if matches!(request.step, PassStep::Close | PassStep::Push(_)))
        {
            self.complete_excepted();
        }
        // The task never waits for this link, so it always makes room.
        let _ = self.sync.send(input).await;
    }

    /// Acknowledges the frames that were excepted, of sessions that are whole by now.
    fn complete_excepted(&mut self) {
        for id in self.inbox.incomplete() {
            if self.mesh.table.read(&id, |record| record.is_some_and(|record| !record.is_partial())) {
                self.inbox.completed(&id);
            }
        }
    }
}
