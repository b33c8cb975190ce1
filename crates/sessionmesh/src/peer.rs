//! Another member, as the data path sees it: the stream to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sessionmesh_core::membership::{LinkId, MemberInfo};
use sessionmesh_core::replication::{Appended, Outbox};
use sessionmesh_core::wire::{FetchOutcome, Frame};
use sessionmesh_core::{BootId, Instant, NodeName};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::ack::AckWait;
use crate::net::sync::SyncInput;

/// A member and the stream to it; lives as long as the membership, over several links.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) boot: BootId,
    pub(crate) name: NodeName,
    pub(crate) traffic: Traffic,
    outbox: Mutex<Outbox<Arc<AckWait>>>,
    fetches: Mutex<Fetches>,
    current: Mutex<Current>,
    /// Something waits in the outbox.
    pub(crate) wake: Notify,
}

/// The link in use: an older one that ends late must not take the streams down with it.
#[derive(Debug, Default)]
struct Current {
    link: Option<LinkId>,
    sync: Option<mpsc::Sender<SyncInput>>,
}

#[derive(Debug, Default)]
struct Fetches {
    next: u64,
    waiting: HashMap<u64, oneshot::Sender<FetchOutcome>>,
}

/// What came from a peer.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) bytes_received: AtomicU64,
    pub(crate) frames_received: AtomicU64,
    pub(crate) acks_received: AtomicU64,
    pub(crate) links: AtomicU64,
}

impl Peer {
    pub(crate) fn new(member: &MemberInfo, outbox_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            boot: member.boot,
            name: member.name.clone(),
            traffic: Traffic::default(),
            outbox: Mutex::new(Outbox::new(outbox_bytes)),
            fetches: Mutex::default(),
            current: Mutex::default(),
            wake: Notify::new(),
        })
    }

    pub(crate) fn outbox(&self) -> MutexGuard<'_, Outbox<Arc<AckWait>>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fetches(&self) -> MutexGuard<'_, Fetches> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a data frame. Called under a session's lock.
    pub(crate) fn append(&self, frame: &Bytes, wait: Option<Arc<AckWait>>, now: Instant) {
        if self.outbox().append(frame, wait, now) == Appended::Queued {
            self.wake.notify_one();
        }
    }

    /// Sends a frame ahead of all data.
    pub(crate) fn send(&self, frame: Frame) {
        self.outbox().push_control(frame.encode());
        self.wake.notify_one();
    }

    /// Sends a frame of a pass, behind all data.
    pub(crate) fn send_bulk(&self, frame: Frame) {
        self.outbox().push_bulk(frame.encode());
        self.wake.notify_one();
    }

    /// Asks for a session. `make` gets the request's number.
    pub(crate) fn fetch(&self, make: impl FnOnce(u64) -> Frame) -> oneshot::Receiver<FetchOutcome> {
        let (answer, answered) = oneshot::channel();
        let request = {
            let mut fetches = self.fetches();
            fetches.waiting.retain(|_, waiting| !waiting.is_closed());
            fetches.next += 1;
            let request = fetches.next;
            fetches.waiting.insert(request, answer);
            request
        };
        self.send(make(request));
        answered
    }

    /// An answer came; whether anybody waits for it.
    pub(crate) fn fetched(&self, request: u64, outcome: FetchOutcome) -> bool {
        let waiting = self.fetches().waiting.remove(&request);
        waiting.is_some_and(|waiting| waiting.send(outcome).is_ok())
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link is up: the streams begin anew on it.
    pub(crate) fn attach(&self, link: LinkId, sync: mpsc::Sender<SyncInput>, now: Instant) {
        let mut current = self.current();
        *current = Current { link: Some(link), sync: Some(sync) };
        self.outbox().open(now);
        self.traffic.links.fetch_add(1, Ordering::Relaxed);
    }

    /// A link is down. Of no consequence if another has taken its place.
    pub(crate) fn detach(&self, link: LinkId) {
        let mut current = self.current();
        if current.link == Some(link) {
            *current = Current::default();
            self.outbox().close();
        }
    }

    /// Starts a pass; whether there is a link to do it on.
    pub(crate) fn start_pass(&self) -> bool {
        self.current().sync.as_ref().is_some_and(|sync| sync.try_send(SyncInput::Start).is_ok())
    }

    /// The member is gone: nobody waits for it any longer.
    pub(crate) fn desert(&self) {
        let waits = self.outbox().desert();
        for wait in waits {
            wait.gone();
        }
        self.fetches().waiting.clear();
        *self.current() = Current::default();
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.traffic.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
