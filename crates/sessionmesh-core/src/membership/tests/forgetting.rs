//! Who is missed, who is forgotten, and who starts empty for it.

use core::time::Duration;
use std::{format, vec};

use super::world::World;
use super::*;

in_both_modes! {
    after_a_cut_longer_than_the_horizon_the_smaller_side_starts_empty
    no_node_of_the_smaller_side_carries_sessions_across_a_long_cut
    one_that_slept_past_the_horizon_starts_empty_and_not_the_cluster
    one_that_slept_beside_another_that_is_forgotten_starts_empty_with_it
    one_that_slept_past_the_horizon_while_it_joined_starts_empty
    who_founded_and_whom_it_told_miss_others_for_the_horizon
    who_is_back_under_its_name_is_missed_by_nobody
    whom_a_member_hears_is_missed_until_it_is_linked
    whom_a_member_told_of_is_forgotten_at_the_horizon_as_a_member_is
    who_left_as_another_joined_is_missed_by_nobody
    who_leaves_while_one_is_cut_off_or_sleeps_is_missed_by_nobody
    whom_members_hear_after_it_has_started_empty_stays_forgotten_as_what_it_was
    one_of_a_side_that_has_started_empty_since_starts_empty_too
    one_that_started_empty_for_a_side_that_died_joins_its_old_side
    whom_one_of_two_that_serve_has_forgotten_the_other_forgets_too
    who_started_beside_one_that_was_forgotten_does_not_bring_its_sessions_back
    one_that_slept_and_misses_whom_the_others_have_forgotten_is_not_beyond_a_cut
    two_who_have_forgotten_others_and_share_a_member_come_together
    two_who_have_forgotten_others_and_were_cut_off_for_a_moment_keep_what_they_have
    two_who_share_a_member_that_one_of_them_does_not_hear_come_together
    restarts_within_a_long_cut_do_not_bring_its_sides_together
}

fn horizon_of(secs: u64) -> MembershipConfig {
    MembershipConfig { horizon: Duration::from_secs(secs), ..MembershipConfig::default() }
}

fn after_a_cut_longer_than_the_horizon_the_smaller_side_starts_empty(mode: Mode) {
    for (horizon, emptied) in [(100, 0), (30, 1)] {
        let mut world = World::founded(mode, 3, horizon_of(horizon));
        world.cut(0, 1);
        world.cut(0, 2);
        world.run(Duration::from_secs(50));
        world.cut.clear();
        world.run(Duration::from_secs(8));
        assert_eq!([0, 1, 2].map(|index| world.emptied(index)), [emptied, 0, 0], "horizon {horizon} s");
        for index in 0..3 {
            assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 2));
        }
    }
}

/// Five nodes, three and two of them cut off from each other for longer than the horizon.
fn no_node_of_the_smaller_side_carries_sessions_across_a_long_cut(mode: Mode) {
    let config = horizon_of(30);
    let mut world = World::founded(mode, 5, config);
    for (a, b) in [(0, 3), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4)] {
        world.cut(a, b);
    }
    world.run(Duration::from_secs(40));
    world.cut.clear();
    world.run(Duration::from_secs(12));
    let large: BTreeSet<BootId> = (0..3).map(|index| world.processes[index].node.me().boot).collect();
    for index in 0..5 {
        let events = &world.processes[index].events;
        let emptied = events.iter().position(|event| matches!(event, Event::Emptied { .. }));
        assert_eq!(emptied.is_some(), index >= 3, "n{}", index + 1);
        assert_eq!(
            (world.state(index), world.members(index).len()),
            (MemberState::Ready, 4),
            "n{}",
            index + 1
        );
        if let Some(emptied) = emptied {
            let first = events[emptied..].iter().find_map(|event| match event {
                Event::PassDone { boot, .. } => Some(*boot),
                _ => None,
            });
            assert!(first.is_some_and(|boot| large.contains(&boot)), "it fills itself from the larger side");
        }
    }
}

