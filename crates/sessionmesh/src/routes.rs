//! Where a session's changes go: published by the control task, read by every commit.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use sessionmesh_core::placement::{Mode, View};
use sessionmesh_core::replication::commit::Streams;
use sessionmesh_core::replication::{AckLevel, Strays};
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
}

/// The current routes.
#[derive(Debug)]
pub(crate) struct Routes {
    current: ArcSwap<RouteTable>,
    strays: Mutex<Strays<Arc<AckWait>>>,
}

impl Routes {
    pub(crate) fn new(view: View) -> Self {
        let strays = Strays::default();
        let current = ArcSwap::from_pointee(RouteTable { view, peers: Vec::new() });
        Self { current, strays: Mutex::new(strays) }
    }

    /// Every request asks several times: no lock, and no count that all cores write. Not to be held across a wait.
    pub(crate) fn current(&self) -> Guard<Arc<RouteTable>> {
        self.current.load()
    }

    /// The same for whoever waits meanwhile.
    pub(crate) fn kept(&self) -> Arc<RouteTable> {
        self.current.load_full()
    }

    /// Another view begins; gives back visitors' copies that must go before it is published: after that,
    /// what comes for them may count on their being kept.
    #[must_use]
    pub(crate) fn enter(&self, view: &View) -> Vec<SessionId> {
        self.strays(|strays| strays.enter(view, |wait| wait.is_everywhere()))
    }

    pub(crate) fn publish(&self, table: RouteTable) {
        self.current.store(Arc::new(table));
    }

    /// This node's copies of sessions that it does not hold. A closure, so that no guard is held while a
    /// session's lock is taken; the other way round is right.
    pub(crate) fn strays<R>(&self, f: impl FnOnce(&mut Strays<Arc<AckWait>>) -> R) -> R {
        f(&mut self.strays.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The streams of one commit.
    pub(crate) fn streams(&self, wait: Option<Arc<AckWait>>, now: Instant) -> CommitStreams<'_> {
        CommitStreams { routes: self, wait, whole: false, now }
    }

    /// The streams of a whole record that is sent because it does not belong here.
    pub(crate) fn whole(&self, now: Instant) -> CommitStreams<'_> {
        CommitStreams { routes: self, wait: None, whole: true, now }
    }
}

/// Sends what one commit makes to those that hold the session, and enters them into its wait.
#[derive(Debug)]
pub(crate) struct CommitStreams<'a> {
    routes: &'a Routes,
    wait: Option<Arc<AckWait>>,
    whole: bool,
    now: Instant,
}

impl Streams for CommitStreams<'_> {
    fn is_awaited(&self, id: &SessionId) -> bool {
        // A visitor waits to be rid of its copy.
        let holds = |view: &View| view.mode() == Mode::AllPeers || view.i_hold(id);
        self.wait.is_some() || !holds(&self.routes.current().view)
    }

    fn send(&self, id: &SessionId, frame: &Bytes) {
        // Read here, under the session's lock: see `replication::commit`.
        let table = self.routes.current();
        if table.view.mode() == Mode::AllPeers {
            // Joining members hear everything too: what their pass has read before, they would miss.
            for peer in &table.peers {
                let wait = self.wait.clone().filter(|_| table.view.is_holder(id, peer.boot));
                if let Some(wait) = &wait {
                    wait.await_one();
                }
                peer.append(frame, wait, self.now);
            }
            return;
        }
        let mut wait = self.wait.clone();
        if !table.view.i_hold(id) {
            // A visitor keeps its copy until all holders have what it wrote.
            let wait = wait.get_or_insert_with(|| AckWait::new(AckLevel::Async, *id));
            wait.follow();
            let (view, wait) = (&table.view, wait.clone());
            self.routes.strays(|strays| match self.whole {
                true => strays.sent(*id, view, wait),
                false => strays.written(*id, view, wait, self.now, |wait| wait.is_everywhere()),
            });
        }
        // All are entered before the first can answer.
        let mut receivers: Vec<(&Arc<Peer>, bool)> = Vec::with_capacity(4);
        table.view.receivers(id, |boot, holds| {
            receivers.extend(table.peer(boot).map(|peer| (peer, holds)));
        });
        if let Some(wait) = &wait {
            receivers.iter().filter(|receiver| receiver.1).for_each(|_| wait.await_one());
        }
        for (peer, holds) in receivers {
            peer.append(frame, wait.clone().filter(|_| holds), self.now);
        }
    }
}
