//! Whole clusters of membership in one thread, on virtual time.

mod hellos;
mod world;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;
use std::{format, vec};

use super::*;
use crate::placement::Mode;
use crate::wire::{Heartbeat, RefusalReason};
use crate::{BootId, DropCause, Event, Instant};
use hellos::founder;
use world::{World, address};

/// Every story holds in both modes.
macro_rules! in_both_modes {
    ($($story:ident)*) => {
        mod all_peers {
            $(#[test] fn $story() { super::$story(super::Mode::AllPeers) })*
        }
        mod backup_only {
            $(#[test] fn $story() { super::$story(super::Mode::BackupOnly { copies: 1 }) })*
        }
    };
}

in_both_modes! {
    nodes_that_start_together_form_one_view_and_are_ready_soon_after_the_join_wait
    a_joiner_is_ready_at_once_when_it_has_compared_with_all
    one_seed_is_enough_to_find_all
    a_silent_seed_blocks_founding_and_a_refused_one_does_not
    a_name_that_nobody_resolves_blocks_founding_and_one_that_does_not_exist_does_not
    a_killed_process_is_dropped_within_tens_of_milliseconds
    a_stopped_process_is_dropped_after_drop_time_though_its_kernel_accepts
    a_pause_of_half_a_second_is_doubted_and_a_shorter_one_is_not
    a_process_that_wakes_doubts_itself_drops_nobody_and_comes_back
    a_node_whose_heartbeats_are_lost_stays_a_member_while_its_process_answers
    a_cut_drops_both_ways_and_a_heal_brings_everybody_back
    a_restart_under_the_same_name_replaces_the_old_boot
    a_restart_whose_old_process_only_stands_still_replaces_it_after_a_ping
    a_name_of_a_live_member_is_refused_and_the_error_names_both
    of_two_that_start_at_once_under_one_name_the_lower_boot_stays
    twins_that_meet_when_a_cut_heals_compare_and_the_greater_boot_leaves
    the_limit_of_members_holds_at_its_edge
    one_that_leaves_is_gone_at_once_and_its_late_heartbeats_change_nothing
    a_replayed_heartbeat_of_a_dead_boot_admits_nobody
    a_dropped_member_whose_outbox_overflowed_is_compared_again
    members_are_compared_in_turn_as_a_matter_of_routine
    after_a_cut_longer_than_the_horizon_the_smaller_side_starts_empty
    no_node_of_the_smaller_side_carries_sessions_across_a_long_cut
    restarts_within_a_long_cut_do_not_bring_its_sides_together
    who_started_beside_one_that_was_forgotten_does_not_bring_its_sessions_back
    one_that_slept_and_misses_whom_the_others_have_forgotten_is_not_beyond_a_cut
    two_who_have_forgotten_others_and_share_a_member_come_together
    two_who_have_forgotten_others_and_were_cut_off_for_a_moment_keep_what_they_have
    two_who_share_a_member_that_one_of_them_does_not_hear_come_together
    a_pass_from_before_a_pause_ends_no_doubt
    one_that_slept_past_the_horizon_starts_empty_and_not_the_cluster
    one_that_slept_past_the_horizon_while_it_joined_starts_empty
    one_that_has_said_goodbye_dials_nobody
    one_that_leaves_takes_a_members_new_link
    survivors_of_a_crash_compare_at_once
    survivors_of_one_that_left_compare_if_it_did_not_see_them_all
    who_founded_and_whom_it_told_miss_others_for_the_horizon
    who_is_back_under_its_name_is_missed_by_nobody
    whom_a_member_hears_is_missed_until_it_is_linked
    whom_a_member_told_of_is_forgotten_at_the_horizon_as_a_member_is
    one_of_a_side_that_has_started_empty_since_starts_empty_too
    one_that_started_empty_for_a_side_that_died_joins_its_old_side
}

fn nodes_that_start_together_form_one_view_and_are_ready_soon_after_the_join_wait(mode: Mode) {
    for count in [2, 3, 8] {
        let mut world = World::new(mode);
        for n in 1..=count {
            world.start(&format!("n{n}"), 4_000 + n, u64::from(n) * 7 % 11 + 1);
        }
        let all_ready =
            |world: &World| (0..usize::from(count)).all(|index| world.state(index) == MemberState::Ready);
        let took = world.run_until("all are ready", Duration::from_secs(5), all_ready);
        assert!(took >= Duration::from_secs(2), "nobody founds before listening");
        world.run(Duration::from_secs(1));
        let views: BTreeSet<u64> = world.processes.iter().map(|process| process.node.view().hash()).collect();
        assert_eq!(views.len(), 1);
        assert!(world.processes.iter().all(|process| process.node.is_settled()));
    }
}

fn a_joiner_is_ready_at_once_when_it_has_compared_with_all(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    let joiner = world.start("n4", 4_004, 99);
    let took = world.run_until("the joiner is ready", Duration::from_secs(2), |world| {
        world.state(joiner) == MemberState::Ready
    });
    assert!(took < Duration::from_millis(700), "{took:?}: no timer holds a joiner up");
    assert_eq!(world.members(joiner).len(), 3);
}

fn one_seed_is_enough_to_find_all(mode: Mode) {
    let mut world = World::new(mode);
    world.multicast = false;
    for n in 1..=4 {
        let index = world.start(&format!("n{n}"), 4_000 + n, 10 * u64::from(n));
        let seed = if n == 1 { address(1) } else { address(4_001) };
        let now = world.now;
        world.processes[index].node.handle_seeds(&[seed], &[], now);
    }
    world.run(Duration::from_secs(4));
    for index in 0..4 {
        assert_eq!((world.members(index).len(), world.state(index)), (3, MemberState::Ready));
    }
}

fn a_silent_seed_blocks_founding_and_a_refused_one_does_not(mode: Mode) {
    let mut world = World::new(mode);
    let stopped = world.start("n1", 4_001, 10);
    world.processes[stopped].running = false;
    let index = world.start("n2", 4_002, 20);
    let now = world.now;
    world.processes[index].node.handle_seeds(&[address(4_001)], &[], now);
    world.run(Duration::from_secs(10));
    assert_eq!(world.state(index), MemberState::Joining);
    let reason = world.processes[index].node.unready_reason(world.now).unwrap();
    assert!(reason.contains("127.0.0.1:4001") && reason.contains("found = true"), "{reason}");
    world.kill(stopped);
    world.run_until("founded", Duration::from_secs(3), |world| world.state(index) == MemberState::Ready);
}

fn a_name_that_nobody_resolves_blocks_founding_and_one_that_does_not_exist_does_not(mode: Mode) {
    let mut world = World::new(mode);
    let index = world.start("n1", 4_001, 10);
    let now = world.now;
    world.processes[index].node.handle_seeds(&[], &["nodes.mesh:4000".into()], now);
    world.run(Duration::from_secs(10));
    assert_eq!(world.state(index), MemberState::Joining);
    let reason = world.processes[index].node.unready_reason(world.now).unwrap();
    assert!(reason.contains("nodes.mesh:4000") && reason.contains("found = true"), "{reason}");
    let now = world.now;
    world.processes[index].node.handle_seeds(&[], &[], now);
    world.run_until("founded", Duration::from_secs(1), |world| world.state(index) == MemberState::Ready);
}

fn a_killed_process_is_dropped_within_tens_of_milliseconds(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    world.kill(1);
    let gone = |world: &World| world.members(0) == ["n3"] && world.members(2) == ["n1"];
    let took = world.run_until("dropped", Duration::from_secs(1), gone);
    assert!(took <= Duration::from_millis(50), "{took:?}");
    assert_eq!(world.dropped(0), [DropCause::Refused]);
}

fn a_stopped_process_is_dropped_after_drop_time_though_its_kernel_accepts(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    world.processes[1].running = false;
    world.run(Duration::from_millis(2_400));
    assert_eq!(world.members(0).len(), 2, "not before drop_time");
    world.run(Duration::from_millis(1_200));
    assert_eq!(world.members(0), ["n3"]);
    assert_eq!(world.dropped(0), [DropCause::Silent]);
}

fn a_pause_of_half_a_second_is_doubted_and_a_shorter_one_is_not(mode: Mode) {
    for (late_ms, doubts) in [(499, false), (500, true)] {
        let mut world = World::cluster(mode, 2);
        let now = world.now;
        let node = &mut world.processes[1].node;
        node.handle_timeout(now);
        let due = node.poll_timeout();
        node.handle_timeout(due + Duration::from_millis(late_ms));
        assert_eq!(node.is_doubting(), doubts, "{late_ms} ms late");
    }
}

fn a_process_that_wakes_doubts_itself_drops_nobody_and_comes_back(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    world.processes[1].running = false;
    world.run(Duration::from_secs(10));
    world.processes[1].running = true;
    world.processes[1].node.handle_timeout(world.now);
    assert!(world.processes[1].node.is_doubting());
    assert_eq!(world.members(1).len(), 2, "its own clock stood still, not the others");
    world.run(Duration::from_secs(3));
    assert!(!world.processes[1].node.is_doubting());
    for index in 0..3 {
        assert_eq!(world.members(index).len(), 2);
        assert!(world.processes[index].node.is_settled());
    }
    assert!(world.dropped(1).is_empty());
}

fn a_node_whose_heartbeats_are_lost_stays_a_member_while_its_process_answers(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    world.deaf.extend([(1, 0), (1, 2)]);
    world.run(Duration::from_secs(20));
    assert_eq!(world.members(0).len(), 2);
    assert!(world.dropped(0).is_empty() && world.dropped(1).is_empty());
}

fn a_cut_drops_both_ways_and_a_heal_brings_everybody_back(mode: Mode) {
    let mut world = World::cluster(mode, 4);
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        world.cut(a, b);
    }
    world.run(Duration::from_secs(5));
    assert_eq!((world.members(0), world.members(3)), (vec!["n2".into()], vec!["n3".into()]));
    world.cut.clear();
    let healed = |world: &World| (0..4).all(|index| world.members(index).len() == 3);
    let took = world.run_until("healed", Duration::from_secs(5), healed);
    assert!(took <= Duration::from_millis(1_500), "{took:?}");
    world.run(Duration::from_secs(1));
    assert!(world.processes.iter().all(|process| process.node.is_settled()));
}

fn a_restart_under_the_same_name_replaces_the_old_boot(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    world.kill(1);
    let again = world.start("n2", 4_002, 77);
    world.run(Duration::from_secs(2));
    assert_eq!(world.processes[again].node.unready_reason(world.now), None);
    assert_eq!(world.members(0), ["n3", "n2"]);
    assert_eq!(world.members(again).len(), 2);
}

fn a_restart_whose_old_process_only_stands_still_replaces_it_after_a_ping(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    world.processes[1].running = false;
    let again = world.start("n2", 4_102, 77);
    let joined = |world: &World| world.state(again) == MemberState::Ready;
    let took = world.run_until("joined", Duration::from_secs(3), joined);
    assert!(took >= Duration::from_millis(500), "{took:?}: the old one is asked first");
    assert!(world.dropped(0).contains(&DropCause::Replaced));
}

fn a_name_of_a_live_member_is_refused_and_the_error_names_both(mode: Mode) {
    let mut world = World::cluster(mode, 2);
    let twin = world.start("n2", 4_102, 5);
    world.run(Duration::from_secs(3));
    let fatal = world.processes[twin].stopped.clone().expect("the twin stops");
    assert_eq!(fatal.reason, RefusalReason::NameTaken);
    assert!(
        fatal.detail.contains("127.0.0.1:4102") && fatal.detail.contains("127.0.0.1:4002"),
        "{}",
        fatal.detail
    );
    assert_eq!(world.members(0), ["n2"]);
    assert!(world.processes[1].stopped.is_none());
}

fn of_two_that_start_at_once_under_one_name_the_lower_boot_stays(mode: Mode) {
    let mut world = World::new(mode);
    world.start("n1", 4_001, 10);
    world.start("n1", 4_002, 20);
    world.run(Duration::from_secs(4));
    assert!(world.processes[0].stopped.is_none());
    assert_eq!(world.processes[1].stopped.as_ref().map(|fatal| fatal.reason), Some(RefusalReason::NameTaken));
}

fn twins_that_meet_when_a_cut_heals_compare_and_the_greater_boot_leaves(mode: Mode) {
    let mut world = World::new(mode);
    world.cut(0, 1);
    world.start("n1", 4_001, 10);
    world.start("n1", 4_002, 20);
    world.run(Duration::from_secs(4));
    assert!((0..2).all(|index| world.state(index) == MemberState::Ready));
    world.cut.clear();
    world.run(Duration::from_secs(3));
    assert!(world.processes[0].stopped.is_none());
    assert!(world.processes[0].events.iter().any(|event| matches!(event, Event::PassDone { .. })));
    assert_eq!(world.processes[1].stopped.as_ref().map(|fatal| fatal.reason), Some(RefusalReason::NameTaken));
}

#[test]
fn another_mode_is_refused_and_both_are_named() {
    let mut world = World::cluster(Mode::AllPeers, 2);
    let mode = Mode::BackupOnly { copies: 2 };
    let odd = world.start_with("n3", 4_003, 30, MembershipConfig::default(), mode);
    world.run(Duration::from_secs(3));
    let fatal = world.processes[odd].stopped.clone().expect("it stops");
    assert_eq!(fatal.reason, RefusalReason::Mode);
    assert!(fatal.detail.contains("all-peers") && fatal.detail.contains("copies = 2"), "{}", fatal.detail);
}

fn the_limit_of_members_holds_at_its_edge(mode: Mode) {
    let mut world = World::new(mode);
    let config = MembershipConfig { max_members: 3, ..MembershipConfig::default() };
    for n in 1..=4 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
        world.run(Duration::from_secs(3));
    }
    assert_eq!(world.members(0).len(), 2);
    let fatal = world.processes[3].stopped.clone().expect("the fourth stops");
    assert!(fatal.detail.contains("limit of 3 members (max_members)"), "{}", fatal.detail);
}