fn one_that_slept_past_the_horizon_starts_empty_and_not_the_cluster(mode: Mode) {
    let config = horizon_of(30);
    let mut world = World::founded(mode, 3, config);
    world.processes[0].running = false;
    world.run(Duration::from_secs(60));
    world.processes[0].running = true;
    world.run(Duration::from_secs(8));
    for index in 0..3 {
        assert_eq!(world.emptied(index), usize::from(index == 0), "n{}", index + 1);
        assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 2));
    }
}

/// They fell asleep one after the other, and the first is forgotten when the second goes on: whom that one had for a member
/// before it slept says nothing about who was here since.
fn one_that_slept_beside_another_that_is_forgotten_starts_empty_with_it(mode: Mode) {
    let mut world = World::founded(mode, 4, horizon_of(30));
    let (first, second) = (3, 2);
    world.processes[first].running = false;
    world.run(Duration::from_secs(2));
    assert_eq!(world.members(second).len(), 3);
    world.processes[second].running = false;
    let has_forgotten = |world: &World, other: usize| {
        let boot = world.processes[other].node.me().boot;
        [0, 1].iter().all(|index| world.processes[*index].node.hello().forgotten.contains_key(&boot))
    };
    world.run_until("the first is forgotten", Duration::from_secs(40), |world| has_forgotten(world, first));
    assert!(!has_forgotten(&world, second));
    world.processes[second].running = true;
    world.run(Duration::from_millis(500));
    world.processes[first].running = true;
    world.run(Duration::from_secs(15));
    assert_eq!([0, 1, second, first].map(|index| world.emptied(index)), [0, 0, 1, 1]);
    for index in 0..4 {
        assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 3));
    }
}

/// It may have been given sessions before it slept.
fn one_that_slept_past_the_horizon_while_it_joined_starts_empty(mode: Mode) {
    let config = horizon_of(30);
    let mut world = World::founded(mode, 2, config);
    world.passes_hang = true;
    let joiner = world.start_with("n3", 4_003, 30, config, mode);
    let is_known = |world: &World| world.members(0).len() == 2 && world.state(joiner) == MemberState::Joining;
    world.run_until("it is a member before it is ready", Duration::from_secs(8), is_known);
    world.processes[joiner].running = false;
    world.passes_hang = false;
    world.run(Duration::from_secs(60));
    world.processes[joiner].running = true;
    world.run(Duration::from_secs(8));
    for index in 0..3 {
        assert_eq!(world.emptied(index), usize::from(index == joiner), "n{}", index + 1);
        assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 2));
    }
}

fn who_founded_and_whom_it_told_miss_others_for_the_horizon(mode: Mode) {
    let mut world = World::new(mode);
    let horizon = Duration::from_secs(90);
    let config = MembershipConfig { horizon, ..MembershipConfig::default() };
    let founder = world.start_with("n1", 4_001, 10, config, mode);
    world.run(Duration::from_secs(4));
    let joiner = world.start_with("n2", 4_002, 20, config, mode);
    world.run(Duration::from_secs(4));
    assert!(world.processes[founder].node.misses_members(), "it may have founded within a cut");
    assert!(world.processes[joiner].node.misses_members(), "it was told");
    let (boot, now) = (world.processes[founder].node.me().boot, world.now);
    world.processes[joiner].node.handle_leave(boot, now);
    world.kill(founder);
    world.run(horizon - Duration::from_secs(1));
    assert!(world.processes[joiner].node.misses_members(), "what the founder did not know, nobody knows");
    world.run(Duration::from_secs(2));
    assert!(!world.processes[joiner].node.misses_members());
}

