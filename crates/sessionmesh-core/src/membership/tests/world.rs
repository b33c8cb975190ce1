//! Some processes and the network between them, on virtual time.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::format;

use super::super::*;
use crate::placement::Mode;
use crate::wire::{Heartbeat, Hello, PROTOCOL_VERSIONS, Refusal, RefusalReason};
use crate::{BootId, DropCause, Event, Instant, NodeName};

const MS: Duration = Duration::from_millis(1);

/// A process: a node, and what its driver would keep.
pub(super) struct Process {
    pub(super) node: Node,
    pub(super) running: bool,
    pub(super) stopped: Option<Fatal>,
    pub(super) counter: u64,
    pub(super) next_beat: Instant,
    pub(super) events: Vec<Event>,
}

/// A connection between two processes.
pub(super) struct Connection {
    pub(super) dialer: usize,
    pub(super) acceptor: usize,
    pub(super) address: SocketAddr,
    /// What each side said of the other; both must admit.
    pub(super) verdicts: [Option<Option<Refusal>>; 2],
    up: bool,
}

/// Some processes, and the network between them.
pub(super) struct World {
    pub(super) mode: Mode,
    pub(super) now: Instant,
    pub(super) processes: Vec<Process>,
    pub(super) connections: BTreeMap<LinkId, Connection>,
    pub(super) next_link: LinkId,
    pub(super) multicast: bool,
    /// Passes that begin wait for their answers.
    pub(super) passes_hang: bool,
    /// Pairs that can't reach each other at all.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// Datagrams from the first do not arrive at the second.
    pub(super) deaf: BTreeSet<(usize, usize)>,
    /// Ends of connections that a process has yet to hear of, and from whom.
    pub(super) closed: Vec<(usize, usize, LinkId)>,
}

