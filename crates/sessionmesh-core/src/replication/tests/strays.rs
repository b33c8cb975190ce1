//! Copies where they do not belong: handed on, and dropped only when every holder has them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::Cell;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::format;
use std::rc::Rc;

use super::mesh::{Mesh, Node, id};
use crate::placement::{Mode, Seat, View};
use crate::replication::{Strays, Table};
use crate::session::{Change, Record, SessionLimits};
use crate::{BootId, Hlc, HybridClock, Instant, NodeName, SessionId, Stamp};

fn seats(ready: &[u64]) -> Vec<Seat> {
    let seat = |number: &u64| {
        let name = NodeName::new(&format!("n{number}")).unwrap();
        Seat::new(BootId::new(*number).unwrap(), &name, Ipv4Addr::new(10, 0, 0, *number as u8).into(), None)
    };
    ready.iter().map(seat).collect()
}

fn view(me: BootId, ready: &[u64]) -> View {
    View::new(me, Mode::BackupOnly { copies: 1 }).followed_by(seats(ready), Vec::new(), true)
}

/// Nodes with what they know of their strays.
struct World {
    mesh: Mesh,
    strays: BTreeMap<BootId, Strays<()>>,
    ready: Vec<u64>,
}

impl World {
    fn new(count: u64) -> Self {
        let mesh = Mesh::new(count);
        let ready: Vec<u64> = (1..=count).collect();
        let strays = mesh.0.iter().map(|node| (node.boot, Strays::default())).collect();
        Self { mesh, strays, ready }
    }

    fn view(&self, node: &Node) -> View {
        view(node.boot, &self.ready)
    }

    /// A pass between two nodes, and what both drop after it; gives back its bytes.
    fn pass(&mut self, driver: usize, responder: usize) -> usize {
        let (driver, responder) = (&self.mesh.0[driver], &self.mesh.0[responder]);
        let share = |node: &Node, other: &Node, id: &SessionId| self.view(node).share(id, other.boot);
        let (bytes, [mine, theirs]) = self.mesh.pass_over(driver, responder, share);
        for (node, by, strays) in [(driver, responder, mine), (responder, driver, theirs)] {
            let view = view(node.boot, &self.ready);
            let keeper = self.strays.get_mut(&node.boot).unwrap();
            keeper.enter(&view, |()| true);
            for (id, digest) in keeper.confirm(&view, by.boot, &strays) {
                node.table.with(&id, |slot| {
                    if slot.as_ref().is_some_and(|record| record.digest() == digest) {
                        *slot = None;
                    }
                });
            }
        }
        bytes
    }

    fn has(&self, node: usize, id: SessionId) -> bool {
        self.mesh.0[node].table.read(&id, |record| record.and_then(Record::live).is_some())
    }

    /// By session, the nodes that have it.
    fn copies(&self, id: SessionId) -> Vec<u64> {
        (0..self.mesh.0.len()).filter(|node| self.has(*node, id)).map(|node| node as u64 + 1).collect()
    }

    fn holders(&self, id: SessionId) -> Vec<u64> {
        let mut holders: Vec<u64> =
            view(self.mesh.0[0].boot, &self.ready).holders(&id).into_iter().map(BootId::get).collect();
        holders.sort_unstable();
        holders
    }
}

#[test]
fn after_a_pass_between_each_two_every_session_is_on_its_holders_and_nowhere_else() {
    let mut world = World::new(4);
    // All on n1, as before the others came.
    for n in 0..500 {
        world.mesh.0[0].create(id(n));
        world.mesh.0[0].set(id(n), "k", "v").unwrap();
    }
    for (one, two) in [(0, 1), (2, 0), (1, 2), (3, 1), (0, 3), (2, 3)] {
        for n in 0..500 {
            assert!(!world.copies(id(n)).is_empty());
        }
        world.pass(one, two);
    }
    for n in 0..500 {
        assert_eq!(world.copies(id(n)), world.holders(id(n)));
    }
    let idle = world.pass(0, 1);
    assert!(idle < 1_024, "{idle} bytes though nothing is left to do");
}

