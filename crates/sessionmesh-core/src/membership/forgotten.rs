//! Cuts longer than the horizon: ends of sessions are forgotten by then, so the two sides must not
//! merge. The smaller one starts empty.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::action::Action;
use super::member::{Member, MemberState};
use super::node::Node;
use super::readiness::Sighting;
use super::said::Said;
use crate::wire::{Absent, Contact, Hello, Refusal, RefusalReason, Side};
use crate::{BootId, DropCause, Event, Instant, NodeName, mutated};

/// The most boots remembered of either kind.
const MAX_BOOTS: usize = 1_024;
/// The most that a Hello tells of who is missed.
const MAX_ABSENT: usize = 64;

/// Members dropped that did not leave, and those that stayed away for the horizon.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost {
    away: BTreeMap<BootId, Away>,
    /// With the incarnation that was last known: one that has emptied itself since has nothing that could come back.
    forgotten: BTreeMap<BootId, u32>,
}

/// A member that is missed.
#[derive(Clone, Debug)]
struct Away {
    incarnation: u32,
    name: NodeName,
    /// Since when this node counts, and for how long it had been silent then: a host's clock may be younger.
    since: Instant,
    before: Duration,
    /// Of that, what this node slept: it may have been back meanwhile.
    slept: Duration,
}

impl Away {
    fn new(incarnation: u32, name: NodeName, now: Instant, silent: Duration) -> Self {
        Self { incarnation, name, since: now, before: silent, slept: Duration::ZERO }
    }

    /// How long nobody here has heard it.
    fn silent(&self, now: Instant) -> Duration {
        self.before + (now - self.since)
    }

    /// How much of that counts towards the horizon.
    fn counted(&self, now: Instant) -> Duration {
        self.silent(now).saturating_sub(self.slept)
    }
}

impl Lost {
    pub(super) fn dropped(&mut self, boot: BootId, member: &Member, now: Instant) {
        if self.away.len() < MAX_BOOTS {
            let away = Away::new(member.incarnation, member.name.clone(), now, Duration::ZERO);
            self.away.insert(boot, away);
        }
    }

    /// Whether anybody is away who may come back.
    pub(super) fn is_anybody_away(&self) -> bool {
        !self.away.is_empty()
    }

    /// Whether it is one of those.
    pub(super) fn is_away(&self, boot: BootId) -> bool {
        self.away.contains_key(&boot)
    }

    /// Somebody in the view hears it. If it is one of those who are away, as what.
    pub(super) fn heard(&mut self, boot: BootId, now: Instant) -> Option<u32> {
        let away = self.away.get_mut(&boot)?;
        (away.since, away.before, away.slept) = (now, Duration::ZERO, Duration::ZERO);
        Some(away.incarnation)
    }

    /// A node was admitted: it is back, and an earlier start of it never will be. If it has started empty since it was
    /// forgotten, what it was stays so: those who were with it then are strangers as it was.
    pub(super) fn admitted(&mut self, boot: BootId, incarnation: u32, name: &NodeName) {
        self.away.retain(|away_boot, away| *away_boot != boot && away.name != *name);
        self.vouched(boot, incarnation);
    }

    /// It is about to end, and never comes back.
    pub(super) fn left(&mut self, boot: BootId) {
        self.away.remove(&boot);
    }

    /// A member has admitted it: it was never beyond a cut from that member.
    pub(super) fn vouched(&mut self, boot: BootId, incarnation: u32) {
        if is_among(&self.forgotten, boot, incarnation) {
            self.forgotten.remove(&boot);
        }
    }

    /// What a member has forgotten, this node has too.
    pub(super) fn inherit(&mut self, forgotten: impl IntoIterator<Item = (BootId, u32)>) {
        for (boot, incarnation) in forgotten {
            if self.forgotten.len() < MAX_BOOTS || self.forgotten.contains_key(&boot) {
                let known = self.forgotten.entry(boot).or_insert(incarnation);
                *known = (*known).max(incarnation);
            }
        }
    }

    /// Somebody is missed elsewhere, or was heard by a member last: here too, as what it was then.
    pub(super) fn missed(&mut self, absent: Absent, now: Instant) {
        let Absent { boot, incarnation, name, silent } = absent;
        let is_news = match self.away.get(&boot) {
            Some(away) if away.incarnation == incarnation => silent < away.silent(now),
            Some(away) => away.incarnation < incarnation,
            None => self.away.len() < MAX_BOOTS && !is_among(&self.forgotten, boot, incarnation),
        };
        if is_news {
            self.away.insert(boot, Away::new(incarnation, name, now, silent));
        }
    }

    pub(super) fn absent(&self, now: Instant) -> Vec<Absent> {
        let absent = |(boot, away): (&BootId, &Away)| Absent {
            boot: *boot,
            incarnation: away.incarnation,
            name: away.name.clone(),
            silent: away.silent(now),
        };
        self.away.iter().take(MAX_ABSENT).map(absent).collect()
    }

