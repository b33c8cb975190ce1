//! One node's membership: a state machine that its driver feeds and obeys.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::config::MembershipConfig;
use super::dials::{Dials, SeedState};
use super::member::{Link, LinkRank, Member, MemberInfo, MemberState, PassState};
use super::readiness::Sighting;
use crate::placement::{Mode, View};
use crate::wire::{Contact, Heartbeat, Hello, PROTOCOL_VERSIONS, Refusal, RefusalReason, Role};
use crate::{BootId, DropCause, Event, Instant, NodeName};

/// The driver's number of a connection; never used twice.
pub type LinkId = u64;

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// This start.
    pub boot: BootId,
    /// Its name.
    pub name: NodeName,
    /// Where others reach it.
    pub address: SocketAddr,
    /// How its sessions are placed.
    pub mode: Mode,
}

/// What the driver is to do, in order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Connect, shake hands with this Hello, and report the peer's Hello or the failure.
    Dial {
        /// Where.
        address: SocketAddr,
        /// What to say.
        hello: Hello,
    },
    /// Tell the other side of a connection that it is admitted.
    Admit {
        /// The connection.
        link: LinkId,
    },
    /// Tell it that it is not, and close.
    Refuse {
        /// The connection.
        link: LinkId,
        /// Why.
        refusal: Refusal,
    },
    /// A link is up: open the streams to this member.
    Open {
        /// The member.
        member: MemberInfo,
        /// The link.
        link: LinkId,
    },
    /// Close a link.
    Close {
        /// The link.
        link: LinkId,
    },
    /// Ask a member's process for a sign of life.
    Ping {
        /// The member.
        boot: BootId,
    },
    /// Compare sessions with a member.
    StartPass {
        /// The member.
        boot: BootId,
    },
    /// A member is gone: forget its streams, and do not wait for its acknowledgements.
    Remove {
        /// The member.
        boot: BootId,
        /// Why.
        cause: DropCause,
    },
    /// The ready members changed.
    Publish(View),
    /// What heartbeats say changed: send one at once.
    Beat,
    /// Members changed: tell all members on.
    Tell(Vec<Contact>),
    /// This node can't be in the cluster: stop it.
    Stop(Fatal),
}

/// Why a node must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fatal {
    /// The kind of refusal.
    pub reason: RefusalReason,
    /// In plain words, naming both sides and the remedy.
    pub detail: String,
}

/// Why an address could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// Nobody listens there.
    Refused,
    /// No answer in time, or no way there.
    Silent,
    /// Somebody is there, but not a node of this cluster.
    Stranger,
}

/// Who drives a pass that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassRole {
    /// This node.
    Driver,
    /// The member.
    Responder,
}

/// What heartbeats say now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// This node's state.
    pub state: MemberState,
    /// Its view.
    pub view: u64,
    /// The members that it holds for alive.
    pub heard: Vec<BootId>,
    /// Where heartbeats go if there is no multicast.
    pub targets: Vec<SocketAddr>,
}

#[derive(Clone, Debug)]
struct Candidate {
    hello: Hello,
    rank: LinkRank,
    dialed: Option<SocketAddr>,
}

/// A joiner whose name a silent member may still hold.
#[derive(Clone, Debug)]
struct Claim {
    link: LinkId,
    candidate: Candidate,
    holder: BootId,
    until: Instant,
}

/// One node's membership.
#[derive(Debug)]
pub struct Node {
    pub(super) me: Identity,
    pub(super) config: MembershipConfig,
    pub(super) state: MemberState,
    pub(super) started_at: Instant,
    pub(super) members: BTreeMap<BootId, Member>,
    pub(super) sightings: BTreeMap<BootId, Sighting>,
    pub(super) dials: Dials,
    pub(super) met_ready: bool,
    pub(super) not_ready_reason: String,
    /// Boots that said they leave, or that this node knows to be over, with the time of it.
    over: BTreeMap<BootId, Instant>,
    candidates: BTreeMap<LinkId, Candidate>,
    claims: Vec<Claim>,
    dial_counter: u64,
    doubting: bool,
    last_tick: Instant,
    next_round_pass: Instant,
    last_round_pass: Option<BootId>,
    beacon: Option<Beacon>,
    view: View,
    actions: VecDeque<Action>,
    pub(super) events: VecDeque<Event>,
}

