//! Cuts longer than the horizon: ends of sessions are forgotten by then, so the two sides must not
//! merge. The smaller one starts empty.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use super::action::Action;
use super::member::{Member, MemberState};
use super::node::Node;
use crate::wire::{Absent, Hello, Refusal, RefusalReason, Side};
use crate::{BootId, DropCause, Event, Instant, NodeName, mutated};

/// The most boots remembered of either kind.
const MAX_BOOTS: usize = 1_024;
/// The most that a Hello tells of who is missed.
const MAX_ABSENT: usize = 64;

/// Members dropped that did not leave, and those that stayed away for the horizon.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost {
    away: BTreeMap<BootId, Away>,
    forgotten: BTreeSet<BootId>,
}

/// A member that is missed.
#[derive(Clone, Debug)]
struct Away {
    name: NodeName,
    /// Since when this node counts, and for how long it had been silent then: a host's clock may be younger.
    since: Instant,
    before: Duration,
}

impl Away {
    fn silent(&self, now: Instant) -> Duration {
        self.before + (now - self.since)
    }
}

impl Lost {
    pub(super) fn dropped(&mut self, boot: BootId, name: NodeName, now: Instant) {
        if self.away.len() < MAX_BOOTS {
            self.away.insert(boot, Away { name, since: now, before: Duration::ZERO });
        }
    }

    /// Whether anybody is away who may come back.
    pub(super) fn is_anybody_away(&self) -> bool {
        !self.away.is_empty()
    }

    /// Somebody in the view hears it.
    pub(super) fn heard(&mut self, boot: BootId, now: Instant) {
        if let Some(away) = self.away.get_mut(&boot) {
            (away.since, away.before) = (now, Duration::ZERO);
        }
    }

    /// A node was admitted: it is back, and an earlier start of it never will be.
    pub(super) fn admitted(&mut self, boot: BootId, name: &NodeName) {
        self.away.retain(|away_boot, away| *away_boot != boot && away.name != *name);
        self.forgotten.remove(&boot);
    }

    /// A member has admitted it: it has emptied itself.
    pub(super) fn vouched(&mut self, boot: BootId) {
        self.forgotten.remove(&boot);
    }

    /// What the others have forgotten, a joiner has too.
    pub(super) fn inherit(&mut self, forgotten: &[BootId]) {
        let room = MAX_BOOTS.saturating_sub(self.forgotten.len());
        self.forgotten.extend(forgotten.iter().take(room));
    }

    /// Whom the others miss, a joiner misses too.
    pub(super) fn inherit_absent(&mut self, absent: Vec<Absent>, now: Instant) {
        for Absent { boot, name, silent } in absent.into_iter().take(MAX_ABSENT) {
            if self.away.len() < MAX_BOOTS && !self.forgotten.contains(&boot) {
                self.away.entry(boot).or_insert(Away { name, since: now, before: silent });
            }
        }
    }

    pub(super) fn absent(&self, now: Instant) -> Vec<Absent> {
        let absent = |(boot, away): (&BootId, &Away)| Absent {
            boot: *boot,
            name: away.name.clone(),
            silent: away.silent(now),
        };
        self.away.iter().take(MAX_ABSENT).map(absent).collect()
    }

    /// Whether a node that has forgotten these was on the other side of a long cut: both sides have lost somebody
    /// for good, and nobody in common. Of the nodes that were cut off from each other perhaps none is left.
    fn has_forgotten_others(&self, theirs: &[BootId]) -> bool {
        !self.forgotten.is_empty()
            && !theirs.is_empty()
            && !theirs.iter().any(|boot| self.forgotten.contains(boot))
    }

    pub(super) fn expire(&mut self, now: Instant, horizon: Duration) {
        let over: Vec<BootId> =
            self.away.iter().filter(|(_, away)| away.silent(now) >= horizon).map(|(boot, _)| *boot).collect();
        for boot in over {
            self.away.remove(&boot);
            if self.forgotten.len() < MAX_BOOTS {
                self.forgotten.insert(boot);
            }
        }
    }

