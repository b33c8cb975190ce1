//! One node's membership: a state machine that its driver feeds and obeys.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::action::{Action, Beacon, DialFailure, Identity, LinkId};
use super::admission::{Candidate, Claim};
use super::config::MembershipConfig;
use super::dials::{Dials, SeedState};
use super::forgotten::Lost;
use super::member::{Member, MemberInfo, MemberState, PassState};
use super::readiness::Sighting;
use crate::placement::View;
use crate::wire::{Absent, Contact, Heartbeat, Hello, Standing};
use crate::{BootId, DropCause, Event, Instant};

/// Members named in a Hello; the link tells of all.
const MAX_TOLD: usize = 64;

/// One node's membership.
#[derive(Debug)]
pub struct Node {
    pub(super) me: Identity,
    pub(super) config: MembershipConfig,
    pub(super) state: MemberState,
    /// The others know that it has left.
    parting: bool,
    /// How often it has started empty again.
    pub(super) incarnation: u32,
    pub(super) started_at: Instant,
    pub(super) members: BTreeMap<BootId, Member>,
    pub(super) sightings: BTreeMap<BootId, Sighting>,
    pub(super) dials: Dials,
    pub(super) lost: Lost,
    pub(super) met_ready: bool,
    /// When it founded, or lost a member that missed others: for a horizon it can't tell who lives beyond a cut.
    pub(super) unsure_since: Option<Instant>,
    pub(super) not_ready_reason: String,
    /// Boots that said they leave, or that this node knows to be over, with the time of it.
    pub(super) over: BTreeMap<BootId, Instant>,
    pub(super) candidates: BTreeMap<LinkId, Candidate>,
    pub(super) claims: Vec<Claim>,
    /// Members whose link may be dead though nobody has closed it: to be asked.
    pub(super) suspects: BTreeSet<BootId>,
    pub(super) dial_counter: u64,
    pub(super) doubting: bool,
    pub(super) last_tick: Instant,
    pub(super) next_round_pass: Instant,
    pub(super) last_round_pass: Option<BootId>,
    pub(super) beacon: Option<Beacon>,
    pub(super) told: Option<Standing>,
    pub(super) view: View,
    pub(super) view_changed_at: Instant,
    /// Since when some sessions have fewer copies than they should.
    pub(super) short_since: Option<Instant>,
    pub(super) actions: VecDeque<Action>,
    pub(super) events: VecDeque<Event>,
}

impl Node {
    /// A node that starts now and has heard of nobody.
    pub fn new(me: Identity, config: MembershipConfig, now: Instant) -> Self {
        let view = View::new(me.boot, me.mode);
        Self {
            state: MemberState::Joining,
            parting: false,
            incarnation: 0,
            started_at: now,
            members: BTreeMap::new(),
            sightings: BTreeMap::new(),
            dials: Dials::default(),
            lost: Lost::default(),
            met_ready: false,
            unsure_since: None,
            not_ready_reason: String::new(),
            over: BTreeMap::new(),
            candidates: BTreeMap::new(),
            claims: Vec::new(),
            suspects: BTreeSet::new(),
            dial_counter: 0,
            doubting: false,
            last_tick: now,
            next_round_pass: now + config.pass_interval,
            last_round_pass: None,
            beacon: None,
            told: None,
            view,
            view_changed_at: now,
            short_since: None,
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

    /// The other members.
    pub fn members(&self) -> impl Iterator<Item = MemberInfo> {
        self.members.iter().map(|(boot, member)| member.info(*boot))
    }

    /// Whether somebody may live beyond a cut, with sessions that nobody here knows: a member that was dropped,
    /// did not leave and has not come back, a node that is heard and not linked; or a member knows
    /// of one, or one that is gone did. One that founded can't tell: for the horizon it may have done so within a
    /// cut.
    pub fn misses_members(&self) -> bool {
        self.knows_of_one_missed() || self.members.values().any(|member| member.misses)
    }

    fn knows_of_one_missed(&self) -> bool {
        self.unsure_since.is_some() || self.knows_of_one_alive()
    }

    /// Whether this node itself knows of one: away, or heard and not linked.
    pub fn knows_of_one_alive(&self) -> bool {
        self.lost.is_anybody_away() || !self.sightings.is_empty()
    }

    /// Whether a session may yet turn up that ended long ago: somebody is away or heard and not linked, or this
    /// node or a member has not compared with all others. Then old ends must be kept.
    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete_itself() || self.members.values().any(|member| member.incomplete)
    }

    fn is_incomplete_itself(&self) -> bool {
        self.knows_of_one_alive() || !self.is_settled()
    }

    /// What members are told on their links: heartbeats may be lost for ever.
    pub fn standing(&self) -> Standing {
        Standing {
            state: self.state,
            view: self.view.hash(),
            misses: self.knows_of_one_missed(),
            incomplete: self.is_incomplete_itself(),
        }
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
            versions: self.me.versions,
            boot: self.me.boot,
            incarnation: self.incarnation,
            name: self.me.name.clone(),
            address: self.me.address,
            state: self.state,
            mode: self.me.mode,
            zone: self.me.zone.clone(),
            view: self.view.hash(),
            dial,
            members: self.contacts().take(MAX_TOLD).collect(),
            side: self.side(),
            forgotten: self.forgotten(),
            absent: self.lost.absent(self.last_tick),
            probe: false,
            // The driver's: the core has no clock.
            clock_ms: 0,
        }
    }

