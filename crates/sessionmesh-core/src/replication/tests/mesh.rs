//! Some nodes with links between all of them: real outboxes, real frames, no sockets.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use bytes::{Bytes, BytesMut};

use super::super::commit::{self, Origin, Streams};
use super::super::pass::{PassDriver, PassResponder, Summary};
use super::super::*;
use crate::membership::PassRole;
use crate::placement::Share;
use crate::session::{Change, Record, SessionLimits};
use crate::wire::{Fetch, Frame, FrameDecoder, FrameLimit};
use crate::{BootId, HybridClock, Instant, Now, SessionId};

#[derive(Default)]
pub(super) struct Memory(pub(super) RefCell<BTreeMap<SessionId, Record>>);

impl Table for Memory {
    fn with<R>(&self, id: &SessionId, f: impl FnOnce(&mut Option<Record>) -> R) -> R {
        let mut slot = self.0.borrow_mut().remove(id);
        let result = f(&mut slot);
        if let Some(record) = slot {
            self.0.borrow_mut().insert(*id, record);
        }
        result
    }

    fn read<R>(&self, id: &SessionId, f: impl FnOnce(Option<&Record>) -> R) -> R {
        f(self.0.borrow().get(id))
    }

    fn for_each(&self, mut f: impl FnMut(&SessionId, &Record)) {
        for (id, record) in self.0.borrow().iter() {
            f(id, record);
        }
    }
}

pub(super) type Wait = &'static str;

pub(super) struct Stream {
    pub(super) outbox: RefCell<Outbox<Wait>>,
    pub(super) inbox: RefCell<Inbox>,
    /// Sent and not yet delivered.
    pub(super) wire: RefCell<BytesMut>,
    pub(super) ended: RefCell<Vec<Wait>>,
}

pub(super) struct Node {
    pub(super) boot: BootId,
    pub(super) table: Memory,
    pub(super) clock: HybridClock,
    pub(super) streams: BTreeMap<BootId, Stream>,
    pub(super) wait: RefCell<Option<Wait>>,
    pub(super) now: RefCell<Now>,
}

impl Streams for Node {
    fn is_awaited(&self, _: &SessionId) -> bool {
        true
    }

    fn send(&self, _: &SessionId, frame: &Bytes) {
        for stream in self.streams.values() {
            stream.outbox.borrow_mut().append(frame, *self.wait.borrow(), self.now.borrow().mono);
        }
    }
}

impl Node {
    pub(super) fn origin(&self) -> Origin<'_> {
        const LIMITS: SessionLimits =
            SessionLimits { name_bytes: 256, attributes: 256, session_bytes: 1 << 20 };
        Origin { boot: self.boot, clock: &self.clock, limits: &LIMITS, now: *self.now.borrow() }
    }

    pub(super) fn create(&self, id: SessionId) {
        commit::create(&self.table, self, self.origin(), id, Change::default()).unwrap();
    }

    pub(super) fn set(
        &self,
        id: SessionId,
        name: &str,
        value: &'static str,
    ) -> Result<(), crate::session::ChangeError> {
        let attributes = alloc::vec![(name.into(), Some(Bytes::from_static(value.as_bytes())))];
        let change = Change { attributes, limits: None };
        commit::change(&self.table, self, self.origin(), id, |_| Ok::<_, crate::session::ChangeError>(change))
            .map(drop)
    }

    pub(super) fn awaited(&self, wait: Wait, f: impl FnOnce(&Self)) {
        *self.wait.borrow_mut() = Some(wait);
        f(self);
        *self.wait.borrow_mut() = None;
    }

    pub(super) fn get(&self, id: SessionId, name: &str) -> Option<Bytes> {
        self.table.read(&id, |record| record?.live()?.attributes().value(name))
    }

    pub(super) fn is_live(&self, id: SessionId) -> bool {
        self.table.read(&id, |record| record.and_then(Record::live).is_some())
    }

    pub(super) fn ended_waits(&self, peer: &Self) -> Vec<Wait> {
        self.streams[&peer.boot].ended.borrow().clone()
    }
}

