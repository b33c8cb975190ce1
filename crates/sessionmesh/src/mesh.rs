//! What all parts of a node share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sessionmesh_core::membership::{Identity, Node};
use sessionmesh_core::placement::View;
use sessionmesh_core::replication::Table;
use sessionmesh_core::replication::commit::{self, Origin};
use sessionmesh_core::session::{End, EndCause, Record};
use sessionmesh_core::{BootId, Event, HybridClock, Instant, Now, SessionId, mutated};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};

use crate::config::Config;
use crate::control::Input;
use crate::error::{ClusterError, LoadError};
use crate::events;
use crate::host;
use crate::pace::Requests;
use crate::routes::Routes;
use crate::security::{Credentials, Opening};
use crate::stats::{Counters, PeerStats, Placement, Stats, count};
use crate::sums::Sums;
use crate::table::SessionTable;

/// Where a node is in its life, for those who wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Joining(String),
    Ready,
    Leaving,
    Stopped(ClusterError),
}

/// Former members remembered: more than restart while a client keeps a token.
const MAX_FORMER: usize = 1_024;

/// One node: shared by the application's handles, the control task and the links.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) config: Config,
    credentials: watch::Sender<Arc<Credentials>>,
    pub(crate) me: Identity,
    pub(crate) table: SessionTable,
    pub(crate) routes: Routes,
    pub(crate) clock: HybridClock,
    pub(crate) counters: Counters,
    pub(crate) lookups: Semaphore,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) control: mpsc::UnboundedSender<Input>,
    /// True once: everything stops.
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) log: events::RateLimit,
    pub(crate) requests: Requests,
    events: broadcast::Sender<Event>,
    /// The control task's last tick, in nanoseconds of the boot-time clock.
    ticked: AtomicU64,
    /// The last tick before this node was paused.
    paused_at: AtomicU64,
    serving: AtomicBool,
    doubting: AtomicBool,
    /// The view in which this node has compared with all; 0 if there is none.
    settled_in: AtomicU64,
    /// Whether a pass is done with every member since its link is up.
    pub(crate) compared: AtomicBool,
    /// Whether a member may live beyond a cut.
    pub(crate) misses_members: AtomicBool,
    /// When somebody was last missed or not compared with, in nanoseconds of the boot-time clock.
    incomplete_at: AtomicU64,
    /// Whether a member is silent or its stream stands still: expiry waits longer then.
    pub(crate) suspicious: AtomicBool,
    unknown_ends: Mutex<BTreeMap<SessionId, Instant>>,
    /// Boots that were members, the newest last.
    former: Mutex<VecDeque<BootId>>,
    /// Ends of ids that nobody knew while a member was missed: kept and told as any end, so bounded.
    doubtful_ends: Mutex<BTreeMap<SessionId, Instant>>,
    sums: Mutex<Sums>,
}

impl Mesh {
    pub(crate) fn new(
        config: Config,
        me: Identity,
        credentials: Credentials,
        control: mpsc::UnboundedSender<Input>,
    ) -> Self {
        Self {
            credentials: watch::Sender::new(Arc::new(credentials)),
            table: SessionTable::new(),
            routes: Routes::new(View::new(me.boot, me.mode)),
            clock: HybridClock::new(),
            counters: Counters::default(),
            lookups: Semaphore::new(config.lookups),
            phase: watch::Sender::new(Phase::Joining("starting".into())),
            control,
            stop: watch::Sender::new(false),
            log: events::RateLimit::default(),
            requests: Requests::default(),
            events: broadcast::Sender::new(1024),
            ticked: AtomicU64::new(host::mono().as_nanos()),
            paused_at: AtomicU64::new(0),
            serving: AtomicBool::new(false),
            doubting: AtomicBool::new(false),
            settled_in: AtomicU64::new(0),
            compared: AtomicBool::new(false),
            misses_members: AtomicBool::new(false),
            incomplete_at: AtomicU64::new(host::mono().as_nanos()),
            suspicious: AtomicBool::new(false),
            unknown_ends: Mutex::default(),
            former: Mutex::default(),
            doubtful_ends: Mutex::default(),
            sums: Mutex::default(),
            config,
            me,
        }
    }

