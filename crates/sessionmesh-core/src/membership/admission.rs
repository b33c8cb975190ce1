//! Who becomes a member: an authenticated Hello on both sides of a connection, judged by both.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::action::{Action, Fatal, LinkId};
use super::dials::SeedState;
use super::member::{Link, LinkRank, Member, MemberState, PassState};
use super::node::Node;
use super::said::Said;
use crate::wire::{Absent, Hello, Refusal, RefusalReason, Role};
use crate::{BootId, DropCause, Event, Instant, NodeName};

#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) hello: Hello,
    pub(super) rank: LinkRank,
    pub(super) dialed: Option<SocketAddr>,
    /// Also on that connection.
    pub(super) said: Said,
}

/// A joiner whose name a silent member may still hold.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) link: LinkId,
    pub(super) candidate: Candidate,
    pub(super) holder: BootId,
    pub(super) until: Instant,
}

enum Judgement {
    Admit,
    Refuse(Refusal),
    /// The member is gone; its successor is here.
    Replace(BootId),
    /// Admit if this member's process answers no ping.
    Ask(BootId),
}

impl Node {
    /// The other side of a connection said who it is. `dialed`: where this node connected to; `None` if the other side
    /// did. `said`: what this node's own Hello said there.
    pub fn handle_hello(
        &mut self,
        link: LinkId,
        hello: Hello,
        dialed: Option<SocketAddr>,
        said: Said,
        now: Instant,
    ) {
        let role = if dialed.is_some() { Role::Dialer } else { Role::Acceptor };
        let dialer = if role == Role::Dialer { self.me.boot } else { hello.boot };
        let rank = LinkRank {
            dialed_by_lower: dialer == self.me.boot.min(hello.boot),
            dial: if dialed.is_some() { said.dial } else { hello.dial },
        };
        let candidate = Candidate { rank, dialed, said, hello };
        let judgement = match self.judge_cut(&candidate.hello, said, now) {
            Some(refusal) => Judgement::Refuse(refusal),
            None => self.judge(&candidate),
        };
        match judgement {
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
        let (theirs, ours) = (hello.versions, self.me.versions);
        if theirs.0 > ours.1 || theirs.1 < ours.0 {
            return refuse(
                RefusalReason::Version,
                format!(
                    "{name} speaks protocol versions {} to {}, {me} speaks {} to {}: upgrade one step at a time",
                    theirs.0, theirs.1, ours.0, ours.1
                ),
            );
        }
        // A member's new link takes what the old one has not brought.
        if self.state == MemberState::Leaving && !self.members.contains_key(&hello.boot) {
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
                self.suspects.insert(hello.boot);
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
        // With the operator's certificates a name is proved, and a boot is not.
        if let Some(member) = self.members.get(&hello.boot).filter(|member| member.name != *name) {
            return taken(hello.boot, member.address);
        }
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

    pub(super) fn admit(&mut self, link: LinkId, candidate: Candidate) {
        self.candidates.insert(link, candidate);
        self.actions.push_back(Action::Admit { link });
    }

    pub(super) fn refuse(&mut self, link: LinkId, candidate: &Candidate, refusal: Refusal, now: Instant) {
        if let Some(address) = candidate.dialed {
            if refusal.reason == RefusalReason::Itself {
                self.dials.forget(address);
            } else {
                let again = (refusal.reason != RefusalReason::Duplicate).then(|| now + self.config.redial);
                self.dials.ended(address, SeedState::Met, again);
            }
        }
        if !is_ordinary(refusal.reason) {
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
        // Two that crossed may come up in either order; both sides keep the better.
        let better = |member: &Member| member.link.is_some_and(|held| held.rank > candidate.rank);
        if self.members.get(&boot).is_some_and(better) {
            self.actions.push_back(Action::Close { link });
            return;
        }
        if let Some(address) = candidate.dialed {
            self.dials.ended(address, SeedState::Met, None);
        }
        self.dials.ended(hello.address, SeedState::Met, None);
        self.lost.admitted(boot, hello.incarnation, &hello.name);
        // Ends that it has forgotten, this node never hears of: whoever may bring those sessions back is a stranger here
        // too, unless it has been with this node.
        let joins = self.state == MemberState::Joining;
        let knows = |boot: &BootId| self.members.contains_key(boot) || self.lost.is_away(*boot);
        let is_strange = |boot: &BootId| joins || !knows(boot);
        let forgotten: Vec<(BootId, u32)> =
            hello.forgotten.into_iter().filter(|(boot, _)| is_strange(boot)).collect();
        self.lost.inherit(forgotten);
        // It may be gone before they are: a node that starts within a cut must know who is beyond it.
        let missed = |absent: &&Absent| {
            absent.name != hello.name
                && !self.over.contains_key(&absent.boot)
                && !self.is_present(&absent.name)
        };
        let absent: Vec<Absent> = hello.absent.iter().filter(missed).cloned().collect();
        for absent in absent {
            self.lost.missed(absent, now);
        }
        let sighting = self.sightings.remove(&boot);
        // A joiner drives; of two others the lower boot. By what both Hellos said: each side has seen both, and what
        // a node has become since the other can't know.
        let i_drive = candidate.said.state == MemberState::Joining
            || (hello.state != MemberState::Joining && self.me.boot < boot);
        // One that doubts compares with everybody itself.
        let pass = if i_drive || self.doubting { PassState::Due } else { PassState::Awaited };
        let fresh = !self.members.contains_key(&boot);
        let anew = self.members.get(&boot).is_none_or(|member| member.incarnation != hello.incarnation);
        let emptied = hello.state == MemberState::Joining
            && self.members.get(&boot).is_some_and(|member| member.state == MemberState::Ready);
        let member = self.members.entry(boot).or_insert_with(|| Member {
            incarnation: hello.incarnation,
            name: hello.name.clone(),
            address: hello.address,
            zone: hello.zone.clone(),
            state: MemberState::Joining,
            view: None,
            misses: false,
            incomplete: false,
            differs_since: None,
            link: None,
            link_lost_at: now,
            counter: sighting.map_or(0, |sighting| sighting.counter),
            heard_at: now,
            answered_at: now,
            pinged_at: None,
            hears_us_at: now,
            pass,
            next_pass_at: now,
            pass_again: false,
            disagreed: false,
        });
        if let Some(old) = member.link.replace(Link { id: link, rank: candidate.rank }) {
            self.actions.push_back(Action::Close { link: old.id });
        }
        member.incarnation = hello.incarnation;
        member.pass = pass;
        member.pass_again = false;
        member.view = Some(hello.view);
        // The two Hellos may have crossed a change of state, and each wait for the other.
        member.next_pass_at = if pass == PassState::Awaited { now + self.config.drop_time } else { now };
        member.answered_at = now;
        member.hears_us_at = now;
        member.pinged_at = None;
        let info = member.info(boot);
        if fresh {
            let (name, address) = (info.name.clone(), info.address);
            self.events.push_back(Event::MemberAdmitted { boot, name, address });
        }
        self.actions.push_back(Action::Open { member: info, link });
        if fresh && self.state == MemberState::Ready && hello.state == MemberState::Ready {
            // Two sides of a cut meet: what this one holds, the other may have changed.
            self.view = self.view.distrusted();
        }
        self.set_member_state(boot, hello.state, now);
        if emptied {
            // What it had told this node, it told nobody on the other side of its cut, and has no more.
            self.compare_survivors(now);
        }
        if fresh {
            self.publish(now);
        }
        if anew {
            // All of them to all, each time, would be the cube of their number in all.
            let news = self.members.get(&boot).map(|member| member.contact(boot)).into_iter().collect();
            self.actions.push_back(Action::Tell { to: None, contacts: news });
        }
        // What it was told while it had no link is lost.
        self.actions.push_back(Action::Tell { to: Some(boot), contacts: self.contacts().collect() });
        self.handle_told(&hello.members, now);
    }

    /// Whether a node of this name is here: an earlier start of it never comes back.
    pub(super) fn is_present(&self, name: &NodeName) -> bool {
        *name == self.me.name || self.members.values().any(|member| member.name == *name)
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
            // Another connection with it may still come to nothing.
            let is_met = duplicate && self.members.values().any(|member| member.link.is_some());
            let seed = if is_met { SeedState::Met } else { SeedState::Silent };
            let is_over = duplicate && (is_met || self.state != MemberState::Joining);
            self.dials.ended(address, seed, (!is_over).then(|| now + self.config.redial));
        }
        if let (Some(refusal), Some(candidate)) = (refusal, candidate) {
            let hello = candidate.hello;
            if refusal.reason == RefusalReason::Leaving && hello.state == MemberState::Leaving {
                // When it is gone it tells its members, and this node will never be one.
                self.over.insert(hello.boot, now);
                self.sightings.remove(&hello.boot);
                self.lost.left(hello.boot);
            }
            self.handle_refusal(hello.name, refusal);
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

    fn handle_refusal(&mut self, name: NodeName, refusal: Refusal) {
        let fatal = matches!(
            refusal.reason,
            RefusalReason::NameTaken | RefusalReason::Mode | RefusalReason::Version | RefusalReason::Full
        );
        if fatal && self.state == MemberState::Joining {
            let Refusal { reason, detail } = refusal.clone();
            self.actions.push_back(Action::Stop(Fatal { reason, detail }));
        }
        if !is_ordinary(refusal.reason) {
            let Refusal { reason, detail } = refusal;
            self.events.push_back(Event::Refused { name, reason, detail, by_peer: true });
        }
    }
}

/// Refusals that happen in the best of clusters, and of which nobody needs to hear.
fn is_ordinary(reason: RefusalReason) -> bool {
    matches!(reason, RefusalReason::Itself | RefusalReason::Duplicate | RefusalReason::Leaving)
}
