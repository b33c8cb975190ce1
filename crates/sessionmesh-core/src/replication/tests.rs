//! Nodes that replicate in one thread: real outboxes, real frames, no sockets.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use bytes::{Bytes, BytesMut};

use super::commit::{self, Origin, Streams};
use super::pass::{PassDriver, PassResponder, Summary};
use super::*;
use crate::membership::PassRole;
use crate::session::{Change, Record, SessionLimits};
use crate::wire::{Fetch, Frame, FrameDecoder, FrameLimit};
use crate::{BootId, HybridClock, Instant, Now, SessionId};

#[derive(Default)]
struct Memory(RefCell<BTreeMap<SessionId, Record>>);

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

type Wait = &'static str;

struct Stream {
    outbox: RefCell<Outbox<Wait>>,
    inbox: RefCell<Inbox>,
    /// Sent and not yet delivered.
    wire: RefCell<BytesMut>,
    ended: RefCell<Vec<Wait>>,
}

struct Node {
    boot: BootId,
    table: Memory,
    clock: HybridClock,
    streams: BTreeMap<BootId, Stream>,
    wait: RefCell<Option<Wait>>,
    now: RefCell<Now>,
}

impl Streams for Node {
    fn send(&self, _: &SessionId, frame: &Bytes) {
        for stream in self.streams.values() {
            stream.outbox.borrow_mut().append(frame, *self.wait.borrow(), self.now.borrow().mono);
        }
    }
}

impl Node {
    fn origin(&self) -> Origin<'_> {
        const LIMITS: SessionLimits =
            SessionLimits { name_bytes: 256, attributes: 256, session_bytes: 1 << 20 };
        Origin { boot: self.boot, clock: &self.clock, limits: &LIMITS, now: *self.now.borrow() }
    }

    fn create(&self, id: SessionId) {
        commit::create(&self.table, self, self.origin(), id, Change::default()).unwrap();
    }

    fn set(&self, id: SessionId, name: &str, value: &'static str) -> Result<(), crate::session::ChangeError> {
        let attributes = alloc::vec![(name.into(), Some(Bytes::from_static(value.as_bytes())))];
        let change = Change { attributes, limits: None };
        commit::change(&self.table, self, self.origin(), id, |_| Ok::<_, crate::session::ChangeError>(change))
            .map(drop)
    }

    fn awaited(&self, wait: Wait, f: impl FnOnce(&Self)) {
        *self.wait.borrow_mut() = Some(wait);
        f(self);
        *self.wait.borrow_mut() = None;
    }

    fn get(&self, id: SessionId, name: &str) -> Option<Bytes> {
        self.table.read(&id, |record| record?.live()?.attributes().get(name).cloned())
    }

    fn is_live(&self, id: SessionId) -> bool {
        self.table.read(&id, |record| record.and_then(Record::live).is_some())
    }

    fn ended_waits(&self, peer: &Self) -> Vec<Wait> {
        self.streams[&peer.boot].ended.borrow().clone()
    }
}

/// Some nodes with links between all of them.
struct Mesh(Vec<Node>);

