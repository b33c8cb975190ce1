//! The laws that make replication simple: states merge in any order, any number of times.

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{BootId, Hlc, HybridClock, Instant, SessionId, Stamp};

const ID: SessionId = SessionId::from_bytes([7; 16]);
const NOW: Instant = Instant::from_nanos(1_000_000_000);

fn stamp(hlc: u64, origin: u64) -> Stamp {
    Stamp { hlc: Hlc::from_raw(hlc), origin: BootId::new(origin).unwrap() }
}

/// One boot's deltas of a session, each following on the one before.
fn deltas(boot: u64, writes: &[(u8, Option<u8>)]) -> Vec<Delta> {
    let mut previous = Hlc::ZERO;
    let mut made = Vec::new();
    for (index, (name, value)) in writes.iter().enumerate() {
        let stamp = stamp(10 * (index as u64 + 1) + boot, boot);
        let name = std::format!("k{name}").as_str().into();
        made.push(Delta {
            id: ID,
            previous,
            stamp,
            changes: std::vec![(name, value.map(|value| Bytes::from(std::vec![value])))],
            limits: None,
            create: false,
            ack_later: false,
        });
        previous = stamp.hlc;
    }
    made
}

/// A session whose first delta every node has.
fn created() -> Option<Record> {
    let (record, _) =
        Record::create(ID, stamp(1, 9), NOW, Change::default(), &SessionLimits::default()).unwrap();
    Some(record)
}

fn apply_all<'a>(deltas: impl IntoIterator<Item = &'a Delta>) -> Option<Record> {
    let mut slot = created();
    for delta in deltas {
        let _ = Record::apply(&mut slot, delta, Duration::ZERO, NOW);
    }
    slot
}

fn merge(into: &Option<Record>, from: &Option<Record>) -> Option<Record> {
    let mut slot = into.clone();
    if let Some(update) = from.as_ref().and_then(|record| record.update(ID, None, NOW)) {
        let _ = Record::apply_update(&mut slot, update.difference, NOW);
    }
    slot
}

fn digest(record: &Option<Record>) -> Option<u64> {
    record.as_ref().map(Record::digest)
}

fn writes() -> impl Strategy<Value = Vec<(u8, Option<u8>)>> {
    prop::collection::vec((0u8..4, prop::option::of(any::<u8>())), 0..8)
}

proptest! {
    /// Lost deltas aside, order and repetition do not matter, and nobody is told more than they have.
    #[test]
    fn deltas_commute_and_repeat_without_harm(
        a in writes(), b in writes(), order in prop::collection::vec(any::<prop::sample::Index>(), 0..40)
    ) {
        let all: Vec<Delta> = deltas(1, &a).into_iter().chain(deltas(2, &b)).collect();
        let expected = apply_all(&all);
        let mut shuffled: Vec<&Delta> = if all.is_empty() { Vec::new() } else { order.iter().map(|i| i.get(&all)).collect() };
        shuffled.extend(all.iter().rev());
        let got = apply_all(shuffled);
        prop_assert_eq!(digest(&got), digest(&expected));
        let version = |record: &Option<Record>| match record { Some(Record::Held(state)) => state.version().clone(), _ => Version::new() };
        prop_assert!(version(&expected).covers(&version(&got)), "a gap is never counted as filled");
    }

    #[test]
    fn states_merge_commutatively_associatively_and_idempotently(a in writes(), b in writes(), c in writes()) {
        let [a, b, c] = [(1, a), (2, b), (3, c)].map(|(boot, writes)| apply_all(&deltas(boot, &writes)));
        prop_assert_eq!(digest(&merge(&a, &b)), digest(&merge(&b, &a)));
        prop_assert_eq!(digest(&merge(&merge(&a, &b), &c)), digest(&merge(&a, &merge(&b, &c))));
        prop_assert_eq!(digest(&merge(&a, &a)), digest(&a));
        let once = merge(&a, &b);
        prop_assert_eq!(digest(&merge(&once, &b)), digest(&once));
    }

    /// What a base lacks is enough to make its state whole.
    #[test]
    fn a_difference_brings_what_the_base_lacks(a in writes(), b in writes(), split in any::<prop::sample::Index>()) {
        let all: Vec<Delta> = deltas(1, &a).into_iter().chain(deltas(2, &b)).collect();
        let have = if all.is_empty() { 0 } else { split.index(all.len()) };
        let whole = apply_all(&all);
        let mut part = apply_all(all.get(..have).unwrap_or_default());
        let base = match &part { Some(Record::Held(state)) => state.version().clone(), _ => Version::new() };
        let update = whole.as_ref().and_then(|record| record.update(ID, Some(&base), NOW)).unwrap();
        let applied = Record::apply_update(&mut part, update.difference, NOW);
        prop_assert!(applied.held && applied.want.is_none());
        prop_assert_eq!(part, whole);
    }

    /// A destroyed session stays so, whatever arrives when.
    #[test]
    fn destroyed_wins_over_everything(a in writes(), at in any::<prop::sample::Index>()) {
        let made = deltas(1, &a);
        let mut slot = created();
        let position = if made.is_empty() { 0 } else { at.index(made.len()) };
        let end = End::destroyed(stamp(5, 4));
        for (index, delta) in made.iter().enumerate() {
            if index == position { let _ = Record::apply_end(&mut slot, end); }
            let _ = Record::apply(&mut slot, delta, Duration::ZERO, NOW);
        }
        let _ = Record::apply_end(&mut slot, end);
        let late = merge(&slot, &apply_all(&made));
        prop_assert_eq!(late, Some(Record::Ended(end)));
    }
}

