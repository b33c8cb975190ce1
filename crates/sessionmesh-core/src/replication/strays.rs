//! Copies on a node that does not hold their sessions, and when they may go.
//!
//! A stray is never dropped before every holder has it. There are two ways to know that they do:
//! *known* strays came to be one by one (a visitor loaded or wrote a session, a frame came from a node
//! with another view) and go by acknowledgements; all others came to be at once, by a change of view,
//! and go by passes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::placement::View;
use crate::{BootId, Instant, SessionId, mutated};

/// Writes of one stray on their way at once; past it the whole record is sent.
const MAX_WAITS: usize = 16;

/// One node's strays; `W` is what tells whether a write has reached every holder.
#[derive(Debug)]
pub struct Strays<W> {
    view: u64,
    known: BTreeMap<SessionId, Known<W>>,
    /// By session, the digest that was offered and who has it.
    confirmed: BTreeMap<SessionId, (u64, Vec<BootId>)>,
}

#[derive(Debug)]
struct Known<W> {
    /// Since when there is more here than what came from a holder or is waited for.
    unsent_since: Option<Instant>,
    waits: Vec<W>,
    /// It was written here in this view.
    is_written: bool,
    /// By a request; a copy that is used again and again is kept.
    used_at: Option<Instant>,
}

impl<W> Known<W> {
    fn is_clean(&self, is_everywhere: impl Fn(&W) -> bool) -> bool {
        self.unsent_since.is_none() && self.waits.iter().all(is_everywhere)
    }
}

impl<W> Default for Strays<W> {
    fn default() -> Self {
        Self { view: 0, known: BTreeMap::new(), confirmed: BTreeMap::new() }
    }
}

impl<W> Strays<W> {
    /// The view changed: what is known of copies elsewhere is void, and passes will tell.
    ///
    /// Gives back the copies that must go now: of visitors who only read. If the holders they came from are gone,
    /// they must not take their place: they may lack the newest writes, or a logout. What was written here stays:
    /// the holders that have it may be others than those of this view.
    pub fn enter(&mut self, view: &View, is_everywhere: impl Fn(&W) -> bool) -> Vec<SessionId> {
        if self.view == view.serial() {
            return Vec::new();
        }
        self.view = view.serial();
        self.confirmed.clear();
        let known = core::mem::take(&mut self.known);
        let goes = |known: &Known<W>| !known.is_written && known.is_clean(&is_everywhere);
        known.into_iter().filter(|(_, known)| goes(known)).map(|(id, _)| id).collect()
    }

    /// Whether there is nothing in a visitor's copy that its holders do not have.
    pub fn is_clean(&self, id: &SessionId, is_everywhere: impl Fn(&W) -> bool) -> bool {
        self.known.get(id).is_some_and(|known| known.is_clean(&is_everywhere))
    }

    /// Whether a stray is known one by one.
    pub fn is_known(&self, id: &SessionId) -> bool {
        self.known.contains_key(id)
    }

    /// How many came to be one by one.
    pub fn known(&self) -> usize {
        self.known.len()
    }

    fn known_mut(&mut self, id: SessionId, now: Instant, fresh: bool) -> &mut Known<W> {
        let unsent_since = (!fresh).then_some(now);
        self.known.entry(id).or_insert(Known {
            unsent_since,
            waits: Vec::new(),
            is_written: false,
            used_at: None,
        })
    }

    /// A request loaded a session that is not held here. `fresh`: nothing of it was here before, and
    /// a holder in this view gave it.
    pub fn visited(&mut self, id: SessionId, view: &View, fresh: bool, now: Instant) {
        let fresh = fresh && self.view == view.serial();
        self.known_mut(id, now, fresh).used_at = Some(now);
    }

    /// A request wrote to a session that is not held here; `wait` is for the holders in this view.
    pub fn written(
        &mut self,
        id: SessionId,
        view: &View,
        wait: W,
        now: Instant,
        is_everywhere: impl Fn(&W) -> bool,
    ) {
        let stale = self.view != view.serial();
        let known = self.known_mut(id, now, false);
        known.used_at = Some(now);
        known.is_written = true;
        if stale {
            known.unsent_since.get_or_insert(now);
        }
        known.waits.retain(|wait| !is_everywhere(wait));
        if known.waits.len() == MAX_WAITS {
            known.waits.clear();
            known.unsent_since.get_or_insert(now);
        }
        known.waits.push(wait);
    }

    /// Another node sent something of a session that is not held here.
    pub fn arrived(&mut self, id: SessionId, now: Instant) {
        self.known_mut(id, now, false).unsent_since.get_or_insert(now);
    }

    /// The whole record is being sent to every holder in this view. Called under the session's lock:
    /// nothing has come since.
    pub fn sent(&mut self, id: SessionId, view: &View, wait: W) {
        if self.view != view.serial() {
            return;
        }
        if let Some(known) = self.known.get_mut(&id) {
            known.unsent_since = None;
            known.waits.clear();
            known.waits.push(wait);
        }
    }

    /// The known strays to send whole, those with something unsent for `patience`, and the ones that
    /// may go, not used for `rest`. `is_lost` says of a write that it will not reach every holder.
    pub fn due(
        &mut self,
        now: Instant,
        patience: Duration,
        rest: Duration,
        is_everywhere: impl Fn(&W) -> bool,
        is_lost: impl Fn(&W) -> bool,
    ) -> (Vec<SessionId>, Vec<SessionId>) {
        let (mut send, mut drop) = (Vec::new(), Vec::new());
        for (id, known) in &mut self.known {
            known.waits.retain(|wait| !is_everywhere(wait));
            if known.waits.iter().any(&is_lost) {
                known.waits.clear();
                known.unsent_since.get_or_insert(now);
            }
            let rested = known.used_at.is_none_or(|at| now - at >= rest);
            match known.unsent_since {
                Some(since) if now - since >= patience => send.push(*id),
                None if known.waits.is_empty() && rested => drop.push(*id),
                _ => {}
            }
        }
        (send, drop)
    }

    /// Forgets a known stray if it may still go, not used for `rest`. Called under the session's lock.
    pub fn release(
        &mut self,
        id: &SessionId,
        now: Instant,
        rest: Duration,
        is_everywhere: impl Fn(&W) -> bool,
    ) -> bool {
        let free = |known: &Known<W>| {
            let rested = known.used_at.is_none_or(|at| now - at >= rest);
            rested && known.is_clean(&is_everywhere)
        };
        let free = self.known.get(id).is_some_and(free);
        if free {
            self.forget(id);
        }
        free
    }

    /// Forgets what was known of a session that is held here now, or nowhere.
    pub fn forget(&mut self, id: &SessionId) {
        self.known.remove(id);
        self.confirmed.remove(id);
    }

    /// A pass is done in which both sides saw this view: the other node has these. Gives back those
    /// that every holder has now.
    pub fn confirm(&mut self, view: &View, by: BootId, strays: &[(SessionId, u64)]) -> Vec<(SessionId, u64)> {
        if view.serial() != self.view {
            return Vec::new();
        }
        let mut everywhere = Vec::new();
        for (id, digest) in strays {
            let entry = self.confirmed.entry(*id).or_insert((*digest, Vec::new()));
            if entry.0 != *digest {
                *entry = (*digest, Vec::new());
            }
            if !entry.1.contains(&by) {
                entry.1.push(by);
            }
            if view.are_all_holders(id, &entry.1) || mutated!(StrayDroppedEarly) {
                self.confirmed.remove(id);
                everywhere.push((*id, *digest));
            }
        }
        everywhere
    }
}