impl Mesh {
    fn new(count: u64) -> Self {
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

    fn node(&self, boot: BootId) -> &Node {
        self.0.iter().find(|node| node.boot == boot).unwrap()
    }

    /// Empties an outbox onto the wire.
    fn flush(&self, from: &Node, to: &Node) -> Filled {
        let stream = &from.streams[&to.boot];
        let (mut outbox, mut inbox) = (stream.outbox.borrow_mut(), stream.inbox.borrow_mut());
        outbox.fill(&mut inbox, &mut stream.wire.borrow_mut(), 1 << 20)
    }

    /// Loses what is on the wire, as a link does that breaks; a new one begins.
    fn relink(&self, a: &Node, b: &Node) {
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
    fn deliver(&self, from: &Node, to: &Node) -> bool {
        let decoder = FrameDecoder::new(from.boot, FrameLimit::default());
        let mut wire = from.streams[&to.boot].wire.take();
        let mut any = false;
        while let Some(frame) = decoder.next(&mut wire).unwrap() {
            any = true;
            self.take(from, to, frame);
        }
        any
    }

    fn take(&self, from: &Node, to: &Node, frame: Frame) {
        let back = &to.streams[&from.boot];
        let now = *to.now.borrow();
        match frame {
            Frame::Epoch(epoch) => back.inbox.borrow_mut().begin_epoch(epoch),
            Frame::Ack(ack) => {
                let ended = back.outbox.borrow_mut().acknowledge(&ack, now.mono).unwrap();
                back.ended.borrow_mut().extend(ended);
            }
            Frame::Fetch(fetch) => {
                let outcome = fetch::answer(&to.table, &fetch, true, now);
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
                let received = receive(&to.table, &to.clock, &mut back.inbox.borrow_mut(), frame, now);
                if let (Some(id), Some(version)) = (received.id, received.pull) {
                    let fetch = Frame::Fetch(Fetch { request: 1, id, version, view: 0 });
                    back.outbox.borrow_mut().push_control(fetch.encode());
                }
            }
        }
    }

    /// Until nothing moves any more.
    fn settle(&self) {
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

    /// A pass; gives back the bytes that it moved.
    fn pass(&self, driver: &Node, responder: &Node) -> usize {
        let summary = |node: &Node| Summary::collect(&node.table, |_, record| !record.is_partial());
        driver.streams[&responder.boot].outbox.borrow_mut().pass_began(PassRole::Driver);
        let mut pass = PassDriver::new(summary(driver));
        let answers = PassResponder::new(summary(responder));
        let mut bytes = 0;
        let mut replies = VecDeque::new();
        while !pass.is_done() {
            let now = *driver.now.borrow();
            while let Some(step) = pass.poll_request(&driver.table, now) {
                let request = Frame::PassRequest(crate::wire::PassRequest { pass: 1, step }).encode();
                bytes += request.len();
                let decoded = FrameDecoder::new(driver.boot, FrameLimit::default())
                    .next(&mut BytesMut::from(&request[..]));
                let Some(Frame::PassRequest(request)) = decoded.unwrap() else {
                    panic!("a request comes out as one")
                };
                let step = answers.handle(request.step, &responder.table, &responder.clock, now).unwrap();
                let reply = Frame::PassReply(crate::wire::PassReply { pass: 1, step }).encode();
                bytes += reply.len();
                let decoded = FrameDecoder::new(responder.boot, FrameLimit::default())
                    .next(&mut BytesMut::from(&reply[..]));
                let Some(Frame::PassReply(reply)) = decoded.unwrap() else {
                    panic!("a reply comes out as one")
                };
                replies.push_back(reply.step);
            }
            let reply = replies.pop_front().expect("a pass that is not done has something to wait for");
            pass.handle_reply(reply, &driver.table, &driver.clock, now).unwrap();
        }
        let stream = &driver.streams[&responder.boot];
        let ended = stream.outbox.borrow_mut().pass_done(PassRole::Driver);
        stream.ended.borrow_mut().extend(ended);
        bytes
    }

    fn assert_equal(&self) {
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

fn id(n: u128) -> SessionId {
    // Spread over the prefixes as random ids are.
    SessionId::from_bytes((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}

#[test]
fn a_write_is_on_every_node_and_acknowledged() {
    let mesh = Mesh::new(3);
    let [a, b, c] = &mesh.0[..] else { unreachable!() };
    a.create(id(1));
    a.awaited("write", |a| a.set(id(1), "k", "v").unwrap());
    mesh.settle();
    for node in &mesh.0 {
        assert_eq!(node.get(id(1), "k").as_deref(), Some(&b"v"[..]));
    }
    assert_eq!((a.ended_waits(b), a.ended_waits(c)), (alloc::vec!["write"], alloc::vec!["write"]));
    assert!(a.streams[&b.boot].outbox.borrow().is_drained());
}

#[test]
fn what_a_broken_link_lost_is_pulled_when_the_next_write_shows_the_gap() {
    let mesh = Mesh::new(2);
    let [a, b] = &mesh.0[..] else { unreachable!() };
    a.create(id(1));
    mesh.settle();
    a.set(id(1), "lost", "1").unwrap();
    mesh.flush(a, b);
    mesh.relink(a, b);
    a.set(id(1), "next", "2").unwrap();
    mesh.settle();
    assert_eq!(b.get(id(1), "lost").as_deref(), Some(&b"1"[..]));
    mesh.assert_equal();
}

#[test]
fn a_write_to_a_session_that_is_only_partly_there_is_acknowledged_when_it_is_whole() {
    let mesh = Mesh::new(2);
    let [a, b] = &mesh.0[..] else { unreachable!() };
    a.create(id(1));
    mesh.flush(a, b);
    mesh.relink(a, b);
    a.awaited("write", |a| a.set(id(1), "k", "v").unwrap());
    mesh.flush(a, b);
    mesh.deliver(a, b);
    assert!(!b.is_live(id(1)), "part of a session is not served");
    mesh.flush(b, a);
    // The acknowledgement and the question for the rest.
    mesh.deliver(b, a);
    assert!(a.ended_waits(b).is_empty(), "not held yet");
    mesh.settle();
    assert!(b.is_live(id(1)));
    assert_eq!(a.ended_waits(b), ["write"]);
}

#[test]
fn a_peer_that_does_not_read_costs_bounded_memory_and_a_pass_mends_it() {
    let mesh = Mesh::new(2);
    let [a, b] = &mesh.0[..] else { unreachable!() };
    for n in 0..200 {
        a.create(id(n));
        a.awaited("write", |a| a.set(id(n), "k", "0123456789abcdef").unwrap());
        assert!(a.streams[&b.boot].outbox.borrow().stats().queued_bytes <= 4_096);
    }
    assert_eq!(a.streams[&b.boot].outbox.borrow().stats().overflows, 1, "one cut, not one per write");
    assert!(mesh.flush(a, b).pass_due);
    mesh.settle();
    assert!(a.ended_waits(b).is_empty());
    mesh.pass(a, b);
    assert_eq!(a.ended_waits(b).len(), 200, "the pass brought what was waited for");
    mesh.assert_equal();
}

#[test]
fn an_acknowledgement_of_an_old_epoch_ends_no_wait_of_the_new_one() {
    let mesh = Mesh::new(2);
    let [a, b] = &mesh.0[..] else { unreachable!() };
    a.create(id(1));
    mesh.flush(a, b);
    mesh.deliver(a, b);
    let stream = &b.streams[&a.boot];
    let stale = stream.inbox.borrow_mut().take_ack().unwrap();
    mesh.relink(a, b);
    a.awaited("write", |a| a.set(id(1), "k", "v").unwrap());
    let ended = a.streams[&b.boot].outbox.borrow_mut().acknowledge(&stale, a.now.borrow().mono).unwrap();
    assert!(ended.is_empty());
    let forged = crate::wire::Ack { epoch: 2, upto: 9, ..crate::wire::Ack::default() };
    assert!(a.streams[&b.boot].outbox.borrow_mut().acknowledge(&forged, a.now.borrow().mono).is_err());
}

#[test]
fn a_destroyed_session_is_not_brought_back_by_a_late_write_or_a_pass() {
    let mesh = Mesh::new(3);
    let [a, b, c] = &mesh.0[..] else { unreachable!() };
    a.create(id(1));
    mesh.settle();
    // c writes, unheard; a destroys.
    c.set(id(1), "late", "1").unwrap();
    commit::destroy(&a.table, a, a.origin(), id(1), false).unwrap();
    mesh.flush(a, b);
    mesh.deliver(a, b);
    assert!(!b.is_live(id(1)));
    mesh.settle();
    for node in &mesh.0 {
        assert!(!node.is_live(id(1)));
        assert!(node.set(id(1), "again", "2").is_err());
    }
    mesh.pass(b, c);
    mesh.assert_equal();
}

#[test]
fn a_pass_moves_what_differs_and_little_else() {
    let mesh = Mesh::new(2);
    let [a, b] = &mesh.0[..] else { unreachable!() };
    let fill = |node: &Node, n| {
        node.create(id(n));
        node.set(id(n), "k", "0123456789012345678901234567890123456789").unwrap();
    };
    for n in 0..2_000 {
        fill(a, n);
    }
    let everything = mesh.pass(b, a);
    mesh.assert_equal();
    let idle = mesh.pass(b, a);
    assert!(idle < 1_024, "{idle} bytes to find that nothing differs");

    mesh.relink(a, b);
    for n in 0..20 {
        a.set(id(n * 97), "k", "changed on a").unwrap();
        b.set(id(n * 89 + 1), "other", "changed on b").unwrap();
    }
    commit::destroy(&a.table, a, a.origin(), id(5), false).unwrap();
    fill(b, 5_000);
    mesh.relink(a, b);
    let moved = mesh.pass(a, b);
    mesh.assert_equal();
    let differed = everything / 2_000 * 42;
    assert!(moved <= 3 * differed + (64 << 10), "{moved} bytes for about {differed} that differ");
}

#[test]
fn an_access_elsewhere_undoes_an_expiry_that_did_not_know_of_it() {
    let mesh = Mesh::new(2);
    let [a, b] = &mesh.0[..] else { unreachable!() };
    a.create(id(1));
    a.set(id(1), "k", "v").unwrap();
    mesh.settle();
    commit::touch(&b.table, b, b.origin(), id(1)).unwrap();
    commit::expire(&a.table, a, id(1), |_| true).unwrap();
    assert!(!a.is_live(id(1)));
    mesh.settle();
    for node in &mesh.0 {
        assert_eq!(node.get(id(1), "k").as_deref(), Some(&b"v"[..]));
    }
    mesh.assert_equal();
}

#[test]
fn stamps_follow_causality_though_a_clock_is_an_hour_behind() {
    let mesh = Mesh::new(2);
    let [a, b] = &mesh.0[..] else { unreachable!() };
    a.now.borrow_mut().wall_ms += 3_600_000;
    a.create(id(1));
    a.set(id(1), "k", "first").unwrap();
    mesh.settle();
    b.set(id(1), "k", "second").unwrap();
    mesh.settle();
    for node in &mesh.0 {
        assert_eq!(node.get(id(1), "k").as_deref(), Some(&b"second"[..]));
    }
    assert!(b.clock.ahead_ms(1_000) >= Duration::from_secs(3_600).as_millis() as u64);
}

#[test]
fn a_pass_over_large_sessions_moves_them_in_batches() {
    let mesh = Mesh::new(2);
    let [a, b] = &mesh.0[..] else { unreachable!() };
    static LARGE: [u8; 100_000] = [b'x'; 100_000];
    for n in 0..40 {
        a.create(id(n));
        b.table.with(&id(n), |slot| *slot = a.table.read(&id(n), |record| record.cloned()));
        a.set(id(n), "large", core::str::from_utf8(&LARGE).unwrap()).unwrap();
    }
    let moved = mesh.pass(b, a);
    mesh.assert_equal();
    assert!(moved < 40 * 100_000 * 3, "{moved}");
}

#[test]
fn an_absolute_end_is_never_put_off() {
    let mesh = Mesh::new(2);
    let [a, b] = &mesh.0[..] else { unreachable!() };
    let limits = |remaining: u64, absolute: Option<u64>| crate::session::Limits {
        idle: None,
        remaining: Some(Duration::from_secs(remaining)),
        absolute: absolute.map(Duration::from_secs),
    };
    let begin = Change { attributes: Vec::new(), limits: Some(limits(50, Some(100))) };
    commit::create(&a.table, a, a.origin(), id(1), begin).unwrap();
    mesh.settle();
    let later = Change { attributes: Vec::new(), limits: Some(limits(5_000, None)) };
    commit::change(&b.table, b, b.origin(), id(1), |_| Ok::<_, crate::session::ChangeError>(later)).unwrap();
    mesh.settle();
    for node in &mesh.0 {
        let begun = node.now.borrow().mono;
        let ends =
            node.table.read(&id(1), |record| record.and_then(Record::live).map(|s| s.limits().ends_at()));
        assert_eq!(ends, Some(Some(begun + Duration::from_secs(100))));
        node.now.borrow_mut().mono += Duration::from_secs(101);
        assert_eq!(node.set(id(1), "late", "1"), Err(crate::session::ChangeError::Ended));
    }
}

#[test]
fn removal_marks_do_not_grow_without_bound() {
    let mesh = Mesh::new(1);
    let node = &mesh.0[0];
    node.create(id(1));
    for n in 0..1_000 {
        let name = alloc::format!("k{n}");
        node.set(id(1), &name, "v").unwrap();
        let gone = Change { attributes: alloc::vec![(name.as_str().into(), None)], limits: None };
        commit::change(&node.table, node, node.origin(), id(1), |_| {
            Ok::<_, crate::session::ChangeError>(gone)
        })
        .unwrap();
    }
    let marks =
        node.table.read(&id(1), |record| record.and_then(Record::live).map(|s| s.attributes().removals()));
    assert_eq!(marks, Some(256));
}

mod chaos {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Create(u8, u8),
        Set(u8, u8, u8),
        Destroy(u8, u8),
        Touch(u8, u8),
        Expire(u8, u8),
        Flush(u8, u8),
        Deliver(u8, u8),
        Break(u8, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let node = 0u8..3;
        let session = 0u8..4;
        prop_oneof![
            2 => (node.clone(), session.clone()).prop_map(|(n, s)| Step::Create(n, s)),
            6 => (node.clone(), session.clone(), 0u8..3).prop_map(|(n, s, k)| Step::Set(n, s, k)),
            1 => (node.clone(), session.clone()).prop_map(|(n, s)| Step::Destroy(n, s)),
            2 => (node.clone(), session.clone()).prop_map(|(n, s)| Step::Touch(n, s)),
            1 => (node.clone(), session).prop_map(|(n, s)| Step::Expire(n, s)),
            4 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Flush(a, b)),
            4 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Deliver(a, b)),
            1 => (node.clone(), node).prop_map(|(a, b)| Step::Break(a, b)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        /// Whatever is written, lost and delayed: after a pass between each two, all nodes hold the
        /// same, and what was destroyed is not there.
        #[test]
        fn nodes_that_compared_hold_the_same(steps in prop::collection::vec(step(), 1..120)) {
            let mesh = Mesh::new(3);
            let node = |n: u8| &mesh.0[usize::from(n)];
            let session = |s: u8| id(u128::from(s));
            let mut known = std::collections::BTreeSet::new();
            let mut destroyed = std::collections::BTreeSet::new();
            for step in steps {
                match step {
                    // An id is minted once in the world.
                    Step::Create(n, s) if known.insert(s) => node(n).create(session(s)),
                    Step::Set(n, s, k) => drop(node(n).set(session(s), &std::format!("k{k}"), "v")),
                    Step::Destroy(n, s) if node(n).is_live(session(s)) => {
                        commit::destroy(&node(n).table, node(n), node(n).origin(), session(s), false).unwrap();
                        destroyed.insert(s);
                    }
                    Step::Touch(n, s) => drop(commit::touch(&node(n).table, node(n), node(n).origin(), session(s))),
                    Step::Expire(n, s) => drop(commit::expire(&node(n).table, node(n), session(s), |_| true)),
                    Step::Flush(a, b) if a != b => drop(mesh.flush(node(a), node(b))),
                    Step::Deliver(a, b) if a != b => drop(mesh.deliver(node(a), node(b))),
                    Step::Break(a, b) if a != b => mesh.relink(node(a), node(b)),
                    _ => {}
                }
            }
            mesh.settle();
            for _ in 0..2 {
                for (a, b) in [(0, 1), (1, 2), (0, 2)] {
                    mesh.pass(node(a), node(b));
                }
            }
            // Part of a session whose rest no node has is nothing that could be compared.
            let whole: Vec<BTreeMap<SessionId, u64>> = mesh.0.iter().map(|node| {
                let mut all = BTreeMap::new();
                node.table.for_each(|id, record| { if !record.is_partial() { all.insert(*id, record.digest()); } });
                all
            }).collect();
            prop_assert_eq!(&whole[0], &whole[1]);
            prop_assert_eq!(&whole[0], &whole[2]);
            for s in destroyed {
                for node in &mesh.0 {
                    prop_assert!(!node.is_live(session(s)));
                }
            }
        }
    }
}
