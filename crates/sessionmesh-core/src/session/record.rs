//! The one place that knows what becomes of a record when something happens to its session.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::attributes::{Attribute, MAX_NAME_BYTES, find};
use super::change::{Change, ChangeError, SessionLimits};
use super::delta::Delta;
use super::end::{End, EndCause};
use super::state::{SessionState, Touch, end_digest};
use super::update::{Difference, LimitsUpdate, RecordUpdate, StateUpdate, TouchUpdate};
use super::version::Version;
use crate::{BootId, Hlc, Instant, SessionId, Stamp, mutated};

/// What a node knows of one session: `None` in a table means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Its state.
    Held(Box<SessionState>),
    /// That it has ended.
    Ended(End),
}

/// What came of applying something from another node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Applied {
    /// What came is part of a whole state here, or void by an end here: it may be acknowledged.
    pub held: bool,
    /// Something is missing. Ask the sender, on condition of this version (`None`: for all of it).
    pub want: Option<Option<Version>>,
    /// The session came to be here.
    pub created: bool,
    /// The session ended here.
    pub ended: Option<End>,
    /// A write came for a session that has ended here.
    pub late: bool,
    /// An end came that this state has outlived: its sender lacks an access.
    pub outlived: bool,
    /// An end by idleness came, and something newer is known here.
    pub superseded: bool,
    /// Writes that lost against others of the same attributes that they did not know of.
    pub conflicts: usize,
}

impl Record {
    /// The state, if the session may be served.
    pub fn live(&self) -> Option<&SessionState> {
        match self {
            Self::Held(state) if state.is_live() => Some(state),
            _ => None,
        }
    }

    /// The end, if the session has one.
    pub fn end(&self) -> Option<End> {
        match self {
            Self::Held(state) => state.idle_end(),
            Self::Ended(end) => Some(*end),
        }
    }

