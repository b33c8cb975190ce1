//! What a layer around tower-sessions tells the store about a request, and learns from it.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::Base;
use sessionmesh::{AckLevel, CommitError, Committed, LoadError, Outcome, SessionId, Snapshot, Token};

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// One request. `sessionmesh-axum` makes one around each; without it the store works alone.
#[derive(Clone, Debug, Default)]
pub struct RequestContext(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    level: Option<AckLevel>,
    preloaded: Option<(SessionId, Option<Snapshot>)>,
    deleting: Option<SessionId>,
    deleted: Vec<SessionId>,
    failure: Option<Failure>,
    outcome: Option<Outcome>,
    token: Option<Token>,
    /// Of the last save in this request: a second one compares with it, not with what was loaded.
    base: Option<(SessionId, Base)>,
}

/// What went wrong with a request's session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It could not be decided whether the session exists, or the node does not serve. 503.
    Undecided(String),
    /// Too few holders had the write in time; it is kept and still sent. 504.
    LevelMissed(Outcome),
    /// The session had ended; nothing was written. 409.
    Ended,
    /// Past a limit; nothing was written. 413.
    OverLimit(String),
    /// Anything else; nothing was written. 500.
    Other(String),
}

impl Failure {
    fn of(error: &CommitError) -> Self {
        match error {
            CommitError::NotFound | CommitError::Ended => Self::Ended,
            CommitError::OverLimit(_) => Self::OverLimit(error.to_string()),
            CommitError::LevelMissed(committed) => Self::LevelMissed(committed.outcome),
            CommitError::Alone | CommitError::Full { .. } | CommitError::Load(_) => {
                Self::Undecided(error.to_string())
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

impl RequestContext {
    /// A request about which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// The request that the current task serves, if a layer made one.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Runs a request's future in this context.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The level of this request's writes, instead of the store's.
    pub fn set_level(&self, level: AckLevel) {
        self.inner().level = Some(level);
    }

    pub(crate) fn level(&self) -> Option<AckLevel> {
        self.inner().level
    }

    /// What a load of this id gave before the handler ran.
    pub fn preload(&self, id: SessionId, snapshot: Option<Snapshot>) {
        let mut inner = self.inner();
        inner.token = snapshot.as_ref().map(|snapshot| snapshot.token().clone());
        inner.preloaded = Some((id, snapshot));
    }

    /// That, once: a second load in the same request must see what the first one's save wrote.
    pub(crate) fn take_preloaded(&self, id: &SessionId) -> Option<Option<Snapshot>> {
        let mut inner = self.inner();
        match &inner.preloaded {
            Some((preloaded, _)) if preloaded == id => inner.preloaded.take().map(|(_, snapshot)| snapshot),
            _ => None,
        }
    }

    /// A session is to be destroyed when the request ends, unless a new id takes its place. Gives
    /// back an earlier one, whose turn it is now.
    pub(crate) fn delete_later(&self, id: SessionId) -> Option<SessionId> {
        let mut inner = self.inner();
        inner.deleted.push(id);
        inner.deleting.replace(id)
    }

    /// Whether this request has deleted a session.
    pub(crate) fn has_deleted(&self, id: &SessionId) -> bool {
        self.inner().deleted.contains(id)
    }

    /// The session to be destroyed if it is this one: a new id takes its place.
    pub(crate) fn take_deleting(&self, id: &SessionId) -> bool {
        let mut inner = self.inner();
        let same = inner.deleting.as_ref() == Some(id);
        if same {
            inner.deleting = None;
        }
        same
    }

    /// The session to be destroyed now that the request has ended.
    pub fn take_pending_delete(&self) -> Option<SessionId> {
        self.inner().deleting.take()
    }

    /// Notes what became of a write.
    pub fn note(&self, result: &Result<Committed, CommitError>) {
        let mut inner = self.inner();
        let committed = match result {
            Ok(committed) | Err(CommitError::LevelMissed(committed)) => Some(committed),
            Err(_) => None,
        };
        if let Some(committed) = committed {
            inner.outcome = Some(committed.outcome);
            if committed.token.is_some() {
                inner.token.clone_from(&committed.token);
            }
        }
        if let Err(error) = result {
            inner.failure = Some(Failure::of(error));
        }
    }

    pub(crate) fn note_load(&self, result: &Result<Option<Snapshot>, LoadError>) {
        let mut inner = self.inner();
        match result {
            Ok(snapshot) => inner.token = snapshot.as_ref().map(|snapshot| snapshot.token().clone()),
            Err(error) => inner.failure = Some(Failure::Undecided(error.to_string())),
        }
    }

    pub(crate) fn set_base(&self, id: SessionId, base: Base) {
        self.inner().base = Some((id, base));
    }

    pub(crate) fn base(&self, id: &SessionId) -> Option<Base> {
        self.inner().base.as_ref().filter(|(of, _)| of == id).map(|(_, base)| base.clone())
    }

    /// What went wrong, if anything.
    pub fn failure(&self) -> Option<Failure> {
        self.inner().failure.clone()
    }

    /// What the last write reached.
    pub fn outcome(&self) -> Option<Outcome> {
        self.inner().outcome
    }

    /// What the client has seen of the session that the request read or wrote last.
    pub fn token(&self) -> Option<Token> {
        self.inner().token.clone()
    }
}