#[test]
fn a_delta_past_a_gap_is_applied_and_the_version_stays() {
    let made = deltas(1, &[(0, Some(1)), (1, Some(2)), (2, Some(3))]);
    let mut slot = created();
    let _ = Record::apply(&mut slot, &made[0], Duration::ZERO, NOW);
    let applied = Record::apply(&mut slot, &made[2], Duration::ZERO, NOW);
    let state = slot.as_ref().and_then(Record::live).unwrap();
    assert_eq!(applied.want, Some(Some(state.version().clone())));
    assert_eq!(state.version().get(made[0].stamp.origin), made[0].stamp.hlc);
    assert!(state.attributes().get("k2").is_some());
}

#[test]
fn an_unknown_session_is_kept_in_part_and_not_served_until_it_is_whole() {
    let made = deltas(1, &[(0, Some(1)), (1, Some(2))]);
    let mut slot = None;
    let applied = Record::apply(&mut slot, &made[1], Duration::ZERO, NOW);
    assert!(!applied.held && applied.want == Some(None));
    assert!(slot.as_ref().and_then(Record::live).is_none());
    assert!(slot.as_ref().and_then(|record| record.update(ID, None, NOW)).is_none(), "nobody's source");
    let whole = apply_all(&made);
    assert_eq!(digest(&merge(&slot, &whole)), digest(&whole));
}

#[test]
fn an_idle_end_yields_to_a_newer_access_and_to_no_older_one() {
    let first = deltas(1, &[(0, Some(1))]);
    let mut slot = apply_all(&first);
    let end = Record::expire(&mut slot).unwrap();
    assert!(slot.as_ref().and_then(Record::live).is_none());
    assert!(Record::apply(&mut slot, &first[0], Duration::ZERO, NOW).held);
    assert!(slot.as_ref().and_then(Record::live).is_none(), "the access that it knew changes nothing");

    let newer = Delta { stamp: stamp(99, 2), previous: Hlc::ZERO, changes: Vec::new(), ..first[0].clone() };
    let mut elsewhere = apply_all(first.iter().chain([&newer]));
    let applied = Record::apply_end(&mut elsewhere, end);
    assert!(applied.outlived && applied.superseded && elsewhere.as_ref().and_then(Record::live).is_some());
    let applied = Record::apply(&mut slot, &newer, Duration::ZERO, NOW);
    assert!(applied.created, "it lives again, with all it had");
    assert_eq!(digest(&slot), digest(&elsewhere));
}

