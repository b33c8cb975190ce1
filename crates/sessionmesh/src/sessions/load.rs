//! Reading a session, wherever it is.

use std::sync::Arc;

use sessionmesh_core::replication::{Table, commit, fetch};
use sessionmesh_core::session::{Limits, Record};
use sessionmesh_core::wire::{Fetch, FetchOutcome, Frame};
use sessionmesh_core::{Instant, SessionId};

use super::{Sessions, Snapshot};
use crate::error::LoadError;
use crate::mesh::Mesh;
use crate::os;
use crate::peer::Peer;
use crate::stats::count;

/// What this node knows of a session.
pub(super) enum Local {
    Live(Snapshot),
    Ended,
    /// Nothing, or only part.
    Unknown,
}

impl Sessions {
    /// Reads a session and notes the access. `None`: it never was, or has ended, and every node that
    /// would know says so.
    ///
    /// # Errors
    /// The node does not serve, or it could not be decided in time. Neither says that the session
    /// does not exist: answer 503, and keep the user's cookie.
    pub async fn load(&self, id: &SessionId) -> Result<Option<Snapshot>, LoadError> {
        let mesh = &*self.mesh;
        mesh.check_serving()?;
        if !mesh.is_doubting() {
            match mesh.local(id, true) {
                Local::Live(snapshot) => return Ok(Some(snapshot)),
                Local::Ended => return Ok(None),
                Local::Unknown => {}
            }
        }
        mesh.look_up(id).await
    }

    /// The own limits of a session that this node holds, as durations from now.
    pub fn limits(&self, id: &SessionId) -> Option<Limits> {
        let now = os::mono();
        self.mesh.table.read(id, |record| {
            let limits = record?.live()?.limits();
            let left = |at: Option<Instant>| at.map(|at| at - now);
            Some(Limits {
                idle: limits.idle,
                remaining: left(limits.deadline),
                absolute: left(limits.absolute),
            })
        })
    }
}

impl Mesh {
    /// A session from memory; `access` notes an access.
    pub(super) fn local(&self, id: &SessionId, access: bool) -> Local {
        let now = os::mono();
        let (local, touch) = self.table.with(id, |slot| match slot {
            None => (Local::Unknown, false),
            Some(Record::Ended(_)) => (Local::Ended, false),
            Some(Record::Held(state)) if state.is_partial() => (Local::Unknown, false),
            Some(Record::Held(state)) => {
                if !state.is_live()
                    || state.is_past_deadline(now)
                    || self.is_overdue(state.ends_at(self.config.idle), now)
                {
                    return (Local::Ended, false);
                }
                let touch = access && state.access(now, self.config.touch_interval());
                (Local::Live(Snapshot::of(*id, state)), touch)
            }
        });
        if touch {
            let streams = self.routes.streams(None, now);
            if commit::touch(&self.table, &streams, self.origin(), *id).is_ok() {
                count(&self.counters.touches);
            }
        }
        local
    }

    /// Whether a session with this end is over even if no other node has said so: the first holder
    /// should have ended it by then. A node alone knows every access.
    pub(crate) fn is_overdue(&self, ends_at: Instant, now: Instant) -> bool {
        let alone = self.routes.current().peers.is_empty();
        let patience = self.config.touch_interval() + self.config.membership.drop_time;
        now >= if alone { ends_at } else { ends_at + patience }
    }

    /// Asks the other holders, and decides with them.
    pub(crate) async fn look_up(&self, id: &SessionId) -> Result<Option<Snapshot>, LoadError> {
        count(&self.counters.lookups);
        let _permit = self.lookups.try_acquire().map_err(|_| LoadError::Overloaded)?;
        let deadline = os::mono() + self.config.fetch_timeout;
        let mut answered = 0;
        let mut asked = 0;
        loop {
            let routes = self.routes.current();
            let holders = routes.other_holders(id);
            let expected = routes.view.holders(id).iter().filter(|boot| **boot != self.me.boot).count();
            asked = expected.max(asked);
            let mut answers = tokio::task::JoinSet::new();
            for holder in &holders {
                answers.spawn(ask(holder.clone(), self.fetch_for(id, routes.view.hash())));
            }
            let mut decided = 0;
            while let Ok(Some(answer)) = tokio::time::timeout(os::until(deadline), answers.join_next()).await
            {
                match answer.ok().flatten() {
                    None | Some(FetchOutcome::Undecided) => continue,
                    Some(FetchOutcome::Absent) => decided += 1,
                    Some(record) => {
                        decided += 1;
                        if let Some(applied) = fetch::apply(&self.table, &self.clock, *id, record, os::now())
                            && let Some(end) = applied.ended
                        {
                            self.ended(*id, end);
                        }
                        // One holder's word is as good as another's: this is the session as known
                        // there, joined with what is here.
                        match self.local(id, true) {
                            Local::Live(snapshot) => {
                                count(&self.counters.lookups_found);
                                return Ok(Some(snapshot));
                            }
                            Local::Ended => return Ok(None),
                            Local::Unknown => {}
                        }
                    }
                }
            }
            answered = decided.max(answered);
            if decided >= expected {
                return self.decide(id, expected);
            }
            if os::until(deadline).is_zero() {
                count(&self.counters.lookups_undecided);
                return Err(LoadError::Unavailable { answered, asked });
            }
            // Views may differ for a moment after a change.
            tokio::time::sleep(os::until(deadline).min(self.config.fetch_timeout / 5)).await;
        }
    }

    /// All other holders have spoken, and none has the session.
    fn decide(&self, id: &SessionId, asked: usize) -> Result<Option<Snapshot>, LoadError> {
        match self.local(id, true) {
            // Made here and not sent before this node was paused: nobody else can know it.
            Local::Live(snapshot) => Ok(Some(snapshot)),
            Local::Ended => Ok(None),
            Local::Unknown if asked == 0 && self.is_doubting() => {
                count(&self.counters.lookups_undecided);
                Err(LoadError::Unavailable { answered: 0, asked })
            }
            Local::Unknown => {
                count(&self.counters.lookups_denied);
                Ok(None)
            }
        }
    }

    /// Asks for what this node lacks of a session.
    pub(crate) fn fetch_for(&self, id: &SessionId, view: u64) -> Fetch {
        let version = self.table.read(id, |record| match record {
            Some(Record::Held(state)) if !state.is_partial() => Some(state.version().clone()),
            _ => None,
        });
        Fetch { request: 0, id: *id, version, view }
    }
}

async fn ask(holder: Arc<Peer>, fetch: Fetch) -> Option<FetchOutcome> {
    holder.fetch(|request| Frame::Fetch(Fetch { request, ..fetch })).await.ok()
}