    /// Whether only part of the session has come.
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::Held(state) if state.partial)
    }

    /// Fetches what will be read from memory; the number means nothing, and makes the compiler read.
    pub fn prefetch(&self) -> u64 {
        match self {
            Self::Held(state) => state.prefetch(),
            Self::Ended(_) => 0,
        }
    }

    /// A hash that holders of the same session state share.
    pub fn digest(&self) -> u64 {
        match self {
            Self::Held(state) => state.digest(),
            Self::Ended(end) => end_digest(*end),
        }
    }

    /// Begins a session here.
    ///
    /// # Errors
    /// The change is over a limit.
    pub fn create(
        id: SessionId,
        stamp: Stamp,
        now: Instant,
        change: Change,
        limits: &SessionLimits,
    ) -> Result<(Self, Delta), ChangeError> {
        let mut state = SessionState::empty(false, now);
        check(&[], &change.attributes, limits)?;
        let delta = Delta {
            id,
            previous: Hlc::ZERO,
            stamp,
            changes: change.attributes,
            limits: change.limits,
            create: true,
            ack_later: false,
        };
        let _ = state.merge_delta(&delta, Duration::ZERO, now);
        Ok((Self::Held(Box::new(state)), delta))
    }

    /// Makes a change here; `None` if every value is what it was.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`] for nothing or part of a session, [`ChangeError::Ended`] after its
    /// end, or the limit that the change would break. Nothing is changed then.
    pub fn change(
        slot: &mut Option<Self>,
        id: SessionId,
        change: Change,
        limits: &SessionLimits,
        now: Instant,
        tick: impl FnOnce(Hlc) -> Stamp,
    ) -> Result<Option<Delta>, ChangeError> {
        let state = Self::live_mut(slot)?;
        if state.is_past_deadline(now) {
            return Err(ChangeError::Ended);
        }
        let mut changes = change.attributes;
        let before = state.attributes.listed();
        changes.retain(|(name, value)| present(&before, name) != value.as_deref());
        if changes.is_empty() && change.limits.is_none() {
            return Ok(None);
        }
        check(&before, &changes, limits)?;
        drop(before);
        let stamp = tick(state.newest());
        let delta = Delta {
            id,
            previous: state.version.get(stamp.origin),
            stamp,
            changes,
            limits: change.limits,
            create: false,
            ack_later: false,
        };
        let _ = state.merge_delta(&delta, Duration::ZERO, now);
        state.attributes.trim_removals(limits.attributes);
        state.touch.last_access = state.touch.last_access.max(now);
        Ok(Some(delta))
    }

    /// The delta that tells others of an access here.
    ///
    /// # Errors
    /// As [`Record::change`].
    pub fn touch(
        slot: &mut Option<Self>,
        id: SessionId,
        now: Instant,
        tick: impl FnOnce(Hlc) -> Stamp,
    ) -> Result<Delta, ChangeError> {
        Ok(Self::live_mut(slot)?.touched(id, now, tick))
    }

    /// Whether the session has been used here lately, though there is an end by idleness, which did not know of it.
    pub fn is_disproved(&self, idle: Duration, now: Instant) -> bool {
        match self {
            Self::Held(state) => !state.partial && state.idle_end().is_some() && state.ends_at(idle) > now,
            Self::Ended(_) => false,
        }
    }

    /// Stamps the last access here anew, which an end by idleness did not know of: the session lives on, and no longer
    /// than after any other access. Gives back the update for those who lack it; `None` if the session has ended here,
    /// too, and [is not disproved](Record::is_disproved) to have.
    pub fn outlive(
        slot: &mut Option<Self>,
        id: SessionId,
        idle: Duration,
        now: Instant,
        tick: impl FnOnce(Hlc) -> Stamp,
    ) -> Option<RecordUpdate> {
        let lives = |record: &&mut Self| record.live().is_some() || record.is_disproved(idle, now);
        let record = slot.as_mut().filter(lives)?;
        let Self::Held(state) = &mut *record else { return None };
        let known = state.version.clone();
        let stamp = tick(state.newest());
        state.merge_touch(TouchUpdate { stamp, age: now - state.touch.last_access }, now);
        state.version.advance(stamp.origin, stamp.hlc);
        record.update(id, Some(&known), now)
    }

    /// Destroys the session here, for good.
    ///
    /// Of a session that this node knows nothing of, the end is kept too: what it ends may arrive
    /// later. `announced`: the application need not be told.
    ///
    /// # Errors
    /// [`ChangeError::Ended`] if it was destroyed before.
    pub fn destroy(
        slot: &mut Option<Self>,
        announced: bool,
        tick: impl FnOnce(Hlc) -> Stamp,
    ) -> Result<End, ChangeError> {
        let floor = match slot {
            Some(Self::Ended(end)) if end.cause == EndCause::Destroyed => return Err(ChangeError::Ended),
            Some(Self::Ended(end)) => end.stamp.hlc,
            Some(Self::Held(state)) => state.newest(),
            None => Hlc::ZERO,
        };
        // Of one that has expired the application may have been told.
        let expired = slot.as_ref().and_then(Self::end);
        let end = End {
            announced: announced || expired.is_some_and(|end| end.announced),
            after_expiry: expired.is_some(),
            ..End::destroyed(tick(floor))
        };
        *slot = Some(Self::Ended(end));
        Ok(end)
    }

    /// Ends an idle session here: at its newest touch, so that every node makes the same end.
    pub fn expire(slot: &mut Option<Self>) -> Option<End> {
        match slot {
            Some(Self::Held(state)) if state.idle_end().is_none() => {
                let end = End::expired(state.touch.stamp);
                state.merge_expired(end);
                Some(end)
            }
            _ => None,
        }
    }

    /// Drops the state of a session that ended by idleness; only the end is kept.
    pub fn compact(&mut self) {
        if let Self::Held(state) = self
            && let Some(end) = state.idle_end()
        {
            *self = Self::Ended(end);
        }
    }

    /// Drops part of a session of which nobody has the rest; whether there was such. An end that has come with it stays:
    /// those it was compared with do not bring it again.
    pub fn give_up_part(slot: &mut Option<Self>) -> bool {
        let Some(Self::Held(state)) = slot else { return false };
        if !state.partial {
            return false;
        }
        *slot = state.expired.take().map(|end| Self::Ended(*end));
        true
    }

    /// Of what takes the place of an end by idleness perhaps only part ever comes: then the end stands.
    fn keep_end(slot: &Option<Self>, state: &mut SessionState) {
        let end = slot.as_ref().and_then(Self::end).filter(|end| end.cause == EndCause::Expired);
        if let Some(end) = end {
            state.merge_expired(end);
        }
    }

    /// Forgets removal marks that are older than any cut, or too many, and boots that are gone.
    pub fn forget(&mut self, before_ms: u64, removals: usize, is_member: impl Fn(BootId) -> bool) {
        if let Self::Held(state) = self {
            state.forget(before_ms, removals, is_member);
        }
    }

    /// Notes that the application has been told of the end; `None` if it had been, or there is none.
    pub fn announce(&mut self) -> Option<End> {
        let end = match self {
            Self::Held(state) => {
                let outlived = state.idle_end().is_none();
                state.expired.as_deref_mut().filter(|_| !outlived)?
            }
            Self::Ended(end) => end,
        };
        if end.announced {
            return None;
        }
        end.announced = true;
        Some(*end)
    }

    /// Applies another node's delta. `age`: how long ago it may have been made; zero, but for what has lain in the socket
    /// of a node that stood still.
    pub fn apply(slot: &mut Option<Self>, delta: &Delta, age: Duration, now: Instant) -> Applied {
        match slot {
            Some(Self::Ended(end))
                if (end.cause == EndCause::Destroyed || delta.stamp <= end.stamp)
                    && !mutated!(LateWriteRevives) =>
            {
                Applied { held: true, late: true, ..Applied::default() }
            }
            Some(Self::Held(state)) => {
                if state.version.contains(delta.stamp) {
                    return Applied { held: true, ..Applied::default() };
                }
                let was_live = state.is_live();
                let (follows, conflicts) = state.merge_delta(delta, age, now);
                if follows {
                    return Applied {
                        held: true,
                        created: !was_live && state.is_live(),
                        conflicts,
                        ..Applied::default()
                    };
                }
                let known = (!state.partial).then(|| state.version.clone());
                Applied { held: !state.partial, want: Some(known), conflicts, ..Applied::default() }
            }
            None | Some(Self::Ended(_)) => {
                // Unknown, or ended by an idleness that this access disproves.
                let mut state = SessionState::empty(!delta.create, now);
                state.touch = Touch::default();
                Self::keep_end(slot, &mut state);
                let _ = state.merge_delta(delta, age, now);
                let created = delta.create;
                *slot = Some(Self::Held(Box::new(state)));
                Applied { held: created, want: (!created).then_some(None), created, ..Applied::default() }
            }
        }
    }

    /// Applies an end that another node made or knows of.
    pub fn apply_end(slot: &mut Option<Self>, end: End) -> Applied {
        let mut applied = Applied { held: true, ..Applied::default() };
        match (&mut *slot, end.cause) {
            (Some(Self::Ended(here)), _) => {
                let merged = here.merge(end);
                applied.superseded = end.cause == EndCause::Expired && merged.stamp != end.stamp;
                *here = merged;
            }
            (Some(Self::Held(state)), EndCause::Expired) => {
                if state.touch.stamp > end.stamp {
                    (applied.outlived, applied.superseded) = (true, true);
                    return applied;
                }
                let before = state.idle_end();
                state.merge_expired(end);
                applied.ended = before.is_none().then_some(end);
            }
            (Some(Self::Held(_)), EndCause::Destroyed) if mutated!(EndIgnored) => {}
            (Some(Self::Held(state)), EndCause::Destroyed) => {
                let before = state.idle_end();
                applied.ended = Some(end).filter(|_| before.is_none());
                *slot = Some(Self::Ended(before.map_or(end, |before| before.merge(end))));
            }
            (None, _) => *slot = Some(Self::Ended(end)),
        }
        applied
    }

    /// Applies a record that another holder sent.
    pub fn apply_update(slot: &mut Option<Self>, difference: Difference, now: Instant) -> Applied {
        let update = match difference {
            Difference::Ended(end) => return Self::apply_end(slot, end),
            Difference::State(update) => update,
        };
        match slot {
            Some(Self::Ended(end)) if end.cause == EndCause::Destroyed || update.touch.stamp <= end.stamp => {
                // It may have been announced; one that the session has outlived is another.
                let touch = update.touch.stamp;
                let expired = update.expired.filter(|expired| touch <= expired.stamp);
                *end = expired.map_or(*end, |expired| end.merge(expired));
                Applied { held: true, late: true, ..Applied::default() }
            }
            Some(Self::Held(state)) => {
                let was_live = state.is_live();
                let complete = state.merge_update(update, now);
                Applied {
                    held: complete,
                    want: (!complete).then(|| (!state.partial).then(|| state.version.clone())),
                    created: !was_live && state.is_live(),
                    ended: state.idle_end().filter(|_| was_live),
                    ..Applied::default()
                }
            }
            None | Some(Self::Ended(_)) => {
                let mut state = SessionState::empty(true, now);
                // The clock reading of a state that only now comes here is the sender's.
                state.touch = Touch::default();
                Self::keep_end(slot, &mut state);
                let complete = state.merge_update(update, now);
                let created = state.is_live();
                *slot = Some(Self::Held(Box::new(state)));
                Applied { held: complete, want: (!complete).then_some(None), created, ..Applied::default() }
            }
        }
    }

    /// The record for another holder: whole, or what `base` lacks of it. `None` if there is nothing
    /// to tell: part of a session is nobody's source.
    pub fn update(&self, id: SessionId, base: Option<&Version>, now: Instant) -> Option<RecordUpdate> {
        let difference = match self {
            Self::Ended(end) => Difference::Ended(*end),
            Self::Held(state) if state.partial => return None,
            Self::Held(state) => {
                let lacked = |base: &Version| {
                    state.attributes.iter().filter(|own| !base.contains(own.stamp)).collect()
                };
                Difference::State(StateUpdate {
                    attributes: base.map_or_else(|| state.attributes.clone(), lacked),
                    version: state.version.clone(),
                    base: base.cloned(),
                    limits: LimitsUpdate::from_local(&state.limits, now),
                    touch: TouchUpdate { stamp: state.touch.stamp, age: now - state.touch.last_access },
                    expired: state.expired.as_deref().copied(),
                })
            }
        };
        Some(RecordUpdate { id, difference })
    }

    fn live_mut(slot: &mut Option<Self>) -> Result<&mut SessionState, ChangeError> {
        match slot {
            None => Err(ChangeError::Unknown),
            Some(Self::Ended(_)) => Err(ChangeError::Ended),
            Some(Self::Held(state)) if state.partial => Err(ChangeError::Unknown),
            Some(Self::Held(state)) if state.idle_end().is_some() => Err(ChangeError::Ended),
            Some(Self::Held(state)) => Ok(state),
        }
    }
}

