//! Nodes that start, stop, and are looked into.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;

use sessionmesh::simulation::{Cable, Copy, Host, HostId, Inspection, PROTOCOL_VERSIONS, World};
use sessionmesh::{BootId, Cluster, Event, SessionId};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::Instant;

use crate::history::History;
use crate::invariants::expiry;
use crate::scenario::Scenario;

/// Everything of one run. Single-threaded: borrowed for moments only.
#[derive(Clone)]
pub(crate) struct Run(Rc<Inner>);

struct Inner {
    scenario: Scenario,
    world: Arc<World>,
    hosts: Vec<Arc<Host>>,
    nodes: RefCell<Vec<Option<Node>>>,
    starts: RefCell<usize>,
    history: RefCell<History>,
    counts: RefCell<BTreeMap<&'static str, u64>>,
    log: RefCell<String>,
    /// Says everything at once, between what the nodes log.
    trace: bool,
    begun: Instant,
    /// When a node was lost or a cable, a host or a clock was disturbed, the last time.
    lost_at: Cell<Option<Instant>>,
    disturbed_at: Cell<Instant>,
    drops: RefCell<BTreeMap<(BootId, BootId), usize>>,
    /// Of each host alone: when its node started, ended, stood still or went on.
    stirred_at: Vec<Cell<Instant>>,
    /// How far each host's clock was stepped.
    clocks_ms: Vec<Cell<i64>>,
    /// When a cable was changed.
    cables_at: Cell<Instant>,
    /// Boots that began to leave.
    leaving: RefCell<BTreeSet<BootId>>,
    /// Boots that have been in each other's view since neither started empty.
    met: RefCell<BTreeMap<(BootId, BootId), std::time::Duration>>,
    /// No cable is disturbed any more.
    healed: Cell<bool>,
}

/// A node that runs.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) host: HostId,
    pub(crate) cluster: Cluster,
    pub(crate) boot: BootId,
    pub(crate) paused: bool,
    events: Rc<RefCell<Receiver<Event>>>,
}

impl Node {
    /// Whether it knows that a session is over.
    pub(crate) fn knows_end_of(&self, id: &SessionId) -> bool {
        self.cluster.copy_of(id).is_some_and(|copy| copy.end.is_some())
    }
}