#[test]
fn a_stray_that_the_holders_have_costs_its_name_and_not_its_content() {
    let mut world = World::new(3);
    static VALUE: [u8; 400] = [b'x'; 400];
    for n in 0..1_000 {
        world.mesh.0[0].create(id(n));
        world.mesh.0[0].set(id(n), "k", core::str::from_utf8(&VALUE).unwrap()).unwrap();
        for node in [1, 2] {
            let record = world.mesh.0[0].table.read(&id(n), |record| record.cloned());
            world.mesh.0[node].table.with(&id(n), |slot| *slot = record);
        }
    }
    let bytes = world.pass(0, 1) + world.pass(0, 2) + world.pass(1, 2);
    for n in 0..1_000 {
        assert_eq!(world.copies(id(n)), world.holders(id(n)));
    }
    assert!(bytes < 1_000 * 2 * 40, "{bytes} bytes for 1000 strays, each named to two holders");
}

#[test]
fn what_is_newer_on_a_stray_reaches_the_holders_and_what_is_newer_there_stays() {
    let mut world = World::new(3);
    let stray = (0..).map(id).find(|id| world.holders(*id) == [2, 3]).unwrap();
    world.mesh.0[0].create(stray);
    for node in [1, 2] {
        let record = world.mesh.0[0].table.read(&stray, |record| record.cloned());
        world.mesh.0[node].table.with(&stray, |slot| *slot = record);
    }
    world.mesh.0[0].set(stray, "on the stray", "1").unwrap();
    world.mesh.0[1].set(stray, "on a holder", "2").unwrap();
    world.pass(1, 2);
    world.pass(2, 0);
    assert!(world.has(0, stray), "n2 does not have it yet");
    world.pass(0, 1);
    assert_eq!(world.copies(stray), [2, 3]);
    for node in [1, 2] {
        let node = &world.mesh.0[node];
        assert!(node.get(stray, "on the stray").is_some() && node.get(stray, "on a holder").is_some());
    }
}

/// It is applied and acknowledged, and the version does not say so.
#[test]
fn what_a_stray_has_past_a_gap_reaches_the_holders() {
    let mut world = World::new(3);
    let stray = (0..).map(id).find(|id| world.holders(*id) == [2, 3]).unwrap();
    world.mesh.0[0].create(stray);
    let node = |index: usize| &world.mesh.0[index].table;
    let mut elsewhere = node(0).read(&stray, |record| record.cloned());
    for holder in [1, 2] {
        node(holder).with(&stray, |slot| *slot = elsewhere.clone());
    }
    let limits = SessionLimits { name_bytes: 10, attributes: 10, session_bytes: 100 };
    let dead = BootId::new(9).unwrap();
    let mut write = |name: &str, ms: u64| {
        let stamp = Stamp { hlc: HybridClock::new().tick(ms, Hlc::ZERO), origin: dead };
        let change = Change { attributes: [(name.into(), Some("v".into()))].into(), limits: None };
        Record::change(&mut elsewhere, stray, change, &limits, Instant::ZERO, |_| stamp).unwrap().unwrap()
    };
    let (_, kept) = (write("lost", 1_000_000), write("kept", 2_000_000));
    node(0).with(&stray, |slot| assert!(Record::apply(slot, &kept, Duration::ZERO, Instant::ZERO).held));
    world.pass(0, 1);
    world.pass(0, 2);
    assert_eq!(world.copies(stray), [2, 3]);
    for holder in [1, 2] {
        assert!(world.mesh.0[holder].get(stray, "kept").is_some(), "n{}", holder + 1);
    }
}

