//! Whole clusters of membership in one thread, on virtual time.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::{format, vec};

use super::*;
use crate::placement::Mode;
use crate::wire::{Heartbeat, Hello, Refusal, RefusalReason};
use crate::{BootId, DropCause, Event, Instant, NodeName};

const MS: Duration = Duration::from_millis(1);

/// A process: a node, and what its driver would keep.
struct Process {
    node: Node,
    running: bool,
    stopped: Option<Fatal>,
    counter: u64,
    next_beat: Instant,
    events: Vec<Event>,
}

/// A connection between two processes.
struct Connection {
    dialer: usize,
    acceptor: usize,
    address: SocketAddr,
    /// What each side said of the other; both must admit.
    verdicts: [Option<Option<Refusal>>; 2],
    up: bool,
}

/// Some processes, and the network between them.
struct World {
    now: Instant,
    processes: Vec<Process>,
    connections: BTreeMap<LinkId, Connection>,
    next_link: LinkId,
    multicast: bool,
    /// Pairs that can't reach each other at all.
    cut: BTreeSet<(usize, usize)>,
    /// Datagrams from the first do not arrive at the second.
    deaf: BTreeSet<(usize, usize)>,
    /// Ends of connections that a process has yet to hear of, and from whom.
    closed: Vec<(usize, usize, LinkId)>,
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

impl World {
    fn new() -> Self {
        Self {
            now: Instant::from_nanos(1_000_000_000),
            processes: Vec::new(),
            connections: BTreeMap::new(),
            next_link: 0,
            multicast: true,
            cut: BTreeSet::new(),
            deaf: BTreeSet::new(),
            closed: Vec::new(),
        }
    }

    /// Starts a process; its number gives its boot and, unless another has it, its port.
    fn start(&mut self, name: &str, port: u16, boot: u64) -> usize {
        self.start_with(name, port, boot, MembershipConfig::default(), Mode::AllPeers)
    }

    fn start_with(
        &mut self,
        name: &str,
        port: u16,
        boot: u64,
        config: MembershipConfig,
        mode: Mode,
    ) -> usize {
        let boot = BootId::new(boot).unwrap();
        let me = Identity { boot, name: NodeName::new(name).unwrap(), address: address(port), mode };
        self.processes.push(Process {
            node: Node::new(me, config, self.now),
            running: true,
            stopped: None,
            counter: 0,
            next_beat: self.now,
            events: Vec::new(),
        });
        self.processes.len() - 1
    }

    fn cluster(count: u16) -> Self {
        let mut world = Self::new();
        for n in 1..=count {
            world.start(&format!("n{n}"), 4_000 + n, 10 * u64::from(n));
        }
        world.run(Duration::from_secs(4));
        for index in 0..usize::from(count) {
            assert_eq!(world.state(index), MemberState::Ready);
            assert_eq!(world.members(index).len(), usize::from(count) - 1);
        }
        world
    }

    fn state(&self, index: usize) -> MemberState {
        self.processes[index].node.state()
    }

    fn members(&self, index: usize) -> Vec<String> {
        self.processes[index].node.members().map(|member| member.name.to_string()).collect()
    }