fn who_is_back_under_its_name_is_missed_by_nobody(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    world.run(Duration::from_secs(4));
    world.kill(2);
    world.run(Duration::from_secs(4));
    assert!(world.processes[0].node.knows_of_one_alive());
    // It shakes hands with nodes that still miss its former start.
    let again = world.start("n3", 4_003, 300);
    world.run(Duration::from_secs(4));
    for index in [0, 1, again] {
        assert!(!world.processes[index].node.knows_of_one_alive(), "process {index}");
    }
}

/// Two that never met, and a third that has both: what ends on one side is not told on the other.
fn whom_a_member_hears_is_missed_until_it_is_linked(mode: Mode) {
    let mut world = World::cluster(mode, 2);
    let far = world.start("n3", 4_003, 30);
    world.cut(0, far);
    world.run(MembershipConfig::default().drop_time * 4);
    assert_eq!((world.members(0), world.members(far)), (vec!["n2".into()], vec!["n2".into()]));
    for index in [0, 1, far] {
        let node = &world.processes[index].node;
        assert!(node.is_incomplete(), "process {index} may forget what ended");
    }
    world.cut.clear();
    world.run(Duration::from_secs(10));
    for index in [0, 1, far] {
        let node = &world.processes[index].node;
        assert!(!node.is_incomplete(), "process {index} has met all");
    }
}

/// Only one that is gone now was linked with both: whom it told of, and who fell silent, was a member of the same cluster.
fn whom_a_member_told_of_is_forgotten_at_the_horizon_as_a_member_is(mode: Mode) {
    let config = horizon_of(60);
    let mut world = World::founded(mode, 2, config);
    let (awake, between) = (0, 1);
    let sleeper = world.start_with("n3", 4_003, 30, config, mode);
    world.cut(awake, sleeper);
    world.run(Duration::from_secs(4));
    assert_eq!((world.members(awake), world.members(sleeper)), (vec!["n2".into()], vec!["n2".into()]));
    world.processes[sleeper].running = false;
    world.cut.clear();
    world.run(Duration::from_secs(50));
    world.processes[between].running = false;
    world.run(Duration::from_secs(20));
    world.processes[sleeper].running = true;
    world.run(Duration::from_secs(5));
    let emptied = [awake, sleeper].map(|index| world.emptied(index));
    assert_eq!(emptied, [0, 1], "the one that slept past the horizon starts empty");
    assert_eq!(world.members(awake), ["n3"]);
}

/// The joiner hears of it from the others, is refused by it, and is not told when it is gone.
fn who_left_as_another_joined_is_missed_by_nobody(mode: Mode) {
    let mut world = World::cluster(mode, 2);
    let (stays, leaves) = (0, 1);
    let now = world.now;
    world.processes[leaves].node.leave(now);
    world.run(Duration::from_secs(1));
    let joiner = world.start("n3", 4_003, 30);
    world.run(Duration::from_secs(4));
    assert_eq!((world.state(joiner), world.members(joiner)), (MemberState::Ready, vec!["n1".into()]));
    let (boot, now) = (world.processes[leaves].node.me().boot, world.now);
    world.processes[stays].node.handle_leave(boot, now);
    // Its address is gone with it: nobody refuses there.
    world.processes[leaves].running = false;
    world.run(MembershipConfig::default().drop_time * 3);
    for index in [stays, joiner] {
        assert!(!world.processes[index].node.knows_of_one_alive(), "process {index}");
    }
}

/// Cut off from the one that leaves, or standing still meanwhile: it comes back too late to be taken again.
fn who_leaves_while_one_is_cut_off_or_sleeps_is_missed_by_nobody(mode: Mode) {
    for sleeps in [false, true] {
        let mut world = World::cluster(mode, 3);
        let (stays, leaves) = (0, 1);
        world.cut(stays, leaves);
        world.processes[stays].running = !sleeps;
        world.run(Duration::from_secs(8));
        let now = world.now;
        world.processes[leaves].node.leave(now);
        world.cut.clear();
        world.processes[stays].running = true;
        world.run(Duration::from_secs(2));
        let (boot, now) = (world.processes[leaves].node.me().boot, world.now);
        world.processes[2].node.handle_leave(boot, now);
        world.processes[leaves].running = false;
        world.run(MembershipConfig::default().drop_time * 3);
        for index in [stays, 2] {
            assert_eq!(world.members(index).len(), 1);
            assert!(!world.processes[index].node.knows_of_one_alive(), "process {index}, slept: {sleeps}");
        }
    }
}

