//! Beginning, renaming and ending sessions.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use sessionmesh_core::replication::{AckLevel, Outcome, Table, commit};
use sessionmesh_core::session::{Attributes, Change, ChangeError, End, EndCause, Limits, Name, Record};
use sessionmesh_core::{Event, SessionId, Stamp, mutated};

use super::{Edit, Sessions, Snapshot};
use crate::ack::AckWait;
use crate::error::{CommitError, Committed};
use crate::host;
use crate::stats::count;

impl Sessions {
    /// Begins a session with a fresh id, filled by a closure.
    ///
    /// # Errors
    /// See [`CommitError`]. With [`CommitError::LevelMissed`] the session exists, under the id in it.
    pub async fn create(&self, fill: impl FnOnce(&mut Edit<'_>)) -> Result<Committed, CommitError> {
        let nothing = Attributes::default();
        let mut edit = Edit::new(&nothing);
        fill(&mut edit);
        self.create_from(edit.finish().1).await
    }

    /// Begins a session from a change, for adapters.
    ///
    /// # Errors
    /// As [`Sessions::create`].
    pub async fn create_from(&self, change: Change) -> Result<Committed, CommitError> {
        let created = self.create_with(change, self.level, 0).await;
        self.tell_created(&created);
        created
    }

    fn tell_created(&self, created: &Result<Committed, CommitError>) {
        if let Ok(Committed { id, .. }) | Err(CommitError::LevelMissed(Committed { id, .. })) = created {
            count(&self.mesh.counters.created);
            self.mesh.emit(Event::SessionCreated { id: *id });
        }
    }

    /// `beyond`: so many more sessions than `max_sessions`.
    async fn create_with(
        &self,
        change: Change,
        level: AckLevel,
        beyond: usize,
    ) -> Result<Committed, CommitError> {
        let mesh = &*self.mesh;
        mesh.serve()?;
        self.check_alone(level)?;
        self.check_room(beyond)?;
        let change = self.with_absolute_end(change);
        let id = self.mint()?;
        let (wait, now) = (AckWait::at(level, id), host::now());
        let streams = mesh.routes.streams(wait.clone(), now.mono);
        let version = commit::create(&mesh.table, &streams, mesh.origin_at(now), id, change)
            .inspect_err(|_| count(&mesh.counters.over_limit))?;
        self.finish(id, level, wait, Some(version)).await
    }

    fn check_room(&self, beyond: usize) -> Result<(), CommitError> {
        let (mesh, limit) = (&*self.mesh, self.mesh.config.max_sessions);
        if mesh.table.sessions() >= limit.saturating_add(beyond) {
            count(&mesh.counters.over_limit);
            return Err(CommitError::Full { limit });
        }
        Ok(())
    }

    /// The cluster's absolute limit binds from the session's beginning, through every change of id.
    fn with_absolute_end(&self, mut change: Change) -> Change {
        if let Some(absolute) = self.mesh.config.absolute {
            let limits = change.limits.get_or_insert(Limits::NONE);
            limits.absolute = Some(limits.absolute.map_or(absolute, |left| left.min(absolute)));
        }
        change
    }

    /// A fresh id that this node holds.
    fn mint(&self) -> Result<SessionId, CommitError> {
        loop {
            let id = host::session_id().map_err(|error| CommitError::NoRandomness(error.to_string()))?;
            if self.mesh.routes.current().view.i_hold(&id) {
                return Ok(id);
            }
            // It may have begun to leave since this request was let in.
            self.mesh.serve()?;
        }
    }

    /// Destroys a session for good: a write that arrives later can't bring it back.
    ///
    /// Waits for at least one other holder, whatever the level, so that a logout survives a crash.
    ///
    /// # Errors
    /// [`CommitError::LevelMissed`]: it is destroyed here and still being told to others.
    pub async fn destroy(&self, id: &SessionId) -> Result<Committed, CommitError> {
        self.take(id).await.1
    }

    /// As [`Sessions::destroy`], and gives back what the session held at its end, if it was there;
    /// also when the level was missed.
    pub async fn take(&self, id: &SessionId) -> (Option<Snapshot>, Result<Committed, CommitError>) {
        let mesh = &*self.mesh;
        // Whether anybody knows the session decides how long its end must be kept.
        match self.load(id).await {
            Ok(Some(_)) => {}
            // It may be in use elsewhere just now; that would disprove its end by idleness, and must not a logout.
            Ok(None) if self.has_expired(id) || self.is_end_doubtful(id) => {}
            Ok(None) => {
                self.leave_unknown_end(id);
                return (None, self.confirm_end(id).await);
            }
            Err(error) => return (None, Err(error.into())),
        }
        let level = self.level.max(AckLevel::One);
        let wait = AckWait::new(level, *id);
        let now = host::now();
        let streams = mesh.routes.streams(Some(wait.clone()), now.mono);
        let last = match commit::destroy(&mesh.table, &streams, mesh.origin_at(now), *id, false) {
            Ok((end, record)) => {
                mesh.ended(*id, end);
                record.as_ref().and_then(Record::live).map(|state| Snapshot::of(*id, state, now.mono))
            }
            Err(ChangeError::Ended) => return (None, self.confirm_end(id).await),
            Err(error) => return (None, Err(error.into())),
        };
        (last, self.finish(*id, level, Some(wait), None).await)
    }

    /// A session that has ended already: another request ended it, and perhaps could not reach any
    /// other holder. This one does not say that it is over everywhere before it is.
    async fn confirm_end(&self, id: &SessionId) -> Result<Committed, CommitError> {
        let mesh = &*self.mesh;
        let level = self.level.max(AckLevel::One);
        let ended = mesh.table.read(id, |record| record.and_then(Record::end).is_some());
        if !ended || mesh.unknown_ends().contains_key(id) {
            let outcome = Outcome { have: 1, want: 1 };
            return Ok(Committed { id: *id, outcome, token: None });
        }
        let wait = AckWait::new(level, *id);
        let now = host::now();
        let streams = mesh.routes.streams(Some(wait.clone()), now.mono);
        commit::resend(&mesh.table, &streams, now, *id);
        self.finish(*id, level, Some(wait), None).await
    }

    fn has_expired(&self, id: &SessionId) -> bool {
        let end = self.mesh.table.read(id, |record| record.and_then(Record::end));
        end.is_some_and(|end| end.cause == EndCause::Expired)
    }

    /// Nobody here knows the id. Whether somebody beyond a cut may: then its end is kept and told as any other,
    /// or the session would be back when the cut is mended.
    fn is_end_doubtful(&self, id: &SessionId) -> bool {
        let mesh = &*self.mesh;
        if !mesh.misses_members.load(Ordering::Relaxed) {
            return false;
        }
        // Its end is known already.
        if mesh.table.read(id, |record| record.and_then(Record::end).is_some()) {
            return false;
        }
        let mut ends = mesh.doubtful_ends();
        if ends.len() >= mesh.config.unknown_ends && !ends.contains_key(id) {
            mesh.counters.cause("limit", "unknown_ends");
            return false;
        }
        ends.insert(*id, host::mono());
        true
    }

    /// Nobody knows the id; a write to it may yet be on its way. Its end is kept here for a while.
    fn leave_unknown_end(&self, id: &SessionId) {
        let mesh = &*self.mesh;
        // Only a holder would be asked for it.
        if !mesh.routes.current().view.i_hold(id) {
            return;
        }
        {
            // Never held while a session's lock is taken.
            let mut ends = mesh.unknown_ends();
            // Left before, and not to be kept for longer by whoever says so again.
            if ends.contains_key(id) {
                return;
            }
            if ends.len() >= mesh.config.unknown_ends {
                mesh.counters.cause("limit", "unknown_ends");
                return;
            }
            ends.insert(*id, host::mono());
        }
        let left = mesh.table.with(id, |slot| {
            let unknown = slot.is_none();
            if unknown {
                let origin = mesh.origin();
                let hlc = origin.clock.tick(origin.now.wall_ms, sessionmesh_core::Hlc::ZERO);
                let stamp = Stamp { hlc, origin: mesh.me.boot };
                *slot = Some(Record::Ended(End { announced: true, ..End::destroyed(stamp) }));
            }
            unknown
        });
        if left {
            count(&mesh.counters.unknown_ends);
        } else {
            mesh.unknown_ends().remove(id);
        }
    }

    /// Gives a session a fresh id, as at login; the old one is dead everywhere before the answer.
    ///
    /// The new id's state is acknowledged by another holder first, then the old one's end. Writes to
    /// the old id that this node learns of until then are carried over.
    ///
    /// # Errors
    /// See [`CommitError`]. With [`CommitError::LevelMissed`] the session exists under the id in it.
    pub async fn change_id(&self, id: &SessionId) -> Result<Committed, CommitError> {
        self.change_id_with(id, |_| Change::default()).await
    }

    /// As [`Sessions::change_id`], with a change of the attributes in the same breath.
    ///
    /// # Errors
    /// As [`Sessions::change_id`].
    pub async fn change_id_with(
        &self,
        id: &SessionId,
        change: impl FnOnce(&Snapshot) -> Change,
    ) -> Result<Committed, CommitError> {
        let mesh = &*self.mesh;
        let before = self.load(id).await?.ok_or(CommitError::NotFound)?;
        let change = change(&before);
        let limits = before.limits();
        let mut carried = Change { attributes: present(before.attributes()), limits: None };
        carried.attributes.retain(|(name, _)| !change.attributes.iter().any(|(changed, _)| changed == name));
        carried.attributes.extend(change.attributes.iter().filter(|(_, value)| value.is_some()).cloned());
        // The absolute end is the session's, whatever its id.
        let new = change.limits.unwrap_or(limits);
        carried.limits = Some(Limits { absolute: limits.absolute, idle: new.idle.or(limits.idle), ..new });

        let level = self.level.max(AckLevel::One);
        // Who is there logs in, though there is no room for others: one comes and one goes. In backup-only mode the one
        // that goes may be on other nodes, and a request that is cut off may leave both, so this has an end, too.
        let beyond = mesh.config.max_sessions / 10 + 1;
        let created = self.create_with(carried, level, beyond).await;
        let (to, missed) = match created {
            Ok(committed) => (committed, false),
            Err(CommitError::LevelMissed(committed)) => (committed, true),
            Err(error) => return Err(error),
        };

        let wait = AckWait::new(level, *id);
        let streams = mesh.routes.streams(Some(wait.clone()), host::mono());
        // The session goes on: its end under the old id is nothing to announce.
        if mutated!(IdKept) {
            return Ok(to);
        }
        let destroyed = commit::destroy(&mesh.table, &streams, mesh.origin(), *id, true);
        match &destroyed {
            Ok((_, Some(record))) => self.carry_over(&to.id, &before, record, &change).await?,
            // Logged out meanwhile: the new id must not outlive it.
            Err(ChangeError::Ended) => {
                let streams = mesh.routes.streams(None, host::mono());
                let _ = commit::destroy(&mesh.table, &streams, mesh.origin(), to.id, true);
                return Err(CommitError::Ended);
            }
            Ok((_, None)) | Err(_) => {}
        }
        mesh.emit(Event::SessionIdChanged { from: *id, to: to.id });
        let ended = self.finish(to.id, level, Some(wait), to.token.clone()).await?;
        if missed {
            Err(CommitError::LevelMissed(to))
        } else {
            Ok(Committed { outcome: ended.outcome, ..to })
        }
    }

    /// What others wrote to the old id after its state was copied.
    async fn carry_over(
        &self,
        to: &SessionId,
        before: &Snapshot,
        record: &Record,
        change: &Change,
    ) -> Result<(), CommitError> {
        let Some(state) = record.live() else { return Ok(()) };
        let changed = |name: &str| change.attributes.iter().any(|(own, _)| **own == *name);
        let mut late = Change::default();
        for (name, value) in state.attributes().present() {
            if before.get(name) != Some(value) && !changed(name) {
                late.attributes.push((name.into(), Some(Bytes::copy_from_slice(value))));
            }
        }
        for (name, _) in before.attributes().present() {
            if state.attributes().get(name).is_none() && !changed(name) {
                late.attributes.push((name.into(), None));
            }
        }
        if !late.is_empty() {
            self.at(AckLevel::Async).apply(to, late).await?;
        }
        Ok(())
    }
}

fn present(attributes: &Attributes) -> Vec<(Name, Option<Bytes>)> {
    let present = attributes.iter().filter(|attribute| !attribute.is_removal());
    present.map(|attribute| (attribute.name().into(), attribute.to_value())).collect()
}