    fn dropped(&self, index: usize) -> Vec<DropCause> {
        let cause = |event: &Event| match event {
            Event::MemberDropped { cause, .. } => Some(*cause),
            _ => None,
        };
        self.processes[index].events.iter().filter_map(cause).collect()
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a, b)) || self.cut.contains(&(b, a))
    }

    fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((a, b));
    }

    /// The process dies; the kernel closes its sockets.
    fn kill(&mut self, index: usize) {
        self.processes[index].running = false;
        self.processes[index].stopped =
            Some(Fatal { reason: RefusalReason::Leaving, detail: "killed".into() });
        let links: Vec<LinkId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.dialer == index || connection.acceptor == index)
            .map(|(link, _)| *link)
            .collect();
        for link in links {
            self.close(link);
        }
    }

    fn close(&mut self, link: LinkId) {
        let Some(connection) = self.connections.remove(&link) else { return };
        let (dialer, acceptor) = (connection.dialer, connection.acceptor);
        self.closed.extend([(dialer, acceptor, link), (acceptor, dialer, link)]);
        self.tell_closed();
    }

    /// The end of a connection does not cross a cut, and a stopped process hears of it when it wakes.
    fn tell_closed(&mut self) {
        for (side, other, link) in core::mem::take(&mut self.closed) {
            let dead = !self.processes[side].running && self.processes[side].stopped.is_some();
            if dead {
                continue;
            }
            if !self.processes[side].running || self.is_cut(side, other) {
                self.closed.push((side, other, link));
            } else {
                self.processes[side].node.handle_link_closed(link, None, None, self.now);
            }
        }
    }

    /// Who listens at an address: a stopped process still does, a dead one does not.
    fn listener(&self, at: SocketAddr) -> Option<usize> {
        let alive = |process: &Process| process.stopped.is_none() && process.node.me().address == at;
        self.processes.iter().rposition(alive)
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += MS * 5;
            self.step();
        }
    }

    fn run_until(&mut self, what: &str, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let begun = self.now;
        while !done(self) {
            assert!(self.now - begun < limit, "{what}: not within {limit:?}");
            self.run(MS * 5);
        }
        self.now - begun
    }

    fn step(&mut self) {
        // Time first, as the driver does: whoever wakes must know it before anything else.
        for process in self.processes.iter_mut().filter(|process| process.running) {
            if self.now >= process.node.poll_timeout() {
                process.node.handle_timeout(self.now);
            }
        }
        self.tell_closed();
        for index in 0..self.processes.len() {
            let process = &mut self.processes[index];
            if !process.running {
                continue;
            }
            if self.now >= process.next_beat {
                process.next_beat = self.now + MembershipConfig::default().frequency;
                self.beat(index);
            }
            self.follow(index);
        }
    }

    fn beat(&mut self, from: usize) {
        let process = &mut self.processes[from];
        process.counter += 1;
        let beacon = process.node.beacon();
        let heartbeat = Heartbeat {
            boot: process.node.me().boot,
            counter: process.counter,
            state: beacon.state,
            view: beacon.view,
            heard: beacon.heard,
            address: process.node.me().address,
        };
        for to in 0..self.processes.len() {
            let targeted = self.multicast || beacon.targets.contains(&self.processes[to].node.me().address);
            let reached =
                to != from && targeted && !self.is_cut(from, to) && !self.deaf.contains(&(from, to));
            if reached && self.processes[to].running {
                self.processes[to].node.handle_heartbeat(&heartbeat, self.now);
                self.follow(to);
            }
        }
    }

    fn follow(&mut self, index: usize) {
        while self.processes[index].running {
            let Some(action) = self.processes[index].node.poll_action() else { break };
            self.act(index, action);
        }
        while let Some(event) = self.processes[index].node.poll_event() {
            self.processes[index].events.push(event);
        }
    }

    fn act(&mut self, index: usize, action: Action) {
        match action {
            Action::Dial { address, hello } => self.dial(index, address, hello),
            Action::Admit { link } => self.verdict(index, link, None),
            Action::Refuse { link, refusal } => self.verdict(index, link, Some(refusal)),
            Action::Close { link } => self.close(link),
            Action::Ping { boot } => {
                let linked = self.linked(index, boot);
                if let Some(peer) =
                    linked.filter(|peer| self.processes[*peer].running && !self.is_cut(index, *peer))
                {
                    let _ = peer;
                    self.processes[index].node.handle_pong(boot, self.now);
                }
            }
            Action::StartPass { boot } => match self.linked(index, boot) {
                Some(peer) if self.processes[peer].running && !self.is_cut(index, peer) => {
                    let me = self.processes[index].node.me().boot;
                    self.processes[index].node.handle_pass_done(boot, PassRole::Driver, self.now);
                    self.processes[peer].node.handle_pass_done(me, PassRole::Responder, self.now);
                    self.follow(peer);
                }
                // The pass waits for its answers.
                Some(_) => {}
                None => self.processes[index].node.handle_pass_failed(boot, self.now),
            },
            Action::Tell(contacts) => {
                let boots: Vec<BootId> =
                    self.processes[index].node.members().map(|member| member.boot).collect();
                for boot in boots {
                    if let Some(peer) = self.linked(index, boot).filter(|peer| self.processes[*peer].running)
                    {
                        self.processes[peer].node.handle_told(&contacts, self.now);
                        self.follow(peer);
                    }
                }
            }
            Action::Beat => self.processes[index].next_beat = self.now,
            Action::Stop(fatal) => {
                self.kill(index);
                self.processes[index].stopped = Some(fatal);
            }
            Action::Open { .. } | Action::Remove { .. } | Action::Publish(_) | Action::Empty => {}
        }
    }

    fn linked(&self, index: usize, boot: BootId) -> Option<usize> {
        self.connections.values().filter(|connection| connection.up).find_map(|connection| {
            let other = match connection {
                c if c.dialer == index => c.acceptor,
                c if c.acceptor == index => c.dialer,
                _ => return None,
            };
            (self.processes[other].node.me().boot == boot).then_some(other)
        })
    }

    fn dial(&mut self, dialer: usize, address: SocketAddr, hello: Hello) {
        let Some(acceptor) = self.listener(address) else {
            self.processes[dialer].node.handle_dial_failed(address, DialFailure::Refused, self.now);
            return;
        };
        // The kernel connects, but a stopped process says nothing.
        if self.is_cut(dialer, acceptor) || !self.processes[acceptor].running {
            self.processes[dialer].node.handle_dial_failed(address, DialFailure::Silent, self.now);
            return;
        }
        self.next_link += 1;
        let link = self.next_link;
        let dial = hello.dial;
        let verdicts = [None, None];
        self.connections.insert(link, Connection { dialer, acceptor, address, verdicts, up: false });
        let answer = self.processes[acceptor].node.hello();
        self.processes[acceptor].node.handle_hello(link, hello, None, self.now);
        self.processes[dialer].node.handle_hello(link, answer, Some((address, dial)), self.now);
        self.follow(acceptor);
    }

    fn verdict(&mut self, index: usize, link: LinkId, refusal: Option<Refusal>) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        // A node that reaches itself is on both sides.
        let side = usize::from(index != connection.dialer || connection.verdicts[0].is_some());
        connection.verdicts[side] = Some(refusal);
        let [Some(by_dialer), Some(by_acceptor)] = connection.verdicts.clone() else { return };
        let (dialer, acceptor, address) = (connection.dialer, connection.acceptor, connection.address);
        if by_dialer.is_none() && by_acceptor.is_none() {
            connection.up = true;
            for side in [dialer, acceptor] {
                self.processes[side].node.handle_link_up(link, self.now);
            }
        } else {
            self.connections.remove(&link);
            self.processes[dialer].node.handle_link_closed(link, Some(address), by_acceptor, self.now);
            self.processes[acceptor].node.handle_link_closed(link, None, by_dialer, self.now);
        }
        let other = if index == dialer { acceptor } else { dialer };
        self.follow(other);
    }
}