#[test]
fn an_access_that_was_not_told_disproves_an_idle_end() {
    const IDLE: Duration = Duration::from_secs(1);
    let clock = HybridClock::new();
    let tick = |floor| Stamp { hlc: clock.tick(1, floor), origin: stamp(1, 3).origin };
    let made = deltas(1, &[(0, Some(1))]);
    let mut slot = apply_all(&made);
    let mut elsewhere = slot.clone();
    let end = Record::expire(&mut elsewhere).unwrap();
    assert_eq!(Record::apply_end(&mut slot, end).ended, Some(end));
    assert_eq!(Record::outlive(&mut slot, ID, Duration::ZERO, NOW, tick), None);
    // The access was a while ago: it is told as old as it is, and puts the end off by no more than any other.
    let last = slot.as_ref().and_then(Record::live).map_or(NOW, |state| state.touch().last_access);
    let later = last + IDLE / 2;
    let access = Record::outlive(&mut slot, ID, IDLE, later, tick).unwrap();
    assert!(slot.as_ref().and_then(Record::live).is_some());
    assert!(Record::apply_update(&mut elsewhere, access.difference, later).created);
    assert_eq!(digest(&slot), digest(&elsewhere));
    for record in [&slot, &elsewhere] {
        assert_eq!(
            record.as_ref().and_then(Record::live).map(|state| state.ends_at(IDLE)),
            Some(last + IDLE)
        );
    }

    Record::destroy(&mut slot, false, tick).unwrap();
    assert_eq!(Record::outlive(&mut slot, ID, IDLE, NOW, tick), None, "a logout stands");
}

#[test]
fn who_has_been_told_that_it_expired_is_not_told_of_a_logout() {
    let clock = HybridClock::new();
    let tick = |floor| Stamp { hlc: clock.tick(1, floor), origin: stamp(1, 3).origin };
    let mut first = apply_all(&deltas(1, &[(0, Some(1))]));
    let mut other = first.clone();
    let end = Record::expire(&mut first).unwrap();
    assert_eq!(first.as_mut().and_then(Record::announce), Some(End { announced: true, ..end }));
    // It logs out where the end has come and not that it was announced.
    let _ = Record::apply_end(&mut other, end);
    let logout = Record::destroy(&mut other, false, tick).unwrap();
    assert_eq!(Record::apply_end(&mut first, logout).ended, None);
    assert_eq!(first.as_mut().and_then(Record::announce), None);
}

#[test]
fn a_session_that_was_used_after_an_announced_end_ends_anew() {
    let made = deltas(1, &[(0, Some(1)), (1, Some(2))]);
    let mut slot = apply_all(&made[..1]);
    let first = Record::expire(&mut slot).and_then(|_| slot.as_mut().and_then(Record::announce)).unwrap();
    assert!(Record::apply(&mut slot, &made[1], Duration::ZERO, NOW).created);
    let second = Record::expire(&mut slot).unwrap();
    assert!(second.stamp > first.stamp);
    let end = slot.as_ref().and_then(Record::end).unwrap();
    assert!(!end.is_agreed(), "nobody has been asked about this one");
    assert!(slot.as_mut().and_then(Record::announce).is_some(), "nor told of it");
    for merged in [end.merge(first), first.merge(end)] {
        assert_eq!(merged, end);
    }
}

/// A pass carries it when the frame that said so is lost.
#[test]
fn two_of_whom_one_has_not_heard_of_an_announcement_differ_until_they_have_compared() {
    let mut first = apply_all(&deltas(1, &[(0, Some(1))]));
    let end = Record::expire(&mut first).unwrap();
    let mut other = first.clone();
    let announced = first.as_mut().and_then(Record::announce).unwrap();
    assert_ne!(digest(&first), digest(&other));
    let _ = Record::apply_end(&mut other, announced);
    let _ = Record::apply_end(&mut first, end);
    assert_eq!(digest(&first), digest(&other));
    assert_eq!(other.as_mut().and_then(Record::announce), None);
    // Also if one has only the end by then.
    let mut bare = Some(Record::Ended(end));
    let update = first.as_ref().and_then(|record| record.update(ID, None, NOW)).unwrap();
    let _ = Record::apply_update(&mut bare, update.difference, NOW);
    assert_eq!(digest(&bare), digest(&first));
}

#[test]
fn who_gives_up_part_of_a_session_keeps_its_end() {
    let made = deltas(1, &[(0, Some(1)), (1, Some(2))]);
    let part = || {
        let mut slot = None;
        assert!(Record::apply(&mut slot, &made[1], Duration::ZERO, NOW).want.is_some());
        slot
    };
    let mut unended = part();
    assert!(Record::give_up_part(&mut unended));
    assert_eq!(unended, None);
    let mut whole = apply_all(&made);
    let end = Record::expire(&mut whole).unwrap();
    assert!(!Record::give_up_part(&mut whole));
    let mut ended = part();
    let _ = Record::apply_end(&mut ended, end);
    assert!(Record::give_up_part(&mut ended));
    assert_eq!(ended, Some(Record::Ended(end)));
    assert_eq!(digest(&ended), digest(&whole));
    // Also if part of what disproves it is all that ever came.
    let mut first = apply_all(&made[..1]);
    let end = Record::expire(&mut first).unwrap();
    let mut disproved = Some(Record::Ended(end));
    assert!(Record::apply(&mut disproved, &made[1], Duration::ZERO, NOW).want.is_some());
    assert_eq!(disproved.as_ref().and_then(Record::end), None);
    assert!(Record::give_up_part(&mut disproved));
    assert_eq!(disproved, Some(Record::Ended(end)));
}

