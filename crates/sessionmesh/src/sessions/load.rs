//! Reading a session, wherever it is.

use sessionmesh_core::replication::Table;
use sessionmesh_core::session::{End, EndCause, Limits, Record};
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
    /// It has not been used for too long, as far as this node has heard. It may be behind: the others are asked.
    Overdue,
    /// Nothing, or only part.
    Unknown,
}

/// What others are to hear of a look at a session.
enum Tell {
    Nothing,
    Access,
    /// It has been used here since an end by idleness that came.
    Outlived,
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
                Local::Overdue | Local::Unknown => {}
            }
        }
        // Rare, and large: the usual load does not carry it.
        Box::pin(mesh.look_up(id, true)).await
    }

    /// Whether this node knows that a session is over. Asks nobody.
    pub fn has_ended(&self, id: &SessionId) -> bool {
        self.mesh.table.read(id, |record| record.is_some_and(|record| record.end().is_some()))
    }

    /// Whether a session is over. Where this node would not answer for it from memory, its holders are asked, which is
    /// no access; if it can't be told in time, it is not.
    pub async fn is_over(&self, id: &SessionId) -> bool {
        let trusts = || self.mesh.trusts(id, host::mono());
        self.has_ended(id) || !trusts() && matches!(Box::pin(self.mesh.look_up(id, false)).await, Ok(None))
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
        // Hardly any session is past its time, so who else is there is asked last.
        let overdue = || if self.routes.current().peers.is_empty() { Local::Ended } else { Local::Overdue };
        // All agreed who were there: one with whom nothing has been compared yet may have used it since.
        let ended = |end: End| {
            let is_known = || end.is_agreed() && self.is_settled_in(&self.routes.current().view);
            if end.cause == EndCause::Destroyed || is_known() { Local::Ended } else { overdue() }
        };
        let (local, tell) = self.table.with(id, |slot| match slot {
            None => (Local::Unknown, Tell::Nothing),
            Some(Record::Ended(end)) => (ended(*end), Tell::Nothing),
            Some(Record::Held(state)) if state.is_partial() => (Local::Unknown, Tell::Nothing),
            Some(Record::Held(state)) => {
                let ends_at = state.ends_at(self.config.idle);
                let tell = match state.idle_end() {
                    _ if state.is_past_deadline(now) => return (Local::Ended, Tell::Nothing),
                    Some(_) if now < ends_at => {
                        if access {
                            state.access(now, self.config.touch_interval());
                        }
                        Tell::Outlived
                    }
                    Some(end) => return (ended(end), Tell::Nothing),
                    None if self.is_overdue(ends_at, now) => return (overdue(), Tell::Nothing),
                    None if access && state.access(now, self.config.touch_interval()) => Tell::Access,
                    None => Tell::Nothing,
                };
                (Local::Live(Snapshot::of(*id, state, now)), tell)
            }
        });
        match tell {
            Tell::Nothing => {}
            Tell::Access => self.touch(id),
            Tell::Outlived => self.outlive(*id, host::now()),
        }
        local
    }

    /// Whether this node answers for a session from memory.
    pub(super) fn trusts(&self, id: &SessionId, now: Instant) -> bool {
        !self.is_doubting_at(now) && self.routes.current().view.may_serve(id)
    }

    /// Whether a session with this end should have been ended by the first holder by now, if this node has heard of every
    /// access. A node alone has.
    pub(crate) fn is_overdue(&self, ends_at: Instant, now: Instant) -> bool {
        let patience = self.config.touch_interval() + self.config.membership.drop_time;
        now >= ends_at && (now >= ends_at + patience || self.routes.current().peers.is_empty())
    }
}
