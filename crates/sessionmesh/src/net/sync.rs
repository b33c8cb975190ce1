//! Passes on one link: a task beside the link's, so that comparing a million sessions does not delay
//! a delta.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sessionmesh_core::SessionId;
use sessionmesh_core::membership::{LinkId, PassRole};
use sessionmesh_core::replication::pass::{PassDriver, PassResponder, Summary};
use sessionmesh_core::session::Record;
use sessionmesh_core::wire::{Frame, PassReply, PassRequest, PassStep, PeerMisbehaved, ReplyStep};
use tokio::sync::mpsc;

use crate::control::Input;
use crate::events::fault;
use crate::mesh::Mesh;
use crate::os;
use crate::peer::Peer;
use crate::stats::{add, count};

/// A pass without any progress for so long is given up.
const PATIENCE: Duration = Duration::from_secs(10);

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
    let mut sync = Sync { mesh, peer, link, next: 0, driving: None, answering: None };
    loop {
        let waited = if sync.driving.is_some() { PATIENCE } else { Duration::MAX };
        let handled = match tokio::time::timeout(waited, inputs.recv()).await {
            Ok(Some(SyncInput::Start)) => sync.start().await,
            Ok(Some(SyncInput::Request(request))) => sync.answer(request).await,
            Ok(Some(SyncInput::Reply(reply))) => sync.go_on(reply),
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
    driving: Option<(u64, PassDriver)>,
    answering: Option<(u64, PassResponder)>,
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
    /// Sums up what is here, off the threads that serve requests.
    async fn summary(&self) -> Summary {
        let mesh = self.mesh.clone();
        // Ends of ids that nobody knew are this node's own business, and forgotten soon.
        let unknown: HashSet<SessionId> = mesh.unknown_ends().keys().copied().collect();
        let shared = move |id: &SessionId, record: &Record| !record.is_partial() && !unknown.contains(id);
        tokio::task::spawn_blocking(move || Summary::collect(&mesh.table, shared)).await.unwrap_or_default()
    }

    async fn start(&mut self) -> Result<(), PeerMisbehaved> {
        self.peer.outbox_on(self.link, |outbox| outbox.pass_began(PassRole::Driver));
        self.next += 1;
        self.driving = Some((self.next, PassDriver::new(self.summary().await)));
        self.ask();
        Ok(())
    }

    fn ask(&mut self) {
        let Some((pass, driver)) = &mut self.driving else { return };
        while let Some(step) = driver.poll_request(&self.mesh.table, os::now()) {
            let bytes = self.peer.send_bulk(Frame::PassRequest(PassRequest { pass: *pass, step }));
            add(&self.mesh.counters.pass_bytes_sent, bytes);
        }
    }

    fn go_on(&mut self, reply: PassReply) -> Result<(), PeerMisbehaved> {
        let mesh = &self.mesh;
        let Some((pass, driver)) = &mut self.driving else { return Ok(()) };
        // An answer to a pass that was given up.
        if reply.pass != *pass {
            return Ok(());
        }
        if reply.step == ReplyStep::Unknown {
            self.give_up();
            return Ok(());
        }
        driver.handle_reply(reply.step, &mesh.table, &mesh.clock, os::now())?;
        if driver.is_done() {
            let stats = driver.stats();
            let counters = &mesh.counters;
            count(&counters.passes);
            add(&counters.pass_records_compared, stats.compared);
            add(&counters.pass_records_differed, stats.differed);
            add(&counters.pass_records_pulled, stats.pulled);
            add(&counters.pass_records_pushed, stats.pushed);
            tracing::debug!(member = %self.peer.name, ?stats, "pass done");
            self.driving = None;
            self.done(PassRole::Driver);
        } else {
            self.ask();
        }
        Ok(())
    }

    async fn answer(&mut self, request: PassRequest) -> Result<(), PeerMisbehaved> {
        let PassRequest { pass, step } = request;
        if step == PassStep::Open {
            self.peer.outbox_on(self.link, |outbox| outbox.pass_failed(PassRole::Responder));
            self.peer.outbox_on(self.link, |outbox| outbox.pass_began(PassRole::Responder));
            self.answering = Some((pass, PassResponder::new(self.summary().await)));
        }
        let close = step == PassStep::Close;
        let reply = match &self.answering {
            Some((open, responder)) if *open == pass => {
                responder.handle(step, &self.mesh.table, &self.mesh.clock, os::now())?
            }
            _ => ReplyStep::Unknown,
        };
        let done = close && reply == ReplyStep::Done;
        let bytes = self.peer.send_bulk(Frame::PassReply(PassReply { pass, step: reply }));
        add(&self.mesh.counters.pass_bytes_sent, bytes);
        if done {
            self.answering = None;
            count(&self.mesh.counters.passes_answered);
            self.done(PassRole::Responder);
        }
        Ok(())
    }

    fn done(&self, role: PassRole) {
        // A pass on a link that was replaced says nothing of the one in its place.
        let Some(waits) = self.peer.outbox_on(self.link, |outbox| outbox.pass_done(role)) else { return };
        for wait in waits {
            wait.ack();
        }
        self.mesh.tell(Input::PassDone(self.peer.boot, role));
    }

    fn give_up(&mut self) {
        self.driving = None;
        count(&self.mesh.counters.passes_failed);
        if self.peer.outbox_on(self.link, |outbox| outbox.pass_failed(PassRole::Driver)).is_some() {
            self.mesh.tell(Input::PassFailed(self.peer.boot));
        }
    }
}
