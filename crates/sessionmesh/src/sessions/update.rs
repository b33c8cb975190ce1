//! Changing a session.

use bytes::Bytes;
use sessionmesh_core::SessionId;
use sessionmesh_core::replication::{Outcome, commit};
use sessionmesh_core::session::{Attributes, Change, ChangeError, Name, Record};

use super::{Edit, Sessions};
use crate::ack::AckWait;
use crate::error::{CommitError, Committed};
use crate::host;
use crate::stats::count;

/// How often a closure is run again when another request changed what it had read.
pub(super) const ATTEMPTS: usize = 32;

enum Lost {
    Change(ChangeError),
    /// What the closure read is no longer so.
    Race,
}

impl From<ChangeError> for Lost {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}

impl Sessions {
    /// Changes a session by a closure that may read it.
    ///
    /// If another request on this node changes an attribute that the closure has read, it is run
    /// again, so a read-modify-write loses nothing on one node. Between nodes the last writer of an
    /// attribute wins.
    ///
    /// # Errors
    /// See [`CommitError`]; only with [`CommitError::LevelMissed`] has anything been written.
    pub async fn update(
        &self,
        id: &SessionId,
        edit: impl FnMut(&mut Edit<'_>),
    ) -> Result<Committed, CommitError> {
        let mut edit = edit;
        let mut attempt = 0;
        loop {
            let snapshot = self.load(id).await?.ok_or(CommitError::NotFound)?;
            let mut editing = Edit::new(snapshot.attributes());
            edit(&mut editing);
            let (read, change) = editing.finish();
            match self.commit(id, change, |current| same(&read, snapshot.attributes(), current)).await {
                // A visitor's copy went in this very moment: loading it again tells.
                Some(Err(CommitError::NotFound))
                    if attempt + 1 < ATTEMPTS && !self.mesh.trusts(id, host::mono()) =>
                {
                    attempt += 1;
                }
                Some(result) => return result,
                None if attempt + 1 == ATTEMPTS => return Err(CommitError::Contended { attempts: ATTEMPTS }),
                None => {
                    attempt += 1;
                    count(&self.mesh.counters.update_retries);
                }
            }
        }
    }

    /// Makes a change to a session that this node holds, as it is. For adapters that work out
    /// themselves what changed.
    ///
    /// # Errors
    /// As [`Sessions::update`].
    pub async fn apply(&self, id: &SessionId, change: Change) -> Result<Committed, CommitError> {
        if !self.mesh.is_doubting() && self.mesh.routes.current().view.may_serve(id) {
            return self.commit(id, change, |_| true).await.unwrap_or(Err(CommitError::NotFound));
        }
        // Rare, and large: the usual write does not carry it.
        Box::pin(self.apply_to_copy(id, change)).await
    }

    /// The same on a node that does not answer for the session from memory.
    async fn apply_to_copy(&self, id: &SessionId, change: Change) -> Result<Committed, CommitError> {
        for _ in 0..ATTEMPTS {
            // What is here may be from before a pause, and a visitor's copy gone since the request loaded it, or from before
            // a logout that its holders were told of.
            self.load(id).await?.ok_or(CommitError::Ended)?;
            match self.commit(id, change.clone(), |_| true).await {
                Some(Err(CommitError::NotFound)) | None => {}
                Some(result) => return result,
            }
        }
        Err(CommitError::Contended { attempts: ATTEMPTS })
    }

    /// Sets one attribute.
    ///
    /// # Errors
    /// As [`Sessions::update`].
    pub async fn set(
        &self,
        id: &SessionId,
        name: &str,
        value: impl Into<Bytes>,
    ) -> Result<Committed, CommitError> {
        let value = value.into();
        self.update(id, |edit| {
            edit.set(name, value.clone());
        })
        .await
    }

    /// Removes one attribute.
    ///
    /// # Errors
    /// As [`Sessions::update`].
    pub async fn remove(&self, id: &SessionId, name: &str) -> Result<Committed, CommitError> {
        self.update(id, |edit| {
            edit.remove(name);
        })
        .await
    }

    /// Notes an access and tells the other holders at once, whatever `touch_interval` says.
    ///
    /// # Errors
    /// As [`Sessions::update`].
    pub async fn touch(&self, id: &SessionId) -> Result<Committed, CommitError> {
        let mesh = &*self.mesh;
        for _ in 0..ATTEMPTS {
            self.load(id).await?.ok_or(CommitError::NotFound)?;
            let (wait, now) = (AckWait::at(self.level, *id), host::now());
            let streams = mesh.routes.streams(wait.clone(), now.mono);
            match commit::touch(&mesh.table, &streams, mesh.origin_at(now), *id) {
                // A visitor's copy went in this very moment.
                Err(ChangeError::Unknown) => {}
                touched => {
                    let token = touched?;
                    count(&mesh.counters.touches);
                    return self.finish(*id, self.level, wait, Some(token)).await;
                }
            }
        }
        Err(CommitError::Contended { attempts: ATTEMPTS })
    }

    /// One attempt; `None` if `still` says that what is here is not what was read.
    async fn commit(
        &self,
        id: &SessionId,
        change: Change,
        still: impl FnOnce(&Attributes) -> bool,
    ) -> Option<Result<Committed, CommitError>> {
        let mesh = &*self.mesh;
        if let Err(error) = mesh.serve() {
            return Some(Err(error.into()));
        }
        if let Err(error) = self.check_alone(self.level) {
            return Some(Err(error));
        }
        let (wait, now) = (AckWait::at(self.level, *id), host::now());
        let streams = mesh.routes.streams(wait.clone(), now.mono);
        let committed = commit::change(&mesh.table, &streams, mesh.origin_at(now), *id, |record| {
            let fresh = record.and_then(Record::live).is_none_or(|state| still(state.attributes()));
            if fresh { Ok(change) } else { Err(Lost::Race) }
        });
        match committed {
            Ok(Some(token)) => {
                count(&mesh.counters.commits);
                Some(self.finish(*id, self.level, wait, Some(token)).await)
            }
            Ok(None) => {
                count(&mesh.counters.unchanged);
                if wait.is_some() {
                    // The write that made it so may have missed its level: this one must not be
                    // answered as if it had not.
                    let now = host::now();
                    let streams = mesh.routes.streams(wait.clone(), now.mono);
                    commit::resend(&mesh.table, &streams, now, *id);
                    return Some(self.finish(*id, self.level, wait, None).await);
                }
                let outcome = Outcome { have: 1, want: 1 };
                Some(Ok(Committed { id: *id, outcome, token: None }))
            }
            Err(Lost::Race) => None,
            Err(Lost::Change(error)) => {
                match error {
                    ChangeError::Unknown => {}
                    ChangeError::Ended => count(&mesh.counters.writes_after_end),
                    _ => count(&mesh.counters.over_limit),
                }
                Some(Err(error.into()))
            }
        }
    }
}

/// Whether attributes are what they were.
fn same(read: &[Name], before: &Attributes, now: &Attributes) -> bool {
    read.iter().all(|name| before.get(name) == now.get(name))
}