fn one_that_leaves_is_gone_at_once_and_its_late_heartbeats_change_nothing(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    let boot = world.processes[1].node.me().boot;
    for index in [0, 2] {
        let now = world.now;
        world.processes[index].node.handle_leave(boot, now);
        world.follow(index);
    }
    assert_eq!(world.members(0), ["n3"]);
    world.beat(1);
    world.run(Duration::from_secs(1));
    assert_eq!(world.members(0), ["n3"]);
    assert_eq!(world.dropped(0), [DropCause::Left]);
}

fn a_replayed_heartbeat_of_a_dead_boot_admits_nobody(mode: Mode) {
    let mut world = World::cluster(mode, 2);
    world.kill(1);
    world.run(Duration::from_secs(1));
    for counter in 1..20 {
        let heartbeat = Heartbeat {
            boot: world.processes[1].node.me().boot,
            counter,
            state: MemberState::Ready,
            view: 0,
            heard: Vec::new(),
            address: address(4_002),
        };
        let now = world.now;
        world.processes[0].node.handle_heartbeat(&heartbeat, now);
        world.follow(0);
        world.run(Duration::from_millis(500));
    }
    assert!(world.members(0).is_empty());
}

fn a_dropped_member_whose_outbox_overflowed_is_compared_again(mode: Mode) {
    let mut world = World::cluster(mode, 2);
    let passes = |world: &World| {
        world.processes[0].events.iter().filter(|event| matches!(event, Event::PassDone { .. })).count()
    };
    let before = passes(&world);
    let boot = world.processes[1].node.me().boot;
    let now = world.now;
    world.processes[0].node.handle_pass_due(boot, now);
    assert!(!world.processes[0].node.is_settled());
    world.run(Duration::from_secs(1));
    assert_eq!(passes(&world), before + 1);
    assert!(world.processes[0].node.is_settled());
}