    /// Those to be met: one that leaves takes nobody new.
    pub(super) fn contacts(&self) -> impl Iterator<Item = Contact> {
        let stays = |member: &Member| member.state != MemberState::Leaving;
        let members = self.members.iter().filter(move |(_, member)| stays(member));
        members.map(|(boot, member)| member.contact(*boot))
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

    /// The seeds, resolved (again): some may be gone, some new. `unresolved` are those of which the name
    /// service has said nothing (yet); one that it says does not exist is in neither list.
    pub fn handle_seeds(&mut self, seeds: &[SocketAddr], unresolved: &[String], now: Instant) {
        self.dials.set_seeds(seeds, unresolved, now);
        self.settle(now);
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
        member.view = Some(heartbeat.view);
        if heartbeat.heard.contains(&self.me.boot) {
            member.hears_us_at = now;
        }
        let unlinked = member.link.is_none();
        let address = member.address;
        self.set_member_state(boot, heartbeat.state, now);
        if unlinked {
            self.dials.heard(address, boot, now, now);
        }
        for boot in &heartbeat.heard {
            self.heard_elsewhere(*boot, now);
        }
        self.settle(now);
    }

    /// A member hears it: it lives, though this node may never have met it.
    fn heard_elsewhere(&mut self, boot: BootId, now: Instant) {
        if boot == self.me.boot || self.members.contains_key(&boot) || self.over.contains_key(&boot) {
            return;
        }
        if let Some(incarnation) = self.lost.heard(boot, now) {
            self.lost.vouched(boot, incarnation);
        } else {
            let sighting = self.sightings.entry(boot).or_insert_with(|| Sighting::new(now));
            sighting.heard_at = now;
            sighting.by_member = true;
        }
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

    /// Whom nobody hears any more has gone; if a member was linked with it, this node misses it as that member does.
    fn check_sightings(&mut self, now: Instant) {
        let drop_time = self.config.drop_time;
        let is_over = |_: &BootId, sighting: &mut Sighting| now - sighting.heard_at >= drop_time;
        let over: Vec<Sighting> =
            self.sightings.extract_if(.., is_over).map(|(_, sighting)| sighting).collect();
        for sighting in over {
            // Of one that has started again the former start never comes back.
            if let Some(told) = sighting.told.filter(|told| !self.is_present(&told.name)) {
                let Contact { boot, incarnation, name, .. } = told;
                self.lost.missed(Absent { boot, incarnation, name, silent: now - sighting.heard_at }, now);
            }
        }
    }

    /// A member told of others.
    pub fn handle_told(&mut self, contacts: &[Contact], now: Instant) {
        for contact in contacts {
            let boot = contact.boot;
            self.lost.vouched(boot, contact.incarnation);
            // One of this node's own name is its former start, or will be refused when it is met.
            if contact.name == self.me.name
                || self.members.contains_key(&boot)
                || self.over.contains_key(&boot)
            {
                continue;
            }
            let sighting = self.sightings.entry(boot).or_insert_with(|| Sighting::new(now));
            sighting.heard_at = now;
            if sighting.told.as_ref().is_none_or(|told| told.incarnation <= contact.incarnation) {
                sighting.told = Some(contact.clone());
            }
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

    /// A member said on its link how it stands.
    pub fn handle_standing(&mut self, boot: BootId, standing: Standing, now: Instant) {
        if let Some(member) = self.members.get_mut(&boot) {
            member.view = Some(standing.view);
            member.misses = standing.misses;
            member.incomplete = standing.incomplete;
            self.set_member_state(boot, standing.state, now);
            self.settle(now);
        }
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

    /// Begins to leave: no more sessions are served or placed here.
    pub fn leave(&mut self, now: Instant) {
        self.state = MemberState::Leaving;
        self.publish(now);
        self.settle(now);
    }

    /// Has handed over, and tells the others that it is gone: links that they close now stay closed.
    pub fn say_goodbye(&mut self) {
        self.parting = true;
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
        self.lost.expire(now, self.config.horizon);
        self.unsure_since = self.unsure_since.filter(|at| now - *at < self.config.horizon);
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

    pub(super) fn set_member_state(&mut self, boot: BootId, state: MemberState, now: Instant) {
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
        self.publish(now);
    }

    pub(super) fn remove(&mut self, boot: BootId, cause: DropCause, now: Instant) {
        let Some(member) = self.members.remove(&boot) else { return };
        if let Some(link) = member.link {
            self.actions.push_back(Action::Close { link: link.id });
        }
        self.sightings.remove(&boot);
        // What it knew of others goes with it.
        if member.misses {
            self.unsure_since = Some(now);
        }
        self.actions.push_back(Action::Remove { boot, cause });
        if member.state != MemberState::Joining && !matches!(cause, DropCause::Left | DropCause::Emptied) {
            // Its copies are gone since it was last known to live.
            let since = if member.link.is_some() { member.alive_at() } else { member.link_lost_at };
            self.short_since = Some(self.short_since.map_or(since, |earlier| earlier.min(since)));
        }
        self.events.push_back(Event::MemberDropped { boot, name: member.name.clone(), cause });
        let again = now + self.config.redial;
        match cause {
            DropCause::Left => self.dials.retry_seed(member.address, again),
            DropCause::Replaced => {
                self.over.insert(boot, now);
                self.dials.retry_seed(member.address, again);
            }
            DropCause::Emptied => self.dials.want(member.address, None, again, now),
            _ => {
                if !self.over.contains_key(&boot) {
                    self.lost.dropped(boot, &member, now);
                }
                self.dials.want(member.address, None, again, now);
            }
        }
        let told_all = match cause {
            DropCause::Emptied => true,
            // Unless it was cut off from one of the others.
            DropCause::Left => member.view == Some(self.view.hash()),
            _ => false,
        };
        if told_all {
            // A joiner may not have met it.
            self.compare_with_joiners(now);
        } else {
            self.compare_survivors(now);
        }
        self.publish(now);
        self.actions.push_back(Action::Tell { to: None, contacts: self.contacts().collect() });
    }

    pub(super) fn publish(&mut self, now: Instant) {
        self.publish_view(false, now);
    }

    /// `trusted`: this node has compared with all in this view.
    fn publish_view(&mut self, trusted: bool, now: Instant) {
        let seats = |state: MemberState| {
            let mine = (self.state == state).then(|| self.me.seat());
            let others = self.members.iter().filter(move |(_, member)| member.state == state);
            others.map(|(boot, member)| member.seat(*boot)).chain(mine).collect()
        };
        let view = self.view.followed_by(seats(MemberState::Ready), seats(MemberState::Joining), trusted);
        let moved = view.hash() != self.view.hash();
        if view == self.view {
            return;
        }
        self.view = view;
        self.actions.push_back(Action::Publish);
        if moved {
            self.view_changed_at = now;
            self.compare_in_new_view(now);
            let (holders, wanted) = self.view.holder_counts();
            self.events.push_back(Event::ViewChanged { ready: self.view.ready(), holders, wanted });
        }
    }

    /// Everything that follows from what is known by now.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.doubting && self.members.values().all(|member| member.pass == PassState::Done) {
            self.doubting = false;
            self.events.push_back(Event::Trusting);
        }
        if self.is_settled() && (self.short_since.is_some() || !self.view.is_trusted()) {
            let gap = self.short_since.take().map_or(Duration::ZERO, |since| now - since);
            self.events.push_back(Event::Rebalanced { after: now - self.view_changed_at, gap });
            self.publish_view(true, now);
        }
        self.check_sightings(now);
        self.check_ready(now);
        self.start_pass(now);
        self.dial_due(now);
        let (beacon, standing) = (self.beacon(), self.standing());
        if self.beacon.as_ref() != Some(&beacon) || self.told != Some(standing) {
            self.beacon = Some(beacon);
            self.told = Some(standing);
            self.actions.push_back(Action::Beat);
        }
    }

    pub(super) fn check_ready(&mut self, now: Instant) {
        if self.state != MemberState::Joining {
            return;
        }
        match self.unready_reason(now) {
            None => {
                self.state = MemberState::Ready;
                self.unsure_since = (!self.met_ready).then_some(now);
                let after = now - self.started_at;
                self.events.push_back(Event::Ready { after, members: self.members.len() });
                // It holds what it will hold as a ready member: that is what it was waiting for.
                self.publish_view(true, now);
            }
            Some(reason) => {
                if self.not_ready_reason != reason {
                    self.not_ready_reason.clone_from(&reason);
                    self.events.push_back(Event::NotReady { reason });
                }
            }
        }
    }

    pub(super) fn dial_due(&mut self, now: Instant) {
        for (address, boot) in self.dials.take_due(now) {
            if self.parting {
                self.dials.ended(address, SeedState::Met, None);
                continue;
            }
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