/// A heartbeat names a boot, not what it is now.
fn whom_members_hear_after_it_has_started_empty_stays_forgotten_as_what_it_was(mode: Mode) {
    let mut world = World::founded(mode, 3, horizon_of(30));
    let (far, between, yields) = (0, 1, 2);
    world.cut(far, yields);
    world.cut(between, yields);
    world.run(Duration::from_secs(40));
    world.cut.remove(&(between, yields));
    world.run(Duration::from_secs(10));
    assert_eq!((world.emptied(yields), world.members(yields)), (1, vec!["n2".into()]));
    let boot = world.processes[yields].node.me().boot;
    for index in [far, between] {
        assert_eq!(world.processes[index].node.hello().forgotten.get(&boot), Some(&0), "process {index}");
    }
}

/// Nobody of the side that it comes to has met it; the one whom it was with has started empty since.
fn one_of_a_side_that_has_started_empty_since_starts_empty_too(mode: Mode) {
    let config = horizon_of(60);
    let mut world = World::founded(mode, 2, config);
    let (stays, yields) = (0, 1);
    world.cut(stays, yields);
    world.run(Duration::from_secs(4));
    let sleeper = world.start_with("n3", 4_003, 30, config, mode);
    world.cut(stays, sleeper);
    world.run(Duration::from_secs(40));
    assert_eq!(world.members(sleeper), ["n2"]);
    world.processes[sleeper].running = false;
    world.run(Duration::from_secs(30));
    world.cut.clear();
    world.run(Duration::from_secs(40));
    let emptied = |world: &World| [stays, yields, sleeper].map(|index| world.emptied(index));
    assert_eq!(emptied(&world), [0, 1, 0]);
    world.processes[sleeper].running = true;
    world.run(Duration::from_secs(5));
    assert_eq!(emptied(&world), [0, 1, 1]);
    assert_eq!(world.members(stays), ["n2", "n3"]);
}

/// It has started empty for a side that is gone before it could join: nobody is left but those with whom it was.
fn one_that_started_empty_for_a_side_that_died_joins_its_old_side(mode: Mode) {
    let config = horizon_of(60);
    let mut world = World::founded(mode, 4, config);
    let (one_side, yields, stays) = ([0, 1], 2, 3);
    for index in one_side {
        world.cut(index, yields);
        world.cut(index, stays);
    }
    world.run(Duration::from_secs(70));
    world.cut.remove(&(0, yields));
    let is_emptied = |world: &World| world.state(yields) == MemberState::Joining;
    world.run_until("the smaller side yields", Duration::from_secs(25), is_emptied);
    for index in one_side {
        world.kill(index);
    }
    world.run(config.drop_time * 10);
    assert_eq!((world.state(yields), world.members(yields)), (MemberState::Ready, vec!["n4".into()]));
}

/// One of them founded while it could reach nobody. The other may be gone when those come back.
fn whom_one_of_two_that_serve_has_forgotten_the_other_forgets_too(mode: Mode) {
    let config = horizon_of(30);
    let mut world = World::founded(mode, 2, config);
    let (sleeper, awake) = (0, 1);
    world.processes[sleeper].running = false;
    world.run(Duration::from_secs(20));
    // Of two sides of one node each the lower boot stays.
    let founder = world.start_with("n3", 4_003, 5, config, mode);
    world.cut(awake, founder);
    world.run(Duration::from_secs(20));
    assert_eq!((world.state(founder), world.members(founder).len()), (MemberState::Ready, 0));
    world.cut.clear();
    world.run(Duration::from_secs(5));
    assert_eq!(world.members(founder), ["n2"]);
    world.kill(awake);
    world.processes[sleeper].running = true;
    world.run(Duration::from_secs(5));
    let emptied = [sleeper, founder].map(|index| world.emptied(index));
    assert_eq!(emptied, [1, 0], "n2 had forgotten what ended, and n3 has what n2 had");
    assert_eq!(world.members(founder), ["n1"]);
}