fn members_are_compared_in_turn_as_a_matter_of_routine(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    let before: usize = world.processes.iter().map(|process| process.events.len()).sum();
    world.run(Duration::from_secs(130));
    let after: usize = world.processes.iter().map(|process| process.events.len()).sum();
    assert!(after >= before + 6, "each of three started two passes in two minutes");
    assert!(world.processes.iter().all(|process| process.node.is_settled()));
}

fn after_a_cut_longer_than_the_horizon_the_smaller_side_starts_empty(mode: Mode) {
    for (horizon, emptied) in [(Duration::from_secs(100), 0), (Duration::from_secs(30), 1)] {
        let config = MembershipConfig { horizon, ..MembershipConfig::default() };
        let mut world = World::new(mode);
        for n in 1..=3 {
            world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
        }
        world.run(Duration::from_secs(4));
        world.cut(0, 1);
        world.cut(0, 2);
        world.run(Duration::from_secs(50));
        world.cut.clear();
        world.run(Duration::from_secs(8));
        let count = |index: usize| {
            world.processes[index]
                .events
                .iter()
                .filter(|event| matches!(event, Event::Emptied { .. }))
                .count()
        };
        assert_eq!((count(0), count(1), count(2)), (emptied, 0, 0), "horizon {horizon:?}");
        for index in 0..3 {
            assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 2));
        }
    }
}