impl Run {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let world = World::new(scenario.seed);
        let hosts: Vec<Arc<Host>> = (0..scenario.nodes).map(|_| world.add_host()).collect();
        let run = Self(Rc::new(Inner {
            scenario: scenario.clone(),
            world,
            nodes: RefCell::new(hosts.iter().map(|_| None).collect()),
            hosts,
            starts: RefCell::new(0),
            history: RefCell::default(),
            counts: RefCell::default(),
            log: RefCell::default(),
            trace: std::env::args().any(|arg| arg == "--trace"),
            begun: Instant::now(),
            lost_at: Cell::default(),
            drops: RefCell::default(),
            disturbed_at: Cell::new(Instant::now()),
            stirred_at: (0..scenario.nodes).map(|_| Cell::new(Instant::now())).collect(),
            clocks_ms: (0..scenario.nodes).map(|_| Cell::default()).collect(),
            cables_at: Cell::new(Instant::now()),
            leaving: RefCell::default(),
            met: RefCell::default(),
            healed: Cell::default(),
        }));
        run.cables(|_, _, cable| *cable = run.cable());
        run
    }

    pub(crate) fn scenario(&self) -> &Scenario {
        &self.0.scenario
    }

    /// As it is without trouble.
    pub(crate) fn cable(&self) -> Cable {
        let scenario = self.scenario();
        Cable {
            jitter: scenario.jitter,
            lost_per_mille: scenario.lost_per_mille,
            doubled_per_mille: scenario.lost_per_mille / 3,
            ..Cable::default()
        }
    }

    pub(crate) fn hosts(&self) -> usize {
        self.0.hosts.len()
    }

    pub(crate) fn host(&self, host: HostId) -> &Arc<Host> {
        &self.0.hosts[host]
    }

    /// Changes every cable, each way.
    pub(crate) fn cables(&self, mut change: impl FnMut(HostId, HostId, &mut Cable)) {
        self.disturbed();
        self.0.cables_at.set(Instant::now());
        for from in 0..self.hosts() {
            for to in (0..self.hosts()).filter(|to| *to != from) {
                self.0.world.cable(from, to, |cable| change(from, to, cable));
            }
        }
    }

    /// Whether two hosts reach each other.
    pub(crate) fn is_connected(&self, one: HostId, two: HostId) -> bool {
        let is_cut = |from, to| {
            let cable = self.0.world.cable_of(from, to);
            cable.tcp_cut || cable.bytes_per_s > 0
        };
        !is_cut(one, two) && !is_cut(two, one)
    }

    /// Writes a line of the log.
    pub(crate) fn say(&self, text: impl std::fmt::Display) {
        let at = self.0.begun.elapsed();
        if self.0.trace {
            println!("{:>10.3} ms  {text}", at.as_secs_f64() * 1_000.0);
        }
        let _ = writeln!(self.0.log.borrow_mut(), "{:>10.3} ms  {text}", at.as_secs_f64() * 1_000.0);
    }

    pub(crate) fn take_log(&self) -> String {
        self.0.log.take()
    }

    pub(crate) fn elapsed(&self) -> std::time::Duration {
        self.0.begun.elapsed()
    }

    /// Whether a node that had something may have died since a request of now began.
    pub(crate) fn has_lost_a_node_lately(&self) -> bool {
        self.0.lost_at.get().is_some_and(|at| at.elapsed() < std::time::Duration::from_secs(3))
    }

    /// Something was done to a node or a cable, or was undone.
    pub(crate) fn disturbed(&self) {
        self.0.disturbed_at.set(Instant::now());
    }

    /// Whether no node had come or gone since so long before a moment.
    pub(crate) fn was_formed(&self, before: std::time::Duration, at: std::time::Duration) -> bool {
        self.0.stirred_at.iter().all(|stirred| stirred.get().duration_since(self.0.begun) + before < at)
    }

    /// Whether nothing was done to anybody but this host from so long before a moment on.
    pub(crate) fn was_quiet_but_for(
        &self,
        host: HostId,
        before: std::time::Duration,
        at: std::time::Duration,
    ) -> bool {
        let was_before = |cell: &Cell<Instant>| cell.get().duration_since(self.0.begun) + before < at;
        let stirred = |other: HostId| {
            !was_before(&self.0.stirred_at[other]) || self.node(other).is_none_or(|node| node.paused)
        };
        was_before(&self.0.cables_at)
            && !self.is_any_cable_disturbed()
            && !(0..self.hosts()).any(|other| other != host && stirred(other))
    }

    /// Whether nothing was done to anybody from so long before a moment on.
    pub(crate) fn was_quiet(&self, before: std::time::Duration, at: std::time::Duration) -> bool {
        (0..self.hosts()).all(|host| self.was_quiet_but_for(host, before, at))
    }

    /// Whether a node has all that run for members: it hears of accesses on these.
    pub(crate) fn sees_all(&self, node: &Node) -> bool {
        let view = node.cluster.inspect().view;
        self.nodes().iter().all(|other| other.boot == node.boot || view.contains(&other.boot))
    }

    /// Whether something is cut, or slow, or stands still.
    fn is_disturbed(&self) -> bool {
        self.nodes().iter().any(|node| node.paused) || self.is_any_cable_disturbed()
    }

    pub(crate) fn is_any_cable_disturbed(&self) -> bool {
        let hosts = 0..self.hosts();
        let mut pairs = hosts.clone().flat_map(|from| hosts.clone().map(move |to| (from, to)));
        pairs.any(|(from, to)| {
            let cable = self.0.world.cable_of(from, to);
            cable.tcp_cut || cable.udp_cut || cable.bytes_per_s > 0
        })
    }

    /// Notes who sees whom.
    pub(crate) fn note_meetings(&self) {
        let now = self.elapsed();
        for node in self.nodes() {
            for other in node.cluster.inspect().view {
                self.0.met.borrow_mut().entry((node.boot, other)).or_insert(now);
            }
        }
    }

    /// Whether one of two nodes has ever seen the other.
    pub(crate) fn have_met(&self, one: BootId, two: BootId) -> bool {
        self.had_met(one, two, std::time::Duration::MAX)
    }

    /// Whether one of two nodes had seen the other by then.
    pub(crate) fn had_met(&self, one: BootId, two: BootId, by: std::time::Duration) -> bool {
        let met = self.0.met.borrow();
        [(one, two), (two, one)].iter().any(|pair| met.get(pair).is_some_and(|at| *at <= by))
    }

    /// Sets a host's clock to so much off.
    pub(crate) fn step_clock_to(&self, host: HostId, to_ms: i64) {
        let from_ms = self.0.clocks_ms[host].replace(to_ms);
        self.host(host).step_clock(to_ms - from_ms);
    }

    /// From now on every cable does what it should.
    pub(crate) fn set_healed(&self) {
        self.0.healed.set(true);
    }

    pub(crate) fn is_healed(&self) -> bool {
        self.0.healed.get()
    }

    /// Something was done to a host's node.
    fn stirred(&self, host: HostId) {
        self.disturbed();
        self.0.stirred_at[host].set(Instant::now());
    }

    /// When a node was lost, or began to leave, or started empty, the last time.
    pub(crate) fn lost_at(&self) -> std::time::Duration {
        self.0.lost_at.get().map_or(std::time::Duration::ZERO, |at| at.duration_since(self.0.begun))
    }

    /// Whether a node was lost after a moment.
    pub(crate) fn has_lost_a_node_since(&self, at: std::time::Duration) -> bool {
        self.0.lost_at.get().is_some_and(|lost_at| lost_at.duration_since(self.0.begun) >= at)
    }

    /// Whether views and holders may still differ by what was done.
    pub(crate) fn is_troubled(&self) -> bool {
        self.is_disturbed()
            || self.0.disturbed_at.get().elapsed()
                < self.scenario().drop_time * 4 + std::time::Duration::from_secs(12)
    }

    /// Proves that something happened.
    pub(crate) fn count(&self, what: &'static str) {
        self.count_many(what, 1);
    }

    pub(crate) fn count_many(&self, what: &'static str, times: u64) {
        if times > 0 {
            *self.0.counts.borrow_mut().entry(what).or_default() += times;
        }
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.counts.borrow().clone()
    }

    /// Reads or changes what the oracle knows.
    pub(crate) fn history<R>(&self, f: impl FnOnce(&mut History) -> R) -> R {
        let result = f(&mut self.0.history.borrow_mut());
        let fresh = std::mem::take(&mut self.0.history.borrow_mut().fresh);
        for violation in fresh {
            self.say(format_args!("VIOLATED {violation}"));
            self.describe();
        }
        result
    }

    /// All nodes and what they have, for the log.
    fn describe(&self) {
        for node in self.nodes() {
            let Inspection { boot, serving, doubting, settled, view, .. } = node.cluster.inspect();
            self.say(format_args!(
                "  {boot}: serving {serving}, doubting {doubting}, settled {settled}, view {view:?}"
            ));
            node.cluster.for_each_copy(|id, copy| {
                let Copy { version, end, partial, belongs, .. } = copy;
                self.say(format_args!(
                    "    {id:?}: belongs {belongs}, end {end:?}, partial {partial}, {version:?}"
                ));
            });
        }
    }

    /// Starts a node; under its host's name, or a new one.
    pub(crate) async fn start(&self, host: HostId, renamed: bool) {
        let number = {
            let mut starts = self.0.starts.borrow_mut();
            *starts += 1;
            *starts
        };
        let name = if renamed { format!("n{host}-{number}") } else { format!("n{host}") };
        let config = self.scenario().config(&name);
        if self.scenario().skew {
            // Version N speaks N - 1 too, and the two meet.
            let (lowest, highest) = PROTOCOL_VERSIONS;
            let newer = number % 2 == 0;
            self.host(host).install((lowest, highest + u32::from(newer)));
            self.count("starts of another protocol version");
        }
        let started = self.host(host).spawn(Cluster::start(config)).await;
        // Killed while it started.
        let Ok(Ok(cluster)) = started else { return };
        let boot = cluster.boot();
        self.stirred(host);
        self.say(format_args!("host {host}: {name} started as {boot}"));
        self.0.nodes.borrow_mut()[host] = Some(Node {
            host,
            events: Rc::new(RefCell::new(cluster.events())),
            cluster,
            boot,
            paused: false,
        });
    }

    /// The node of a host, if one runs.
    pub(crate) fn node(&self, host: HostId) -> Option<Node> {
        self.0.nodes.borrow()[host].clone()
    }

    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.0.nodes.borrow().iter().flatten().cloned().collect()
    }

    pub(crate) fn set_paused(&self, host: HostId, paused: bool) {
        self.stirred(host);
        if let Some(node) = &mut self.0.nodes.borrow_mut()[host] {
            node.paused = paused;
        }
    }

    /// The node of a host hands over what it has: from now on a write that it had may be with others.
    pub(crate) fn set_leaving(&self, host: HostId) {
        self.stirred(host);
        self.0.lost_at.set(Some(Instant::now()));
        let boot = self.node(host).map(|node| node.boot);
        self.0.leaving.borrow_mut().extend(boot);
    }

    /// The nodes that stay: what one that leaves hears last it need not hand on.
    fn staying(&self) -> Vec<Node> {
        let leaving = self.0.leaving.borrow();
        self.nodes().into_iter().filter(|node| !leaving.contains(&node.boot)).collect()
    }

    /// The node of a host is no more; `crashed`: what only it had is lost.
    pub(crate) fn gone(&self, host: HostId, crashed: bool) {
        self.listen();
        let node = self.0.nodes.borrow_mut()[host].take();
        if let Some(node) = &node {
            self.tally(node);
        }
        self.stirred(host);
        self.0.lost_at.set(Some(Instant::now()));
        if node.is_some() && crashed {
            self.lose();
        }
    }

    /// Hears what all nodes have told their applications by now.
    pub(crate) fn listen(&self) {
        for node in self.nodes() {
            loop {
                let event = node.events.borrow_mut().try_recv();
                match event {
                    Ok(Event::SessionDestroyed { id, end }) => expiry::announced(self, &node, &id, end),
                    Ok(Event::Emptied { .. }) => {
                        self.say(format_args!("{} starts empty", node.boot));
                        self.disturbed();
                        self.0.lost_at.set(Some(Instant::now()));
                        self.history(|history| history.emptied(node.boot));
                        // Whom it joins now it meets anew.
                        self.0
                            .met
                            .borrow_mut()
                            .retain(|(one, two), _| *one != node.boot && *two != node.boot);
                        self.lose();
                    }
                    Ok(Event::MemberDropped { boot, .. }) => {
                        *self.0.drops.borrow_mut().entry((node.boot, boot)).or_default() += 1;
                    }
                    Ok(_) => {}
                    Err(TryRecvError::Lagged(missed)) => self.count_many("events missed", missed),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
        }
    }

    /// How often a node has dropped a member, by what it has told by now.
    pub(crate) fn drops(&self, node: BootId, member: BootId) -> usize {
        self.0.drops.borrow().get(&(node, member)).copied().unwrap_or_default()
    }

    /// What a node that is looked at for the last time has counted.
    pub(crate) fn tally(&self, node: &Node) {
        let stats = self.host(node.host).run(|| node.cluster.stats());
        let counts = stats.counts;
        let cause = |prefix: &str| {
            stats.causes.iter().filter(|(cause, _)| cause.starts_with(prefix)).map(|(_, times)| times).sum()
        };
        for (what, times) in [
            ("conflicting writes", counts.conflicts),
            ("ends aged out", counts.ends_aged_out),
            ("gaps pulled", counts.pulls),
            ("look-ups undecided", counts.lookups_undecided),
            ("members dropped", cause("member dropped:")),
            ("nodes that doubted", cause("doubt:")),
            ("nodes that started empty", cause("emptied:")),
            ("outboxes overflowed", counts.outbox_overflows),
            ("parts dropped", counts.parts_dropped),
            ("passes", counts.passes),
            ("records brought by passes", counts.pass_records_pulled + counts.pass_records_pushed),
            ("sessions expired", counts.expired),
            ("strays moved", counts.strays_sent + counts.strays_dropped),
            ("writes after the end", counts.late_deltas + counts.writes_after_end),
            ("writes that missed their level", counts.level_timeouts),
        ] {
            self.count_many(what, times);
        }
    }

    /// After crashes: what no live node has any more is not to be asked for.
    pub(crate) fn lose(&self) {
        let nodes = self.staying();
        let lost = self.history(|history| history.forgive(&nodes, self.elapsed(), self.scenario().drop_time));
        self.count_many("writes lost with all their holders", lost as u64);
    }

    /// The same of one session: its answer may come from a node that died on the way.
    pub(crate) fn lose_of(&self, id: &SessionId) {
        let nodes = self.staying();
        let lost =
            self.history(|history| history.forgive_of(id, &nodes, self.elapsed(), self.scenario().drop_time));
        self.count_many("writes lost with all their holders", lost as u64);
    }
}