#[test]
fn nodes_that_start_together_form_one_view_and_are_ready_soon_after_the_join_wait() {
    for count in [2, 3, 8] {
        let mut world = World::new();
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

#[test]
fn a_joiner_is_ready_at_once_when_it_has_compared_with_all() {
    let mut world = World::cluster(3);
    let joiner = world.start("n4", 4_004, 99);
    let took = world.run_until("the joiner is ready", Duration::from_secs(2), |world| {
        world.state(joiner) == MemberState::Ready
    });
    assert!(took < Duration::from_millis(700), "{took:?}: no timer holds a joiner up");
    assert_eq!(world.members(joiner).len(), 3);
}

#[test]
fn one_seed_is_enough_to_find_all() {
    let mut world = World::new();
    world.multicast = false;
    for n in 1..=4 {
        let index = world.start(&format!("n{n}"), 4_000 + n, 10 * u64::from(n));
        let seed = if n == 1 { address(1) } else { address(4_001) };
        let now = world.now;
        world.processes[index].node.handle_seeds(&[seed], now);
    }
    world.run(Duration::from_secs(4));
    for index in 0..4 {
        assert_eq!((world.members(index).len(), world.state(index)), (3, MemberState::Ready));
    }
}

#[test]
fn a_silent_seed_blocks_founding_and_a_refused_one_does_not() {
    let mut world = World::new();
    let stopped = world.start("n1", 4_001, 10);
    world.processes[stopped].running = false;
    let index = world.start("n2", 4_002, 20);
    let now = world.now;
    world.processes[index].node.handle_seeds(&[address(4_001)], now);
    world.run(Duration::from_secs(10));
    assert_eq!(world.state(index), MemberState::Joining);
    let reason = world.processes[index].node.unready_reason(world.now).unwrap();
    assert!(reason.contains("127.0.0.1:4001") && reason.contains("found = true"), "{reason}");
    world.kill(stopped);
    world.run_until("founded", Duration::from_secs(3), |world| world.state(index) == MemberState::Ready);
}

#[test]
fn a_killed_process_is_dropped_within_tens_of_milliseconds() {
    let mut world = World::cluster(3);
    world.kill(1);
    let gone = |world: &World| world.members(0) == ["n3"] && world.members(2) == ["n1"];
    let took = world.run_until("dropped", Duration::from_secs(1), gone);
    assert!(took <= Duration::from_millis(50), "{took:?}");
    assert_eq!(world.dropped(0), [DropCause::Refused]);
}

#[test]
fn a_stopped_process_is_dropped_after_drop_time_though_its_kernel_accepts() {
    let mut world = World::cluster(3);
    world.processes[1].running = false;
    world.run(Duration::from_millis(2_400));
    assert_eq!(world.members(0).len(), 2, "not before drop_time");
    world.run(Duration::from_millis(1_200));
    assert_eq!(world.members(0), ["n3"]);
    assert_eq!(world.dropped(0), [DropCause::Silent]);
}

#[test]
fn a_process_that_wakes_doubts_itself_drops_nobody_and_comes_back() {
    let mut world = World::cluster(3);
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

#[test]
fn a_node_whose_heartbeats_are_lost_stays_a_member_while_its_process_answers() {
    let mut world = World::cluster(3);
    world.deaf.extend([(1, 0), (1, 2)]);
    world.run(Duration::from_secs(20));
    assert_eq!(world.members(0).len(), 2);
    assert!(world.dropped(0).is_empty() && world.dropped(1).is_empty());
}

#[test]
fn a_cut_drops_both_ways_and_a_heal_brings_everybody_back() {
    let mut world = World::cluster(4);
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

#[test]
fn a_restart_under_the_same_name_replaces_the_old_boot() {
    let mut world = World::cluster(3);
    world.kill(1);
    let again = world.start("n2", 4_002, 77);
    world.run(Duration::from_secs(2));
    assert_eq!(world.processes[again].node.unready_reason(world.now), None);
    assert_eq!(world.members(0), ["n3", "n2"]);
    assert_eq!(world.members(again).len(), 2);
}

#[test]
fn a_restart_whose_old_process_only_stands_still_replaces_it_after_a_ping() {
    let mut world = World::cluster(3);
    world.processes[1].running = false;
    let again = world.start("n2", 4_102, 77);
    let joined = |world: &World| world.state(again) == MemberState::Ready;
    let took = world.run_until("joined", Duration::from_secs(3), joined);
    assert!(took >= Duration::from_millis(500), "{took:?}: the old one is asked first");
    assert!(world.dropped(0).contains(&DropCause::Replaced));
}

#[test]
fn a_name_of_a_live_member_is_refused_and_the_error_names_both() {
    let mut world = World::cluster(2);
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

#[test]
fn of_two_that_start_at_once_under_one_name_the_lower_boot_stays() {
    let mut world = World::new();
    world.start("n1", 4_001, 10);
    world.start("n1", 4_002, 20);
    world.run(Duration::from_secs(4));
    assert!(world.processes[0].stopped.is_none());
    assert_eq!(world.processes[1].stopped.as_ref().map(|fatal| fatal.reason), Some(RefusalReason::NameTaken));
}

#[test]
fn twins_that_meet_when_a_cut_heals_compare_and_the_greater_boot_leaves() {
    let mut world = World::new();
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
    let mut world = World::cluster(2);
    let mode = Mode::BackupOnly { copies: 2 };
    let odd = world.start_with("n3", 4_003, 30, MembershipConfig::default(), mode);
    world.run(Duration::from_secs(3));
    let fatal = world.processes[odd].stopped.clone().expect("it stops");
    assert_eq!(fatal.reason, RefusalReason::Mode);
    assert!(fatal.detail.contains("all-peers") && fatal.detail.contains("copies = 2"), "{}", fatal.detail);
}

#[test]
fn the_limit_of_members_holds_at_its_edge() {
    let mut world = World::new();
    let config = MembershipConfig { max_members: 3, ..MembershipConfig::default() };
    for n in 1..=4 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, Mode::AllPeers);
        world.run(Duration::from_secs(3));
    }
    assert_eq!(world.members(0).len(), 2);
    let fatal = world.processes[3].stopped.clone().expect("the fourth stops");
    assert!(fatal.detail.contains("limit of 3 members (max_members)"), "{}", fatal.detail);
}

#[test]
fn one_that_leaves_is_gone_at_once_and_its_late_heartbeats_change_nothing() {
    let mut world = World::cluster(3);
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

#[test]
fn a_replayed_heartbeat_of_a_dead_boot_admits_nobody() {
    let mut world = World::cluster(2);
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

#[test]
fn a_dropped_member_whose_outbox_overflowed_is_compared_again() {
    let mut world = World::cluster(2);
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

#[test]
fn members_are_compared_in_turn_as_a_matter_of_routine() {
    let mut world = World::cluster(3);
    let before: usize = world.processes.iter().map(|process| process.events.len()).sum();
    world.run(Duration::from_secs(130));
    let after: usize = world.processes.iter().map(|process| process.events.len()).sum();
    assert!(after >= before + 6, "each of three started two passes in two minutes");
    assert!(world.processes.iter().all(|process| process.node.is_settled()));
}

#[test]
fn after_a_cut_longer_than_the_horizon_the_smaller_side_starts_empty() {
    for (horizon, emptied) in [(Duration::from_secs(100), 0), (Duration::from_secs(30), 1)] {
        let config = MembershipConfig { horizon, ..MembershipConfig::default() };
        let mut world = World::new();
        for n in 1..=3 {
            world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, Mode::AllPeers);
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
#[test]
fn no_node_of_the_smaller_side_carries_sessions_across_a_long_cut() {
    let config = MembershipConfig { horizon: Duration::from_secs(30), ..MembershipConfig::default() };
    let mut world = World::new();
    for n in 1..=5 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, Mode::AllPeers);
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

#[test]
fn one_that_slept_past_the_horizon_starts_empty_and_not_the_cluster() {
    let config = MembershipConfig { horizon: Duration::from_secs(30), ..MembershipConfig::default() };
    let mut world = World::new();
    for n in 1..=3 {
        world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, Mode::AllPeers);
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

#[test]
fn survivors_of_a_crash_compare_at_once() {
    let mut world = World::cluster(3);
    let passes = |world: &World| {
        world.processes[0].events.iter().filter(|event| matches!(event, Event::PassDone { .. })).count()
    };
    let before = passes(&world);
    world.kill(1);
    world.run(Duration::from_secs(1));
    assert_eq!(passes(&world), before + 1, "the crashed one may have told only one of them");
}