    pub(super) fn shift(&mut self, by: Duration) {
        for away in self.away.values_mut() {
            away.since += by;
        }
    }

    pub(super) fn forgotten(&self) -> Vec<BootId> {
        self.forgotten.iter().copied().collect()
    }
}

impl Node {
    /// How large this node's side of a cut is. One that was paused knows nothing of its side.
    pub(super) fn side(&self) -> Side {
        if self.doubting {
            return Side::default();
        }
        let mine = (self.state == MemberState::Ready).then_some(self.me.boot);
        let linked = |member: &Member| member.state == MemberState::Ready && member.link.is_some();
        let others = self.members.iter().filter(|(_, member)| linked(member));
        let ready: Vec<BootId> = others.map(|(boot, _)| *boot).chain(mine).collect();
        Side { size: u32::try_from(ready.len()).unwrap_or(u32::MAX), lowest: ready.into_iter().min() }
    }

    /// Whether the other side of a connection and this one must not merge; if this one is the smaller,
    /// it empties itself.
    pub(super) fn judge_cut(&mut self, hello: &Hello, now: Instant) -> Option<Refusal> {
        // One that joins has nothing that could come back.
        if hello.state != MemberState::Ready || mutated!(SidesMerge) {
            return None;
        }
        let they_are = self.lost.forgotten.contains(&hello.boot);
        let (me, name) = (self.me.name.clone(), hello.name.clone());
        let refusal = |detail| Some(Refusal { reason: RefusalReason::Forgotten, detail });
        if self.state != MemberState::Ready {
            // A joiner must not carry sessions from one side of the cut to the other. The two sides
            // settle it among themselves; it waits, with empty hands if it has dealt with both.
            // Of several that start empty the lowest goes first: each is strange to that side as long as it is not
            // admitted there, and they would wait for each other for ever.
            let is_strange = |boot: &BootId| {
                let member = self.members.get(boot);
                member.is_some_and(|member| member.state != MemberState::Joining || *boot < self.me.boot)
            };
            let bridges = hello.forgotten.iter().any(is_strange);
            if bridges {
                self.empty(hello, now);
            }
            let waits = they_are || bridges;
            let detail =
                || format!("{me} joins only one of two sides that were cut off for longer than the horizon");
            return if waits { refusal(detail()) } else { None };
        }
        let i_am = hello.forgotten.contains(&self.me.boot);
        if !they_are && !i_am && !self.lost.has_forgotten_others(&hello.forgotten) {
            return None;
        }
        let i_yield = self.side().yields_to(hello.side);
        let (stays, yields) = if i_yield { (&name, &me) } else { (&me, &name) };
        let detail = format!(
            "{me} and {name} were cut off from each other for longer than the horizon: {yields}, on the smaller side, \
             starts empty and joins {stays}"
        );
        if i_yield {
            self.empty(hello, now);
        }
        refusal(detail)
    }

    fn empty(&mut self, met: &Hello, now: Instant) {
        self.state = MemberState::Joining;
        self.started_at = now;
        self.met_ready = false;
        self.doubting = false;
        self.candidates.clear();
        self.claims.clear();
        let mut former: Vec<BootId> = self.members.keys().copied().collect();
        for boot in &former {
            self.remove(*boot, DropCause::Emptied, now);
        }
        // The rest of this side is no more to be merged with than this node was. One that slept still
        // holds those for its members who have gone on without it.
        former.retain(|boot| *boot != met.boot && !met.members.iter().any(|contact| contact.boot == *boot));
        self.lost = Lost::default();
        self.lost.inherit(&former);
        self.actions.push_back(Action::Empty);
        self.events.push_back(Event::Emptied { name: met.name.clone() });
        self.publish(now);
    }
}
