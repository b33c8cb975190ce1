//! The store itself.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sessionmesh::{
    AckLevel, Change, Cluster, CommitError, Committed, Limits, LoadError, Loaded, SessionId, Sessions,
    Snapshot,
};
use time::OffsetDateTime;
use tower_sessions_core::ExpiredDeletion;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, Result, SessionStore};

use crate::base::{Base, Before, attributes_of, data_of, to_id, to_session_id};
use crate::context::{Failure, RequestContext};
use crate::recent::{Last, Recent};

/// The sessions of a cluster as a tower-sessions store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SessionMeshStore {
    sessions: Sessions,
    recent: Arc<Recent>,
}

impl SessionMeshStore {
    /// With writes acknowledged at the cluster's level.
    pub fn new(cluster: &Cluster) -> Self {
        Self { sessions: cluster.sessions(), recent: Arc::default() }
    }

    /// With writes acknowledged at another level.
    #[must_use]
    pub fn with_level(mut self, level: AckLevel) -> Self {
        self.sessions = self.sessions.at(level);
        self
    }

    /// The cluster's sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Loads a session into a request's context before its handler runs, so that a node that can't
    /// tell answers before anything is done.
    ///
    /// # Errors
    /// It can't be told whether the session exists, or only an older state is here than the client has seen and
    /// that is not to be shown.
    pub async fn preload(&self, context: &RequestContext, id: &Id) -> std::result::Result<(), Failure> {
        let id = to_session_id(id);
        let loaded = self.load_seen(Some(context), &id).await;
        let loaded = loaded.map_err(|error| Failure::Undecided(error.to_string()))?;
        context.preload(id, loaded).map_err(Failure::Stale)
    }

    /// A session with all that its client has seen of it, if that can be had.
    async fn load_seen(
        &self,
        context: Option<&RequestContext>,
        id: &SessionId,
    ) -> std::result::Result<Loaded, LoadError> {
        match context.and_then(|context| context.seen(id)) {
            Some(seen) => self.sessions.load_covering(id, &seen).await,
            None => {
                let snapshot = self.sessions.load(id).await?;
                Ok(Loaded { snapshot, stale: None })
            }
        }
    }

    /// Destroys the session that a request deleted and gave no new id.
    pub async fn finish(&self, context: &RequestContext) {
        if let Some(id) = context.pending_delete() {
            // Rare, and large: other requests do not carry it.
            context.note(&Box::pin(self.sessions_for(Some(context)).destroy(&id)).await);
            // Not before: if nobody waits for the end of this, it is to be done once more.
            context.take_deleting(&id);
        }
    }

    fn sessions_for(&self, context: Option<&RequestContext>) -> Sessions {
        match context.and_then(RequestContext::level) {
            Some(level) => self.sessions.at(level),
            None => self.sessions.clone(),
        }
    }

    async fn load_snapshot(
        &self,
        context: Option<&RequestContext>,
        id: &SessionId,
    ) -> Result<Option<Snapshot>> {
        if let Some(context) = context {
            if context.has_deleted(id) {
                return Ok(None);
            }
            if let Some(preloaded) = context.take_preloaded(id) {
                return Ok(preloaded);
            }
        }
        let loaded = self.load_seen(context, id).await;
        match context {
            Some(context) => context.note_load(loaded).map_err(backend),
            None => loaded.map(|loaded| loaded.snapshot).map_err(backend),
        }
    }

    /// What became of a write, for tower-sessions and for the layer.
    ///
    /// With a layer a missed level is no error: it answers 504 and keeps the cookie, which tower-sessions
    /// would not set.
    fn conclude(
        context: Option<&RequestContext>,
        result: std::result::Result<Committed, CommitError>,
    ) -> Result<SessionId> {
        let Some(context) = context else { return result.map(|committed| committed.id).map_err(backend) };
        context.note(&result);
        match result {
            Ok(committed) | Err(CommitError::LevelMissed(committed)) => Ok(committed.id),
            Err(error) => Err(backend(error)),
        }
    }

    /// The record's expiry date as a limit, unless it hardly moves; the session's other limits stay.
    fn limits(&self, record: &Record, current: Option<Limits>) -> Option<Limits> {
        let left = record.expiry_date - OffsetDateTime::now_utc();
        let left = std::time::Duration::try_from(left).unwrap_or_default();
        let current = current.unwrap_or(Limits::NONE);
        if current.remaining.is_some_and(|current| left.abs_diff(current) <= current / 100) {
            return None;
        }
        Some(Limits { remaining: Some(left), ..current })
    }

    /// What a record says that is not there yet.
    async fn change(
        &self,
        context: Option<&RequestContext>,
        id: &SessionId,
        record: &Record,
    ) -> Result<Change> {
        let saved = context.map(|context| context.saved(id)).unwrap_or_default();
        let mut change = match Before::find(&record.data) {
            Some(before) => before.changes(&record.data, &saved).map_err(encode)?,
            // Rare, and large: the usual save does not carry it.
            None => Box::pin(self.replacement(context, id, record)).await?,
        };
        change.limits = self.limits(record, self.sessions.limits(id));
        Ok(change)
    }