impl Node {
    /// A node that starts now and has heard of nobody.
    pub fn new(me: Identity, config: MembershipConfig, now: Instant) -> Self {
        let view = View::new(me.boot, me.mode, []);
        Self {
            state: MemberState::Joining,
            started_at: now,
            members: BTreeMap::new(),
            sightings: BTreeMap::new(),
            dials: Dials::default(),
            met_ready: false,
            not_ready_reason: String::new(),
            over: BTreeMap::new(),
            candidates: BTreeMap::new(),
            claims: Vec::new(),
            dial_counter: 0,
            doubting: false,
            last_tick: now,
            next_round_pass: now + config.pass_interval,
            last_round_pass: None,
            beacon: None,
            view,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            me,
            config,
        }
    }

    /// Who this node is.
    pub fn me(&self) -> &Identity {
        &self.me
    }

    /// Its state.
    pub fn state(&self) -> MemberState {
        self.state
    }

    /// Whether it was paused and has not yet compared with all members.
    pub fn is_doubting(&self) -> bool {
        self.doubting
    }

    /// Whether "not here" on this node is an answer about a session: it is ready, doubts nothing and
    /// has compared with every ready member since their link is up.
    pub fn is_settled(&self) -> bool {
        let compared = |member: &Member| {
            member.state != MemberState::Ready || matches!(member.pass, PassState::Done | PassState::Round)
        };
        self.state == MemberState::Ready && !self.doubting && self.members.values().all(compared)
    }

    /// A member that has not been heard when it should have been: it may know accesses that this
    /// node does not.
    pub fn silent_member(&self, now: Instant) -> Option<BootId> {
        let late =
            |member: &Member| member.link.is_none() || now - member.alive_at() >= self.config.frequency * 3;
        self.members.iter().find(|(_, member)| late(member)).map(|(boot, _)| *boot)
    }

    /// The other members.
    pub fn members(&self) -> impl Iterator<Item = MemberInfo> {
        self.members.iter().map(|(boot, member)| member.info(*boot))
    }

