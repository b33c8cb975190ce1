//! Another member, as the data path sees it: the stream to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sessionmesh_core::membership::{LinkId, MemberInfo};
use sessionmesh_core::replication::{Appended, Filled, Inbox, Outbox};
use sessionmesh_core::wire::{FetchOutcome, Frame};
use sessionmesh_core::{BootId, Instant, NodeName};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::ack::AckWait;
use crate::host;
use crate::net::sync::SyncInput;

/// One who has not answered a question for so long is not waited for alone.
pub(crate) const HEDGE: Duration = Duration::from_millis(5);
/// For so long it is then asked after the others, unless it answers.
const ASKED_LAST: Duration = Duration::from_secs(1);

/// A member and the stream to it; lives as long as the membership, over several links.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) boot: BootId,
    pub(crate) name: NodeName,
    pub(crate) traffic: Traffic,
    stream: Mutex<Stream>,
    fetches: Mutex<Fetches>,
}

/// What waits for the peer, and the link that may take it. One that was replaced and has not noticed
/// yet must neither take frames with it nor be woken instead of its successor.
#[derive(Debug)]
struct Stream {
    outbox: Outbox<Arc<AckWait>>,
    link: Option<LinkId>,
    wake: Arc<Notify>,
    sync: Option<mpsc::Sender<SyncInput>>,
    /// It is in no routes any more.
    is_removed: bool,
}

