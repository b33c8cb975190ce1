//! The control plane: one task owns the membership and does what it decides.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sessionmesh_core::membership::{
    Action, DialFailure, Fatal, LinkId, MemberInfo, MemberState, Node, PassDone, Said,
};
use sessionmesh_core::wire::{Contact, Frame, Heartbeat, Hello, Refusal, Standing};
use sessionmesh_core::{BootId, DropCause, Instant};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::error::ClusterError;
use crate::host;
use crate::mesh::{Mesh, Phase};
use crate::net::sync::SyncInput;
use crate::net::{dial, heartbeat::Beacons};
use crate::peer::Peer;
use crate::routes::RouteTable;
use crate::stats::add;

/// What the control task is told.
#[derive(Debug)]
pub(crate) enum Input {
    Heartbeat(Heartbeat),
    Seeds {
        addresses: Vec<SocketAddr>,
        unresolved: Vec<String>,
    },
    /// A connection was accepted: what to say on it.
    Accepted(oneshot::Sender<(LinkId, Hello)>),
    /// The other side of a connection said who it is.
    Hello {
        link: LinkId,
        hello: Box<Hello>,
        dialed: Option<SocketAddr>,
        /// By this node, on the same connection.
        said: Said,
        verdict: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Both sides admitted each other.
    LinkUp {
        link: LinkId,
        attach: oneshot::Sender<Attached>,
    },
    LinkClosed {
        link: LinkId,
        dialed: Option<SocketAddr>,
        refusal: Option<Refusal>,
    },
    DialFailed(SocketAddr, DialFailure),
    Pong(BootId),
    Told(Vec<Contact>),
    Standing(BootId, Standing),
    PeerLeft(BootId),
    Misbehaved(BootId),
    PassDue(BootId),
    PassDone(BootId, PassDone),
    PassFailed(BootId),
    Members(oneshot::Sender<Vec<MemberInfo>>),
    Leave(oneshot::Sender<()>),
    Goodbye,
}

/// A link's streams, and its end.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) link: LinkId,
    pub(crate) peer: Arc<Peer>,
    /// Something waits to be sent.
    pub(crate) wake: Arc<Notify>,
    pub(crate) close: Arc<Notify>,
    pub(crate) sync: mpsc::Sender<SyncInput>,
    pub(crate) passes: mpsc::Receiver<SyncInput>,
}

/// Steps of passes that may wait for the task that takes them.
const PASS_QUEUE: usize = 64;

/// Owns the membership.
pub(crate) struct Control {
    mesh: Arc<Mesh>,
    node: Node,
    inputs: mpsc::UnboundedReceiver<Input>,
    beacons: Arc<Beacons>,
    peers: BTreeMap<BootId, Arc<Peer>>,
    next_link: LinkId,
    verdicts: BTreeMap<LinkId, oneshot::Sender<Result<(), Refusal>>>,
    attaching: BTreeMap<LinkId, oneshot::Sender<Attached>>,
    closers: BTreeMap<LinkId, Arc<Notify>>,
    stalled_checked: Instant,
    stop: Option<Fatal>,
}

