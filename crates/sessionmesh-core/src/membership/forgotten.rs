//! Cuts longer than the horizon: ends of sessions are forgotten by then, so the two sides must not
//! merge. The smaller one starts empty.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use super::action::Action;
use super::member::MemberState;
use super::node::Node;
use crate::wire::{Hello, Refusal, RefusalReason, Side};
use crate::{BootId, DropCause, Event, Instant, NodeName};

/// The most boots remembered of either kind.
const MAX_BOOTS: usize = 1_024;

/// Members dropped that did not leave, and those that stayed away for the horizon.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost {
    away: BTreeMap<BootId, (NodeName, Instant)>,
    forgotten: BTreeSet<BootId>,
}

impl Lost {
    pub(super) fn dropped(&mut self, boot: BootId, name: NodeName, now: Instant) {
        if self.away.len() < MAX_BOOTS {
            self.away.insert(boot, (name, now));
        }
    }

    /// Somebody in the view hears it.
    pub(super) fn heard(&mut self, boot: BootId, now: Instant) {
        if let Some((_, at)) = self.away.get_mut(&boot) {
            *at = now;
        }
    }

    /// A node was admitted: it is back, and an earlier start of it never will be.
    pub(super) fn admitted(&mut self, boot: BootId, name: &NodeName) {
        self.away.retain(|away, (away_name, _)| *away != boot && away_name != name);
        self.forgotten.remove(&boot);
    }

    /// What the others have forgotten, a joiner has too.
    pub(super) fn inherit(&mut self, forgotten: &[BootId]) {
        let room = MAX_BOOTS.saturating_sub(self.forgotten.len());
        self.forgotten.extend(forgotten.iter().take(room));
    }

    pub(super) fn expire(&mut self, now: Instant, horizon: Duration) {
        let over: Vec<BootId> =
            self.away.iter().filter(|(_, (_, at))| now - *at >= horizon).map(|(boot, _)| *boot).collect();
        for boot in over {
            self.away.remove(&boot);
            if self.forgotten.len() < MAX_BOOTS {
                self.forgotten.insert(boot);
            }
        }
    }

    pub(super) fn shift(&mut self, by: Duration) {
        for (_, at) in self.away.values_mut() {
            *at += by;
        }
    }

    pub(super) fn forgotten(&self) -> Vec<BootId> {
        self.forgotten.iter().copied().collect()
    }
}

impl Node {
    /// How large this node's side of a cut is.
    pub(super) fn side(&self) -> Side {
        let mine = (self.state == MemberState::Ready).then_some(self.me.boot);
        let others = self.members.iter().filter(|(_, member)| member.state == MemberState::Ready);
        let ready: Vec<BootId> = others.map(|(boot, _)| *boot).chain(mine).collect();
        Side { size: u32::try_from(ready.len()).unwrap_or(u32::MAX), lowest: ready.into_iter().min() }
    }

    /// Whether the other side of a connection and this one must not merge; if this one is the smaller,
    /// it empties itself.
    pub(super) fn judge_cut(&mut self, hello: &Hello, now: Instant) -> Option<Refusal> {
        let strangers = self.lost.forgotten.contains(&hello.boot) || hello.forgotten.contains(&self.me.boot);
        // One that joins has nothing that could come back.
        if !strangers || self.state != MemberState::Ready || hello.state != MemberState::Ready {
            return None;
        }
        let (me, name) = (&self.me.name, &hello.name);
        let i_yield = self.side().yields_to(hello.side);
        let (stays, yields) = if i_yield { (name, me) } else { (me, name) };
        let detail = format!(
            "{me} and {name} were cut off from each other for longer than the horizon: {yields}, on the smaller side, \
             starts empty and joins {stays}"
        );
        if i_yield {
            self.empty(hello.name.clone(), now);
        }
        Some(Refusal { reason: RefusalReason::Forgotten, detail })
    }

    fn empty(&mut self, name: NodeName, now: Instant) {
        self.state = MemberState::Joining;
        self.started_at = now;
        self.met_ready = false;
        self.doubting = false;
        let boots: Vec<BootId> = self.members.keys().copied().collect();
        for boot in boots {
            self.remove(boot, DropCause::Emptied, now);
        }
        self.lost = Lost::default();
        self.actions.push_back(Action::Empty);
        self.events.push_back(Event::Emptied { name });
        self.publish();
    }
}