/// Five nodes, three and two of them cut off from each other for longer than the horizon.
fn no_node_of_the_smaller_side_carries_sessions_across_a_long_cut(mode: Mode) {
    let config = MembershipConfig { horizon: Duration::from_secs(30), ..MembershipConfig::default() };
    let mut world = World::new(mode);
    for n in 1..=5 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
    }
    world.run(Duration::from_secs(4));
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
    let config = MembershipConfig { horizon: Duration::from_secs(30), ..MembershipConfig::default() };
    let mut world = World::new(mode);
    for n in 1..=3 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
    }
    world.run(Duration::from_secs(4));
    world.processes[0].running = false;
    world.run(Duration::from_secs(60));
    world.processes[0].running = true;
    world.run(Duration::from_secs(8));
    for index in 0..3 {
        let emptied =
            world.processes[index].events.iter().any(|event| matches!(event, Event::Emptied { .. }));
        assert_eq!(emptied, index == 0, "n{}", index + 1);
        assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 2));
    }
}

/// It may have been given sessions before it slept.
fn one_that_slept_past_the_horizon_while_it_joined_starts_empty(mode: Mode) {
    let config = MembershipConfig { horizon: Duration::from_secs(30), ..MembershipConfig::default() };
    let mut world = World::new(mode);
    for n in 1..=2 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
    }
    world.run(Duration::from_secs(4));
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
        let emptied = world.processes[index].events.iter();
        let emptied = emptied.filter(|event| matches!(event, Event::Emptied { .. })).count();
        assert_eq!(emptied, usize::from(index == joiner), "n{}", index + 1);
        assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 2));
    }
}

