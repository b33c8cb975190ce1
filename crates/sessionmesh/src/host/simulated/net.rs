//! What happens to bytes between hosts: they take their time, are lost, doubled, held up.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::datagram::Inbox;
use super::stream::{Acceptor, Pipe};
use super::world::{HostId, lock};

/// How long a connection waits at most to send again what was held up.
const RESEND_DELAY: Duration = Duration::from_millis(200);

/// One direction of the way from one host to another.
#[derive(Clone, Copy, Debug)]
pub struct Cable {
    /// The least that anything takes.
    pub delay: Duration,
    /// What it may take more. Datagrams overtake each other by it.
    pub jitter: Duration,
    /// Of a thousand datagrams, so many are lost.
    pub lost_per_mille: u32,
    /// And so many come twice.
    pub doubled_per_mille: u32,
    /// Connections stand still: nothing gets through until it is mended.
    pub tcp_cut: bool,
    /// All datagrams are lost.
    pub udp_cut: bool,
    /// Bytes a second over connections; 0 is no limit.
    pub bytes_per_s: u64,
}

impl Default for Cable {
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(200),
            jitter: Duration::from_micros(300),
            lost_per_mille: 0,
            doubled_per_mille: 0,
            tcp_cut: false,
            udp_cut: false,
            bytes_per_s: 0,
        }
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct Network {
    state: Mutex<State>,
    /// A cable has changed.
    pub(super) changed: Notify,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    cables: BTreeMap<(HostId, HostId), Cable>,
    acceptors: BTreeMap<SocketAddr, Weak<Acceptor>>,
    inboxes: BTreeMap<SocketAddr, Weak<Inbox>>,
    groups: Vec<(HostId, SocketAddr, Weak<Inbox>)>,
    pipes: Vec<Weak<Pipe>>,
    next_port: u16,
    /// Off: nothing goes in or out, and nobody is told.
    silent: Vec<HostId>,
}

