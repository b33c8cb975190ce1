//! Where a session's changes go: published by the control task, read by every commit.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use sessionmesh_core::placement::{Mode, View};
use sessionmesh_core::replication::commit::Streams;
use sessionmesh_core::{BootId, Instant, SessionId};

use crate::ack::AckWait;
use crate::peer::Peer;

/// The members and the streams to them, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct RouteTable {
    pub(crate) view: View,
    pub(crate) peers: Vec<Arc<Peer>>,
}

impl RouteTable {
    pub(crate) fn peer(&self, boot: BootId) -> Option<&Arc<Peer>> {
        self.peers.iter().find(|peer| peer.boot == boot)
    }

    /// The other nodes that hold a session.
    pub(crate) fn other_holders(&self, id: &SessionId) -> Vec<Arc<Peer>> {
        self.view.holders(id).into_iter().filter_map(|boot| self.peer(boot).cloned()).collect()
    }
}

/// The current routes.
#[derive(Debug)]
pub(crate) struct Routes(RwLock<Arc<RouteTable>>);

impl Routes {
    pub(crate) fn new(view: View) -> Self {
        Self(RwLock::new(Arc::new(RouteTable { view, peers: Vec::new() })))
    }

    pub(crate) fn current(&self) -> Arc<RouteTable> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn publish(&self, table: RouteTable) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// The streams of one commit.
    pub(crate) fn streams(&self, wait: Option<Arc<AckWait>>, now: Instant) -> CommitStreams<'_> {
        CommitStreams { routes: self, wait, now }
    }
}

/// Sends what one commit makes to those that hold the session, and enters them into its wait.
#[derive(Debug)]
pub(crate) struct CommitStreams<'a> {
    routes: &'a Routes,
    wait: Option<Arc<AckWait>>,
    now: Instant,
}

impl Streams for CommitStreams<'_> {
    fn send(&self, id: &SessionId, frame: &Bytes) {
        // Read here, under the session's lock: see `replication::commit`.
        let table = self.routes.current();
        let append = |peer: &Peer, holds: bool| {
            let wait = self.wait.as_ref().filter(|_| holds);
            if let Some(wait) = wait {
                wait.await_one();
            }
            peer.append(frame, wait.cloned(), self.now);
        };
        match table.view.mode() {
            // Joining members hear everything too: what their pass has read before, they would miss.
            Mode::AllPeers => {
                for peer in &table.peers {
                    append(peer, table.view.is_holder(id, peer.boot));
                }
            }
            Mode::BackupOnly { .. } => {
                for peer in table.other_holders(id) {
                    append(&peer, true);
                }
            }
        }
    }
}