    /// The ready members.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The next thing to do. Call until `None` after any other call.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to tell. Call until `None` after any other call.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Node::handle_timeout`] at the latest. Ask again after any other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let tick = self.last_tick + self.config.tick();
        self.dials.next_at().map_or(tick, |dial| dial.min(tick))
    }

    /// The Hello for a connection that this node accepted.
    pub fn hello(&self) -> Hello {
        self.hello_for(0)
    }

    fn hello_for(&self, dial: u64) -> Hello {
        Hello {
            versions: PROTOCOL_VERSIONS,
            boot: self.me.boot,
            name: self.me.name.clone(),
            address: self.me.address,
            state: self.state,
            mode: self.me.mode,
            dial,
            members: self.contacts(),
        }
    }

    fn contacts(&self) -> Vec<Contact> {
        self.members
            .iter()
            .map(|(boot, member)| Contact { boot: *boot, name: member.name.clone(), address: member.address })
            .collect()
    }

    /// What heartbeats say now.
    pub fn beacon(&self) -> Beacon {
        let mut targets: Vec<SocketAddr> =
            self.members.values().map(|member| member.address).chain(self.dials.addresses()).collect();
        targets.sort_unstable();
        targets.dedup();
        Beacon {
            state: self.state,
            view: self.view.hash(),
            heard: self.members.keys().copied().collect(),
            targets,
        }
    }

    /// The seeds, resolved (again): some may be gone, some new.
    pub fn handle_seeds(&mut self, seeds: &[SocketAddr], now: Instant) {
        self.dials.set_seeds(seeds, now);
        self.dial_due(now);
    }

    /// An authentic heartbeat came.
    pub fn handle_heartbeat(&mut self, heartbeat: &Heartbeat, now: Instant) {
        let boot = heartbeat.boot;
        if boot == self.me.boot || self.over.contains_key(&boot) {
            return;
        }
        let Some(member) = self.members.get_mut(&boot) else {
            self.handle_sighting(heartbeat, now);
            return;
        };
        if heartbeat.counter <= member.counter {
            return;
        }
        member.counter = heartbeat.counter;
        member.heard_at = now;
        if heartbeat.heard.contains(&self.me.boot) {
            member.hears_us_at = now;
        }
        let unlinked = member.link.is_none();
        let address = member.address;
        self.set_member_state(boot, heartbeat.state);
        if unlinked {
            self.dials.heard(address, boot, now, now);
        }
        self.settle(now);
    }

    fn handle_sighting(&mut self, heartbeat: &Heartbeat, now: Instant) {
        let sighting = self.sightings.entry(heartbeat.boot).or_insert_with(|| Sighting::new(now));
        if heartbeat.counter <= sighting.counter {
            return;
        }
        sighting.counter = heartbeat.counter;
        sighting.heard_at = now;
        // The lower boot dials at once, the other only if that did not help: two connections made
        // at the same moment would have to be sorted out.
        let wait = if self.me.boot < heartbeat.boot { Duration::ZERO } else { self.config.frequency };
        self.dials.heard(heartbeat.address, heartbeat.boot, now + wait, now);
        self.settle(now);
    }

    /// A member told of others.
    pub fn handle_told(&mut self, contacts: &[Contact], now: Instant) {
        for contact in contacts {
            let boot = contact.boot;
            // One of this node's own name is its former start, or will be refused when it is met.
            if contact.name == self.me.name
                || self.members.contains_key(&boot)
                || self.over.contains_key(&boot)
            {
                continue;
            }
            self.sightings.entry(boot).or_insert_with(|| Sighting::new(now)).heard_at = now;
            self.dials.heard(contact.address, boot, now, now);
        }
        self.settle(now);
    }

    /// An address could not be reached.
    pub fn handle_dial_failed(&mut self, address: SocketAddr, failure: DialFailure, now: Instant) {
        let seed = match failure {
            DialFailure::Refused => SeedState::Refused,
            DialFailure::Silent | DialFailure::Stranger => SeedState::Silent,
        };
        let expected = self.dials.expected(address);
        // A process that is dying may still accept: asked again a little later, it refuses.
        let dying = failure == DialFailure::Stranger
            && self.members.values().any(|member| {
                member.address == address
                    && member.link.is_none()
                    && now - member.link_lost_at < self.config.redial
            });
        let wait = if dying { Duration::from_millis(50) } else { self.config.redial };
        self.dials.ended(address, seed, Some(now + wait));
        if failure == DialFailure::Refused {
            let gone: Vec<BootId> = self
                .members
                .iter()
                .filter(|(_, member)| member.address == address && member.link.is_none())
                .map(|(boot, _)| *boot)
                .collect();
            for boot in gone {
                self.remove(boot, DropCause::Refused, now);
            }
            self.sightings.retain(|boot, _| Some(*boot) != expected);
        }
        self.settle(now);
    }

    /// The other side of a connection said who it is. `dialed`: where this node connected to, and
    /// with which Hello; `None` if the other side did.
    pub fn handle_hello(
        &mut self,
        link: LinkId,
        hello: Hello,
        dialed: Option<(SocketAddr, u64)>,
        now: Instant,
    ) {
        let role = if dialed.is_some() { Role::Dialer } else { Role::Acceptor };
        let dialer = if role == Role::Dialer { self.me.boot } else { hello.boot };
        let rank = LinkRank {
            dialed_by_lower: dialer == self.me.boot.min(hello.boot),
            dial: dialed.map_or(hello.dial, |(_, dial)| dial),
        };
        let candidate = Candidate { rank, dialed: dialed.map(|(address, _)| address), hello };
        match self.judge(&candidate) {
            Judgement::Admit => self.admit(link, candidate),
            Judgement::Refuse(refusal) => self.refuse(link, &candidate, refusal, now),
            Judgement::Replace(old) => {
                self.remove(old, DropCause::Replaced, now);
                self.admit(link, candidate);
            }
            Judgement::Ask(holder) => {
                self.ping(holder, now);
                let until = now + self.config.ping_timeout;
                self.claims.push(Claim { link, candidate, holder, until });
            }
        }
        self.settle(now);
    }

    fn judge(&mut self, candidate: &Candidate) -> Judgement {
        let hello = &candidate.hello;
        let refuse = |reason, detail: String| Judgement::Refuse(Refusal { reason, detail });
        let (me, name) = (&self.me.name, &hello.name);
        if hello.boot == self.me.boot {
            return refuse(RefusalReason::Itself, format!("{me} reached itself"));
        }
        if hello.versions.0 > PROTOCOL_VERSIONS.1 || hello.versions.1 < PROTOCOL_VERSIONS.0 {
            let (theirs, ours) = (hello.versions, PROTOCOL_VERSIONS);
            return refuse(
                RefusalReason::Version,
                format!(
                    "{name} speaks protocol versions {} to {}, {me} speaks {} to {}: upgrade one step at a time",
                    theirs.0, theirs.1, ours.0, ours.1
                ),
            );
        }
        if self.state == MemberState::Leaving {
            return refuse(RefusalReason::Leaving, format!("{me} is leaving"));
        }
        if self.over.contains_key(&hello.boot) {
            return refuse(RefusalReason::Leaving, format!("{name} (boot {}) has left", hello.boot));
        }
        if hello.mode != self.me.mode {
            return refuse(
                RefusalReason::Mode,
                format!(
                    "{name} is {}, {me} is {}: give all nodes the same mode and copies",
                    hello.mode, self.me.mode
                ),
            );
        }
        let known = self.members.contains_key(&hello.boot);
        if !known && self.members.len() + 1 >= self.config.max_members {
            let limit = self.config.max_members;
            return refuse(
                RefusalReason::Full,
                format!("{me} has its limit of {limit} members (max_members)"),
            );
        }
        let rivals =
            self.candidates.values().filter(|rival| rival.hello.boot == hello.boot).map(|rival| rival.rank);
        let linked = self.members.get(&hello.boot).and_then(|member| member.link);
        if rivals.chain(linked.map(|link| link.rank)).any(|rank| rank >= candidate.rank) {
            // If the link here is dead and only the other side knows, the ping will show it.
            if linked.is_some() {
                self.actions.push_back(Action::Ping { boot: hello.boot });
            }
            return refuse(RefusalReason::Duplicate, format!("{name} and {me} have a link already"));
        }
        self.judge_name(hello)
    }

    fn judge_name(&self, hello: &Hello) -> Judgement {
        let name = &hello.name;
        let taken = |holder: BootId, at: SocketAddr| {
            Judgement::Refuse(Refusal {
                reason: RefusalReason::NameTaken,
                detail: format!(
                    "the name {name} of {} (boot {}) is taken by a live node at {at} (boot {holder}): give each node \
                     its own name",
                    hello.address, hello.boot
                ),
            })
        };
        if *name == self.me.name {
            let yields = hello.state != MemberState::Ready
                && (self.state == MemberState::Ready || self.me.boot < hello.boot);
            return if yields { taken(self.me.boot, self.me.address) } else { Judgement::Admit };
        }
        let holder = self.members.iter().find(|(boot, member)| member.name == *name && **boot != hello.boot);
        match holder {
            None => Judgement::Admit,
            Some((boot, member)) if member.link.is_none() => Judgement::Replace(*boot),
            // Both served on their side of a cut: they settle it among themselves after the pass.
            Some((_, member)) if member.state == MemberState::Ready && hello.state == MemberState::Ready => {
                Judgement::Admit
            }
            Some((boot, _)) => Judgement::Ask(*boot),
        }
    }

    fn admit(&mut self, link: LinkId, candidate: Candidate) {
        self.candidates.insert(link, candidate);
        self.actions.push_back(Action::Admit { link });
    }

    fn refuse(&mut self, link: LinkId, candidate: &Candidate, refusal: Refusal, now: Instant) {
        if let Some(address) = candidate.dialed {
            if refusal.reason == RefusalReason::Itself {
                self.dials.forget(address);
            } else {
                let again = (refusal.reason != RefusalReason::Duplicate).then(|| now + self.config.redial);
                self.dials.ended(address, SeedState::Met, again);
            }
        }
        if !matches!(refusal.reason, RefusalReason::Itself | RefusalReason::Duplicate) {
            self.sightings.remove(&candidate.hello.boot);
            self.events.push_back(Event::Refused {
                name: candidate.hello.name.clone(),
                reason: refusal.reason,
                detail: refusal.detail.clone(),
                by_peer: false,
            });
        }
        // Of two that can't be in one cluster, the one that is not yet in any gives up.
        let hopeless = matches!(refusal.reason, RefusalReason::Mode | RefusalReason::Version);
        if hopeless && self.state == MemberState::Joining && candidate.hello.state == MemberState::Ready {
            let Refusal { reason, detail } = refusal.clone();
            self.actions.push_back(Action::Stop(Fatal { reason, detail }));
        }
        self.actions.push_back(Action::Refuse { link, refusal });
    }

    /// Both sides admitted each other: the connection is a link.
    pub fn handle_link_up(&mut self, link: LinkId, now: Instant) {
        let Some(candidate) = self.candidates.remove(&link) else {
            self.actions.push_back(Action::Close { link });
            return;
        };
        let hello = candidate.hello;
        let boot = hello.boot;
        if let Some(address) = candidate.dialed {
            self.dials.ended(address, SeedState::Met, None);
        }
        self.dials.ended(hello.address, SeedState::Met, None);
        let sighting = self.sightings.remove(&boot);
        let i_drive = match (self.state, hello.state) {
            (MemberState::Joining, MemberState::Ready) => true,
            (MemberState::Ready, MemberState::Joining) => false,
            _ => self.me.boot < boot,
        };
        // One that doubts compares with everybody itself.
        let pass = if i_drive || self.doubting { PassState::Due } else { PassState::Awaited };
        let fresh = !self.members.contains_key(&boot);
        let member = self.members.entry(boot).or_insert_with(|| Member {
            name: hello.name.clone(),
            address: hello.address,
            state: MemberState::Joining,
            link: None,
            link_lost_at: now,
            counter: sighting.map_or(0, |sighting| sighting.counter),
            heard_at: now,
            answered_at: now,
            pinged_at: None,
            hears_us_at: now,
            pass,
            next_pass_at: now,
        });
        if let Some(old) = member.link.replace(Link { id: link, rank: candidate.rank }) {
            self.actions.push_back(Action::Close { link: old.id });
        }
        member.pass = pass;
        member.answered_at = now;
        member.hears_us_at = now;
        member.pinged_at = None;
        let info = member.info(boot);
        if fresh {
            let (name, address) = (info.name.clone(), info.address);
            self.events.push_back(Event::MemberAdmitted { boot, name, address });
        }
        self.actions.push_back(Action::Open { member: info, link });
        self.set_member_state(boot, hello.state);
        if fresh {
            self.publish();
            self.actions.push_back(Action::Tell(self.contacts()));
        }
        self.handle_told(&hello.members, now);
    }

    /// A connection is over, whatever it was. `refusal`: what the other side said, if it refused.
    pub fn handle_link_closed(
        &mut self,
        link: LinkId,
        dialed: Option<SocketAddr>,
        refusal: Option<Refusal>,
        now: Instant,
    ) {
        let candidate = self.candidates.remove(&link);
        self.claims.retain(|claim| claim.link != link);
        if let Some(address) = dialed {
            let duplicate =
                refusal.as_ref().is_some_and(|refusal| refusal.reason == RefusalReason::Duplicate);
            let again = now + self.config.redial;
            self.dials.ended(address, SeedState::Silent, Some(again).filter(|_| !duplicate));
        }
        if let Some(refusal) = refusal {
            let name = candidate.map(|candidate| candidate.hello.name);
            self.handle_refusal(name, refusal);
        }
        let lost =
            self.members.iter_mut().find(|(_, member)| member.link.is_some_and(|held| held.id == link));
        if let Some((boot, member)) = lost {
            member.link = None;
            member.link_lost_at = now;
            // Whether the process is gone shows at once by dialling. The lower boot goes first, so
            // that two live nodes do not meet half-way.
            let wait = if self.me.boot < *boot { Duration::ZERO } else { Duration::from_millis(20) };
            self.dials.want(member.address, Some(*boot), now + wait, now);
        }
        self.settle(now);
    }

    fn handle_refusal(&mut self, name: Option<NodeName>, refusal: Refusal) {
        let Some(name) = name else { return };
        let fatal = matches!(
            refusal.reason,
            RefusalReason::NameTaken | RefusalReason::Mode | RefusalReason::Version | RefusalReason::Full
        );
        if fatal && self.state == MemberState::Joining {
            let Refusal { reason, detail } = refusal.clone();
            self.actions.push_back(Action::Stop(Fatal { reason, detail }));
        }
        if !matches!(refusal.reason, RefusalReason::Itself | RefusalReason::Duplicate) {
            let Refusal { reason, detail } = refusal;
            self.events.push_back(Event::Refused { name, reason, detail, by_peer: true });
        }
    }

    /// A member's process answered a ping.
    pub fn handle_pong(&mut self, boot: BootId, now: Instant) {
        if let Some(member) = self.members.get_mut(&boot) {
            member.answered_at = now;
            member.hears_us_at = now;
            member.pinged_at = None;
        }
        let (answered, open) =
            core::mem::take(&mut self.claims).into_iter().partition(|claim| claim.holder == boot);
        self.claims = open;
        for Claim { link, candidate, holder, .. } in answered {
            let at = self.members.get(&holder).map_or(self.me.address, |member| member.address);
            let hello = &candidate.hello;
            let detail = format!(
                "the name {} of {} (boot {}) is taken by a live node at {at} (boot {holder}): give each node its own name",
                hello.name, hello.address, hello.boot
            );
            self.refuse(link, &candidate, Refusal { reason: RefusalReason::NameTaken, detail }, now);
        }
        self.settle(now);
    }

    /// A member said that it leaves for good.
    pub fn handle_leave(&mut self, boot: BootId, now: Instant) {
        self.over.insert(boot, now);
        self.remove(boot, DropCause::Left, now);
        self.settle(now);
    }

    /// A member broke the protocol: it is dropped, and may come back.
    pub fn handle_misbehaved(&mut self, boot: BootId, now: Instant) {
        self.remove(boot, DropCause::Misbehaved, now);
        self.settle(now);
    }

    /// A stream to a member was cut short (its outbox overflowed): compare again.
    pub fn handle_pass_due(&mut self, boot: BootId, now: Instant) {
        if let Some(member) = self.members.get_mut(&boot)
            && member.pass != PassState::Running
        {
            // A round that runs began before the cut; another follows it.
            member.pass = PassState::Due;
        }
        self.settle(now);
    }

    /// A pass with a member is done.
    pub fn handle_pass_done(&mut self, boot: BootId, role: PassRole, now: Instant) {
        if let Some(member) = self.members.get_mut(&boot) {
            // A pass that the other side drove does not settle what this side found due.
            let settles = match role {
                PassRole::Driver => matches!(member.pass, PassState::Running | PassState::Round),
                PassRole::Responder => member.pass == PassState::Awaited,
            };
            if settles {
                member.pass = PassState::Done;
            }
            let name = member.name.clone();
            let twin = name == self.me.name && member.state == MemberState::Ready;
            if twin && self.state == MemberState::Ready && self.me.boot > boot {
                let detail = format!(
                    "the name {name} is also that of {} (boot {boot}), met again after a cut: this node (boot {}) \
                     leaves; give each node its own name",
                    member.address, self.me.boot
                );
                self.actions.push_back(Action::Stop(Fatal { reason: RefusalReason::NameTaken, detail }));
            }
            self.events.push_back(Event::PassDone { boot, name });
        }
        self.settle(now);
    }

    /// A pass that this node drove came to nothing; its link is being closed or it is tried again.
    pub fn handle_pass_failed(&mut self, boot: BootId, now: Instant) {
        if let Some(member) = self.members.get_mut(&boot)
            && matches!(member.pass, PassState::Running | PassState::Round)
        {
            member.pass = PassState::Due;
            member.next_pass_at = now + self.config.frequency;
        }
        self.settle(now);
    }

    /// A link's acknowledgements stand still, or a member is slow: try a fresh connection, so that
    /// an old socket's back-off does not delay a heal.
    pub fn handle_stalled(&mut self, boot: BootId, now: Instant) {
        if let Some(member) = self.members.get(&boot) {
            self.dials.want(member.address, Some(boot), now, now);
        }
        self.settle(now);
    }

    /// This node noticed, anywhere, that it was paused.
    pub fn handle_doubt(&mut self, late: Duration, now: Instant) {
        for member in self.members.values_mut() {
            for at in [
                &mut member.heard_at,
                &mut member.answered_at,
                &mut member.hears_us_at,
                &mut member.link_lost_at,
            ] {
                *at += late;
            }
            member.pinged_at = member.pinged_at.map(|at| at + late);
            member.pass = PassState::Due;
        }
        for claim in &mut self.claims {
            claim.until += late;
        }
        self.dials.shift(late);
        self.doubting = !self.members.is_empty();
        if self.doubting {
            self.events.push_back(Event::Doubting { late });
        }
        self.settle(now);
    }

    /// Begins to leave: no more sessions are served or placed here.
    pub fn leave(&mut self, now: Instant) {
        self.state = MemberState::Leaving;
        self.publish();
        self.settle(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = self.last_tick + self.config.tick();
        if now >= due {
            let late = now - due;
            self.last_tick = now;
            if late >= self.config.lateness() {
                self.handle_doubt(late, now);
            }
        }
        self.check_members(now);
        for claim in core::mem::take(&mut self.claims) {
            if claim.until <= now {
                self.remove(claim.holder, DropCause::Replaced, now);
                self.admit(claim.link, claim.candidate);
            } else {
                self.claims.push(claim);
            }
        }
        let forget_after = self.config.drop_time * 20;
        self.over.retain(|_, at| now - *at < forget_after);
        self.settle(now);
    }

    fn check_members(&mut self, now: Instant) {
        let config = self.config;
        let mut verdicts = Vec::new();
        for (boot, member) in &self.members {
            if member.link.is_none() {
                if now - member.link_lost_at >= config.drop_time {
                    verdicts.push((*boot, Some(DropCause::Unreachable)));
                }
                continue;
            }
            let silent = now - member.alive_at();
            let unanswered = member.pinged_at.is_some_and(|at| now - at >= config.ping_timeout);
            if silent >= config.drop_time && unanswered {
                verdicts.push((*boot, Some(DropCause::Silent)));
            } else if now - member.hears_us_at >= config.drop_time && unanswered {
                verdicts.push((*boot, Some(DropCause::Deaf)));
            } else if member.pinged_at.is_none()
                && (silent >= config.drop_time / 2 || now - member.hears_us_at >= config.drop_time / 2)
            {
                verdicts.push((*boot, None));
            }
        }
        for (boot, verdict) in verdicts {
            match verdict {
                Some(cause) => self.remove(boot, cause, now),
                None => self.ping(boot, now),
            }
        }
    }

    fn ping(&mut self, boot: BootId, now: Instant) {
        if let Some(member) = self.members.get_mut(&boot) {
            member.pinged_at.get_or_insert(now);
            self.actions.push_back(Action::Ping { boot });
        }
    }

    fn set_member_state(&mut self, boot: BootId, state: MemberState) {
        let Some(member) = self.members.get_mut(&boot) else { return };
        // States only go forward; an old datagram does not take one back.
        if state <= member.state {
            return;
        }
        member.state = state;
        let name = member.name.clone();
        match state {
            MemberState::Joining => {}
            MemberState::Ready => {
                self.met_ready = true;
                self.events.push_back(Event::MemberReady { boot, name });
            }
            MemberState::Leaving => self.events.push_back(Event::MemberLeaving { boot, name }),
        }
        self.publish();
    }

    fn remove(&mut self, boot: BootId, cause: DropCause, now: Instant) {
        let Some(member) = self.members.remove(&boot) else { return };
        if let Some(link) = member.link {
            self.actions.push_back(Action::Close { link: link.id });
        }
        self.sightings.remove(&boot);
        self.actions.push_back(Action::Remove { boot, cause });
        self.events.push_back(Event::MemberDropped { boot, name: member.name, cause });
        let again = now + self.config.redial;
        match cause {
            DropCause::Left => self.dials.retry_seed(member.address, again),
            DropCause::Replaced => {
                self.over.insert(boot, now);
                self.dials.retry_seed(member.address, again);
            }
            _ => self.dials.want(member.address, None, again, now),
        }
        self.publish();
        self.actions.push_back(Action::Tell(self.contacts()));
    }

    fn publish(&mut self) {
        let mine = (self.state == MemberState::Ready).then_some((self.me.boot, &self.me.name));
        let others = self
            .members
            .iter()
            .filter(|(_, member)| member.state == MemberState::Ready)
            .map(|(boot, member)| (*boot, &member.name));
        self.view = View::new(self.me.boot, self.me.mode, mine.into_iter().chain(others));
        self.actions.push_back(Action::Publish(self.view.clone()));
    }

    /// Everything that follows from what is known by now.
    fn settle(&mut self, now: Instant) {
        if self.doubting && self.members.values().all(|member| member.pass == PassState::Done) {
            self.doubting = false;
            self.events.push_back(Event::Trusting);
        }
        self.sightings.retain(|_, sighting| now - sighting.heard_at < self.config.drop_time);
        self.check_ready(now);
        self.start_pass(now);
        self.dial_due(now);
        let beacon = self.beacon();
        if self.beacon.as_ref() != Some(&beacon) {
            self.beacon = Some(beacon);
            self.actions.push_back(Action::Beat);
        }
    }

    fn check_ready(&mut self, now: Instant) {
        if self.state != MemberState::Joining {
            return;
        }
        match self.unready_reason(now) {
            None => {
                self.state = MemberState::Ready;
                let after = now - self.started_at;
                self.events.push_back(Event::Ready { after, members: self.members.len() });
                self.publish();
            }
            Some(reason) => {
                let reason = reason.to_string();
                if self.not_ready_reason != reason {
                    self.not_ready_reason.clone_from(&reason);
                    self.events.push_back(Event::NotReady { reason });
                }
            }
        }
    }

    /// Passes run one at a time: the first brings a joiner everything, the others then move little.
    fn start_pass(&mut self, now: Instant) {
        let runs = |member: &Member| matches!(member.pass, PassState::Running | PassState::Round);
        let running = self.members.values().any(runs);
        if running || self.state == MemberState::Leaving {
            return;
        }
        let able = |member: &&mut Member| member.link.is_some() && now >= member.next_pass_at;
        let mut due = self.members.iter_mut().filter(|(_, member)| member.pass == PassState::Due);
        let next = due.find(|(_, member)| able(member)).map(|(boot, member)| {
            member.pass = PassState::Running;
            *boot
        });
        if let Some(boot) = next {
            self.actions.push_back(Action::StartPass { boot });
        } else if now >= self.next_round_pass {
            self.next_round_pass = now + self.config.pass_interval;
            let last = self.last_round_pass;
            let after = |boot: &BootId| last.is_none_or(|last| *boot > last);
            let turn =
                self.members.keys().find(|boot| after(boot)).or_else(|| self.members.keys().next()).copied();
            self.last_round_pass = turn;
            if let Some(boot) = turn
                && let Some(member) = self.members.get_mut(&boot)
                && member.link.is_some()
                && member.pass == PassState::Done
            {
                member.pass = PassState::Round;
                self.actions.push_back(Action::StartPass { boot });
            }
        }
    }

    fn dial_due(&mut self, now: Instant) {
        for (address, boot) in self.dials.take_due(now) {
            if address == self.me.address {
                self.dials.forget(address);
                continue;
            }
            let linked = boot.is_some_and(|boot| {
                self.members.get(&boot).is_some_and(|member| {
                    member.link.is_some() && member.pass != PassState::Due && member.pinged_at.is_none()
                })
            });
            if linked
                && self.members.values().any(|member| member.address == address && member.link.is_some())
            {
                self.dials.ended(address, SeedState::Met, None);
                continue;
            }
            self.dial_counter += 1;
            let hello = self.hello_for(self.dial_counter);
            self.actions.push_back(Action::Dial { address, hello });
        }
    }
}

enum Judgement {
    Admit,
    Refuse(Refusal),
    /// The member is gone; its successor is here.
    Replace(BootId),
    /// Admit if this member's process answers no ping.
    Ask(BootId),
}
