//! The session API: what requests do.
//!
//! Nothing here waits for another node except where a level, an unknown id or doubt asks for it.

mod covering;
mod edit;
mod lifecycle;
mod load;
mod lookup;
mod snapshot;
mod update;

use std::sync::Arc;

pub use covering::{Loaded, Stale};
pub use edit::Edit;
pub use snapshot::Snapshot;

use sessionmesh_core::SessionId;
use sessionmesh_core::replication::{AckLevel, Outcome, commit};
use sessionmesh_core::session::Token;

use crate::ack::{AckWait, Waited};
use crate::config::Alone;
use crate::error::{CommitError, Committed};
use crate::host;
use crate::mesh::Mesh;
use crate::stats::count;

/// The sessions of the cluster, with the level at which writes are acknowledged.
///
/// Cheap to clone. From [`Cluster::sessions`](crate::Cluster::sessions) or
/// [`Cluster::at`](crate::Cluster::at).
#[derive(Clone, Debug)]
pub struct Sessions {
    pub(crate) mesh: Arc<Mesh>,
    level: AckLevel,
}

impl Sessions {
    pub(crate) fn new(mesh: Arc<Mesh>, level: AckLevel) -> Self {
        Self { mesh, level }
    }

    /// The same sessions, with writes acknowledged at another level.
    #[must_use]
    pub fn at(&self, level: AckLevel) -> Self {
        Self { mesh: self.mesh.clone(), level }
    }

    /// The level of writes.
    pub fn level(&self) -> AckLevel {
        self.level
    }

    /// Whether a write may be made at this level now.
    fn check_alone(&self, level: AckLevel) -> Result<(), CommitError> {
        let refuse = self.mesh.config.alone == Alone::Refuse && level != AckLevel::Async;
        if refuse && self.mesh.routes.current().view.ready() < 2 {
            return Err(CommitError::Alone);
        }
        Ok(())
    }

    /// Waits until a write that is made has reached its level.
    async fn finish(
        &self,
        id: SessionId,
        level: AckLevel,
        wait: Option<Arc<AckWait>>,
        token: Option<Token>,
    ) -> Result<Committed, CommitError> {
        let mesh = &*self.mesh;
        let Some(mut wait) = wait else {
            return Ok(Committed { id, outcome: Outcome { have: 1, want: 1 }, token });
        };
        let deadline = host::mono() + mesh.config.ack_timeout;
        loop {
            match wait.finish(host::until(deadline)).await {
                Waited::Met(outcome) if outcome.want > 1 => return Ok(Committed { id, outcome, token }),
                Waited::Met(outcome) => {
                    count(&mesh.counters.alone);
                    if mesh.config.alone == Alone::Refuse {
                        let outcome = Outcome { want: 2, ..outcome };
                        return Err(CommitError::LevelMissed(Committed { id, outcome, token }));
                    }
                    return Ok(Committed { id, outcome, token });
                }
                Waited::TimedOut(outcome) => {
                    count(&mesh.counters.level_timeouts);
                    return Err(CommitError::LevelMissed(Committed { id, outcome, token }));
                }
                // Others hold the session now: they must have the write.
                Waited::Deserted => {
                    wait = AckWait::new(level, id);
                    let now = host::now();
                    let streams = mesh.routes.streams(Some(wait.clone()), now.mono);
                    commit::resend(&mesh.table, &streams, now, id);
                }
            }
        }
    }
}