/// It has not told all yet: without a link it would drop the only ones who could take it.
fn one_that_leaves_takes_a_members_new_link(mode: Mode) {
    let mut world = World::cluster(mode, 2);
    let now = world.now;
    world.processes[1].node.leave(now);
    let links: Vec<LinkId> = world.connections.keys().copied().collect();
    links.into_iter().for_each(|link| world.close(link));
    world.run(Duration::from_secs(10));
    let boot = world.processes[0].node.me().boot;
    assert_eq!(world.linked(1, boot), Some(0));
    assert!(world.dropped(1).is_empty() && world.dropped(0).is_empty());
    let stranger = world.start("n3", 4_003, 30);
    world.run(Duration::from_secs(4));
    assert!(!world.members(1).contains(&"n3".into()) && world.members(0).contains(&"n3".into()));
    assert_eq!(world.state(stranger), MemberState::Ready);
}

fn one_that_has_said_goodbye_dials_nobody(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    world.run(Duration::from_secs(4));
    let (boot, now) = (world.processes[2].node.me().boot, world.now);
    world.processes[2].node.leave(now);
    world.processes[2].node.say_goodbye();
    let dialed = world.next_link;
    for index in 0..2 {
        world.processes[index].node.handle_leave(boot, now);
    }
    world.run(Duration::from_secs(1));
    assert_eq!(world.next_link, dialed);
    assert!(world.processes[2].node.poll_timeout() > world.now, "it has nothing to do at once");
}

fn survivors_of_a_crash_compare_at_once(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    let passes = |world: &World| {
        world.processes[0].events.iter().filter(|event| matches!(event, Event::PassDone { .. })).count()
    };
    let before = passes(&world);
    world.kill(1);
    world.run(Duration::from_secs(1));
    assert_eq!(passes(&world), before + 1, "the crashed one may have told only one of them");
}

fn survivors_of_one_that_left_compare_if_it_did_not_see_them_all(mode: Mode) {
    for cut_off in [false, true] {
        let mut world = World::cluster(mode, 3);
        let passes = |world: &World| {
            world.processes[0].events.iter().filter(|event| matches!(event, Event::PassDone { .. })).count()
        };
        if cut_off {
            world.cut(1, 2);
            world.run_until("cut off", Duration::from_secs(10), |world: &World| world.members(1).len() == 1);
        }
        let now = world.now;
        world.processes[1].node.leave(now);
        world.follow(1);
        world.run(Duration::from_secs(1));
        let before = passes(&world);
        let (boot, now) = (world.processes[1].node.me().boot, world.now);
        world.processes[0].node.handle_leave(boot, now);
        world.follow(0);
        world.kill(1);
        world.run(Duration::from_millis(500));
        assert_eq!(
            passes(&world) - before,
            usize::from(cut_off),
            "what it wrote the third may lack: {cut_off}"
        );
    }
}

const BACKUP: Mode = Mode::BackupOnly { copies: 1 };