/// Another holder may have forgotten the end by the time that it is offered the stray.
#[test]
fn a_stray_that_is_over_hears_of_it_in_the_first_pass_with_one_who_knows() {
    for (driver, responder) in [(0, 1), (1, 0)] {
        let mut world = World::new(3);
        let stray = (0..).map(id).find(|id| world.holders(*id) == [2, 3]).unwrap();
        world.mesh.0[0].create(stray);
        let record = world.mesh.0[0].table.read(&stray, |record| record.cloned());
        let holder = &world.mesh.0[1];
        holder.table.with(&stray, |slot| {
            *slot = record;
            let stamp = Stamp { hlc: holder.clock.tick(2, Hlc::ZERO), origin: holder.boot };
            let _ = Record::destroy(slot, true, |_| stamp);
        });
        world.pass(driver, responder);
        assert!(!world.has(0, stray), "driven by n{}", driver + 1);
    }
}

#[test]
fn a_stray_that_changed_after_it_was_offered_stays() {
    let mut world = World::new(3);
    let stray = (0..).map(id).find(|id| world.holders(*id) == [2, 3]).unwrap();
    world.mesh.0[0].create(stray);
    world.pass(0, 1);
    world.mesh.0[0].set(stray, "k", "v").unwrap();
    world.pass(0, 2);
    assert!(world.has(0, stray), "n2 has only what it was before");
    world.pass(0, 1);
    assert!(!world.has(0, stray));
}

#[test]
fn what_a_holder_had_in_another_view_is_not_counted() {
    let mut world = World::new(4);
    let all = world.ready.clone();
    let stray = (0..).map(id).find(|id| world.holders(*id) == [2, 3]).unwrap();
    world.mesh.0[0].create(stray);
    world.pass(0, 1);
    // n2 is gone for a moment and may have lost it.
    let me = world.mesh.0[0].boot;
    let without = view(me, &all).followed_by(seats(&[1, 3, 4]), Vec::new(), true);
    let again = without.followed_by(seats(&all), Vec::new(), true);
    let keeper = world.strays.get_mut(&me).unwrap();
    keeper.enter(&without, |()| true);
    keeper.enter(&again, |()| true);
    let digest = world.mesh.0[0].table.read(&stray, |record| record.unwrap().digest());
    let third = world.mesh.0[2].boot;
    assert_eq!(keeper.confirm(&again, third, &[(stray, digest)]), []);
}

const PATIENCE: Duration = Duration::from_millis(250);
const REST: Duration = Duration::from_secs(5);

/// A write on its way: `Some(true)` it is everywhere, `Some(false)` it is lost.
type Wait = Rc<Cell<Option<bool>>>;

fn due(strays: &mut Strays<Wait>, now: Instant) -> (Vec<SessionId>, Vec<SessionId>) {
    strays.due(now, PATIENCE, REST, |wait| wait.get() == Some(true), |wait| wait.get() == Some(false))
}

fn everywhere(wait: &Wait) -> bool {
    wait.get() == Some(true)
}

#[test]
fn a_visitors_copy_goes_when_it_has_rested_and_is_never_sent() {
    let view = view(BootId::new(1).unwrap(), &[1, 2, 3]);
    let mut strays = Strays::default();
    strays.enter(&view, everywhere);
    let begun = Instant::ZERO;
    strays.visited(id(1), &view, true, begun);
    strays.visited(id(1), &view, false, begun + REST / 2);
    assert_eq!(due(&mut strays, begun + REST), (Vec::new(), Vec::new()), "used since");
    assert_eq!(due(&mut strays, begun + REST * 2), (Vec::new(), Vec::from([id(1)])));
    assert!(!strays.release(&id(1), begun + REST, REST, everywhere), "used since it was chosen");
    assert!(strays.release(&id(1), begun + REST * 2, REST, everywhere));
    assert_eq!(strays.known(), 0);
}

