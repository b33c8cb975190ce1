//! Whole clusters of membership in one thread, on virtual time.

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

mod forgetting;
mod hellos;
mod world;

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
    a_process_that_wakes_asks_all_members_at_once
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
    a_pass_from_before_a_pause_ends_no_doubt
    one_that_has_said_goodbye_dials_nobody
    one_that_leaves_takes_a_members_new_link
    survivors_of_a_crash_compare_at_once
    survivors_of_one_that_left_compare_if_it_did_not_see_them_all
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

/// What lies in its sockets may be as old as its pause.
fn a_process_that_wakes_asks_all_members_at_once(mode: Mode) {
    let mut world = World::cluster(mode, 3);
    let later = world.now + Duration::from_secs(2);
    let node = &mut world.processes[0].node;
    node.handle_timeout(later);
    assert!(node.is_doubting());
    let asked = core::iter::from_fn(|| node.poll_action());
    let asked = asked.filter(|action| matches!(action, Action::Ping { .. })).count();
    assert_eq!(asked, 2);
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