/// Some nodes with links between all of them.
pub(super) struct Mesh(pub(super) Vec<Node>);

impl Mesh {
    pub(super) fn new(count: u64) -> Self {
        let boots: Vec<BootId> = (1..=count).filter_map(BootId::new).collect();
        let now = Now { mono: Instant::from_nanos(1_000_000_000), wall_ms: 1_000 };
        let stream = || {
            let mut outbox = Outbox::new(4_096);
            outbox.open(now.mono);
            Stream {
                outbox: RefCell::new(outbox),
                inbox: RefCell::default(),
                wire: RefCell::default(),
                ended: RefCell::default(),
            }
        };
        Self(
            boots
                .iter()
                .map(|boot| Node {
                    boot: *boot,
                    table: Memory::default(),
                    clock: HybridClock::new(),
                    streams: boots
                        .iter()
                        .filter(|peer| *peer != boot)
                        .map(|peer| (*peer, stream()))
                        .collect(),
                    wait: RefCell::default(),
                    now: RefCell::new(now),
                })
                .collect(),
        )
    }

    pub(super) fn node(&self, boot: BootId) -> &Node {
        self.0.iter().find(|node| node.boot == boot).unwrap()
    }

    /// Empties an outbox onto the wire.
    pub(super) fn flush(&self, from: &Node, to: &Node) -> Filled {
        let stream = &from.streams[&to.boot];
        let (mut outbox, mut inbox) = (stream.outbox.borrow_mut(), stream.inbox.borrow_mut());
        outbox.fill(&mut inbox, &mut stream.wire.borrow_mut(), 1 << 20, Instant::ZERO, Duration::ZERO)
    }

    /// Loses what is on the wire, as a link does that breaks; a new one begins.
    pub(super) fn relink(&self, a: &Node, b: &Node) {
        for (from, to) in [(a, b), (b, a)] {
            let stream = &from.streams[&to.boot];
            stream.wire.borrow_mut().clear();
            *stream.inbox.borrow_mut() = Inbox::new();
            let mut outbox = stream.outbox.borrow_mut();
            outbox.close();
            outbox.open(from.now.borrow().mono);
        }
    }

    /// Delivers what is on the wire; says whether anything was.
    pub(super) fn deliver(&self, from: &Node, to: &Node) -> bool {
        let decoder = FrameDecoder::new(from.boot, FrameLimit::default());
        let mut wire = from.streams[&to.boot].wire.take();
        let mut any = false;
        while let Some(frame) = decoder.next(&mut wire).unwrap() {
            any = true;
            self.take(from, to, frame);
        }
        any
    }

    pub(super) fn take(&self, from: &Node, to: &Node, frame: Frame) {
        let back = &to.streams[&from.boot];
        let now = *to.now.borrow();
        match frame {
            Frame::Epoch(epoch) => back.inbox.borrow_mut().begin_epoch(epoch),
            Frame::Ack(ack) => {
                let ended = back.outbox.borrow_mut().acknowledge(&ack, now.mono).unwrap();
                back.ended.borrow_mut().extend(ended);
            }
            Frame::Fetch(fetch) => {
                let outcome = fetch::answer(&to.table, &fetch, fetch::Standing::Settled, now);
                let reply = Frame::Fetched(crate::wire::Fetched { request: fetch.request, outcome });
                back.outbox.borrow_mut().push_control(reply.encode());
            }
            Frame::Fetched(fetched) => {
                if let crate::wire::FetchOutcome::Record(record) = &fetched.outcome {
                    let id = record.id;
                    let _ = fetch::apply(&to.table, &to.clock, id, fetched.outcome, now);
                    back.inbox.borrow_mut().completed(&id);
                }
            }
            frame => {
                let received = receive(
                    &to.table,
                    &to.clock,
                    &mut back.inbox.borrow_mut(),
                    frame,
                    Duration::ZERO,
                    now.into(),
                    |_| (),
                );
                if let (Some(id), Some(version)) = (received.id, received.pull) {
                    let fetch = Frame::Fetch(Fetch {
                        request: 1,
                        id,
                        version,
                        view: 0,
                        access: false,
                        any_copy: true,
                    });
                    back.outbox.borrow_mut().push_control(fetch.encode());
                }
            }
        }
    }