impl SessionState {
    fn touched(&mut self, id: SessionId, now: Instant, tick: impl FnOnce(Hlc) -> Stamp) -> Delta {
        let stamp = tick(self.newest());
        let previous = self.version.get(stamp.origin);
        let delta =
            Delta { id, previous, stamp, changes: Vec::new(), limits: None, create: false, ack_later: false };
        let _ = self.merge_delta(&delta, Duration::ZERO, now);
        delta
    }

    /// The newest stamp in the state: a commit must exceed it.
    fn newest(&self) -> Hlc {
        let end = self.expired.as_ref().map_or(Hlc::ZERO, |end| end.stamp.hlc);
        self.version.newest().max(self.touch.stamp.hlc).max(self.limits.stamp.hlc).max(end)
    }
}

fn present<'a>(listed: &[Attribute<'a>], name: &str) -> Option<&'a [u8]> {
    listed.get(find(listed, name.as_bytes()).ok()?)?.value()
}

fn check(
    before: &[Attribute<'_>],
    changes: &[(super::Name, Option<super::Value>)],
    limits: &SessionLimits,
) -> Result<(), ChangeError> {
    let values = before.iter().filter(|attribute| attribute.value().is_some());
    let (mut count, mut bytes) = (0_usize, 0_usize);
    for attribute in values {
        count += 1;
        bytes += attribute.payload_bytes();
    }
    let mut grows = false;
    for (name, value) in changes {
        let limit = limits.name_bytes.min(MAX_NAME_BYTES);
        if name.len() > limit {
            return Err(ChangeError::NameTooLong { bytes: name.len(), limit });
        }
        if let Some(before) = present(before, name) {
            // A name may come twice.
            count = count.saturating_sub(1);
            bytes = bytes.saturating_sub(name.len() + before.len());
        }
        if let Some(value) = value {
            grows = true;
            count += 1;
            bytes += name.len() + value.len();
        }
    }
    // A change that only removes is always allowed: it is the way back under a limit.
    if grows && count > limits.attributes {
        return Err(ChangeError::TooManyAttributes { count, limit: limits.attributes });
    }
    if grows && bytes > limits.session_bytes {
        return Err(ChangeError::TooLarge { bytes, limit: limits.session_bytes });
    }
    Ok(())
}
