//! Passes on one link: a task beside the link's, so that comparing a million sessions does not delay
//! a delta.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use sessionmesh_core::membership::{LinkId, PassDone, PassRole};
use sessionmesh_core::placement::{Mode, Share, View};
use sessionmesh_core::replication::pass::{Entry, Listed, PartSum, PassDriver, PassResponder, Summary};
use sessionmesh_core::session::Record;
use sessionmesh_core::wire::{Frame, PassReply, PassRequest, PassStep, PeerMisbehaved, ReplyStep};
use sessionmesh_core::{BootId, Now, SessionId};
use tokio::sync::mpsc;

use crate::control::Input;
use crate::events::fault;
use crate::host;
use crate::mesh::Mesh;
use crate::pace::Pace;
use crate::peer::Peer;
use crate::stats::{add, count};
use crate::table::{LAST_PART, Look};

/// A pass without any progress for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The other side waits for the sums: past this, no more rests are taken on the way to them.
const LONG_SUMMARY: Duration = Duration::from_secs(5);

/// What the task is told.
#[derive(Debug)]
pub(crate) enum SyncInput {
    /// Drive a pass.
    Start,
    Request(PassRequest),
    Reply(PassReply),
}

/// Runs until the link ends.
pub(crate) async fn run(
    mesh: Arc<Mesh>,
    peer: Arc<Peer>,
    link: LinkId,
    mut inputs: mpsc::Receiver<SyncInput>,
) {
    let mut sync = Sync { mesh, peer, link, next: 0, driving: None, answering: None, pace: Pace::default() };
    loop {
        let waited = if sync.driving.is_some() { PATIENCE } else { Duration::MAX };
        let input = tokio::time::timeout(waited, inputs.recv()).await;
        let handled = match input {
            Ok(Some(SyncInput::Start)) => sync.start().await,
            Ok(Some(SyncInput::Request(request))) => sync.answer(request).await,
            Ok(Some(SyncInput::Reply(reply))) => sync.go_on(reply).await,
            Ok(None) => break,
            Err(_) => {
                fault(&sync.mesh, "pass given up", "no progress", &sync.peer.name);
                sync.give_up();
                Ok(())
            }
        };
        if let Err(error) = handled {
            fault(&sync.mesh, "peer misbehaved", &error.to_string(), &sync.peer.name);
            sync.mesh.tell(Input::Misbehaved(sync.peer.boot));
            break;
        }
    }
}

struct Sync {
    mesh: Arc<Mesh>,
    peer: Arc<Peer>,
    link: LinkId,
    next: u64,
    driving: Option<Pass<PassDriver>>,
    answering: Option<Pass<PassResponder>>,
    pace: Pace,
}

struct Pass<P> {
    number: u64,
    side: P,
    view: View,
    /// The other side saw the same members all the time.
    agreed: bool,
}

impl<P> Pass<P> {
    fn hear(&mut self, view: u64) {
        self.agreed &= view == self.view.hash();
    }
}

/// What came with one step of a pass.
struct Arrivals<'a> {
    mesh: &'a Mesh,
    /// That have ended here as ids that nobody knew.
    unknown_ends: RefCell<Vec<SessionId>>,
    /// That have been used here since they are to have ended by idleness.
    outlived: RefCell<Vec<SessionId>>,
    now: Now,
}

impl<'a> Arrivals<'a> {
    fn new(mesh: &'a Mesh) -> Self {
        Self { mesh, unknown_ends: RefCell::default(), outlived: RefCell::default(), now: host::now() }
    }

    /// Under the session's lock.
    fn note(&self, id: &SessionId, here: &Record) {
        // A member with another view may send what does not belong here.
        self.mesh.note_arrival(id);
        if self.mesh.unknown_ends().contains_key(id) {
            self.unknown_ends.borrow_mut().push(*id);
        }
        if here.is_disproved(self.mesh.config.idle, self.now.mono) {
            self.outlived.borrow_mut().push(*id);
        }
    }

    fn finish(self) {
        for id in self.outlived.into_inner() {
            self.mesh.outlive(id, self.now);
        }
        self.mesh.meet_unknown_ends(self.unknown_ends.into_inner());
    }
}