pub(super) fn address(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

impl World {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            mode,
            now: Instant::from_nanos(1_000_000_000),
            processes: Vec::new(),
            connections: BTreeMap::new(),
            next_link: 0,
            multicast: true,
            passes_hang: false,
            cut: BTreeSet::new(),
            deaf: BTreeSet::new(),
            closed: Vec::new(),
        }
    }

    /// Starts a process; its number gives its boot and, unless another has it, its port.
    pub(super) fn start(&mut self, name: &str, port: u16, boot: u64) -> usize {
        self.start_with(name, port, boot, MembershipConfig::default(), self.mode)
    }

    pub(super) fn start_with(
        &mut self,
        name: &str,
        port: u16,
        boot: u64,
        config: MembershipConfig,
        mode: Mode,
    ) -> usize {
        let boot = BootId::new(boot).unwrap();
        let me = Identity {
            boot,
            name: NodeName::new(name).unwrap(),
            address: address(port),
            mode,
            zone: None,
            versions: PROTOCOL_VERSIONS,
        };
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

    pub(super) fn cluster(mode: Mode, count: u16) -> Self {
        let world = Self::founded(mode, count, MembershipConfig::default());
        for index in 0..usize::from(count) {
            assert_eq!(world.state(index), MemberState::Ready);
            assert_eq!(world.members(index).len(), usize::from(count) - 1);
        }
        world
    }

    /// As [`World::cluster`], by this configuration.
    pub(super) fn founded(mode: Mode, count: u16, config: MembershipConfig) -> Self {
        let mut world = Self::new(mode);
        for n in 1..=count {
            world.start_with(&format!("n{n}"), 4_000 + n, 10 * u64::from(n), config, mode);
        }
        world.run(Duration::from_secs(4));
        world
    }

    pub(super) fn state(&self, index: usize) -> MemberState {
        self.processes[index].node.state()
    }

    pub(super) fn members(&self, index: usize) -> Vec<String> {
        self.processes[index].node.members().map(|member| member.name.to_string()).collect()
    }

    pub(super) fn dropped(&self, index: usize) -> Vec<DropCause> {
        let cause = |event: &Event| match event {
            Event::MemberDropped { cause, .. } => Some(*cause),
            _ => None,
        };
        self.processes[index].events.iter().filter_map(cause).collect()
    }

    /// How often it has started empty.
    pub(super) fn emptied(&self, index: usize) -> usize {
        let is_emptied = |event: &&Event| matches!(event, Event::Emptied { .. });
        self.processes[index].events.iter().filter(is_emptied).count()
    }

    pub(super) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a, b)) || self.cut.contains(&(b, a))
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((a, b));
    }

    /// The process dies; the kernel closes its sockets.
    pub(super) fn kill(&mut self, index: usize) {
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

    pub(super) fn close(&mut self, link: LinkId) {
        let Some(connection) = self.connections.remove(&link) else { return };
        let (dialer, acceptor) = (connection.dialer, connection.acceptor);
        self.closed.extend([(dialer, acceptor, link), (acceptor, dialer, link)]);
        self.tell_closed();
    }

    /// The end of a connection does not cross a cut, and a stopped process hears of it when it wakes.
    pub(super) fn tell_closed(&mut self) {
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
    pub(super) fn listener(&self, at: SocketAddr) -> Option<usize> {
        let alive = |process: &Process| process.stopped.is_none() && process.node.me().address == at;
        self.processes.iter().rposition(alive)
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += MS * 5;
            self.step();
        }
    }

    pub(super) fn run_until(
        &mut self,
        what: &str,
        limit: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Duration {
        let begun = self.now;
        while !done(self) {
            assert!(self.now - begun < limit, "{what}: not within {limit:?}");
            self.run(MS * 5);
        }
        self.now - begun
    }

    pub(super) fn step(&mut self) {
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

    pub(super) fn beat(&mut self, from: usize) {
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
        // Said on the links too.
        let standing = self.processes[from].node.standing();
        self.tell(from, None, |node, from, now| node.handle_standing(from, standing, now));
    }

    pub(super) fn follow(&mut self, index: usize) {
        while self.processes[index].running {
            let Some(action) = self.processes[index].node.poll_action() else { break };
            self.act(index, action);
        }
        while let Some(event) = self.processes[index].node.poll_event() {
            self.processes[index].events.push(event);
        }
    }

    pub(super) fn act(&mut self, index: usize, action: Action) {
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
                Some(peer)
                    if self.processes[peer].running && !self.is_cut(index, peer) && !self.passes_hang =>
                {
                    let me = self.processes[index].node.me().boot;
                    let view = |index: usize| self.processes[index].node.view().hash();
                    let agreed = view(index) == view(peer);
                    let done = |index: usize, role| {
                        let view = self.processes[index].node.view().serial();
                        PassDone { role, view, agreed }
                    };
                    let (drove, answered) = (done(index, PassRole::Driver), done(peer, PassRole::Responder));
                    self.processes[index].node.handle_pass_done(boot, drove, self.now);
                    self.processes[peer].node.handle_pass_done(me, answered, self.now);
                    self.follow(peer);
                }
                // The pass waits for its answers.
                Some(_) => {}
                None => self.processes[index].node.handle_pass_failed(boot, self.now),
            },
            Action::Tell { to, contacts } => {
                self.tell(index, to, |node, _, now| node.handle_told(&contacts, now));
            }
            Action::Beat => {
                self.processes[index].next_beat = self.now;
            }
            Action::Stop(fatal) => {
                self.kill(index);
                self.processes[index].stopped = Some(fatal);
            }
            Action::Open { .. } | Action::Remove { .. } | Action::Publish | Action::Empty => {}
        }
    }

    /// Something goes to one or all members over their links.
    fn tell(&mut self, index: usize, to: Option<BootId>, handle: impl Fn(&mut Node, BootId, Instant)) {
        let from = self.processes[index].node.me().boot;
        let boots: Vec<BootId> = self.processes[index].node.members().map(|member| member.boot).collect();
        for boot in boots.into_iter().filter(|boot| to.is_none_or(|to| to == *boot)) {
            let reached = self.linked(index, boot).filter(|peer| self.processes[*peer].running);
            if let Some(peer) = reached.filter(|peer| !self.is_cut(index, *peer)) {
                handle(&mut self.processes[peer].node, from, self.now);
                self.follow(peer);
            }
        }
    }

    pub(super) fn linked(&self, index: usize, boot: BootId) -> Option<usize> {
        self.connections.values().filter(|connection| connection.up).find_map(|connection| {
            let other = match connection {
                c if c.dialer == index => c.acceptor,
                c if c.acceptor == index => c.dialer,
                _ => return None,
            };
            (self.processes[other].node.me().boot == boot).then_some(other)
        })
    }

    pub(super) fn dial(&mut self, dialer: usize, address: SocketAddr, hello: Hello) {
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
        let said = Said::from(&hello);
        let verdicts = [None, None];
        self.connections.insert(link, Connection { dialer, acceptor, address, verdicts, up: false });
        let answer = self.processes[acceptor].node.hello();
        self.processes[acceptor].node.handle_hello(link, hello, None, Said::from(&answer), self.now);
        self.processes[dialer].node.handle_hello(link, answer, Some(address), said, self.now);
        self.follow(acceptor);
    }

    pub(super) fn verdict(&mut self, index: usize, link: LinkId, refusal: Option<Refusal>) {
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