/// Two sides need not count a cut alike: one that stood still begins to miss the others when it wakes. Who starts
/// beside it is nobody whom the others could have forgotten.
fn who_started_beside_one_that_was_forgotten_does_not_bring_its_sessions_back(mode: Mode) {
    let config = horizon_of(60);
    let mut world = World::founded(mode, 3, config);
    let (sleeper, alone) = (0, 1);
    world.kill(2);
    world.processes[sleeper].running = false;
    world.run(Duration::from_secs(40));
    world.cut(sleeper, alone);
    world.processes[sleeper].running = true;
    let started = world.start_with("n3", 4_003, 103, config, mode);
    world.cut(started, alone);
    world.run(Duration::from_secs(35));
    let ready = |world: &World| [sleeper, alone, started].map(|index| world.state(index));
    assert_eq!(ready(&world), [MemberState::Ready; 3]);
    assert_eq!((world.members(alone).len(), world.members(started)), (0, vec!["n1".into()]));
    // The one that is strange to nobody meets the other side first.
    world.cut.remove(&(started, alone));
    world.run(Duration::from_secs(5));
    let emptied = [sleeper, alone, started].map(|index| world.emptied(index));
    assert_eq!(emptied, [0, 1, 0], "the smaller side, which has forgotten ends, starts empty");
    world.cut.clear();
    world.run(Duration::from_secs(15));
    assert_eq!(ready(&world), [MemberState::Ready; 3]);
    assert!([sleeper, alone, started].iter().all(|index| world.members(*index).len() == 2));
}

/// What it slept does not count towards the horizon, and it was not with the missed one either.
fn one_that_slept_and_misses_whom_the_others_have_forgotten_is_not_beyond_a_cut(mode: Mode) {
    let config = horizon_of(60);
    let mut world = World::founded(mode, 2, config);
    world.kill(1);
    world.run(Duration::from_secs(20));
    let sleeper = world.start_with("n3", 4_003, 30, config, mode);
    world.run(Duration::from_secs(10));
    assert_eq!(world.state(sleeper), MemberState::Ready);
    world.processes[sleeper].running = false;
    world.run(Duration::from_secs(35));
    world.processes[sleeper].running = true;
    world.run(Duration::from_secs(8));
    for index in [0, sleeper] {
        assert_eq!(world.emptied(index), 0, "nobody was cut off for the horizon");
        assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 1));
    }
}

/// Whom the others never meet: a node of this number starts, with this friend alone, and dies.
fn each_loses_one(world: &mut World, config: MembershipConfig, lost: [(u16, usize); 2]) {
    for (n, friend) in lost {
        let lost = usize::from(n) - 1;
        (0..lost).filter(|index| *index != friend).for_each(|index| world.cut(index, lost));
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, world.mode);
        world.run(Duration::from_secs(4));
        assert!(world.members(friend).contains(&format!("n{n}")));
        world.kill(lost);
    }
}

/// Each lost one that the other never met. Neither side is the smaller: they would wait for each other for ever.
fn two_who_have_forgotten_others_and_share_a_member_come_together(mode: Mode) {
    let config = horizon_of(30);
    let mut world = World::founded(mode, 3, config);
    each_loses_one(&mut world, config, [(4, 0), (5, 1)]);
    world.run(Duration::from_secs(40));
    world.cut(0, 1);
    world.run(Duration::from_secs(8));
    assert_eq!((world.members(0), world.members(1)), (vec!["n3".into()], vec!["n3".into()]));
    world.cut.remove(&(0, 1));
    world.run(Duration::from_secs(8));
    for index in 0..3 {
        assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 2));
        assert_eq!(world.emptied(index), 0);
    }
}

