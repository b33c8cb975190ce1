//! The state of a session that has not been destroyed.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::attributes::{Attribute, Attributes};
use super::delta::Delta;
use super::end::{End, EndCause};
use super::limits::StampedLimits;
use super::update::{StateUpdate, TouchUpdate, local_limits};
use super::version::Version;
use crate::{BootId, Instant, Stamp, mutated};

/// The newest access that other nodes know of, and the newest that this one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touch {
    /// Of the newest access that was sent. Decides whether an idle end holds.
    pub stamp: Stamp,
    /// When this node gave or got that stamp.
    pub stamped_at: Instant,
    /// The last access on this node's clock, sent or not.
    pub last_access: Instant,
}

/// What a holder keeps of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    pub(super) attributes: Attributes,
    pub(super) version: Version,
    pub(super) limits: StampedLimits,
    pub(super) touch: Touch,
    /// The newest end by idleness. The state outlives it while `touch` is newer, and is kept for a
    /// while if not: the access that saves it may be on its way.
    pub(super) expired: Option<Box<End>>,
    /// Only some writes have come: kept and merged, but not served until the rest is here.
    pub(super) partial: bool,
}

impl SessionState {
    pub(super) fn empty(partial: bool, now: Instant) -> Self {
        Self {
            attributes: Attributes::default(),
            version: Version::new(),
            limits: StampedLimits::default(),
            touch: Touch { last_access: now, ..Touch::default() },
            expired: None,
            partial,
        }
    }

    /// The attributes.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// What the state contains.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Whether whoever has this version has all of the state, also what came past a gap in the own one.
    pub fn is_contained_in(&self, version: &Version) -> bool {
        version.covers(&self.version)
            && version.contains(self.touch.stamp)
            && version.contains(self.limits.stamp)
            && self.attributes.iter().all(|attribute| version.contains(attribute.stamp))
    }

    /// See [`Record::prefetch`](super::Record::prefetch).
    pub(super) fn prefetch(&self) -> u64 {
        // Of each line of the cache that the state lies in.
        let here = self.touch.stamp.hlc.get() ^ self.limits.stamp.hlc.get() ^ u64::from(self.partial);
        here ^ self.attributes.prefetch()
    }

    /// The newest access.
    pub fn touch(&self) -> Touch {
        self.touch
    }

    /// The session's own limits.
    pub fn limits(&self) -> &StampedLimits {
        &self.limits
    }

    /// Whether only some of the session has come.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// The idle end that the state has not outlived.
    pub fn idle_end(&self) -> Option<End> {
        self.expired.as_deref().copied().filter(|end| self.touch.stamp <= end.stamp)
    }

    /// Whether the session may be served: whole, and not ended.
    pub fn is_live(&self) -> bool {
        !self.partial && self.idle_end().is_none()
    }

    /// When the session ends unless it is used, given the cluster's idle limit.
    pub fn ends_at(&self, cluster_idle: Duration) -> Instant {
        let idle = self.touch.last_access + self.limits.idle.unwrap_or(cluster_idle);
        self.limits.ends_at().map_or(idle, |end| idle.min(end))
    }

    /// Whether the session's absolute end has come.
    pub fn is_past_deadline(&self, now: Instant) -> bool {
        self.limits.ends_at().is_some_and(|end| now >= end)
    }

    /// Notes an access on this node; says whether others should hear of it.
    pub fn access(&mut self, now: Instant, touch_interval: Duration) -> bool {
        self.touch.last_access = self.touch.last_access.max(now);
        now - self.touch.stamped_at >= touch_interval
    }

    /// Merges another node's delta; says whether the version went along, and how many of its writes
    /// lost against writes that it did not know of. `age`: how long ago it was made, as far as that is known.
    pub(super) fn merge_delta(&mut self, delta: &Delta, age: Duration, now: Instant) -> (bool, usize) {
        let origin = delta.stamp.origin;
        let writes = delta.changes.iter();
        let writes = writes.map(|(name, value)| Attribute::new(name, delta.stamp, value.as_ref()));
        let lost = self.attributes.merge(writes);
        if let Some(limits) = delta.limits {
            self.limits.merge(local_limits(delta.stamp, limits, now));
        }
        self.merge_touch(TouchUpdate { stamp: delta.stamp, age }, now);
        let follows =
            !self.partial && (delta.previous <= self.version.get(origin) || mutated!(VectorOverGap));
        if follows {
            self.version.advance(origin, delta.stamp.hlc);
        }
        (follows, lost)
    }

