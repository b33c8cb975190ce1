//! What a layer around tower-sessions tells the store about a request, and learns from it.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tower_sessions_core::session::Id;

use crate::base::{Saved, to_session_id};
use sessionmesh::{
    AckLevel, CommitError, Committed, LoadError, Loaded, Outcome, SessionId, Snapshot, Stale, Token,
};

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
    is_new_client: bool,
    deleting: Option<SessionId>,
    deleted: Vec<SessionId>,
    failure: Option<Failure>,
    outcome: Option<Outcome>,
    /// What its client shows to have seen, of this session if that can be told.
    seen: Option<(Option<SessionId>, Token)>,
    stale: Option<Stale>,
    refuses_stale: bool,
    /// The session that was read or written last, and what the client has seen of it with the answer.
    current: Option<(SessionId, Token)>,
    /// What was saved in this request: a second save compares with it, not with what was loaded.
    saved: Option<(SessionId, Vec<Saved>)>,
}

/// What went wrong with a request's session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It could not be decided whether the session exists, or the node does not serve. 503.
    Undecided(String),
    /// Only an older state is here than the client has seen, and that was not to be shown. 503.
    Stale(Stale),
    /// Too few holders had the write in time; it is kept and still sent. 504.
    LevelMissed(Outcome),
    /// The session had ended; nothing was written. 409.
    Ended,
    /// Past a limit; nothing was written. 413.
    OverLimit(String),
    /// Anything else; nothing was written. 500.
    Other(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Undecided(reason) | Self::OverLimit(reason) | Self::Other(reason) => f.write_str(reason),
            Self::Stale(stale) => write!(f, "only an older state is here than this client has seen: {stale}"),
            Self::LevelMissed(outcome) => outcome.fmt(f),
            Self::Ended => f.write_str("the session has ended"),
        }
    }
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
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
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

    /// What the client shows to have seen. `id`: of which session, if its cookie is a plain one. `refuse`: a load
    /// that can't give all of that is an error.
    pub fn set_seen(&self, id: Option<&Id>, token: Token, refuse: bool) {
        let mut inner = self.inner();
        inner.seen = Some((id.map(to_session_id), token));
        inner.refuses_stale = refuse;
    }

    /// The request carries no cookie of a session.
    pub fn set_new_client(&self) {
        self.inner().is_new_client = true;
    }

    /// What the client shows to have seen of a session.
    pub(crate) fn seen(&self, id: &SessionId) -> Option<Token> {
        let inner = self.inner();
        let (of, token) = inner.seen.as_ref()?;
        of.is_none_or(|of| of == *id).then(|| token.clone())
    }

    /// What a load of this id gave before the handler ran.
    pub(crate) fn preload(&self, id: SessionId, loaded: Loaded) -> Result<(), Stale> {
        let snapshot = self.take_in(loaded)?;
        self.inner().preloaded = Some((id, snapshot));
        Ok(())
    }

    /// Notes what a load gave; an error if the client must not be shown it.
    fn take_in(&self, Loaded { snapshot, stale }: Loaded) -> Result<Option<Snapshot>, Stale> {
        let mut inner = self.inner();
        inner.current = snapshot.as_ref().map(|snapshot| (snapshot.id(), snapshot.token()));
        inner.stale = inner.stale.or(stale);
        match stale {
            // To refuse what is gone for good would be to refuse it for ever.
            Some(stale) if inner.refuses_stale && snapshot.is_some() => {
                inner.failure = Some(Failure::Stale(stale));
                Err(stale)
            }
            _ => Ok(snapshot),
        }
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
        // One that tower-sessions has made up for a session that it has not begun is nobody's.
        let is_begun = inner.current.as_ref().is_some_and(|(current, _)| *current == id);
        if !is_begun && (inner.is_new_client || inner.deleting.is_some()) {
            return None;
        }
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
    pub fn pending_delete(&self) -> Option<SessionId> {
        self.inner().deleting
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
            if let Some(token) = &committed.token {
                inner.current = Some((committed.id, token.clone()));
            }
        }
        if let Err(error) = result {
            inner.failure = Some(Failure::of(error));
        }
    }

    pub(crate) fn note_load(&self, result: Result<Loaded, LoadError>) -> Result<Option<Snapshot>, String> {
        match result {
            Ok(loaded) => self.take_in(loaded).map_err(|stale| Failure::Stale(stale).to_string()),
            Err(error) => {
                let reason = error.to_string();
                self.inner().failure = Some(Failure::Undecided(reason.clone()));
                Err(reason)
            }
        }
    }

    pub(crate) fn note_saved(&self, id: SessionId, attributes: Vec<Saved>) {
        match &mut self.inner().saved {
            Some((of, saved)) if *of == id => saved.extend(attributes),
            saved => *saved = Some((id, attributes)),
        }
    }

    /// What this request has saved of a session, the last of each name as it is.
    pub(crate) fn saved(&self, id: &SessionId) -> Vec<Saved> {
        let inner = self.inner();
        inner.saved.as_ref().filter(|(of, _)| of == id).map(|(_, saved)| saved.clone()).unwrap_or_default()
    }

    /// What went wrong, if anything.
    pub fn failure(&self) -> Option<Failure> {
        self.inner().failure.clone()
    }

    /// What the last write reached.
    pub fn outcome(&self) -> Option<Outcome> {
        self.inner().outcome
    }

    /// The session that the request read or wrote last, and what its client has seen of it with the answer.
    pub fn session(&self) -> Option<(SessionId, Token)> {
        self.inner().current.clone()
    }

    /// Why the client is not shown all that it has seen before, if so.
    pub fn stale(&self) -> Option<Stale> {
        self.inner().stale
    }
}