    /// What this node proves itself with, now.
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        self.credentials.borrow().clone()
    }

    pub(crate) fn set_credentials(&self, credentials: Credentials) {
        self.credentials.send_replace(Arc::new(credentials));
    }

    /// Waits until what opened a link is accepted no longer.
    pub(crate) async fn until_not_accepted(&self, opening: &Opening) {
        let mut credentials = self.credentials.subscribe();
        // The sender lives as long as this does.
        let _ = credentials.wait_for(|credentials| !credentials.accept(opening)).await;
    }

    /// Who commits, now.
    pub(crate) fn origin(&self) -> Origin<'_> {
        self.origin_at(host::now())
    }

    pub(crate) fn origin_at(&self, now: Now) -> Origin<'_> {
        Origin { boot: self.me.boot, clock: &self.clock, limits: &self.config.limits, now }
    }

    /// Tells the control task; after its end there is nobody to tell.
    pub(crate) fn tell(&self, input: Input) {
        let _ = self.control.send(input);
    }

    /// Logs an event, counts it, and passes it on to the application.
    pub(crate) fn emit(&self, event: Event) {
        events::log(self, &event);
        let _ = self.events.send(event);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The control task is alive, and this is what it knows.
    pub(crate) fn set_state(&self, now: Instant, serving: bool, doubting: bool) {
        self.serving.store(serving, Ordering::Release);
        if self.stands_still_at(now) || doubting && !self.doubting.load(Ordering::Acquire) {
            self.paused_at.store(self.ticked.load(Ordering::Acquire), Ordering::Release);
        }
        self.doubting.store(doubting, Ordering::Release);
        self.ticked.store(now.as_nanos(), Ordering::Release);
    }

    /// What the membership says of sessions that may be elsewhere.
    pub(crate) fn set_known(&self, now: Instant, node: &Node) {
        self.misses_members.store(node.misses_members(), Ordering::Relaxed);
        self.compared.store(node.has_compared_with_all(), Ordering::Release);
        if node.is_incomplete() {
            self.incomplete_at.store(now.as_nanos(), Ordering::Release);
        }
    }

    /// Whether old ends and removal marks may be forgotten: whoever could bring what they killed has met them.
    /// For a while after that too: nodes learn at different times that somebody is missed.
    pub(crate) fn may_forget(&self) -> bool {
        let since = host::mono() - Instant::from_nanos(self.incomplete_at.load(Ordering::Acquire));
        since >= self.config.membership.drop_time * 4
    }

    /// The view in which this node has compared with all.
    pub(crate) fn set_settled(&self, view: Option<u64>) {
        self.settled_in.store(view.unwrap_or(0), Ordering::Release);
    }

    /// For how long the control task has not ticked.
    pub(crate) fn since_tick(&self) -> Duration {
        self.since_tick_at(host::mono())
    }

    fn since_tick_at(&self, now: Instant) -> Duration {
        now - Instant::from_nanos(self.ticked.load(Ordering::Acquire))
    }

    /// Whether this node must not trust what it holds: it was paused and has not compared since.
    pub(crate) fn is_doubting(&self) -> bool {
        self.is_doubting_at(host::mono())
    }

    pub(crate) fn is_doubting_at(&self, now: Instant) -> bool {
        // Threads wake in any order after a pause: the first request may be ahead of the control
        // task, and must see for itself.
        self.doubting.load(Ordering::Acquire) || self.stands_still_at(now)
    }

    fn stands_still_at(&self, now: Instant) -> bool {
        self.is_pause(self.since_tick_at(now))
    }

    fn is_pause(&self, late: Duration) -> bool {
        let config = &self.config.membership;
        late >= config.tick() + config.lateness()
    }

    /// How old may be what comes now on a link where the last answer was asked for then. What has lain in the socket of a node
    /// that stood still would else be an access of this moment, and bring back what had expired elsewhere.
    pub(crate) fn arrival_age(&self, asked_at: Instant, now: Instant) -> Duration {
        let ticked = Instant::from_nanos(self.ticked.load(Ordering::Acquire));
        let paused_at = if self.is_pause(now - ticked) {
            ticked
        } else if self.doubting.load(Ordering::Acquire) {
            Instant::from_nanos(self.paused_at.load(Ordering::Acquire))
        } else {
            return Duration::ZERO;
        };
        if asked_at <= paused_at { now - paused_at } else { Duration::ZERO }
    }

    /// Whether "not here" on this node is an answer about a session to one who sees this view.
    pub(crate) fn is_settled_in(&self, view: &View) -> bool {
        self.settled_in.load(Ordering::Acquire) == view.hash() && !self.is_doubting()
    }

    /// Begins a request, if sessions are served.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn serve(&self) -> Result<(), LoadError> {
        self.requests.note();
        self.check_serving()
    }

    /// Whether sessions are served.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_serving(&self) -> Result<(), LoadError> {
        if self.serving.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(LoadError::NotReady(match &*self.phase.borrow() {
            Phase::Joining(reason) => format!("joining: {reason}"),
            Phase::Ready => "stopping".into(),
            Phase::Leaving => "leaving".into(),
            Phase::Stopped(error) => error.to_string(),
        }))
    }

    pub(crate) fn unknown_ends(&self) -> MutexGuard<'_, BTreeMap<SessionId, Instant>> {
        self.unknown_ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not to be held while a session's lock is taken.
    pub(crate) fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member is gone.
    pub(crate) fn note_former(&self, boot: BootId) {
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        if former.len() == MAX_FORMER {
            former.pop_front();
        }
        former.push_back(boot);
    }

    /// Whether a boot was a member, as far back as this node remembers.
    pub(crate) fn was_member(&self, boot: BootId) -> bool {
        self.former.lock().unwrap_or_else(PoisonError::into_inner).contains(&boot)
    }

    pub(crate) fn doubtful_ends(&self) -> MutexGuard<'_, BTreeMap<SessionId, Instant>> {
        self.doubtful_ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody has had these all the same: their ends are told as any other, and kept as long. Not to be called under a
    /// session's lock.
    pub(crate) fn meet_unknown_ends(&self, ids: impl IntoIterator<Item = SessionId>) {
        for id in ids {
            if self.unknown_ends().remove(&id).is_some() {
                let now = host::now();
                commit::resend(&self.table, &self.routes.streams(None, now.mono), now, id);
            }
        }
    }

    /// Tells of any record whether it is only the end of an id that nobody knew: this node's own business, and
    /// forgotten soon.
    pub(crate) fn is_unknown_end(&self) -> impl Fn(&SessionId, &Record) -> bool + use<> {
        let unknown: BTreeSet<SessionId> = self.unknown_ends().keys().copied().collect();
        move |id, record| matches!(record, Record::Ended(_)) && unknown.contains(id)
    }

    /// Forgets every session and every end.
    pub(crate) fn empty(&self) {
        self.table.clear();
        self.unknown_ends().clear();
        self.doubtful_ends().clear();
    }

    /// A session is to end by idleness, says another holder, and has been used here since: what it was to be told of
    /// that is late, or was not due, or this node stood still. `now`: when that was found.
    pub(crate) fn outlive(&self, id: SessionId, now: Now) {
        let streams = self.routes.streams(None, now.mono);
        if commit::outlive(&self.table, &streams, self.origin_at(now), id, self.config.idle) {
            count(&self.counters.touches);
        }
    }

    /// A session has ended here. Of a logout its first holder tells the application; of an end by idleness only when all
    /// have agreed to it.
    pub(crate) fn ended(&self, id: SessionId, end: End) {
        if end.cause == EndCause::Destroyed {
            self.announce_as_first(id, end);
        } else {
            self.outlives(id);
        }
    }

    /// All other holders agree that a session has ended by idleness.
    pub(crate) fn end_is_agreed(&self, id: SessionId, end: End) {
        if !self.outlives(id) {
            self.announce_as_first(id, end);
        }
    }

    /// Whether a session has been used here since its end by idleness: then the others are told.
    fn outlives(&self, id: SessionId) -> bool {
        let (idle, now) = (self.config.idle, host::now());
        let is_disproved =
            |record: Option<&Record>| record.is_some_and(|record| record.is_disproved(idle, now.mono));
        let outlives = self.table.read(&id, is_disproved);
        if outlives {
            self.outlive(id, now);
        }
        outlives
    }

    fn announce_as_first(&self, id: SessionId, end: End) {
        if !end.announced && self.routes.current().view.am_first(&id) {
            self.announce(id);
        }
    }

    /// Tells the application of an end, unless somebody has.
    pub(crate) fn announce(&self, id: SessionId) {
        let streams = self.routes.streams(None, host::mono());
        if let Some(end) = commit::announce(&self.table, &streams, id) {
            if mutated!(AnnouncedTwice) {
                self.emit(Event::SessionDestroyed { id, end });
            }
            self.emit(Event::SessionDestroyed { id, end });
        }
    }

    /// Tells other holders of an access, if it is time to. `is_doubted`: another holder asks, which takes the session for
    /// idle or doubts what it has; it is to know better at once.
    pub(crate) fn touch_if_due(&self, id: &SessionId, is_doubted: bool) {
        let now = host::mono();
        let due = self.table.with(id, |slot| match slot {
            Some(Record::Held(state)) if state.is_live() => {
                let at_once = is_doubted && now < state.ends_at(self.config.idle);
                state.access(now, if at_once { Duration::ZERO } else { self.config.touch_interval() })
            }
            _ => false,
        });
        if due {
            self.touch(id);
        }
    }

    /// Tells other holders of an access.
    pub(crate) fn touch(&self, id: &SessionId) {
        let streams = self.routes.streams(None, host::mono());
        if commit::touch(&self.table, &streams, self.origin(), *id).is_ok() {
            count(&self.counters.touches);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let routes = self.routes.current();
        let (holders, holders_wanted) = routes.view.holder_counts();
        let peers = routes.peers.iter().map(|peer| {
            let stream = peer.outbox(|outbox| outbox.stats());
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            PeerStats {
                name: peer.name.to_string(),
                outbox_bytes: stream.queued_bytes,
                unacked: stream.unacked,
                outbox_overflows: stream.overflows,
                dropped_frames: stream.dropped_frames,
                data_frames: stream.data_frames,
                bytes_sent: stream.bytes_sent,
                frames_sent: stream.frames_sent,
                bytes_received: load(&peer.traffic.bytes_received),
                frames_received: load(&peer.traffic.frames_received),
                acks_received: load(&peer.traffic.acks_received),
                links: load(&peer.traffic.links),
            }
        });
        let peers: Vec<PeerStats> = peers.collect();
        let mut counts = self.counters.snapshot();
        counts.outbox_overflows += peers.iter().map(|peer| peer.outbox_overflows).sum::<u64>();
        counts.dropped_frames += peers.iter().map(|peer| peer.dropped_frames).sum::<u64>();
        Stats {
            peers,
            counts,
            causes: self.counters.causes(),
            placement: Placement {
                mode: self.me.mode.to_string(),
                ready: routes.view.ready(),
                holders,
                holders_wanted,
                settled: self.is_settled_in(&routes.view),
                visited: self.routes.strays(|strays| strays.known()),
                rebalances: self.counters.rebalances(),
            },
            fingerprint: self.credentials().key.fingerprint(),
            records: self.table.len(),
            clock_ahead_ms: self.clock.ahead_ms(host::now().wall_ms),
        }
    }
}
