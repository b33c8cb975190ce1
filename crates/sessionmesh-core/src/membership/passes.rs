//! When sessions are compared, and with whom.

use alloc::format;

use super::action::{Action, Fatal, PassDone, PassRole};
use super::member::{Member, MemberState, PassState};
use super::node::Node;
use crate::placement::Mode;
use crate::wire::RefusalReason;
use crate::{BootId, Event, Instant, mutated};

impl Node {
    /// Whether "not here" on this node is an answer about a session: it is ready, doubts nothing and
    /// has compared with every member that may hold sessions, since their link is up and, in
    /// backup-only mode, since the view changed.
    pub fn is_settled(&self) -> bool {
        let compared = |member: &Member| {
            member.state == MemberState::Joining || member.has_compared() || mutated!(ReadyBeforeCompared)
        };
        self.state == MemberState::Ready && !self.doubting && self.members.values().all(compared)
    }

    /// Whether every member has what this node had when their link came up, and the other way round.
    pub fn has_compared_with_all(&self) -> bool {
        self.members.values().all(Member::has_compared)
    }

    /// A stream to a member was cut short (its outbox overflowed): compare again.
    pub fn handle_pass_due(&mut self, boot: BootId, now: Instant) {
        if let Some(member) = self.members.get_mut(&boot) {
            if matches!(member.pass, PassState::Running | PassState::Round) {
                // What was lost may have been lost after the one that runs had summed up.
                member.pass_again = true;
            } else {
                member.pass = PassState::Due;
                member.next_pass_at = now;
            }
        }
        self.settle(now);
    }

    /// A member crashed or was cut off: what it had told only some of the others, they must tell the
    /// rest. Deltas are not relayed.
    pub(super) fn compare_survivors(&mut self, now: Instant) {
        for (boot, member) in &mut self.members {
            match member.pass {
                PassState::Running | PassState::Round => member.pass_again = true,
                PassState::Done if self.me.boot < *boot => member.pass = PassState::Due,
                PassState::Done => {
                    member.pass = PassState::Awaited;
                    member.next_pass_at = now + self.config.drop_time;
                }
                PassState::Due | PassState::Awaited => {}
            }
        }
    }

    /// What a member that is gone in good order had told this node, it may not have told those who join.
    pub(super) fn compare_with_joiners(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            if member.state == MemberState::Joining && member.pass == PassState::Done {
                member.pass = PassState::Due;
                member.next_pass_at = now;
            }
        }
    }

    /// Another set of members is ready: other nodes hold some of the sessions now. Each two compare
    /// what both hold by now, and give each other what has become the other's.
    pub(super) fn compare_in_new_view(&mut self, now: Instant) {
        if self.me.mode == Mode::AllPeers {
            return;
        }
        let joining = self.state == MemberState::Joining;
        for (boot, member) in &mut self.members {
            if matches!(member.pass, PassState::Running | PassState::Round) {
                member.pass_again = true;
            } else if joining || (member.state != MemberState::Joining && self.me.boot < *boot) {
                member.pass = PassState::Due;
                member.next_pass_at = now;
            } else {
                member.pass = PassState::Awaited;
                member.next_pass_at = now + self.config.drop_time;
            }
        }
    }

    /// A pass with a member is done.
    pub fn handle_pass_done(&mut self, boot: BootId, done: PassDone, now: Instant) {
        let PassDone { role, view, agreed } = done;
        // Two that never come to agree (each is cut off from another third) must not wait for ever.
        let patience = now - self.view_changed_at >= self.config.drop_time;
        let counts = self.me.mode == Mode::AllPeers || (view == self.view.serial() && (agreed || patience));
        if let Some(member) = self.members.get_mut(&boot) {
            // A pass that the other side drove does not settle what this side found due.
            let settles = match role {
                PassRole::Driver => matches!(member.pass, PassState::Running | PassState::Round),
                PassRole::Responder => member.pass == PassState::Awaited && counts,
            };
            if settles {
                let again = core::mem::take(&mut member.pass_again) || !counts;
                member.pass = if again { PassState::Due } else { PassState::Done };
                member.disagreed = !agreed && self.me.mode != Mode::AllPeers;
                if !counts {
                    // Until they see the same members or patience ends, another would do no more.
                    let patience_ends = self.view_changed_at + self.config.drop_time;
                    let soon = now + self.config.tick();
                    member.next_pass_at = if member.disagreed { patience_ends.max(soon) } else { soon };
                }
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

    /// Passes run one at a time: the first brings a joiner everything, the others then move little.
    pub(super) fn start_pass(&mut self, now: Instant) {
        let view = self.view.hash();
        for member in self.members.values_mut() {
            // What each holds for the other could not be handed over before.
            let waits = matches!(member.pass, PassState::Done | PassState::Due);
            if member.disagreed && waits && member.view == Some(view) {
                member.disagreed = false;
                member.pass = PassState::Due;
                member.next_pass_at = now;
            }
        }
        let runs = |member: &Member| matches!(member.pass, PassState::Running | PassState::Round);
        let running = self.members.values().any(runs);
        if running {
            return;
        }
        // A view changes everywhere within milliseconds: to compare before would move what need not be.
        let hasty = self.me.mode != Mode::AllPeers && now - self.view_changed_at < self.config.frequency;
        let able = |member: &&mut Member| {
            let agrees = !hasty || member.view.is_none_or(|theirs| theirs == view);
            member.link.is_some() && now >= member.next_pass_at && agrees
        };
        let wants = |member: &Member| match member.pass {
            PassState::Due => true,
            // A joiner takes its time, one donor after the other.
            PassState::Awaited => member.state != MemberState::Joining,
            PassState::Running | PassState::Done | PassState::Round => false,
        };
        let mut due = self.members.iter_mut().filter(|(_, member)| wants(member));
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
}