    /// Whether a node that has forgotten these was on the other side of a long cut: both sides have lost somebody
    /// for good, and nobody in common. Of the nodes that were cut off from each other perhaps none is left.
    fn has_forgotten_others(&self, theirs: &BTreeMap<BootId, u32>) -> bool {
        !self.forgotten.is_empty()
            && !theirs.is_empty()
            && !theirs.keys().any(|boot| self.forgotten.contains_key(boot))
    }

    pub(super) fn expire(&mut self, now: Instant, horizon: Duration) {
        for (boot, away) in self.away.extract_if(.., |_, away| away.counted(now) >= horizon) {
            if self.forgotten.len() < MAX_BOOTS {
                self.forgotten.insert(boot, away.incarnation);
            }
        }
    }

    pub(super) fn shift(&mut self, by: Duration) {
        for away in self.away.values_mut() {
            away.slept += by;
        }
    }
}

/// Whether this is one of those who were forgotten, with what it had then.
fn is_among(forgotten: &BTreeMap<BootId, u32>, boot: BootId, incarnation: u32) -> bool {
    forgotten.get(&boot).is_some_and(|known| incarnation <= *known)
}

fn joins_anew(name: &NodeName) -> String {
    format!("{name} joined, was away for longer than the horizon, and joins anew")
}

impl Node {
    /// Who is not to be admitted as what it was. One that a member hears was never beyond a cut from that member, as far
    /// as is known: a heartbeat does not say as what, and the member may yet tell.
    pub(super) fn forgotten(&self) -> BTreeMap<BootId, u32> {
        let is_heard = |sighting: &Sighting| sighting.by_member && sighting.told.is_none();
        let is_forgotten = |boot: &BootId| !self.sightings.get(boot).is_some_and(is_heard);
        let forgotten = self.lost.forgotten.iter().filter(|(boot, _)| is_forgotten(boot));
        forgotten.map(|(boot, incarnation)| (*boot, *incarnation)).collect()
    }

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
    pub(super) fn judge_cut(&mut self, hello: &Hello, said: Said, now: Instant) -> Option<Refusal> {
        if mutated!(SidesMerge) {
            return None;
        }
        let detail = if said.incarnation != self.incarnation && !mutated!(HelloOutlived) {
            // The other would know this node by an incarnation that is over: whom it would forget later, and whom not.
            let (me, name) = (&self.me.name, &hello.name);
            Some(format!("{me} has started empty since it said who it is: {name} and it meet anew"))
        } else {
            match (self.state == MemberState::Ready, hello.state == MemberState::Ready) {
                (true, true) => self.judge_side(hello, said, now),
                // One that joins has nothing that could come back, but what it was given before it stood still.
                (true, false) => self.has_forgotten(hello).then(|| joins_anew(&hello.name)),
                (false, _) if self.is_forgotten_by(hello) => {
                    self.empty(hello, now);
                    Some(joins_anew(&self.me.name))
                }
                (false, true) => self.judge_bridge(hello, now),
                (false, false) => None,
            }
        };
        detail.map(|detail| Refusal { reason: RefusalReason::Forgotten, detail })
    }

    fn has_forgotten(&self, hello: &Hello) -> bool {
        is_among(&self.forgotten(), hello.boot, hello.incarnation)
    }

    fn is_forgotten_by(&self, hello: &Hello) -> bool {
        is_among(&hello.forgotten, self.me.boot, self.incarnation)
    }

    /// A joiner must not carry sessions from one side of the cut to the other. The two sides settle it among themselves; it
    /// waits, with empty hands if it has dealt with both.
    fn judge_bridge(&mut self, hello: &Hello, now: Instant) -> Option<String> {
        // Of several that start empty the lowest goes first: each is strange to that side as long as it is not
        // admitted there, and they would wait for each other for ever.
        let is_strange = |(boot, member): (&BootId, &Member)| {
            is_among(&hello.forgotten, *boot, member.incarnation)
                && (member.state != MemberState::Joining || *boot < self.me.boot)
        };
        let bridges = self.members.iter().any(is_strange);
        if bridges {
            self.empty(hello, now);
        }
        let waits = bridges || self.has_forgotten(hello);
        let me = &self.me.name;
        waits.then(|| {
            format!("{me} joins only one of two sides that were cut off for longer than the horizon")
        })
    }

    /// Two that serve: the smaller side yields.
    fn judge_side(&mut self, hello: &Hello, said: Said, now: Instant) -> Option<String> {
        let is_forgotten =
            (self.has_forgotten(hello) || self.is_forgotten_by(hello)) && !self.shares_lowest(hello, said);
        // To the other it may be new though it slept through being dropped there.
        let is_new = !self.members.contains_key(&hello.boot)
            || said.side.is_unknown() && !hello.members.iter().any(|contact| contact.boot == self.me.boot);
        let cut_off = is_forgotten || is_new && self.is_beyond(hello, said, now);
        if !cut_off {
            return None;
        }
        // By what both said: of two who judged by what they know now, both could yield, and all would be lost.
        let i_yield = said.side.yields_to(hello.side);
        let (me, name) = (&self.me.name, &hello.name);
        let (stays, yields) = if i_yield { (name, me) } else { (me, name) };
        let detail = format!(
            "{me} and {name} were cut off from each other for longer than the horizon: {yields}, on the smaller side, \
             starts empty and joins {stays}"
        );
        // One that did not know its side when it said hello may know it by now: then they say it again. So do they if it
        // does not yet, and was awake in the cut: else one that stood still for a moment would yield for a whole side.
        let knows_soon = self.doubting && self.has_forgotten(hello);
        if i_yield && self.side().yields_to(hello.side) && !knows_soon {
            self.empty(hello, now);
        }
        Some(detail)
    }