impl Network {
    pub(super) fn new(random: fastrand::Rng) -> Arc<Self> {
        let state = State {
            random,
            cables: BTreeMap::new(),
            acceptors: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            groups: Vec::new(),
            pipes: Vec::new(),
            next_port: 20_000,
            silent: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new() })
    }

    pub(super) fn cable(&self, from: HostId, to: HostId, change: impl FnOnce(&mut Cable)) {
        change(lock(&self.state).cables.entry((from, to)).or_default());
        self.changed.notify_waiters();
    }

    pub(super) fn state_of(&self, from: HostId, to: HostId) -> Cable {
        lock(&self.state).cables.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Whether what is sent on a connection stands still.
    pub(super) fn is_cut(&self, from: HostId, to: HostId) -> bool {
        let state = lock(&self.state);
        let cut = state.cables.get(&(from, to)).is_some_and(|cable| cable.tcp_cut);
        cut || state.silent.contains(&from) || state.silent.contains(&to)
    }

    /// When bytes that are sent now arrive, if nothing holds them up.
    pub(super) fn arrival(&self, from: HostId, to: HostId, bytes: usize) -> Instant {
        let cable = self.state_of(from, to);
        let jitter = self.up_to(cable.jitter);
        let paced = (bytes as u64 * 1_000_000).checked_div(cable.bytes_per_s).unwrap_or_default();
        Instant::now() + cable.delay + jitter + Duration::from_micros(paced)
    }

    /// When whatever is on its way arrives at the latest; `None` if the cable is slow.
    pub(super) fn latest_arrival(&self, from: HostId, to: HostId) -> Option<Instant> {
        let cable = self.state_of(from, to);
        // As much again for what a cut held up, which is sent again a little later.
        let most = cable.delay + cable.jitter + RESEND_DELAY;
        (cable.bytes_per_s == 0).then(|| Instant::now() + most)
    }

    /// When a datagram that is sent now arrives: not at all, once or twice.
    pub(super) fn arrivals(&self, from: HostId, to: HostId) -> Vec<Instant> {
        let cable = self.state_of(from, to);
        let silent = {
            let state = lock(&self.state);
            state.silent.contains(&from) || state.silent.contains(&to)
        };
        if cable.udp_cut || silent || self.happens(cable.lost_per_mille) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.happens(cable.doubled_per_mille));
        (0..copies).map(|_| Instant::now() + cable.delay + self.up_to(cable.jitter)).collect()
    }

    fn happens(&self, per_mille: u32) -> bool {
        per_mille > 0 && lock(&self.state).random.u32(0..1_000) < per_mille
    }

    fn up_to(&self, most: Duration) -> Duration {
        let nanos = lock(&self.state).random.u64(0..=most.as_nanos() as u64);
        Duration::from_nanos(nanos)
    }

    /// How long a connection waits to send again what was held up.
    pub(super) fn resend_delay(&self) -> Duration {
        self.up_to(RESEND_DELAY)
    }

    pub(super) fn free_port(&self) -> u16 {
        let mut state = lock(&self.state);
        state.next_port += 1;
        state.next_port
    }

    pub(super) fn listen(&self, address: SocketAddr, acceptor: &Arc<Acceptor>) {
        let mut state = lock(&self.state);
        state.silent.retain(|host| *host != acceptor.host);
        state.acceptors.insert(address, Arc::downgrade(acceptor));
    }

    pub(super) fn acceptor(&self, address: SocketAddr) -> Option<Arc<Acceptor>> {
        lock(&self.state).acceptors.get(&address)?.upgrade()
    }

    pub(super) fn bind(&self, address: SocketAddr, inbox: &Arc<Inbox>) {
        lock(&self.state).inboxes.insert(address, Arc::downgrade(inbox));
    }

    pub(super) fn join(&self, host: HostId, group: SocketAddr, inbox: &Arc<Inbox>) {
        let mut state = lock(&self.state);
        state.groups.retain(|(_, _, inbox)| inbox.strong_count() > 0);
        state.groups.push((host, group, Arc::downgrade(inbox)));
    }

    /// Whoever hears what is sent to an address.
    pub(super) fn hearers(&self, address: SocketAddr) -> Vec<(HostId, Arc<Inbox>)> {
        let state = lock(&self.state);
        if address.ip().is_multicast() {
            let members = state.groups.iter().filter(|(_, group, _)| *group == address);
            return members.filter_map(|(host, _, inbox)| Some((*host, inbox.upgrade()?))).collect();
        }
        let inbox = state.inboxes.get(&address).and_then(Weak::upgrade);
        inbox.into_iter().filter_map(|inbox| Some((host_of(address)?, inbox))).collect()
    }

    pub(super) fn connect(&self, pipe: &Arc<Pipe>) {
        let mut state = lock(&self.state);
        if state.pipes.len() > 64 && state.pipes.len().is_power_of_two() {
            state.pipes.retain(|pipe| pipe.strong_count() > 0);
        }
        state.pipes.push(Arc::downgrade(pipe));
    }

    /// A process is killed: the kernel closes what it had open.
    pub(super) fn close_all(&self, host: HostId) {
        let pipes: Vec<Arc<Pipe>> = lock(&self.state).pipes.iter().filter_map(Weak::upgrade).collect();
        for pipe in pipes.iter().filter(|pipe| pipe.touches(host)) {
            pipe.close();
        }
        self.changed.notify_waiters();
    }

    /// A host is off: nothing more comes from it.
    pub(super) fn silence_all(&self, host: HostId) {
        let mut state = lock(&self.state);
        state.silent.push(host);
        let pipes: Vec<Arc<Pipe>> = state.pipes.iter().filter_map(Weak::upgrade).collect();
        for pipe in pipes.iter().filter(|pipe| pipe.touches(host)) {
            pipe.silence();
        }
    }

    pub(super) fn is_silent(&self, host: HostId) -> bool {
        lock(&self.state).silent.contains(&host)
    }
}

/// The address of a host's interface.
pub(super) fn ip_of(host: HostId) -> IpAddr {
    let [_, _, high, low] = (host as u32 + 1).to_be_bytes();
    Ipv4Addr::new(10, 0, high, low).into()
}

pub(super) fn host_of(address: SocketAddr) -> Option<HostId> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    let [ten, zero, high, low] = ip.octets();
    let number = usize::from(high) << 8 | usize::from(low);
    (ten == 10 && zero == 0 && number > 0).then(|| number - 1)
}
