//! Reading a session, wherever it is.

use sessionmesh_core::replication::Table;
use sessionmesh_core::session::{Limits, Record};
use sessionmesh_core::{Instant, SessionId};

use super::snapshot::limits_left;
use super::{Sessions, Snapshot};
use crate::error::LoadError;
use crate::host;
use crate::mesh::Mesh;

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
        mesh.serve()?;
        let now = host::mono();
        if mesh.trusts(id, now) {
            match mesh.local_at(id, true, now) {
                Local::Live(snapshot) => return Ok(Some(snapshot)),
                Local::Ended => return Ok(None),
                Local::Unknown => {}
            }
        }
        // Rare, and large: the usual load does not carry it.
        Box::pin(mesh.look_up(id, true)).await
    }

    /// Whether this node knows that a session is over. Asks nobody.
    pub fn has_ended(&self, id: &SessionId) -> bool {
        self.mesh.table.read(id, |record| record.is_some_and(|record| record.end().is_some()))
    }

    /// The own limits of a session that this node holds, as durations from now.
    pub fn limits(&self, id: &SessionId) -> Option<Limits> {
        let now = host::mono();
        self.mesh.table.read(id, |record| Some(limits_left(record?.live()?, now)))
    }
}

impl Mesh {
    /// A session from memory; `access` notes an access.
    pub(super) fn local(&self, id: &SessionId, access: bool) -> Local {
        self.local_at(id, access, host::mono())
    }

    fn local_at(&self, id: &SessionId, access: bool, now: Instant) -> Local {
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
                (Local::Live(Snapshot::of(*id, state, now)), touch)
            }
        });
        if touch {
            self.touch(id);
        }
        local
    }

    /// Whether this node answers for a session from memory.
    pub(super) fn trusts(&self, id: &SessionId, now: Instant) -> bool {
        !self.is_doubting_at(now) && self.routes.current().view.may_serve(id)
    }

    /// Whether a session with this end is over even if no other node has said so: the first holder
    /// should have ended it by then. A node alone knows every access.
    pub(crate) fn is_overdue(&self, ends_at: Instant, now: Instant) -> bool {
        // Hardly any session is, so who else is there is asked last.
        let patience = self.config.touch_interval() + self.config.membership.drop_time;
        now >= ends_at && (now >= ends_at + patience || self.routes.current().peers.is_empty())
    }
}