#[test]
fn an_access_told_back_and_forth_does_not_grow_younger() {
    let mut a = apply_all(&deltas(1, &[(0, Some(1))]));
    let mut b = created();
    let later = NOW + Duration::from_secs(60);
    b = {
        let update = a.as_ref().and_then(|record| record.update(ID, None, NOW)).unwrap();
        let _ = Record::apply_update(&mut b, update.difference, NOW);
        b
    };
    for _ in 0..10 {
        let update = b.as_ref().and_then(|record| record.update(ID, None, NOW)).unwrap();
        let _ = Record::apply_update(&mut a, update.difference, later);
        let update = a.as_ref().and_then(|record| record.update(ID, None, NOW)).unwrap();
        let _ = Record::apply_update(&mut b, update.difference, later);
    }
    let last = a.as_ref().and_then(Record::live).unwrap().touch().last_access;
    assert!(last <= NOW, "{last:?}");
}

#[test]
fn a_write_after_the_end_is_refused_and_limits_bind_at_their_edge() {
    let limits = SessionLimits { name_bytes: 4, attributes: 2, session_bytes: 10 };
    let clock = HybridClock::new();
    let tick = |floor| Stamp { hlc: clock.tick(1, floor), origin: stamp(1, 1).origin };
    let set = |name: &str, bytes: usize| Change {
        attributes: std::vec![(name.into(), Some(Bytes::from(std::vec![0; bytes])))],
        limits: None,
    };
    let mut slot = created();
    assert!(Record::change(&mut slot, ID, set("aaaa", 6), &limits, NOW, tick).unwrap().is_some());
    let full = slot.clone();
    let refused = [
        (set("aaaa", 7), ChangeError::TooLarge { bytes: 11, limit: 10 }),
        (set("aaaaa", 1), ChangeError::NameTooLong { bytes: 5, limit: 4 }),
    ];
    for (change, expected) in refused {
        assert_eq!(Record::change(&mut slot, ID, change, &limits, NOW, tick), Err(expected));
    }
    assert_eq!(slot, full, "a refused change changes nothing");
    assert!(Record::change(&mut slot, ID, set("aaaa", 1), &limits, NOW, tick).unwrap().is_some());
    assert!(Record::change(&mut slot, ID, set("b", 1), &limits, NOW, tick).unwrap().is_some());
    let error = Record::change(&mut slot, ID, set("c", 1), &limits, NOW, tick);
    assert_eq!(error, Err(ChangeError::TooManyAttributes { count: 3, limit: 2 }));
    assert_eq!(
        Record::change(&mut slot, ID, set("b", 1), &limits, NOW, tick),
        Ok(None),
        "an equal value is no write"
    );

    let twice = Change { attributes: std::vec![("b".into(), None), ("b".into(), None)], limits: None };
    assert!(Record::change(&mut slot, ID, twice, &limits, NOW, tick).unwrap().is_some());

    Record::destroy(&mut slot, false, tick).unwrap();
    assert_eq!(Record::change(&mut slot, ID, set("b", 2), &limits, NOW, tick), Err(ChangeError::Ended));
    assert_eq!(Record::change(&mut None, ID, set("b", 2), &limits, NOW, tick), Err(ChangeError::Unknown));
}