#[test]
fn after_a_crash_each_two_compare_and_the_redundancy_gap_is_told() {
    let mut world = World::cluster(BACKUP, 4);
    let passes = |world: &World, index: usize| {
        let done = |event: &&Event| matches!(event, Event::PassDone { .. });
        world.processes[index].events.iter().filter(done).count()
    };
    let before: Vec<usize> = (0..4).map(|index| passes(&world, index)).collect();
    world.kill(2);
    world.run(Duration::from_secs(2));
    for index in [0, 1, 3] {
        assert!(passes(&world, index) >= before[index] + 2, "with each of the two others");
        let gap = world.processes[index].events.iter().rev().find_map(|event| match event {
            Event::Rebalanced { gap, .. } => Some(*gap),
            _ => None,
        });
        let gap = gap.unwrap();
        assert!(gap > Duration::ZERO && gap < Duration::from_millis(700), "{gap:?}");
        assert!(world.processes[index].node.view().is_trusted());
    }
}

#[test]
fn who_joins_or_leaves_in_order_opens_no_gap() {
    let mut world = World::cluster(BACKUP, 3);
    let joiner = world.start("n4", 4_004, 99);
    world.run(Duration::from_secs(2));
    assert_eq!(world.state(joiner), MemberState::Ready);
    let now = world.now;
    world.processes[0].node.leave(now);
    world.run(Duration::from_secs(2));
    for index in 1..4 {
        let short = |event: &&Event| matches!(event, Event::Rebalanced { gap, .. } if *gap > Duration::ZERO);
        assert_eq!(world.processes[index].events.iter().find(short), None);
        assert!(world.processes[index].node.is_settled());
        assert_eq!(world.processes[index].node.view().ready(), 3);
    }
}

#[test]
fn a_pass_in_which_two_saw_different_members_settles_nothing_until_patience_ends() {
    let mut world = World::cluster(BACKUP, 3);
    // n1 and n3 lose each other; n2 sees both, and each of them only n2.
    world.cut(0, 2);
    world.run_until("the two have dropped each other", Duration::from_secs(9), |world| {
        world.members(0) == ["n2"] && world.members(2) == ["n2"]
    });
    assert_eq!(world.members(1).len(), 2);
    assert!(!world.processes[0].node.is_settled(), "n2 compares by another view");
    world.run(MembershipConfig::default().drop_time * 2);
    for index in 0..3 {
        assert!(world.processes[index].node.is_settled(), "nobody waits for ever");
    }
}

#[test]
fn a_pass_that_began_in_an_earlier_view_settles_nothing_in_this_one() {
    for (agreed, wait) in [(true, Duration::ZERO), (false, Duration::from_secs(3))] {
        let mut world = World::cluster(BACKUP, 3);
        let (awaiting, driver) = (2, 0);
        let boots: Vec<BootId> = world.processes.iter().map(|process| process.node.me().boot).collect();
        let now = world.now;
        let node = &mut world.processes[awaiting].node;
        let before = node.view().serial();
        node.handle_misbehaved(boots[1], now);
        assert!(!node.is_settled());
        let done = PassDone { role: PassRole::Responder, view: before, agreed };
        node.handle_pass_done(boots[driver], done, now + wait);
        assert!(!node.is_settled() && !node.view().is_trusted());
        if agreed {
            let done = PassDone { view: node.view().serial(), ..done };
            node.handle_pass_done(boots[driver], done, now + wait);
            assert!(node.is_settled() && node.view().is_trusted());
        }
    }
}

#[test]
fn a_routine_pass_in_which_a_member_crashed_is_no_comparison_of_what_it_held() {
    use super::member::PassState;
    let mut world = World::cluster(BACKUP, 3);
    let boots: Vec<BootId> = world.processes.iter().map(|process| process.node.me().boot).collect();
    let now = world.now;
    let node = &mut world.processes[0].node;
    node.members.get_mut(&boots[1]).unwrap().pass = PassState::Round;
    assert!(node.is_settled());
    node.handle_misbehaved(boots[2], now);
    assert!(!node.is_settled() && !node.has_compared_with_all() && !node.view().is_trusted());
}

#[test]
fn when_two_sides_of_a_cut_meet_nobody_answers_from_memory_before_they_have_compared() {
    let (mut node, other) = (founder(10, BACKUP), founder(20, BACKUP));
    let later = Instant::ZERO + Duration::from_secs(4);
    let ids = || (0..50u128).map(|n| crate::SessionId::from_bytes((n << 120 | n).to_be_bytes()));
    assert!(ids().all(|id| node.view().may_serve(&id)));
    let said = Said::from(&node.hello());
    node.handle_hello(1, other.hello(), Some(other.me().address), said, later);
    node.handle_link_up(1, later);
    assert_eq!(node.view().ready(), 2);
    assert!(!ids().any(|id| node.view().may_serve(&id)), "the other side may have written");
    // Not at once: the other side will see the same members in a moment.
    let later = later + MembershipConfig::default().frequency;
    node.handle_timeout(later);
    let done = PassDone { role: PassRole::Driver, view: node.view().serial(), agreed: true };
    node.handle_pass_done(other.me().boot, done, later);
    assert!(ids().all(|id| node.view().may_serve(&id)));
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
    let config = MembershipConfig { horizon: Duration::from_secs(60), ..MembershipConfig::default() };
    let mut world = World::new(mode);
    for n in 1..=2 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
    }
    world.run(Duration::from_secs(4));
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
    let emptied = [awake, sleeper].map(|index| {
        world.processes[index].events.iter().any(|event| matches!(event, Event::Emptied { .. }))
    });
    assert_eq!(emptied, [false, true], "the one that slept past the horizon starts empty");
    assert_eq!(world.members(awake), ["n3"]);
}

