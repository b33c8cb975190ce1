//! Hosts: clocks, randomness, and tasks that can be paused and killed.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sessionmesh_core::Instant;
use sessionmesh_core::wire::PROTOCOL_VERSIONS;
use tokio::task::{AbortHandle, JoinHandle};

use super::net::Network;

thread_local! {
    static START: RefCell<Option<tokio::time::Instant>> = const { RefCell::new(None) };
    static CURRENT: RefCell<Option<Arc<Host>>> = const { RefCell::new(None) };
}

/// What wall clocks show when a simulation begins: some day in 2026.
const EPOCH_MS: u64 = 1_790_000_000_000;

/// Which host, counted from 0.
pub type HostId = usize;

/// Virtual time since the simulation began, and a day: durations can be taken off it.
pub(super) fn mono() -> Instant {
    let start = START.with_borrow(|start| start.unwrap_or_else(tokio::time::Instant::now));
    Instant::ZERO + Duration::from_secs(86_400) + start.elapsed()
}

/// The host whose task runs.
pub(super) fn current() -> Arc<Host> {
    CURRENT.with_borrow(|current| current.clone()).expect("only tasks of a host use what a host has")
}

/// All hosts and the network between them.
#[derive(Debug)]
pub struct World {
    pub(super) net: Arc<Network>,
    hosts: Mutex<Vec<Arc<Host>>>,
    random: Mutex<fastrand::Rng>,
}

impl World {
    /// Begins, in a paused current-thread runtime.
    pub fn new(seed: u64) -> Arc<Self> {
        START.set(Some(tokio::time::Instant::now()));
        let mut random = fastrand::Rng::with_seed(seed);
        let net = Network::new(random.fork());
        Arc::new(Self { net, hosts: Mutex::default(), random: Mutex::new(random) })
    }

    /// One more host.
    pub fn add_host(&self) -> Arc<Host> {
        let mut hosts = lock(&self.hosts);
        let host = Arc::new(Host {
            id: hosts.len(),
            net: self.net.clone(),
            random: Mutex::new(lock(&self.random).fork()),
            state: Mutex::default(),
        });
        hosts.push(host.clone());
        host
    }

    /// What the cable from one host to another does to what is sent.
    pub fn cable_of(&self, from: HostId, to: HostId) -> super::Cable {
        self.net.state_of(from, to)
    }

    /// Changes what the cable from one host to another does to what is sent.
    pub fn cable(&self, from: HostId, to: HostId, change: impl FnOnce(&mut super::Cable)) {
        self.net.cable(from, to, change);
    }
}

/// One host: at most one process runs on it at a time.
#[derive(Debug)]
pub struct Host {
    pub(super) id: HostId,
    pub(super) net: Arc<Network>,
    random: Mutex<fastrand::Rng>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    paused: bool,
    /// Woken when the process goes on.
    parked: Vec<Waker>,
    tasks: Vec<AbortHandle>,
    wall: Wall,
    /// What the installed program speaks, if it is not the one that ships.
    versions: Option<(u32, u32)>,
    started: Option<(Instant, u64)>,
}

/// A wall clock: steps, and runs fast or slow.
#[derive(Clone, Copy, Debug, Default)]
struct Wall {
    offset_ms: i64,
    drift_ppm: i64,
    /// Since when it drifts like that.
    drifts_since: Instant,
}

impl Wall {
    fn drifted_ms(&self) -> i64 {
        (mono() - self.drifts_since).as_millis() as i64 * self.drift_ppm / 1_000_000
    }
}

impl Host {
    /// Which.
    pub fn id(&self) -> HostId {
        self.id
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn random(&self, bytes: &mut [u8]) {
        lock(&self.random).fill(bytes);
    }

    pub(super) fn wall_ms(&self) -> u64 {
        let wall = self.state().wall;
        let since = (mono() - Instant::ZERO).as_millis() as i64;
        let shown = EPOCH_MS as i64 + wall.offset_ms + since + wall.drifted_ms();
        shown.max(0) as u64
    }

    pub(super) fn steady_wall_ms(&self) -> u64 {
        let wall = self.wall_ms();
        let (mono_then, wall_then) = *self.state().started.get_or_insert((mono(), wall));
        wall_then + (mono() - mono_then).as_millis() as u64
    }

    pub(super) fn versions(&self) -> (u32, u32) {
        self.state().versions.unwrap_or(PROTOCOL_VERSIONS)
    }

    /// Installs a program that speaks these protocol versions; the next start runs it.
    pub fn install(&self, versions: (u32, u32)) {
        self.state().versions = Some(versions);
    }

    /// Sets the wall clock forward or back.
    pub fn step_clock(&self, by_ms: i64) {
        self.state().wall.offset_ms += by_ms;
    }

    /// Lets the wall clock run fast (or slow), in millionths.
    pub fn drift_clock(&self, ppm: i64) {
        let wall = &mut self.state().wall;
        wall.offset_ms += wall.drifted_ms();
        (wall.drift_ppm, wall.drifts_since) = (ppm, mono());
    }

    /// Runs a task of the process on this host.
    pub fn spawn<F>(self: &Arc<Self>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let handle = tokio::spawn(OnHost { host: self.clone(), future: Box::pin(future) });
        let mut state = self.state();
        state.tasks.push(handle.abort_handle());
        if state.tasks.len() > 256 && state.tasks.len().is_power_of_two() {
            state.tasks.retain(|task| !task.is_finished());
        }
        handle
    }

    /// Runs a function of the process on this host.
    pub fn run<R>(self: &Arc<Self>, f: impl FnOnce() -> R) -> R {
        let outer = CURRENT.replace(Some(self.clone()));
        let result = f();
        CURRENT.set(outer);
        result
    }

    /// SIGSTOP: no task runs, clocks and the kernel do.
    pub fn pause(&self) {
        self.state().paused = true;
    }

    /// SIGCONT: threads wake in any order.
    pub fn resume(&self) {
        let mut parked = {
            let mut state = self.state();
            state.paused = false;
            std::mem::take(&mut state.parked)
        };
        lock(&self.random).shuffle(&mut parked);
        parked.into_iter().for_each(Waker::wake);
    }

    /// `kill -9`: connections are closed by the kernel.
    pub fn kill(&self) {
        self.net.close_all(self.id);
        self.end();
    }

    /// The power goes: nobody hears of it.
    pub fn power_off(&self) {
        self.net.silence_all(self.id);
        self.end();
    }

    fn end(&self) {
        let (tasks, parked) = {
            let mut state = self.state();
            state.paused = false;
            state.started = None;
            (std::mem::take(&mut state.tasks), std::mem::take(&mut state.parked))
        };
        tasks.iter().for_each(AbortHandle::abort);
        parked.into_iter().for_each(Waker::wake);
    }
}

struct OnHost<F> {
    host: Arc<Host>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for OnHost<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        {
            let mut state = self.host.state();
            if state.paused {
                state.parked.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        let host = self.host.clone();
        host.run(|| self.future.as_mut().poll(context))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