    pub(super) fn merge_touch(&mut self, touch: TouchUpdate, now: Instant) {
        // Only a newer stamp moves the clock reading: an access told back and forth between two
        // nodes would otherwise age by the way it travels and never grow old.
        if touch.stamp > self.touch.stamp {
            // An old access that only now comes here: the next is to be told at once, because others may
            // know none that is newer.
            let stamped_at = if touch.age.is_zero() { now } else { Instant::ZERO };
            self.touch = Touch {
                stamp: touch.stamp,
                stamped_at,
                last_access: self.touch.last_access.max(now.saturating_sub(touch.age)),
            };
        }
    }

    /// Merges another node's state; says whether it is contained now.
    pub(super) fn merge_update(&mut self, update: StateUpdate, now: Instant) -> bool {
        if self.attributes.is_empty() {
            self.attributes = update.attributes;
        } else {
            self.attributes.merge(update.attributes.iter());
        }
        self.limits.merge(update.limits.into_local(now));
        self.merge_touch(update.touch, now);
        if let Some(end) = update.expired {
            self.merge_expired(end);
        }
        let complete = match &update.base {
            None => true,
            Some(base) => !self.partial && self.version.covers(base),
        };
        if complete {
            self.partial = false;
            self.version.merge(&update.version);
        }
        complete
    }

    pub(super) fn merge_expired(&mut self, end: End) {
        let merged = self.expired.as_ref().map_or(end, |here| here.merge(end));
        self.expired = Some(Box::new(merged));
    }

    /// A hash that two holders share if and only if users see the same session on both: present
    /// attributes by stamp, limits and the newest touch, or the end. Versions and removal marks
    /// are left out: they may be forgotten at different times.
    pub(super) fn digest(&self) -> u64 {
        if let Some(end) = self.idle_end() {
            return end_digest(end);
        }
        // One buffer and one call: a pass does this for every session.
        let mut bytes = Vec::with_capacity(256);
        let mut write = |stamp: Stamp| {
            bytes.extend_from_slice(&stamp.hlc.get().to_le_bytes());
            bytes.extend_from_slice(&stamp.origin.get().to_le_bytes());
        };
        write(self.limits.stamp);
        write(self.touch.stamp);
        let present = || self.attributes.iter().filter(|attribute| !attribute.is_removal());
        for attribute in present() {
            write(attribute.stamp);
        }
        for attribute in present() {
            bytes.extend_from_slice(&(attribute.name.len() as u32).to_le_bytes());
            bytes.extend_from_slice(attribute.name);
        }
        bytes.push(u8::from(self.partial));
        xxh3_64(&bytes)
    }

    /// Forgets removal marks that are older than any cut, or too many, and boots that are gone.
    pub fn forget(&mut self, before_ms: u64, removals: usize, is_member: impl Fn(BootId) -> bool) {
        self.attributes.forget_removals(before_ms);
        self.attributes.trim_removals(removals);
        self.version.prune(|boot, hlc| hlc.millis() < before_ms && !is_member(boot));
    }

    /// Whether [`SessionState::forget`] has something to do.
    pub fn has_outworn(&self, before_ms: u64, removals: usize, is_member: impl Fn(BootId) -> bool) -> bool {
        let old =
            |attribute: Attribute<'_>| attribute.is_removal() && attribute.stamp.hlc.millis() < before_ms;
        self.attributes.removals() > removals
            || self.attributes.iter().any(old)
            || self.version.entries().any(|(boot, hlc)| hlc.millis() < before_ms && !is_member(boot))
    }
}

pub(super) fn end_digest(end: End) -> u64 {
    let cause: &[u8; 9] = match end.cause {
        EndCause::Destroyed => b"destroyed",
        EndCause::Expired => b"expired..",
    };
    // Two nodes may destroy one session at once; either end is as good to users, and both merge to
    // one, so the stamp is part of the hash and a pass brings them together.
    // And so is that it was announced, or whoever becomes the first holder announces it once more.
    let mut bytes = [0; 26];
    bytes[..9].copy_from_slice(cause);
    bytes[9..17].copy_from_slice(&end.stamp.hlc.get().to_le_bytes());
    bytes[17..25].copy_from_slice(&end.stamp.origin.get().to_le_bytes());
    bytes[25] = u8::from(end.announced);
    xxh3_64(&bytes)
}
