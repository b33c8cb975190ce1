//! Reading a session that a client has seen before: never an older state without saying so.

use sessionmesh_core::replication::{Table, fetch};
use sessionmesh_core::session::{Record, SessionState, Token, Version};
use sessionmesh_core::wire::{Fetch, FetchOutcome};
use sessionmesh_core::{BootId, Hlc, SessionId};

use super::load::Local;
use super::lookup::Answers;
use super::{Sessions, Snapshot};
use crate::error::LoadError;
use crate::host;
use crate::mesh::Mesh;
use crate::peer::HEDGE;
use crate::routes::RouteTable;
use crate::stats::count;

/// A session, and whether it is all that its client has seen.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What is served; its version is what the client has seen from now on. `None`: it never was, or has ended, and
    /// every node that would know says so.
    pub snapshot: Option<Snapshot>,
    /// Why the client has seen more than that; `None`: it has not.
    pub stale: Option<Stale>,
}

/// Why a node can't serve all that a client has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stale {
    /// Whoever may have it did not answer within `token_timeout`: cut off, or dead and not yet dropped.
    Late,
    /// A node wrote it that is gone, and nobody who is left has it. Or nobody has the session at all, nor knows of its
    /// end: it was made up, or ended longer than `horizon` ago, or went with all who had it.
    Gone,
    /// No node that this one ever knew wrote it, or that node knows nothing of it: made up, or of another life
    /// of the cluster.
    Unknown,
    /// Too many requests wait already (`lookups`).
    Overloaded,
}

impl Stale {
    /// In one word, as in headers and counters.
    pub fn word(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
            Self::Overloaded => "overloaded",
        }
    }
}

impl std::fmt::Display for Stale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl Sessions {
    /// Reads a session for a client that has seen this much of it, and notes the access. If this node has
    /// less, it asks the nodes that wrote the rest, then whoever else may have it, for `token_timeout` at
    /// most. What a client claims is never believed: it makes a node ask, no more.
    ///
    /// # Errors
    /// As [`Sessions::load`].
    pub async fn load_covering(&self, id: &SessionId, seen: &Token) -> Result<Loaded, LoadError> {
        let mesh = &*self.mesh;
        let Some(snapshot) = self.load(id).await? else {
            // No state is older than its end. But if nobody knows of an end, it went with all who had it.
            let is_lost = *seen != Token::default() && matches!(mesh.local(id, false), Local::Unknown);
            return Ok(mesh.loaded(None, is_lost.then_some(Stale::Gone)));
        };
        if snapshot.covers(seen) {
            return Ok(Loaded { snapshot: Some(snapshot), stale: None });
        }
        count(&mesh.counters.token_waits);
        let stale = Box::pin(mesh.catch_up(&snapshot, seen)).await;
        let snapshot = match mesh.local(id, false) {
            Local::Live(snapshot) => snapshot,
            Local::Ended => return Ok(Loaded::default()),
            // A visitor's copy that went meanwhile; or somebody took the session for idle, whose access is noted here.
            Local::Overdue | Local::Unknown => snapshot,
        };
        let stale = if snapshot.covers(seen) { None } else { stale.or(Some(Stale::Late)) };
        Ok(mesh.loaded(Some(snapshot), stale))
    }
}

impl Mesh {
    fn loaded(&self, snapshot: Option<Snapshot>, stale: Option<Stale>) -> Loaded {
        if let Some(stale) = stale {
            self.counters.cause("stale", stale.word());
        }
        Loaded { snapshot, stale }
    }

    /// Asks for what is missing; `None` if it came.
    async fn catch_up(&self, have: &Snapshot, seen: &Token) -> Option<Stale> {
        let Ok(_permit) = self.lookups.try_acquire() else { return Some(Stale::Overloaded) };
        let deadline = host::mono() + self.config.token_timeout;
        let routes = self.routes.kept();
        let id = &have.id();
        let missing = seen.lacks(have.version(), have.attributes());
        let (named, gone): (Vec<BootId>, Vec<BootId>) =
            missing.iter().partition(|boot| routes.peer(**boot).is_some());
        // One that wrote to this session, or was a member, may have told others what it did not tell this node.
        let was_known = |boot: &BootId| {
            *boot != self.me.boot && (have.version().get(*boot) > Hlc::ZERO || self.was_member(*boot))
        };
        if named.is_empty() && !gone.iter().any(was_known) {
            return Some(Stale::Unknown);
        }
        let mut answers = Answers::default();
        let mut waiting: Vec<BootId> = named.clone();
        let mut rest: Vec<BootId> = others(&routes, id).filter(|boot| !named.contains(boot)).collect();
        // Who is named is asked at once; past the hedge, whoever else may have it, and at once if those who are
        // named owe answers.
        let in_vain = named.iter().filter_map(|boot| routes.peer(*boot)).all(|peer| peer.is_slow());
        let mut hedge_at = if in_vain { host::mono() } else { host::mono() + HEDGE };
        let mut number = 0;
        loop {
            if host::mono() >= hedge_at {
                waiting.append(&mut rest);
            }
            for boot in waiting.drain(..) {
                number += 1;
                let version = self.version_here(id);
                let view = routes.view.hash();
                let fetch = Fetch { request: 0, id: *id, version, view, access: false, any_copy: true };
                answers.ask(number, routes.peer(boot), fetch);
            }
            if answers.is_empty() {
                if rest.is_empty() {
                    break;
                }
                // Those who were named had nothing: the others need not wait.
                hedge_at = host::mono();
                continue;
            }
            let until = if rest.is_empty() { deadline } else { hedge_at.min(deadline) };
            match tokio::time::timeout(host::until(until), answers.next()).await {
                Ok((_, outcome)) => self.take(id, &routes, outcome),
                Err(_) if host::mono() >= deadline => return Some(Stale::Late),
                Err(_) => {}
            }
            let covers = |state: &SessionState| seen.is_covered_by(state.version(), state.attributes());
            if self.here(id, covers).unwrap_or(true) {
                return None;
            }
        }
        let left = self.here(id, |state| seen.lacks(state.version(), state.attributes()));
        // All have answered. A node that lives has what it wrote.
        let is_gone = |boot: &BootId| routes.peer(*boot).is_none() && was_known(boot);
        Some(if left.unwrap_or_default().iter().any(is_gone) { Stale::Gone } else { Stale::Unknown })
    }

    fn version_here(&self, id: &SessionId) -> Option<Version> {
        self.here(id, |state| state.version().clone())
    }

    fn here<R>(&self, id: &SessionId, f: impl FnOnce(&SessionState) -> R) -> Option<R> {
        self.table.read(id, |record| match record {
            Some(Record::Held(state)) if !state.is_partial() => Some(f(state)),
            _ => None,
        })
    }

    fn take(&self, id: &SessionId, routes: &RouteTable, outcome: Option<FetchOutcome>) {
        let applied =
            outcome.and_then(|outcome| fetch::apply(&self.table, &self.clock, *id, outcome, host::now()));
        let Some(applied) = applied else { return };
        self.note_visit(id, routes, false);
        if let Some(end) = applied.ended {
            self.ended(*id, end);
        }
    }
}

/// Whoever may have a session, less this node.
fn others(routes: &RouteTable, id: &SessionId) -> impl Iterator<Item = BootId> {
    routes.peers.iter().map(|peer| peer.boot).filter(|boot| routes.view.is_holder(id, *boot))
}
