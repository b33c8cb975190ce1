//! Nodes that replicate in one thread.

mod chaos;
mod lookup;
mod mesh;
mod strays;

use alloc::vec::Vec;
use core::time::Duration;

use bytes::{Bytes, BytesMut};

use super::commit;
use crate::membership::PassRole;
use crate::replication::pass::{Listed, PartSum, PassDriver, Summary};
use crate::replication::{Appended, Filled, Inbox, Outbox, Table, rest};
use crate::session::{Change, Record};
use crate::wire::{PassStep, Prefix, PrefixSums, ReplyStep};
use crate::{HybridClock, Instant, Now};
use mesh::{Mesh, Node, id};

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
    assert!(a.streams[&b.boot].outbox.borrow().is_drained(|_| false));
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
fn an_end_by_idleness_is_acknowledged_only_by_who_knows_nothing_newer() {
    let mesh = Mesh::new(4);
    let [a, b, c, d] = &mesh.0[..] else { unreachable!() };
    a.create(id(1));
    mesh.settle();
    commit::touch(&c.table, c, c.origin(), id(1)).unwrap();
    commit::destroy(&d.table, d, d.origin(), id(1), false).unwrap();
    a.awaited("end", |a| _ = commit::expire(&a.table, a, id(1), |_| true).unwrap());
    for peer in [b, c, d] {
        mesh.flush(a, peer);
        mesh.deliver(a, peer);
        mesh.flush(peer, a);
    }
    mesh.deliver(b, a);
    assert_eq!(a.ended_waits(b), ["end"]);
    mesh.deliver(c, a);
    assert!(a.is_live(id(1)), "an access that was on its way disproves it");
    mesh.settle();
    assert!(a.ended_waits(c).is_empty() && a.ended_waits(d).is_empty());
    // Who leaves waits for no answer to it.
    let drained = |refusable: bool| a.streams[&c.boot].outbox.borrow().is_drained(|_| refusable);
    assert!(drained(true) && !drained(false));
    mesh.assert_equal();
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
    let is_drained = || a.streams[&b.boot].outbox.borrow().is_drained(|_| false);
    assert!(mesh.flush(a, b).pass_due);
    mesh.settle();
    assert!(a.ended_waits(b).is_empty());
    mesh.pass(a, b);
    assert!(is_drained());
    assert_eq!(a.ended_waits(b).len(), 200, "the pass brought what was waited for");
    mesh.assert_equal();
}

/// Whoever leaves would take with it what was dropped, though nobody waits for any of it.
#[test]
fn a_stream_that_was_cut_is_drained_only_by_a_pass_that_began_after_it() {
    let mesh = Mesh::new(2);
    let [a, b] = &mesh.0[..] else { unreachable!() };
    let outbox = || a.streams[&b.boot].outbox.borrow_mut();
    outbox().pass_began(PassRole::Driver);
    for n in 0..200 {
        a.create(id(n));
        a.set(id(n), "k", "0123456789abcdef").unwrap();
    }
    assert!(mesh.flush(a, b).pass_due);
    mesh.settle();
    let is_drained = || a.streams[&b.boot].outbox.borrow().is_drained(|_| false);
    outbox().pass_done(PassRole::Driver);
    assert!(!is_drained(), "that pass began before");
    outbox().pass_began(PassRole::Responder);
    assert!(!is_drained());
    outbox().pass_failed(PassRole::Responder);
    assert!(!is_drained());
    outbox().pass_began(PassRole::Responder);
    outbox().pass_done(PassRole::Responder);
    assert!(is_drained());
}