    /// Whether both are linked with the same member, the lowest of either side: what ended on one side has ended there, and
    /// neither side is the smaller. One that has started empty since is another: it has changed sides.
    fn shares_lowest(&self, hello: &Hello, said: Said) -> bool {
        let Some(lowest) = said.side.lowest.filter(|lowest| hello.side.lowest == Some(*lowest)) else {
            return false;
        };
        let here = match self.members.get(&lowest) {
            _ if lowest == self.me.boot => Some(said.incarnation),
            member => member.map(|member| member.incarnation),
        };
        let there = match hello.members.iter().find(|contact| contact.boot == lowest) {
            _ if lowest == hello.boot => Some(hello.incarnation),
            contact => contact.map(|contact| contact.incarnation),
        };
        here.is_some() && here == there
    }

    /// Whether a node that is new here comes from the other side of a long cut though neither has forgotten the
    /// other: it may have started within the cut, and so may this one; or its side does not count as long as this one.
    fn is_beyond(&self, hello: &Hello, said: Said, now: Instant) -> bool {
        let forgotten = self.forgotten();
        let by_me = |boot: BootId, incarnation: u32| is_among(&forgotten, boot, incarnation);
        let by_them = |boot: BootId, incarnation: u32| is_among(&hello.forgotten, boot, incarnation);
        let mut theirs = hello.members.iter().map(|contact| (contact.boot, contact.incarnation));
        let mut ours = self.members.iter().map(|(boot, member)| (*boot, member.incarnation));
        // Both with one who serves: whatever it brought, it has brought to both; and neither side would be the smaller.
        let is_shared = |contact: &Contact| {
            let member = self.members.get(&contact.boot);
            member.is_some_and(|member| {
                member.state == MemberState::Ready && member.incarnation == contact.incarnation
            })
        };
        if hello.members.iter().any(is_shared) {
            // But not since, if one stood still: another that it had then may be beyond a cut by now, and it with that one.
            return hello.side.is_unknown() && theirs.any(|(boot, incarnation)| by_me(boot, incarnation))
                || said.side.is_unknown() && ours.any(|(boot, incarnation)| by_them(boot, incarnation));
        }
        // Of one that is away: was there a time when one side lived with it and the other heard of neither?
        let lately = |silent: Duration| silent + self.config.drop_time * 2 < self.config.horizon;
        let absent = hello.absent.iter().filter(|absent| lately(absent.silent));
        let mut theirs = theirs.chain(absent.map(|absent| (absent.boot, absent.incarnation)));
        let away = self.lost.away.iter().filter(|(_, away)| lately(away.silent(now)));
        let mut ours = ours.chain(away.map(|(boot, away)| (*boot, away.incarnation)));
        theirs.any(|(boot, incarnation)| by_me(boot, incarnation))
            || ours.any(|(boot, incarnation)| by_them(boot, incarnation))
            || !self.misses(hello) && self.lost.has_forgotten_others(&hello.forgotten)
    }

    /// Whether the two were members of one cluster less than a horizon ago, as either counts it.
    fn misses(&self, hello: &Hello) -> bool {
        self.lost.away.contains_key(&hello.boot)
            || hello.absent.iter().any(|absent| absent.boot == self.me.boot)
    }

    fn empty(&mut self, met: &Hello, now: Instant) {
        self.state = MemberState::Joining;
        self.incarnation += 1;
        self.started_at = now;
        self.met_ready = false;
        self.doubting = false;
        self.candidates.clear();
        self.claims.clear();
        let members: Vec<(BootId, u32)> =
            self.members.iter().map(|(boot, member)| (*boot, member.incarnation)).collect();
        for (boot, _) in &members {
            self.remove(*boot, DropCause::Emptied, now);
        }
        // The rest of this side, and whom it had lost, is no more to be merged with than this node was. One that slept
        // still holds those for its members, or misses those, who have gone on without it.
        let contacts = met.members.iter().map(|contact| (contact.boot, contact.incarnation));
        let absent = met.absent.iter().map(|absent| (absent.boot, absent.incarnation));
        let theirs: Vec<(BootId, u32)> =
            contacts.chain(absent).chain([(met.boot, met.incarnation)]).collect();
        let Lost { away, forgotten } = core::mem::take(&mut self.lost);
        let away = away.into_iter().map(|(boot, away)| (boot, away.incarnation));
        let former = members.into_iter().chain(away).chain(forgotten);
        let former: Vec<(BootId, u32)> = former.filter(|known| !theirs.contains(known)).collect();
        self.lost.inherit(former);
        self.actions.push_back(Action::Empty);
        self.events.push_back(Event::Emptied { name: met.name.clone() });
        self.publish(now);
    }
}