#[test]
fn boots_gone_for_the_horizon_and_old_removal_marks_are_forgotten() {
    let ms = |ms: u64, origin| stamp(ms << 16, origin);
    let mut slot = created();
    for (boot, at) in [(1, 1_000), (2, 1_000), (3, 9_000)] {
        let delta = Delta {
            id: ID,
            previous: Hlc::ZERO,
            stamp: ms(at, boot),
            changes: std::vec![(std::format!("k{boot}").as_str().into(), None)],
            limits: None,
            create: false,
            ack_later: false,
        };
        let _ = Record::apply(&mut slot, &delta, Duration::ZERO, NOW);
    }
    // Boot 2 is still a member; boot 3 wrote a moment ago.
    let member = BootId::new(2).unwrap();
    let Some(Record::Held(state)) = &mut slot else { unreachable!() };
    assert!(state.has_outworn(5_000, 10, |boot| boot == member));
    state.forget(5_000, 10, |boot| boot == member);
    assert!(!state.has_outworn(5_000, 10, |boot| boot == member));
    let boots: Vec<u64> = state.version().entries().map(|(boot, _)| boot.get()).collect();
    assert_eq!(boots, [2, 3]);
    assert_eq!(state.attributes().removals(), 1);
}

#[test]
fn the_first_access_after_an_old_state_came_is_told_at_once() {
    use crate::session::{Change, Record, SessionLimits};
    use crate::{BootId, Hlc, Instant, SessionId, Stamp};
    let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
    let (id, limits) = (SessionId::from_bytes([1; 16]), SessionLimits::default());
    let stamp = Stamp { hlc: Hlc::from_raw(1 << 20), origin: BootId::new(1).unwrap() };
    let (record, _) = Record::create(id, stamp, at(0), Change::default(), &limits).unwrap();
    // Idle for 20 minutes, then handed to a new holder, and used there.
    let update = record.update(id, None, at(1_200)).unwrap();
    let mut there = None;
    let _ = Record::apply_update(&mut there, update.difference, at(1_200));
    let Some(Record::Held(state)) = &mut there else { panic!("it is there") };
    assert!(state.access(at(1_201), Duration::from_secs(60)), "no other node knows of a newer access");
}

#[test]
fn an_outlived_end_that_was_announced_says_nothing_of_a_logout_in_either_order() {
    let made = deltas(1, &[(0, Some(1)), (1, Some(2))]);
    let mut lives = apply_all(&made[..1]);
    let _ = Record::expire(&mut lives);
    let _ = lives.as_mut().and_then(Record::announce).unwrap();
    assert!(Record::apply(&mut lives, &made[1], Duration::ZERO, NOW).created);
    let logout = End::destroyed(stamp(99, 2));
    let ended = Some(Record::Ended(logout));
    assert_eq!(merge(&lives, &ended), ended);
    assert_eq!(merge(&ended, &lives), ended);
}

/// It slept through what disproved the end by idleness, and through the logout.
#[test]
fn an_announced_end_that_only_a_sleeper_still_knows_says_nothing_of_a_logout() {
    let clock = HybridClock::new();
    let tick = |floor| Stamp { hlc: clock.tick(1, floor), origin: stamp(1, 3).origin };
    let made = deltas(1, &[(0, Some(1)), (1, Some(2))]);
    let mut lives = apply_all(&made[..1]);
    let _ = Record::expire(&mut lives);
    let _ = lives.as_mut().and_then(Record::announce).unwrap();
    let sleeps = lives.clone();
    assert!(Record::apply(&mut lives, &made[1], Duration::ZERO, NOW).created);
    let logout = Record::destroy(&mut lives, false, tick).unwrap();
    assert_eq!(merge(&sleeps, &lives), Some(Record::Ended(logout)));
    assert_eq!(merge(&lives, &sleeps), Some(Record::Ended(logout)));
}

/// A node that stood still finds it in its socket when the session has long been over elsewhere.
#[test]
fn what_has_lain_in_a_socket_is_no_access_of_this_moment() {
    let made = deltas(1, &[(0, Some(1)), (1, Some(2))]);
    let (idle, later) = (Duration::from_secs(1_800), NOW + Duration::from_secs(7_200));
    for age in [Duration::ZERO, Duration::from_secs(7_000)] {
        let mut made_late = None;
        let create = Delta { create: true, ..made[0].clone() };
        let _ = Record::apply(&mut made_late, &create, age, later);
        let mut written_late = apply_all(&made[..1]);
        let _ = Record::apply(&mut written_late, &made[1], age, later);
        for mut slot in [made_late, written_late] {
            let _ = Record::expire(&mut slot).unwrap();
            let is_used = slot.as_ref().is_some_and(|record| record.is_disproved(idle, later));
            assert_eq!(is_used, age.is_zero());
            let Some(Record::Held(state)) = &mut slot else { panic!("it is there") };
            assert_eq!(state.access(later, Duration::from_secs(60)), !age.is_zero(), "the next one is told");
        }
    }
}