/// As above, and nobody is left whom they share.
fn two_who_have_forgotten_others_and_were_cut_off_for_a_moment_keep_what_they_have(mode: Mode) {
    let config = horizon_of(30);
    let mut world = World::founded(mode, 2, config);
    each_loses_one(&mut world, config, [(3, 0), (4, 1)]);
    world.run(Duration::from_secs(40));
    world.cut(0, 1);
    world.run(Duration::from_secs(8));
    assert!((0..2).all(|index| world.members(index).is_empty()));
    world.cut.remove(&(0, 1));
    world.run(Duration::from_secs(8));
    for index in 0..2 {
        assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 1));
        assert_eq!(world.emptied(index), 0, "n{} was cut off for 8 s, not for the horizon", index + 1);
    }
}

/// One does not hear that the third still has the other, and forgets it; neither side is the smaller.
fn two_who_share_a_member_that_one_of_them_does_not_hear_come_together(mode: Mode) {
    let config = horizon_of(30);
    for (shared, one, two) in [(0, 1, 2), (2, 0, 1), (2, 1, 0), (1, 0, 2), (1, 2, 0)] {
        let mut world = World::founded(mode, 3, config);
        world.deaf.insert((shared, one));
        world.cut(one, two);
        world.run(Duration::from_secs(50));
        let names = |index: usize| vec![format!("n{}", index + 1)];
        assert_eq!((world.members(one), world.members(two)), (names(shared), names(shared)));
        world.deaf.clear();
        world.cut.clear();
        world.run(Duration::from_secs(10));
        for index in 0..3 {
            assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 2));
            assert_eq!(world.emptied(index), 0, "n{}: what all have had is lost to nobody", index + 1);
        }
    }
}

/// Whoever starts within a cut inherits who is missed; and if nobody is left on either side of those who were cut
/// off, both sides have lost somebody for good, and nobody in common.
fn restarts_within_a_long_cut_do_not_bring_its_sides_together(mode: Mode) {
    for both_sides in [false, true] {
        let config = horizon_of(60);
        let mut world = World::founded(mode, 4, config);
        let cut_off = |world: &mut World, one: &[usize], two: &[usize]| {
            one.iter().for_each(|a| two.iter().for_each(|b| world.cut(*a, *b)));
        };
        // n1, n2 and n3 here, n4 there; and who starts in the place of each.
        cut_off(&mut world, &[0, 1, 2], &[3]);
        world.run(Duration::from_secs(10));
        for n in 1..=3u16 {
            cut_off(&mut world, &[3 + usize::from(n)], &[3]);
            world.kill(usize::from(n) - 1);
            world.start_with(&format!("n{n}"), 4_000 + n, 100 + u64::from(n), config, mode);
            world.run(Duration::from_secs(8));
        }
        let mut beyond = 3;
        if both_sides {
            beyond = 7;
            let joiner = world.start_with("n5", 4_005, 105, config, mode);
            assert_eq!(joiner, beyond);
            cut_off(&mut world, &[4, 5, 6], &[beyond]);
            world.run(Duration::from_secs(8));
        }
        world.run(Duration::from_secs(60));
        if both_sides {
            world.kill(3);
            world.run(Duration::from_secs(1));
        }
        for index in [4, 5, 6, beyond] {
            assert_eq!(world.state(index), MemberState::Ready);
        }
        world.cut.clear();
        world.run(Duration::from_secs(15));
        let emptied = [4, 5, 6, beyond].map(|index| world.emptied(index));
        assert_eq!(emptied, [0, 0, 0, 1], "both sides restarted: {both_sides}");
        assert_eq!(world.members(beyond).len(), 3);
    }
}