    /// Until nothing moves any more.
    pub(super) fn settle(&self) {
        for _ in 0..100 {
            let mut moved = false;
            for from in &self.0 {
                for to in from.streams.keys() {
                    let to = self.node(*to);
                    self.flush(from, to);
                    moved |= self.deliver(from, to);
                }
            }
            if !moved {
                return;
            }
        }
        panic!("the nodes talk for ever");
    }

    /// A pass over everything; gives back the bytes that it moved.
    pub(super) fn pass(&self, driver: &Node, responder: &Node) -> usize {
        self.pass_over(driver, responder, |_, _, _| Share::Both).0
    }

    /// A pass over what `share` says that one node has for another; gives back the bytes that it moved
    /// and the strays of both.
    pub(super) fn pass_over(
        &self,
        driver: &Node,
        responder: &Node,
        share: impl Fn(&Node, &Node, &SessionId) -> Share,
    ) -> (usize, [Vec<(SessionId, u64)>; 2]) {
        let summary = |node: &Node, other: &Node| {
            Summary::collect(&node.table, |id, record| match record.is_partial() {
                true => Share::Neither,
                false => share(node, other, id),
            })
        };
        self.pass_of(driver, responder, [summary(driver, responder), summary(responder, driver)])
    }

    /// The same over two summaries, the driver's and the other's.
    pub(super) fn pass_of(
        &self,
        driver: &Node,
        responder: &Node,
        [mine, theirs]: [Summary; 2],
    ) -> (usize, [Vec<(SessionId, u64)>; 2]) {
        driver.streams[&responder.boot].outbox.borrow_mut().pass_began(PassRole::Driver);
        let (mut pass, mut answers) = (PassDriver::new(mine), PassResponder::new(theirs));
        let mut bytes = 0;
        let mut replies = VecDeque::new();
        while !pass.is_done() {
            let now = *driver.now.borrow();
            while let Some(step) = pass.poll_request(&driver.table, now) {
                let request =
                    Frame::PassRequest(crate::wire::PassRequest { pass: 1, view: 0, step }).encode();
                bytes += request.len();
                let decoded = FrameDecoder::new(driver.boot, FrameLimit::default())
                    .next(&mut BytesMut::from(&request[..]));
                let Some(Frame::PassRequest(request)) = decoded.unwrap() else {
                    panic!("a request comes out as one")
                };
                let step =
                    answers.handle(request.step, &responder.table, &responder.clock, now, |_, _| ()).unwrap();
                let reply = Frame::PassReply(crate::wire::PassReply { pass: 1, view: 0, step }).encode();
                bytes += reply.len();
                let decoded = FrameDecoder::new(responder.boot, FrameLimit::default())
                    .next(&mut BytesMut::from(&reply[..]));
                let Some(Frame::PassReply(reply)) = decoded.unwrap() else {
                    panic!("a reply comes out as one")
                };
                replies.push_back(reply.step);
            }
            let reply = replies.pop_front().expect("a pass that is not done has something to wait for");
            pass.handle_reply(reply, &driver.table, &driver.clock, now, |_, _| ()).unwrap();
        }
        let stream = &driver.streams[&responder.boot];
        let ended = stream.outbox.borrow_mut().pass_done(PassRole::Driver);
        stream.ended.borrow_mut().extend(ended);
        (bytes, [pass.strays().to_vec(), answers.strays().to_vec()])
    }

    pub(super) fn assert_equal(&self) {
        let digests = |node: &Node| {
            let mut all = BTreeMap::new();
            node.table.for_each(|id, record| {
                all.insert(*id, record.digest());
            });
            all
        };
        let first = digests(&self.0[0]);
        for node in &self.0[1..] {
            assert_eq!(digests(node), first);
        }
    }
}

pub(super) fn id(n: u128) -> SessionId {
    // Spread over the prefixes as random ids are.
    SessionId::from_bytes((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}