impl Control {
    pub(crate) fn new(
        mesh: Arc<Mesh>,
        node: Node,
        inputs: mpsc::UnboundedReceiver<Input>,
        beacons: Arc<Beacons>,
    ) -> Self {
        Self {
            mesh,
            node,
            inputs,
            beacons,
            peers: BTreeMap::new(),
            next_link: 0,
            verdicts: BTreeMap::new(),
            attaching: BTreeMap::new(),
            closers: BTreeMap::new(),
            stalled_checked: host::mono(),
            stop: None,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut stop = self.mesh.stop.subscribe();
        self.follow(host::mono());
        loop {
            let wake = host::until(self.node.poll_timeout());
            let input = tokio::select! {
                input = self.inputs.recv() => input,
                () = tokio::time::sleep(wake) => None,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let now = host::mono();
            // Time first: after a pause nothing may be judged by a clock that stood still.
            if now >= self.node.poll_timeout() {
                self.node.handle_timeout(now);
                self.check_streams(now);
                self.mesh.requests.look(now);
            }
            self.follow(now);
            if let Some(input) = input {
                self.handle(input, now);
                self.follow(now);
            }
            // What else has come is handled in the same wake, but not for ever.
            for _ in 0..256 {
                let Ok(input) = self.inputs.try_recv() else { break };
                self.handle(input, now);
                self.follow(now);
            }
            if let Some(fatal) = self.stop.take() {
                self.mesh.phase.send_replace(Phase::Stopped(ClusterError::Refused(fatal)));
                break;
            }
        }
        // A receiver that is just dropped may leave behind what is sent in the same moment, and whoever waits for the
        // answer would wait for ever.
        self.inputs.close();
        while self.inputs.recv().await.is_some() {}
        self.shut_down();
    }

    fn handle(&mut self, input: Input, now: Instant) {
        let node = &mut self.node;
        match input {
            Input::Heartbeat(heartbeat) => node.handle_heartbeat(&heartbeat, now),
            Input::Seeds { addresses, unresolved } => node.handle_seeds(&addresses, &unresolved, now),
            Input::Accepted(answer) => {
                self.next_link += 1;
                let _ = answer.send((self.next_link, node.hello()));
            }
            Input::Hello { link, hello, dialed, said, verdict } => {
                self.verdicts.insert(link, verdict);
                node.handle_hello(link, *hello, dialed, said, now);
            }
            Input::LinkUp { link, attach } => {
                self.attaching.insert(link, attach);
                node.handle_link_up(link, now);
            }
            Input::LinkClosed { link, dialed, refusal } => {
                self.verdicts.remove(&link);
                self.attaching.remove(&link);
                self.closers.remove(&link);
                node.handle_link_closed(link, dialed, refusal, now);
            }
            Input::DialFailed(address, failure) => node.handle_dial_failed(address, failure, now),
            Input::Pong(boot) => node.handle_pong(boot, now),
            Input::Told(contacts) => node.handle_told(&contacts, now),
            Input::Standing(boot, standing) => node.handle_standing(boot, standing, now),
            Input::PeerLeft(boot) => node.handle_leave(boot, now),
            Input::Misbehaved(boot) => node.handle_misbehaved(boot, now),
            Input::PassDue(boot) => node.handle_pass_due(boot, now),
            Input::PassDone(boot, done) => node.handle_pass_done(boot, done, now),
            Input::PassFailed(boot) => node.handle_pass_failed(boot, now),
            Input::Members(answer) => {
                let _ = answer.send(node.members().collect());
            }
            Input::Leave(answer) => {
                // Before the view without this node: whoever serves must find itself in it.
                self.mesh.set_state(now, false, false);
                self.mesh.set_settled(None);
                node.leave(now);
                self.follow(now);
                let _ = answer.send(());
            }
            Input::Goodbye => node.say_goodbye(),
        }
    }

    /// Does what the membership decided.
    fn follow(&mut self, now: Instant) {
        // What is no longer so is taken back before anything is done, what is so by now said after it.
        let settled = self.node.is_settled().then(|| self.node.view().hash());
        if settled.is_none() {
            self.mesh.set_settled(None);
        }
        while let Some(action) = self.node.poll_action() {
            self.act(action, now);
        }
        let node = &self.node;
        self.mesh.set_state(now, node.state() == MemberState::Ready, node.is_doubting());
        self.mesh.set_settled(settled);
        self.mesh.set_known(now, node);
        while let Some(event) = self.node.poll_event() {
            self.mesh.emit(event);
        }
        let phase = match self.node.state() {
            MemberState::Joining => Phase::Joining(self.node.unready_reason(now).unwrap_or_default()),
            MemberState::Ready => Phase::Ready,
            MemberState::Leaving => Phase::Leaving,
        };
        self.mesh.phase.send_if_modified(|current| {
            let changed = *current != phase;
            if changed {
                *current = phase;
            }
            changed
        });
    }

    fn act(&mut self, action: Action, now: Instant) {
        match action {
            Action::Dial { address, hello } => {
                self.next_link += 1;
                host::spawn(dial::dial(self.mesh.clone(), address, self.next_link, hello));
            }
            Action::Admit { link } => self.verdict(link, Ok(())),
            Action::Refuse { link, refusal } => self.verdict(link, Err(refusal)),
            Action::Open { member, link } => self.open(&member, link, now),
            Action::Close { link } => {
                self.verdicts.remove(&link);
                self.attaching.remove(&link);
                if let Some(close) = self.closers.remove(&link) {
                    close.notify_one();
                }
            }
            Action::Ping { boot } => {
                if let Some(peer) = self.peers.get(&boot) {
                    peer.send(Frame::Ping(now.as_nanos()));
                }
            }
            Action::StartPass { boot } => {
                let started = self.peers.get(&boot).is_some_and(|peer| peer.start_pass());
                if !started {
                    self.mesh.tell(Input::PassFailed(boot));
                }
            }
            Action::Remove { boot, cause } => self.remove(boot, cause),
            Action::Publish => self.publish(),
            Action::Beat => {
                self.beacons.set(self.node.beacon());
                self.send(None, self.standing());
            }
            Action::Tell { to, contacts } => self.send(to, Frame::Members(contacts)),
            Action::Empty => self.mesh.empty(),
            Action::Stop(fatal) => self.stop = Some(fatal),
            // The enum grows with the core; this crate and the core are released together.
            other => tracing::error!(action = ?other, "an action that this driver does not know"),
        }
    }

    /// Sends a frame to one member, or to all.
    fn send(&self, to: Option<BootId>, frame: Frame) {
        let frame = frame.encode();
        for (boot, peer) in &self.peers {
            if to.is_none_or(|to| to == *boot) {
                peer.send_encoded(frame.clone());
            }
        }
    }

    fn standing(&self) -> Frame {
        Frame::Standing(self.node.standing())
    }

    fn verdict(&mut self, link: LinkId, verdict: Result<(), Refusal>) {
        if let Some(waiting) = self.verdicts.remove(&link) {
            let _ = waiting.send(verdict);
        }
    }

    fn open(&mut self, member: &MemberInfo, link: LinkId, now: Instant) {
        let outbox_bytes = self.mesh.config.outbox_bytes;
        let peer = self.peers.entry(member.boot).or_insert_with(|| Peer::new(member, outbox_bytes)).clone();
        let Some(attach) = self.attaching.remove(&link) else { return self.publish() };
        // The stream opens before the routes name it, and both before any pass is summed up.
        let (sync, passes) = mpsc::channel(PASS_QUEUE);
        let wake = peer.attach(link, sync.clone(), now);
        // It may have changed since the Hello.
        peer.send(self.standing());
        self.publish();
        let close = Arc::new(Notify::new());
        self.closers.insert(link, close.clone());
        let attached = Attached { link, peer: peer.clone(), wake, close, sync, passes };
        if attach.send(attached).is_err() {
            peer.detach(link);
        }
    }

    fn remove(&mut self, boot: BootId, cause: DropCause) {
        let Some(peer) = self.peers.remove(&boot) else { return };
        self.mesh.note_former(boot);
        self.publish();
        // Only now: nobody may begin to wait for it any more.
        peer.remove();
        self.mesh.tell_again(&self.mesh.table.lose_holder(boot, cause == DropCause::Left));
        let stream = peer.outbox(|outbox| outbox.stats());
        add(&self.mesh.counters.outbox_overflows, stream.overflows);
        add(&self.mesh.counters.dropped_frames, stream.dropped_frames);
        tracing::debug!(member = %peer.name, ?cause, "streams closed");
    }

    /// Members and streams change in one step: a commit that found a holder without a stream would not
    /// wait for it, nor for the one in its place.
    fn publish(&self) {
        let view = self.node.view();
        // The last of what the membership has decided at once completes it.
        if !view.members().all(|boot| boot == self.mesh.me.boot || self.peers.contains_key(&boot)) {
            return;
        }
        let peers = self.peers.values().cloned().collect();
        for id in self.mesh.routes.enter(view) {
            self.mesh.drop_outlived(&id);
        }
        self.mesh.routes.publish(RouteTable { view: view.clone(), peers });
    }

    /// Streams that stand still: try another connection, and be slow to let sessions expire.
    fn check_streams(&mut self, now: Instant) {
        let limit = Duration::from_secs(1);
        let mut suspicious = false;
        let redial = now - self.stalled_checked >= limit;
        if redial {
            self.stalled_checked = now;
            for peer in self.peers.values() {
                peer.outbox(|outbox| outbox.prune_waits(|wait| wait.is_abandoned()));
            }
        }
        let stalled: Vec<BootId> = self
            .peers
            .values()
            .filter(|peer| {
                peer.outbox(|outbox| outbox.stalled_since()).is_some_and(|since| now - since >= limit)
            })
            .map(|peer| peer.boot)
            .collect();
        for boot in stalled {
            suspicious = true;
            if redial {
                self.node.handle_stalled(boot, now);
            }
        }
        suspicious |= self.node.silent_member(now).is_some();
        self.mesh.suspicious.store(suspicious, Ordering::Relaxed);
    }

    fn shut_down(mut self) {
        self.mesh.set_state(host::mono(), false, false);
        self.mesh.set_settled(None);
        self.mesh.stop.send_replace(true);
        for (_, close) in std::mem::take(&mut self.closers) {
            close.notify_one();
        }
        for peer in self.peers.values() {
            peer.desert();
        }
        self.mesh.phase.send_if_modified(|phase| {
            let stopped = matches!(phase, Phase::Stopped(_));
            if !stopped {
                *phase = Phase::Stopped(ClusterError::Left);
            }
            !stopped
        });
    }
}