#[test]
fn a_visitors_write_stays_until_every_holder_has_it_and_is_sent_whole_if_it_was_lost() {
    let view = view(BootId::new(1).unwrap(), &[1, 2, 3]);
    let mut strays = Strays::default();
    strays.enter(&view, everywhere);
    let (wait, begun) = (Wait::default(), Instant::ZERO);
    strays.visited(id(1), &view, true, begun);
    strays.written(id(1), &view, wait.clone(), begun, everywhere);
    assert_eq!(due(&mut strays, begun + REST * 2), (Vec::new(), Vec::new()), "not acknowledged");
    assert!(!strays.release(&id(1), begun + REST * 2, REST, everywhere));
    wait.set(Some(false));
    due(&mut strays, begun + REST * 2);
    assert_eq!(due(&mut strays, begun + REST * 3).0, [id(1)], "a holder was dropped");
    let whole = Wait::default();
    strays.sent(id(1), &view, whole.clone());
    assert_eq!(due(&mut strays, begun + REST * 4), (Vec::new(), Vec::new()));
    whole.set(Some(true));
    assert_eq!(due(&mut strays, begun + REST * 4).1, [id(1)]);
}

#[test]
fn what_came_from_a_node_with_another_view_is_sent_on_and_a_change_of_view_leaves_all_to_passes() {
    let before = view(BootId::new(1).unwrap(), &[1, 2]);
    let three = before.followed_by(seats(&[1, 2, 3]), Vec::new(), true);
    let mut strays: Strays<Wait> = Strays::default();
    strays.enter(&three, everywhere);
    let begun = Instant::ZERO;
    strays.arrived(id(1), begun);
    strays.visited(id(2), &before, true, begun);
    assert_eq!(due(&mut strays, begun).0, []);
    assert_eq!(due(&mut strays, begun + PATIENCE).0, [id(1), id(2)], "the second was loaded in another view");
    // The same members again are another view: they may have dropped what they had.
    let again = three.followed_by(seats(&[1, 2]), Vec::new(), true);
    assert_eq!(strays.enter(&again, everywhere), [], "both may have something that nobody else has");
    assert_eq!(strays.known(), 0);
}

#[test]
fn a_visitors_copy_does_not_outlive_the_view_unless_it_has_something_of_its_own() {
    let two = view(BootId::new(1).unwrap(), &[1, 2, 3]);
    let mut strays = Strays::default();
    strays.enter(&two, everywhere);
    let wait = Wait::default();
    for n in 1..=3 {
        strays.visited(id(n), &two, true, Instant::ZERO);
    }
    strays.written(id(2), &two, wait, Instant::ZERO, everywhere);
    // Those who hold it in this view have it, but do they in the next?
    strays.written(id(3), &two, Rc::new(Cell::new(Some(true))), Instant::ZERO, everywhere);
    assert!(strays.is_clean(&id(3), everywhere));
    assert!(strays.is_clean(&id(1), everywhere) && !strays.is_clean(&id(2), everywhere));
    let after = two.followed_by(seats(&[1]), Vec::new(), false);
    assert_eq!(strays.enter(&after, everywhere), [id(1)]);
}

#[test]
fn routine_passes_leave_nothing_behind_for_copies_that_went_by_themselves() {
    let view = view(BootId::new(1).unwrap(), &[1, 2, 3, 4]);
    let mut strays: Strays<Wait> = Strays::default();
    strays.enter(&view, everywhere);
    let visited = (0..).map(id).find(|id| !view.i_hold(id)).unwrap();
    strays.visited(visited, &view, true, Instant::ZERO);
    let [first, second] = view.holders(&visited)[..] else { panic!("two holders") };
    assert_eq!(strays.confirm(&view, first, &[(visited, 7)]), []);
    assert!(strays.release(&visited, Instant::ZERO + REST, REST, everywhere));
    assert_eq!(strays.confirm(&view, second, &[(visited, 7)]), [], "the first word is forgotten");
}