/// Nobody of the side that it comes to has met it; the one whom it was with has started empty since.
fn one_of_a_side_that_has_started_empty_since_starts_empty_too(mode: Mode) {
    let config = MembershipConfig { horizon: Duration::from_secs(60), ..MembershipConfig::default() };
    let mut world = World::new(mode);
    for n in 1..=2 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
    }
    world.run(Duration::from_secs(4));
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
    let emptied = |world: &World| {
        [stays, yields, sleeper].map(|index| {
            let is_emptied = |event: &&Event| matches!(event, Event::Emptied { .. });
            world.processes[index].events.iter().filter(is_emptied).count()
        })
    };
    assert_eq!(emptied(&world), [0, 1, 0]);
    world.processes[sleeper].running = true;
    world.run(Duration::from_secs(5));
    assert_eq!(emptied(&world), [0, 1, 1]);
    assert_eq!(world.members(stays), ["n2", "n3"]);
}

/// It has started empty for a side that is gone before it could join: nobody is left but those with whom it was.
fn one_that_started_empty_for_a_side_that_died_joins_its_old_side(mode: Mode) {
    let config = MembershipConfig { horizon: Duration::from_secs(60), ..MembershipConfig::default() };
    let mut world = World::new(mode);
    for n in 1..=4 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
    }
    world.run(Duration::from_secs(4));
    let (one_side, yields, stays) = ([0, 1], 2, 3);
    for index in one_side {
        world.cut(index, yields);
        world.cut(index, stays);
    }
    world.run(Duration::from_secs(70));
    world.cut.remove(&(0, yields));
    let is_emptied = |world: &World| world.state(yields) == MemberState::Joining;
    for _ in 0..5_000 {
        if is_emptied(&world) {
            break;
        }
        world.run(Duration::from_millis(1));
    }
    assert!(is_emptied(&world), "the smaller side yields");
    for index in one_side {
        world.kill(index);
    }
    world.run(config.drop_time * 10);
    assert_eq!((world.state(yields), world.members(yields)), (MemberState::Ready, vec!["n4".into()]));
}

/// Two sides need not count a cut alike: one that stood still begins to miss the others when it wakes. Who starts
/// beside it is nobody whom the others could have forgotten.
fn who_started_beside_one_that_was_forgotten_does_not_bring_its_sessions_back(mode: Mode) {
    let config = MembershipConfig { horizon: Duration::from_secs(60), ..MembershipConfig::default() };
    let mut world = World::new(mode);
    for n in 1..=3 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
    }
    world.run(Duration::from_secs(4));
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
    let emptied = [sleeper, alone, started].map(|index| {
        world.processes[index].events.iter().any(|event| matches!(event, Event::Emptied { .. }))
    });
    assert_eq!(emptied, [false, true, false], "the smaller side, which has forgotten ends, starts empty");
    world.cut.clear();
    world.run(Duration::from_secs(15));
    assert_eq!(ready(&world), [MemberState::Ready; 3]);
    assert!([sleeper, alone, started].iter().all(|index| world.members(*index).len() == 2));
}

