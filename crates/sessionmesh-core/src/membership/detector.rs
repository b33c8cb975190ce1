//! Who is alive, this node included.

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use super::action::Action;
use super::admission::Claim;
use super::member::{Member, PassState};
use super::node::Node;
use crate::wire::{Refusal, RefusalReason};
use crate::{BootId, DropCause, Event, Instant};

impl Node {
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
            if matches!(member.pass, PassState::Running | PassState::Round) {
                // It compares what both held before.
                member.pass = PassState::Running;
                member.pass_again = true;
            } else {
                member.pass = PassState::Due;
                member.next_pass_at = now;
            }
        }
        for sighting in self.sightings.values_mut() {
            sighting.heard_at += late;
        }
        for claim in &mut self.claims {
            claim.until += late;
        }
        // After the answer nothing is old any more that comes on the link.
        self.suspects.extend(self.members.keys());
        self.dials.shift(late);
        self.lost.shift(late);
        self.doubting = !self.members.is_empty();
        if self.doubting {
            self.events.push_back(Event::Doubting { late });
        }
        self.settle(now);
    }

    pub(super) fn check_members(&mut self, now: Instant) {
        let config = self.config;
        let mut verdicts = Vec::new();
        for (boot, member) in &self.members {
            let silent = now - member.alive_at();
            if member.link.is_none() {
                let lost = now - member.link_lost_at;
                if lost >= config.drop_time {
                    verdicts.push((*boot, Some(DropCause::Unreachable)));
                } else if silent >= config.drop_time && lost >= config.ping_timeout {
                    verdicts.push((*boot, Some(DropCause::Silent)));
                }
                continue;
            }
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
        self.question_views(now);
        let suspects = core::mem::take(&mut self.suspects);
        verdicts.extend(suspects.into_iter().map(|boot| (boot, None)));
        self.give_up_dead_links(now);
        for (boot, verdict) in verdicts {
            match verdict {
                Some(cause) => self.remove(boot, cause, now),
                None => self.ping(boot, now),
            }
        }
    }

    /// Two who see different members for long: one of them may hold a dead link for a live one, because
    /// heartbeats come and nothing is sent on it. All are asked there.
    fn question_views(&mut self, now: Instant) {
        let (view, patience) = (self.view.hash(), self.config.drop_time);
        let mut question = false;
        for member in self.members.values_mut() {
            let differs = member.link.is_some() && member.view.is_some_and(|theirs| theirs != view);
            let since = *member.differs_since.get_or_insert(now);
            if !differs {
                member.differs_since = None;
            } else if now - since >= patience {
                member.differs_since = Some(now);
                question = true;
            }
        }
        if question {
            self.suspects.extend(self.members.keys());
        }
    }

    /// A link on which a ping stays unanswered while heartbeats come: the process lives, the link does
    /// not.
    fn give_up_dead_links(&mut self, now: Instant) {
        let patience = self.config.ping_timeout * 2;
        let dead = |member: &Member| member.pinged_at.is_some_and(|at| now - at >= patience);
        for (boot, member) in self.members.iter_mut().filter(|(_, member)| dead(member)) {
            if let Some(link) = member.link.take() {
                self.actions.push_back(Action::Close { link: link.id });
                member.pinged_at = None;
                member.link_lost_at = now;
                self.dials.want(member.address, Some(*boot), now, now);
            }
        }
    }

    pub(super) fn ping(&mut self, boot: BootId, now: Instant) {
        if let Some(member) = self.members.get_mut(&boot) {
            member.pinged_at.get_or_insert(now);
            self.actions.push_back(Action::Ping { boot });
        }
    }

    /// A member that has not been heard when it should have been: it may know accesses that this
    /// node does not.
    pub fn silent_member(&self, now: Instant) -> Option<BootId> {
        let late =
            |member: &Member| member.link.is_none() || now - member.alive_at() >= self.config.frequency * 3;
        self.members.iter().find(|(_, member)| late(member)).map(|(boot, _)| *boot)
    }

    /// A link's acknowledgements stand still: its process is asked, and if it does not answer there,
    /// the link is given up for a fresh one, so that an old socket's back-off does not delay a heal.
    pub fn handle_stalled(&mut self, boot: BootId, now: Instant) {
        self.suspects.insert(boot);
        self.settle(now);
    }
}