    /// Of a record that was cleared: whatever is there goes.
    async fn replacement(
        &self,
        context: Option<&RequestContext>,
        id: &SessionId,
        record: &Record,
    ) -> Result<Change> {
        let present = self.load_snapshot(context, id).await?;
        let mut attributes = attributes_of(&record.data).map_err(encode)?;
        let gone =
            present.iter().flat_map(Snapshot::iter).filter(|(name, _)| !record.data.contains_key(*name));
        attributes.extend(gone.map(|(name, _)| (name.into(), None)));
        Ok(Change { attributes, limits: None })
    }

    async fn apply(&self, context: Option<&RequestContext>, record: &Record) -> Result<SessionId> {
        let id = to_session_id(&record.id);
        let sessions = self.sessions_for(context);
        let change = self.change(context, &id, record).await?;
        let mut saved = context.map(|_| change.attributes.clone());
        let mut result = sessions.apply(&id, change).await;
        // Not here may only mean not on this node.
        if matches!(result, Err(CommitError::NotFound)) {
            result = match sessions.load(&id).await {
                Ok(Some(_)) => {
                    let change = self.change(context, &id, record).await?;
                    saved = context.map(|_| change.attributes.clone());
                    Box::pin(sessions.apply(&id, change)).await
                }
                Ok(None) => Err(CommitError::Ended),
                Err(undecided) => Err(undecided.into()),
            };
        }
        let concluded = Self::conclude(context, result);
        if let (Some(context), Ok(id), Some(saved)) = (context, &concluded, saved) {
            context.note_saved(*id, saved);
        }
        concluded
    }

    async fn begin(&self, context: Option<&RequestContext>, record: &Record) -> Result<SessionId> {
        let sessions = self.sessions_for(context);
        let limits = self.limits(record, None);
        let Some(before) = Before::find(&record.data) else {
            let attributes = attributes_of(&record.data).map_err(encode)?;
            return Self::conclude(context, sessions.create_from(Change { attributes, limits }).await);
        };
        // The reserved key is still in the data: the session had another id until a moment ago.
        let saved = context.map(|context| context.saved(&before.id())).unwrap_or_default();
        let change = Change { limits, ..before.changes(&record.data, &saved).map_err(encode)? };
        let old = before.id();
        if let Some(context) = context
            && context.take_deleting(&old)
        {
            return Self::conclude(Some(context), sessions.change_id_with(&old, |_| change).await);
        }
        let mut attributes = attributes_of(&record.data).map_err(encode)?;
        let last = self.recent.take(&old);
        if last == Some(Last::Ended) {
            // Logged out before this request could take its place.
            return Err(backend(CommitError::Ended));
        }
        if let Some(Last::Held(last)) = last {
            // What others wrote to the old id before its end, and then what this request changed.
            let mine = |name: &str| change.attributes.iter().any(|(changed, _)| **changed == *name);
            attributes.retain(|(name, _)| mine(name));
            let theirs = last.iter().filter(|(name, _)| !mine(name));
            attributes.extend(theirs.map(|(name, value)| (name.into(), Some(Bytes::copy_from_slice(value)))));
        }
        Self::conclude(context, sessions.create_from(Change { attributes, limits }).await)
    }
}

fn backend(error: impl std::fmt::Display) -> Error {
    Error::Backend(error.to_string())
}

fn encode(error: serde_json::Error) -> Error {
    Error::Encode(error.to_string())
}

#[async_trait]
impl SessionStore for SessionMeshStore {
    async fn create(&self, record: &mut Record) -> Result<()> {
        let context = RequestContext::current();
        let id = self.begin(context.as_ref(), record).await?;
        record.id = to_id(id);
        Base::of(id, &record.data).insert(&mut record.data);
        Ok(())
    }

    async fn save(&self, record: &Record) -> Result<()> {
        self.apply(RequestContext::current().as_ref(), record).await.map(drop)
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let context = RequestContext::current();
        let session_id = to_session_id(id);
        let Some(snapshot) = self.load_snapshot(context.as_ref(), &session_id).await? else {
            return Ok(None);
        };
        let data = data_of(&snapshot).map_err(|error| Error::Decode(error.to_string()))?;
        let limits = snapshot.limits();
        let left = limits.remaining.into_iter().chain(limits.absolute).min();
        let left = left.and_then(|left| time::Duration::try_from(left).ok());
        let expiry_date = OffsetDateTime::now_utc().saturating_add(left.unwrap_or(time::Duration::WEEK));
        Ok(Some(Record { id: *id, data, expiry_date }))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        let context = RequestContext::current();
        let id = to_session_id(id);
        if let Some(context) = &context {
            // Whether this is a logout or half of a change of id shows by the end of the request.
            let earlier = context.delete_later(id);
            if let Some(earlier) = earlier.filter(|earlier| *earlier != id) {
                let destroyed = self.sessions_for(Some(context)).destroy(&earlier).await;
                return Self::conclude(Some(context), destroyed).map(drop);
            }
            return Ok(());
        }
        let (last, result) = self.sessions.take(&id).await;
        let committed = result.map_err(backend)?;
        self.recent.put(committed.id, last);
        Ok(())
    }
}

#[async_trait]
impl ExpiredDeletion for SessionMeshStore {
    /// Does nothing: the cluster lets sessions end by itself.
    async fn delete_expired(&self) -> Result<()> {
        Ok(())
    }
}