/// What it slept does not count towards the horizon, and it was not with the missed one either.
fn one_that_slept_and_misses_whom_the_others_have_forgotten_is_not_beyond_a_cut(mode: Mode) {
    let config = MembershipConfig { horizon: Duration::from_secs(60), ..MembershipConfig::default() };
    let mut world = World::new(mode);
    for n in 1..=2 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
    }
    world.run(Duration::from_secs(4));
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
        let emptied =
            world.processes[index].events.iter().any(|event| matches!(event, Event::Emptied { .. }));
        assert!(!emptied, "nobody was cut off for the horizon");
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
    let config = MembershipConfig { horizon: Duration::from_secs(30), ..MembershipConfig::default() };
    let mut world = World::new(mode);
    for n in 1..=3 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
    }
    world.run(Duration::from_secs(4));
    each_loses_one(&mut world, config, [(4, 0), (5, 1)]);
    world.run(Duration::from_secs(40));
    world.cut(0, 1);
    world.run(Duration::from_secs(8));
    assert_eq!((world.members(0), world.members(1)), (vec!["n3".into()], vec!["n3".into()]));
    world.cut.remove(&(0, 1));
    world.run(Duration::from_secs(8));
    for index in 0..3 {
        assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 2));
        let emptied =
            world.processes[index].events.iter().any(|event| matches!(event, Event::Emptied { .. }));
        assert!(!emptied);
    }
}

/// As above, and nobody is left whom they share.
fn two_who_have_forgotten_others_and_were_cut_off_for_a_moment_keep_what_they_have(mode: Mode) {
    let config = MembershipConfig { horizon: Duration::from_secs(30), ..MembershipConfig::default() };
    let mut world = World::new(mode);
    for n in 1..=2 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
    }
    world.run(Duration::from_secs(4));
    each_loses_one(&mut world, config, [(3, 0), (4, 1)]);
    world.run(Duration::from_secs(40));
    world.cut(0, 1);
    world.run(Duration::from_secs(8));
    assert!((0..2).all(|index| world.members(index).is_empty()));
    world.cut.remove(&(0, 1));
    world.run(Duration::from_secs(8));
    for index in 0..2 {
        assert_eq!((world.state(index), world.members(index).len()), (MemberState::Ready, 1));
        let emptied =
            world.processes[index].events.iter().any(|event| matches!(event, Event::Emptied { .. }));
        assert!(!emptied, "n{} was cut off for 8 s, not for the horizon", index + 1);
    }
}

/// One does not hear that the third still has the other, and forgets it; neither side is the smaller.
fn two_who_share_a_member_that_one_of_them_does_not_hear_come_together(mode: Mode) {
    let config = MembershipConfig { horizon: Duration::from_secs(30), ..MembershipConfig::default() };
    for (shared, one, two) in [(0, 1, 2), (2, 0, 1), (2, 1, 0), (1, 0, 2), (1, 2, 0)] {
        let mut world = World::new(mode);
        for n in 1..=3 {
            world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
        }
        world.run(Duration::from_secs(4));
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
            let emptied =
                world.processes[index].events.iter().any(|event| matches!(event, Event::Emptied { .. }));
            assert!(!emptied, "n{}: what all have had is lost to nobody", index + 1);
        }
    }
}

/// It compared what both held before: what was written while this node stood still is not in it.
fn a_pass_from_before_a_pause_ends_no_doubt(mode: Mode) {
    let mut world = World::cluster(mode, 2);
    world.passes_hang = true;
    let boot = world.processes[1].node.me().boot;
    let now = world.now;
    let node = &mut world.processes[0].node;
    node.handle_pass_due(boot, now);
    let done = PassDone { role: PassRole::Driver, view: node.view().serial(), agreed: true };
    let started = |node: &mut Node| {
        core::iter::from_fn(|| node.poll_action()).any(|action| matches!(action, Action::StartPass { .. }))
    };
    assert!(started(node));
    let woken = now + Duration::from_secs(60);
    node.handle_timeout(woken);
    assert!(node.is_doubting());
    node.handle_pass_done(boot, done, woken);
    assert!(node.is_doubting(), "it was under way before the pause");
    assert!(started(node), "there is another");
    node.handle_pass_done(boot, done, woken);
    assert!(!node.is_doubting());
}

/// Whoever starts within a cut inherits who is missed; and if nobody is left on either side of those who were cut
/// off, both sides have lost somebody for good, and nobody in common.
fn restarts_within_a_long_cut_do_not_bring_its_sides_together(mode: Mode) {
    for both_sides in [false, true] {
        let config = MembershipConfig { horizon: Duration::from_secs(60), ..MembershipConfig::default() };
        let mut world = World::new(mode);
        for n in 1..=4 {
            world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
        }
        world.run(Duration::from_secs(4));
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
        let emptied = |index: usize| {
            world.processes[index].events.iter().any(|event| matches!(event, Event::Emptied { .. }))
        };
        let all = [emptied(4), emptied(5), emptied(6), emptied(beyond)];
        assert_eq!(all, [false, false, false, true], "both sides restarted: {both_sides}");
        assert_eq!(world.members(beyond).len(), 3);
    }
}