#[test]
fn an_outbox_is_filled_to_its_limit_and_one_byte_more_cuts_the_stream() {
    let frame = |bytes| Bytes::from(alloc::vec![0; bytes]);
    let now = Instant::from_nanos(0);
    for (last, appended) in [(10, Appended::Joined), (11, Appended::Discarded)] {
        let mut outbox = Outbox::<()>::new(30);
        outbox.open(now);
        assert_eq!(outbox.append(&frame(20), None, now), Appended::Queued);
        // What is no data has as much room of its own.
        outbox.push_control(frame(30));
        assert_eq!(outbox.append(&frame(last), None, now), appended);
        outbox.push_control(frame(1));
        let stats = outbox.stats();
        let cut = u64::from(appended == Appended::Discarded);
        assert_eq!((stats.overflows, stats.dropped_frames), (cut, 1));
        assert_eq!(stats.queued_bytes, if cut == 1 { 0 } else { 30 });
    }
}

/// A lost reply would leave its pass standing still until it is given up.
#[test]
fn of_a_pass_in_each_direction_the_smallest_outbox_refuses_nothing() {
    let (now, memory) = (Now { mono: Instant::ZERO, wall_ms: 1_000 }, mesh::Memory::default());
    let mut driver = PassDriver::new(Summary::new(alloc::vec![PartSum::default(); 16], |_, _| Vec::new()));
    assert_eq!(driver.poll_request(&memory, now), Some(PassStep::Open { empty: true }));
    let all = PrefixSums { prefix: Prefix::ROOT, sums: [1; 16], counts: [1_000; 16] };
    let sums = ReplyStep::Sums(alloc::vec![all]);
    driver.handle_reply(sums, &memory, &HybridClock::new(), now, |_, _| ()).unwrap();
    let asked = core::iter::from_fn(|| driver.poll_request(&memory, now)).count();
    assert!(asked >= 16, "all ranges at once, not {asked}");

    let mut outbox = Outbox::<()>::new(1);
    outbox.open(Instant::ZERO);
    for _ in 0..2 * asked {
        outbox.push_bulk(Bytes::from(alloc::vec![0; 64 << 10]));
    }
    assert_eq!(outbox.stats().dropped_frames, 0);
    outbox.push_bulk(Bytes::from_static(b"one more"));
    assert_eq!(outbox.stats().dropped_frames, 1);
}

const REST: Duration = Duration::from_millis(2);

#[test]
fn data_that_nobody_waits_for_goes_together_once_in_a_rest() {
    let frame = Bytes::from_static(b"delta");
    let start = Instant::from_nanos(1_000_000_000);
    let later = start + REST / 2;
    let filled = |outbox: &mut Outbox<()>, now| {
        let mut buffer = BytesMut::new();
        let rests_until = outbox.fill(&mut Inbox::new(), &mut buffer, 1 << 20, now, REST).rests_until;
        (buffer.len() / frame.len(), rests_until)
    };
    let opened = || {
        let mut outbox = Outbox::<()>::new(1 << 20);
        outbox.open(start);
        let _ = filled(&mut outbox, start);
        assert_eq!(outbox.append(&frame, None, start), Appended::Queued);
        assert_eq!(filled(&mut outbox, start), (1, None), "the first goes at once");
        assert_eq!(outbox.append(&frame, None, later), Appended::Queued);
        assert_eq!(outbox.append(&frame, None, later), Appended::Joined, "the writer knows");
        assert_eq!(filled(&mut outbox, later), (0, Some(start + REST)));
        assert_eq!(outbox.append(&frame, None, later), Appended::Joined);
        outbox
    };

    assert_eq!(filled(&mut opened(), start + REST), (3, None));

    let mut outbox = opened();
    assert_eq!(outbox.append(&frame, Some(()), later), Appended::Queued, "somebody waits");
    assert_eq!(outbox.append(&frame, None, later), Appended::Joined);
    assert_eq!(filled(&mut outbox, later), (5, None));

    let mut outbox = opened();
    outbox.push_control(frame.clone());
    assert_eq!(filled(&mut outbox, later), (4, None), "what goes anyway takes it along");

    let mut outbox = opened();
    let large = Bytes::from(alloc::vec![0; 40 << 10]);
    assert_eq!(outbox.append(&large, None, later), Appended::Queued, "a full write does not rest");
    assert_eq!(filled(&mut outbox, later).1, None);
}