/// Shows the records of a part that two nodes compare, and what they have to do with each. Whether all were shown:
/// what is nobody else's business now may become so, and its record does not change then.
fn share_part(
    mesh: &Mesh,
    view: &View,
    other: BootId,
    part: u8,
    with: Listed,
    mut f: impl FnMut(&SessionId, &Record, Share),
) -> (Look, bool) {
    let mut all = true;
    let look = mesh.table.for_each_in(part, |id, record| {
        if matches!(record, Record::Ended(_)) && mesh.unknown_ends().contains_key(id) {
            all = false;
        } else if with == Listed::Ids || !record.is_partial() {
            // For the ids alone no session is fetched from memory: part of one is not sent then.
            f(id, record, view.share(id, other));
        }
    });
    (look, all)
}

/// However the link ends, nobody waits for a pass that will not be.
impl Drop for Sync {
    fn drop(&mut self) {
        if self.driving.is_some() {
            self.give_up();
        }
    }
}

impl Sync {
    /// Sums up what is here for the member; `counted`: how much there is will do.
    async fn summary(&mut self, counted: bool) -> (View, Summary) {
        let routes = self.mesh.routes.kept();
        let (mesh, view, boot) = (self.mesh.clone(), routes.view.clone(), self.peer.boot);
        // In backup-only mode who has to do with a record takes a look at each.
        let counted = counted && view.mode() == Mode::AllPeers;
        let started = host::mono();
        let mut parts = Vec::with_capacity(usize::from(LAST_PART) + 1);
        for part in 0..=LAST_PART {
            if counted {
                parts.push(PartSum::uncompared(mesh.table.len_of(part) as u64));
                continue;
            }
            let kept = mesh.sums().get(&routes, boot, part);
            if let Some((_, sum)) = kept.filter(|(look, _)| mesh.table.is_as_of(part, *look)) {
                parts.push(sum);
                continue;
            }
            let begun = host::mono();
            let mut sum = PartSum::default();
            let (look, whole) = share_part(&mesh, &view, boot, part, Listed::Digests, |id, record, share| {
                sum.add(id, record, share);
            });
            if whole {
                mesh.sums().put(&routes, boot, part, look, sum.clone());
            }
            parts.push(sum);
            if host::mono() - started < LONG_SUMMARY {
                self.pace.rest(&mesh, host::mono() - begun).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
        let list = {
            let view = view.clone();
            move |part: usize, with: Listed| {
                let mut entries: Vec<Entry> = Vec::new();
                let part = u8::try_from(part).unwrap_or(LAST_PART);
                share_part(&mesh, &view, boot, part, with, |id, record, share| {
                    if share == Share::Both {
                        let digest = if with == Listed::Digests { record.digest() } else { 0 };
                        entries.push((*id, digest));
                    }
                });
                entries
            }
        };
        (view, Summary::new(parts, list))
    }

    fn view(&self) -> u64 {
        self.mesh.routes.current().view.hash()
    }

    async fn start(&mut self) -> Result<(), PeerMisbehaved> {
        self.peer.outbox_on(self.link, |outbox| outbox.pass_began(PassRole::Driver));
        self.next += 1;
        count(&self.mesh.counters.passes_begun);
        tracing::debug!(node = %self.mesh.me.name, member = %self.peer.name, pass = self.next, "pass begins");
        let (view, summary) = self.summary(false).await;
        let side = PassDriver::new(summary);
        self.driving = Some(Pass { number: self.next, side, view, agreed: true });
        self.ask();
        Ok(())
    }

    fn ask(&mut self) {
        let view = self.view();
        let Some(pass) = &mut self.driving else { return };
        while let Some(step) = pass.side.poll_request(&self.mesh.table, host::now()) {
            let request = PassRequest { pass: pass.number, view, step };
            let bytes = self.peer.send_bulk(self.link, Frame::PassRequest(request));
            add(&self.mesh.counters.pass_bytes_sent, bytes);
        }
    }

    async fn go_on(&mut self, reply: PassReply) -> Result<(), PeerMisbehaved> {
        let mesh = &self.mesh;
        let Some(pass) = &mut self.driving else { return Ok(()) };
        // An answer to a pass that was given up.
        if reply.pass != pass.number {
            return Ok(());
        }
        if reply.step == ReplyStep::Unknown {
            self.give_up();
            return Ok(());
        }
        let begun = host::mono();
        pass.hear(reply.view);
        if !pass.agreed {
            pass.side.views_differ();
        }
        let arrivals = Arrivals::new(mesh);
        let note = |id: &SessionId, here: &Record| arrivals.note(id, here);
        pass.side.handle_reply(reply.step, &mesh.table, &mesh.clock, host::now(), note)?;
        arrivals.finish();
        if !pass.side.is_done() {
            self.ask();
            self.pace.rest(&self.mesh, host::mono() - begun).await;
            return Ok(());
        }
        let stats = pass.side.stats();
        let counters = &mesh.counters;
        count(&counters.passes);
        add(&counters.pass_records_compared, stats.compared);
        add(&counters.pass_records_differed, stats.differed);
        add(&counters.pass_records_pulled, stats.pulled);
        add(&counters.pass_records_pushed, stats.pushed);
        add(&counters.pass_strays, stats.strays);
        tracing::debug!(node = %mesh.me.name, member = %self.peer.name, pass = self.next, ?stats, "pass done");
        if let Some(Pass { side, view, agreed, .. }) = self.driving.take() {
            self.done(PassRole::Driver, &view, agreed, side.strays()).await;
        }
        Ok(())
    }

    async fn answer(&mut self, request: PassRequest) -> Result<(), PeerMisbehaved> {
        let PassRequest { pass: number, view: their_view, step } = request;
        if let PassStep::Open { empty } = step {
            self.peer.outbox_on(self.link, |outbox| outbox.pass_failed(PassRole::Responder));
            self.peer.outbox_on(self.link, |outbox| outbox.pass_began(PassRole::Responder));
            let (view, summary) = self.summary(empty).await;
            self.answering = Some(Pass { number, side: PassResponder::new(summary), view, agreed: true });
        }
        let close = step == PassStep::Close;
        let begun = host::mono();
        let reply = match &mut self.answering {
            Some(pass) if pass.number == number => {
                pass.hear(their_view);
                let arrivals = Arrivals::new(&self.mesh);
                let note = |id: &SessionId, here: &Record| arrivals.note(id, here);
                let reply = pass.side.handle(step, &self.mesh.table, &self.mesh.clock, host::now(), note)?;
                arrivals.finish();
                reply
            }
            _ => ReplyStep::Unknown,
        };
        let done = close && reply == ReplyStep::Done;
        let reply = PassReply { pass: number, view: self.view(), step: reply };
        let bytes = self.peer.send_bulk(self.link, Frame::PassReply(reply));
        add(&self.mesh.counters.pass_bytes_sent, bytes);
        if let Some(Pass { side, view, agreed, .. }) = self.answering.take_if(|_| done) {
            count(&self.mesh.counters.passes_answered);
            self.done(PassRole::Responder, &view, agreed, side.strays()).await;
        } else {
            self.pace.rest(&self.mesh, host::mono() - begun).await;
        }
        Ok(())
    }

    /// Both sides hold what the other held when the pass began; `strays`: what was here for the other.
    async fn done(&self, role: PassRole, view: &View, agreed: bool, strays: &[(SessionId, u64)]) {
        // A pass on a link that was replaced says nothing of the one in its place.
        let Some(waits) = self.peer.outbox_on(self.link, |outbox| outbox.pass_done(role)) else { return };
        let boot = self.peer.boot;
        for wait in waits {
            wait.passed(view, boot);
        }
        let agreed = agreed && self.mesh.routes.current().view.serial() == view.serial();
        if agreed {
            self.mesh.confirm_strays(view, boot, strays).await;
        }
        self.mesh.tell(Input::PassDone(boot, PassDone { role, view: view.serial(), agreed }));
    }

    fn give_up(&mut self) {
        self.driving = None;
        count(&self.mesh.counters.passes_failed);
        tracing::debug!(node = %self.mesh.me.name, member = %self.peer.name, pass = self.next, "pass came to nothing");
        if self.peer.outbox_on(self.link, |outbox| outbox.pass_failed(PassRole::Driver)).is_some() {
            self.mesh.tell(Input::PassFailed(self.peer.boot));
        }
    }
}