#[derive(Debug, Default)]
struct Fetches {
    next: u64,
    /// Who waits, and what was asked: a new link asks again.
    waiting: BTreeMap<u64, (oneshot::Sender<FetchOutcome>, Bytes)>,
    /// Since when it owes an answer.
    owes_since: Option<Instant>,
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
            stream: Mutex::new(Stream {
                outbox: Outbox::new(outbox_bytes),
                link: None,
                wake: Arc::default(),
                sync: None,
                is_removed: false,
            }),
            fetches: Mutex::default(),
        })
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads or changes the outbox.
    pub(crate) fn outbox<R>(&self, f: impl FnOnce(&mut Outbox<Arc<AckWait>>) -> R) -> R {
        f(&mut self.stream().outbox)
    }

    /// How many frames have come from it, over all its links.
    pub(crate) fn frames_received(&self) -> u64 {
        self.traffic.frames_received.load(Ordering::Relaxed)
    }

    fn fetches(&self) -> MutexGuard<'_, Fetches> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a data frame. Called under a session's lock.
    pub(crate) fn append(&self, frame: &Bytes, wait: Option<Arc<AckWait>>, now: Instant) {
        let mut stream = self.stream();
        if stream.is_removed {
            drop(stream);
            if let Some(wait) = wait {
                wait.gone();
            }
            return;
        }
        if stream.outbox.append(frame, wait, now) == Appended::Queued {
            stream.wake.notify_one();
        }
    }

    /// Sends a frame ahead of all data.
    pub(crate) fn send(&self, frame: Frame) {
        self.send_encoded(frame.encode());
    }

    pub(crate) fn send_encoded(&self, frame: Bytes) {
        let mut stream = self.stream();
        stream.outbox.push_control(frame);
        stream.wake.notify_one();
    }

    /// Sends a frame of a pass, behind all data, on the link that it is made on; gives back its bytes. On another
    /// link it would be taken for one of a pass there.
    pub(crate) fn send_bulk(&self, link: LinkId, frame: Frame) -> u64 {
        let frame = frame.encode();
        let bytes = frame.len() as u64;
        let mut stream = self.stream();
        if stream.link != Some(link) {
            return 0;
        }
        stream.outbox.push_bulk(frame);
        stream.wake.notify_one();
        bytes
    }

    /// Changes the outbox on behalf of a link, if it is still the one in use.
    pub(crate) fn outbox_on<R>(
        &self,
        link: LinkId,
        f: impl FnOnce(&mut Outbox<Arc<AckWait>>) -> R,
    ) -> Option<R> {
        let mut stream = self.stream();
        (stream.link == Some(link)).then(|| f(&mut stream.outbox))
    }

    /// Moves what waits and does not rest into a link's write buffer; `None` if another link has taken its place.
    pub(crate) fn fill(
        &self,
        link: LinkId,
        inbox: &mut Inbox,
        buffer: &mut BytesMut,
        room: usize,
        rest: Duration,
    ) -> Option<Filled> {
        let mut stream = self.stream();
        (stream.link == Some(link)).then(|| stream.outbox.fill(inbox, buffer, room, host::mono(), rest))
    }

    /// Asks for a session. `make` gets the request's number.
    pub(crate) fn fetch(&self, make: impl FnOnce(u64) -> Frame) -> oneshot::Receiver<FetchOutcome> {
        let (answer, answered) = oneshot::channel();
        let frame = {
            let mut fetches = self.fetches();
            fetches.waiting.retain(|_, (waiting, _)| !waiting.is_closed());
            let now = host::mono();
            fetches.owes_since = fetches.owes_since.filter(|since| now - *since < ASKED_LAST).or(Some(now));
            fetches.next += 1;
            let request = fetches.next;
            let frame = make(request).encode();
            fetches.waiting.insert(request, (answer, frame.clone()));
            frame
        };
        self.send_encoded(frame);
        answered
    }

    /// An answer came; whether anybody waits for it.
    pub(crate) fn fetched(&self, request: u64, outcome: FetchOutcome) -> bool {
        let waiting = {
            let mut fetches = self.fetches();
            fetches.owes_since = None;
            fetches.waiting.remove(&request)
        };
        waiting.is_some_and(|(waiting, _)| waiting.send(outcome).is_ok())
    }

    /// Whether it has left a question unanswered for longer than others take.
    pub(crate) fn is_slow(&self) -> bool {
        let owes_since = self.fetches().owes_since;
        owes_since.is_some_and(|since| (HEDGE..ASKED_LAST).contains(&(host::mono() - since)))
    }

    /// A link is up: the streams begin anew on it. Gives back what wakes its writer.
    pub(crate) fn attach(&self, link: LinkId, sync: mpsc::Sender<SyncInput>, now: Instant) -> Arc<Notify> {
        let mut stream = self.stream();
        stream.link = Some(link);
        stream.sync = Some(sync);
        stream.wake = Arc::default();
        stream.outbox.open(now);
        self.traffic.links.fetch_add(1, Ordering::Relaxed);
        let mut fetches = self.fetches();
        fetches.owes_since = None;
        for (waiting, asked) in fetches.waiting.values() {
            if !waiting.is_closed() {
                stream.outbox.push_control(asked.clone());
            }
        }
        stream.wake.clone()
    }

    /// A link is down. Of no consequence if another has taken its place.
    pub(crate) fn detach(&self, link: LinkId) {
        let mut stream = self.stream();
        if stream.link == Some(link) {
            stream.link = None;
            stream.sync = None;
            stream.outbox.close();
        }
    }

    /// Starts a pass; whether there is a link to do it on.
    pub(crate) fn start_pass(&self) -> bool {
        self.stream().sync.as_ref().is_some_and(|sync| sync.try_send(SyncInput::Start).is_ok())
    }

    /// The member is gone: nobody waits for it any longer.
    pub(crate) fn desert(&self) {
        let waits = {
            let mut stream = self.stream();
            stream.link = None;
            stream.sync = None;
            stream.outbox.desert()
        };
        for wait in waits {
            wait.gone();
        }
        self.fetches().waiting.clear();
    }

    /// It is in no routes any more. Whoever commits by those of a moment ago does not wait for it either.
    pub(crate) fn remove(&self) {
        self.stream().is_removed = true;
        self.desert();
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.traffic.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use sessionmesh_core::SessionId;
    use sessionmesh_core::membership::MemberState;
    use sessionmesh_core::replication::{AckLevel, Outcome, rest};
    use sessionmesh_core::wire::Fetch;

    use super::*;

    fn peer() -> Arc<Peer> {
        let boot = BootId::new(7).unwrap();
        let name = NodeName::new("n1").unwrap();
        let address = "127.0.0.1:1".parse().unwrap();
        Peer::new(&MemberInfo { boot, name, address, state: MemberState::Ready }, 1 << 20)
    }

    /// What goes out on a link.
    fn sent(peer: &Peer, link: LinkId) -> BytesMut {
        let mut buffer = BytesMut::new();
        let _ = peer.fill(link, &mut Inbox::new(), &mut buffer, 1 << 10, rest(1)).unwrap();
        buffer
    }

    #[tokio::test]
    async fn what_was_asked_on_a_link_that_broke_is_asked_again_on_the_next() {
        let peer = peer();
        let (sync, _passes) = mpsc::channel(1);
        let _wake = peer.attach(1, sync.clone(), Instant::ZERO);
        let ask = |request| {
            let id = SessionId::from_bytes([9; 16]);
            Frame::Fetch(Fetch { request, id, version: None, view: 1, access: false, any_copy: false })
        };
        let (kept, given_up) = (peer.fetch(ask), peer.fetch(ask));
        drop(given_up);
        let _ = sent(&peer, 1);
        peer.detach(1);
        let _wake = peer.attach(2, sync, Instant::ZERO);
        let again = sent(&peer, 2);
        let has =
            |request| again.windows(ask(request).encode().len()).any(|part| part == ask(request).encode());
        assert!(has(1) && !has(2), "{again:?}");
        assert!(peer.fetched(1, FetchOutcome::Undecided));
        assert_eq!(kept.await, Ok(FetchOutcome::Undecided));
    }

    /// Who commits may have read the routes just before the member was dropped.
    #[test]
    fn nobody_waits_for_one_that_is_gone_by_then() {
        let (peer, id) = (peer(), SessionId::from_bytes([9; 16]));
        let wait = AckWait::new(AckLevel::All, id);
        wait.await_one();
        peer.remove();
        peer.append(&Bytes::from_static(b"frame"), Some(wait.clone()), Instant::ZERO);
        assert_eq!(wait.outcome(), Outcome { have: 1, want: 1 });
    }

    #[tokio::test]
    async fn a_link_that_was_replaced_takes_no_frames_and_no_wake_up_with_it() {
        let peer = peer();
        let (sync, _passes) = mpsc::channel(1);
        let old = peer.attach(1, sync.clone(), Instant::ZERO);
        let new = peer.attach(2, sync, Instant::ZERO);
        peer.append(&Bytes::from_static(b"frame"), None, Instant::ZERO);

        tokio::select! {
            biased;
            () = old.notified() => panic!("the old link was woken"),
            () = new.notified() => {}
        }
        let (mut inbox, mut buffer) = (Inbox::new(), BytesMut::new());
        assert_eq!(peer.fill(1, &mut inbox, &mut buffer, 1 << 10, rest(1)), None);
        peer.detach(1);
        let filled = peer.fill(2, &mut inbox, &mut buffer, 1 << 10, rest(1));
        assert!(filled.is_some_and(|filled| filled.wrote));
        assert!(buffer.ends_with(b"frame"));
    }
}