#[test]
fn a_writer_that_had_much_to_write_looks_for_more_without_being_told() {
    let frame = Bytes::from_static(b"delta");
    let start = Instant::from_nanos(1_000_000_000);
    for (frames, waits, expects) in [(4, false, true), (3, false, false), (4, true, false)] {
        let mut outbox = Outbox::<()>::new(1 << 20);
        outbox.open(start);
        let fill = |outbox: &mut Outbox<()>, now| {
            let mut buffer = BytesMut::new();
            outbox.fill(&mut Inbox::new(), &mut buffer, 1 << 20, now, REST)
        };
        let _ = fill(&mut outbox, start);
        for _ in 0..frames {
            let _ = outbox.append(&frame, waits.then_some(()), start);
        }
        assert!(fill(&mut outbox, start).wrote);
        let rests = Filled { rests_until: expects.then_some(start + REST), ..Filled::default() };
        assert_eq!(fill(&mut outbox, start), rests);
        let told = if expects { Appended::Joined } else { Appended::Queued };
        assert_eq!(outbox.append(&frame, None, start), told);
        assert_eq!(outbox.append(&frame, Some(()), start), Appended::Queued, "somebody waits");
        assert!(fill(&mut outbox, start).wrote);

        let quiet = start + REST;
        assert_eq!(fill(&mut outbox, quiet), Filled::default(), "there was no more");
        assert_eq!(outbox.append(&frame, None, quiet), Appended::Queued);
    }
}

#[test]
fn a_node_writes_once_a_millisecond_however_many_peers_it_has() {
    let rests = [0, 1, 2, 15, 20, 21, usize::MAX].map(|peers| rest(peers).as_millis());
    assert_eq!(rests, [1, 1, 2, 15, 20, 20, 20]);
}

#[test]
fn an_acknowledgement_of_an_old_epoch_ends_no_wait_of_the_new_one() {
    let mesh = Mesh::new(2);
    let [a, b] = &mesh.0[..] else { unreachable!() };
    a.create(id(1));
    mesh.flush(a, b);
    mesh.deliver(a, b);
    let stream = &b.streams[&a.boot];
    let stale = stream.inbox.borrow_mut().take_ack(true).unwrap();
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

/// It says so, and its donor counts instead of summing up.
#[test]
fn one_who_has_nothing_gets_all_that_the_other_has_counted() {
    let mesh = Mesh::new(2);
    let [a, b] = &mesh.0[..] else { unreachable!() };
    for n in 0..2_000 {
        a.create(id(n));
    }
    let counted = |node: &Node| {
        let mut ids = alloc::vec![Vec::new(); 16];
        node.table.for_each(|id, _| ids[usize::from(id.as_bytes()[0] >> 4)].push((*id, 0)));
        let parts = ids.iter().map(|part| PartSum::uncompared(part.len() as u64)).collect();
        Summary::new(parts, move |part, with| {
            assert_eq!(with, Listed::Ids, "nothing is compared");
            ids[part].clone()
        })
    };
    mesh.relink(a, b);
    mesh.pass_of(b, a, [b, a].map(counted));
    assert!((0..2_000).all(|n| b.is_live(id(n))));
    mesh.assert_equal();
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

#[test]
fn who_waits_for_a_pass_on_a_link_that_is_replaced_waits_for_the_next_of_either_side() {
    let mut outbox = Outbox::new(4096);
    outbox.open(Instant::ZERO);
    outbox.append(&Bytes::from_static(b"frame"), Some("write"), Instant::ZERO);
    outbox.open(Instant::ZERO);
    outbox.pass_began(PassRole::Driver);
    outbox.open(Instant::ZERO);
    outbox.pass_began(PassRole::Responder);
    assert_eq!(outbox.pass_done(PassRole::Responder), ["write"]);
}
