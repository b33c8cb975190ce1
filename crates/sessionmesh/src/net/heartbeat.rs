//! Heartbeats, on a thread of their own: a busy application neither delays nor loses them.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sessionmesh_core::BootId;
use sessionmesh_core::membership::Beacon;
use sessionmesh_core::wire::{Heartbeat, MAX_DATAGRAM_BYTES, Probe};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use crate::control::Input;
use crate::events::fault;
use crate::host::{self, Datagrams, UdpSocket};
use crate::mesh::Mesh;
use crate::stats::{add, count};

/// Hosts that ask at once and are told in one heartbeat.
const MAX_PROBERS: usize = 16;

/// Members named in one heartbeat: all fits a datagram, those who asked too.
pub(crate) const HEARD_IN_ONE: usize = 112;

/// What heartbeats say, from the control task to the thread.
#[derive(Debug)]
pub(crate) struct Beacons {
    beacon: Mutex<Option<Beacon>>,
    changed: Notify,
    /// Who asked whether they are heard; the next heartbeat says so.
    probers: Mutex<BTreeSet<BootId>>,
}

impl Beacons {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { beacon: Mutex::new(None), changed: Notify::new(), probers: Mutex::default() })
    }

    pub(crate) fn set(&self, beacon: Beacon) {
        *self.beacon.lock().unwrap_or_else(PoisonError::into_inner) = Some(beacon);
        self.changed.notify_one();
    }

    fn answer(&self, prober: BootId) {
        let mut probers = self.probers.lock().unwrap_or_else(PoisonError::into_inner);
        if probers.len() < MAX_PROBERS {
            probers.insert(prober);
        }
    }

    fn take_probers(&self) -> BTreeSet<BootId> {
        std::mem::take(&mut *self.probers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self) -> Option<Beacon> {
        self.beacon.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts the thread; it ends with the node, and drops `open` when its sockets are closed.
pub(crate) fn spawn(
    mesh: Arc<Mesh>,
    beacons: Arc<Beacons>,
    sockets: (Datagrams, Option<Datagrams>),
    open: watch::Sender<()>,
) -> io::Result<()> {
    host::spawn_apart("sessionmesh-heartbeat", sockets, move |unicast, multicast| async move {
        let mut stop = mesh.stop.subscribe();
        tokio::select! {
            () = send(&mesh, &beacons, &unicast) => {}
            () = hear(&mesh, &beacons, &unicast) => {}
            () = hear_group(&mesh, &beacons, multicast.as_ref()) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        drop((unicast, multicast));
        drop(open);
    })
}

async fn send(mesh: &Mesh, beacons: &Beacons, socket: &UdpSocket) {
    let config = &mesh.config.membership;
    let group = SocketAddr::new(mesh.config.address, mesh.config.port);
    let mut counter = 0;
    let mut beat = tokio::time::interval(config.frequency);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            // A change is told at once, yet a storm of changes is not a storm of datagrams.
            () = beacons.changed.notified() => tokio::time::sleep(Duration::from_millis(1)).await,
        }
        // Alive means that the process works, not that this thread does.
        if mesh.since_tick() >= config.drop_time {
            fault(mesh, "heartbeat withheld", "control task stands still", &"a member would be lied to");
            continue;
        }
        let Some(beacon) = beacons.get() else { continue };
        counter += 1;
        let datagram = Heartbeat {
            boot: mesh.me.boot,
            counter,
            state: beacon.state,
            view: beacon.view,
            heard: heard_in(beacon.heard, counter).chain(beacons.take_probers()).collect(),
            address: mesh.me.address,
        }
        .seal(&mesh.credentials().key);
        let unicast =
            beacon.targets.iter().filter(|_| !mesh.config.uses_multicast() || !mesh.config.seeds.is_empty());
        let group = mesh.config.uses_multicast().then_some(&group);
        for target in group.into_iter().chain(unicast) {
            match socket.send_to(&datagram, target).await {
                Ok(bytes) => {
                    count(&mesh.counters.heartbeats_sent);
                    add(&mesh.counters.heartbeat_bytes_sent, bytes as u64);
                }
                Err(error) => {
                    count(&mesh.counters.heartbeats_failed);
                    fault(
                        mesh,
                        "heartbeat not sent",
                        &error.kind().to_string(),
                        &format!("to {target}: {error}"),
                    );
                }
            }
        }
    }
}

/// Large clusters: each datagram names a part of those heard, one after the other.
fn heard_in(heard: Vec<BootId>, counter: u64) -> impl Iterator<Item = BootId> {
    let parts = heard.len().div_ceil(HEARD_IN_ONE).max(1);
    let part = usize::try_from(counter).unwrap_or_default() % parts;
    heard.into_iter().skip(part * HEARD_IN_ONE).take(HEARD_IN_ONE)
}

async fn hear_group(mesh: &Mesh, beacons: &Beacons, socket: Option<&UdpSocket>) {
    match socket {
        Some(socket) => hear(mesh, beacons, socket).await,
        None => std::future::pending().await,
    }
}

async fn hear(mesh: &Mesh, beacons: &Beacons, socket: &UdpSocket) {
    // One byte more than is sent: a longer datagram shows as too long instead of being cut.
    let mut buffer = [0; MAX_DATAGRAM_BYTES + 1];
    let mut newest = HashMap::new();
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // On Linux an ICMP answer to an earlier send shows up here; nothing is lost by it.
                if error.kind() != io::ErrorKind::ConnectionRefused {
                    fault(mesh, "heartbeat socket", &error.kind().to_string(), &error);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                continue;
            }
        };
        let Some(datagram) = buffer.get(..length) else { continue };
        // Without a secret anybody could have made it: nobody from elsewhere is heard.
        if mesh.config.insecure && !from.ip().is_loopback() {
            fault(mesh, "heartbeat rejected", "insecure = true, and not from loopback", &from);
            continue;
        }
        let credentials = mesh.credentials();
        match Probe::open(&credentials.key, datagram) {
            None => {}
            Some(Ok(probe)) => {
                count(&mesh.counters.probes_answered);
                beacons.answer(probe.boot);
                continue;
            }
            Some(Err(rejected)) => {
                fault(mesh, "heartbeat rejected", &rejected.to_string(), &from);
                continue;
            }
        }
        match Heartbeat::open(&credentials.key, datagram) {
            Ok(heartbeat) if heartbeat.boot == mesh.me.boot => {}
            // Recorded and sent again: costs its tag, and no more.
            Ok(heartbeat) if !is_fresh(&mut newest, &heartbeat) => count(&mesh.counters.heartbeats_replayed),
            Ok(heartbeat) => {
                count(&mesh.counters.heartbeats_heard);
                mesh.tell(Input::Heartbeat(heartbeat));
            }
            Err(rejected) => fault(mesh, "heartbeat rejected", &rejected.to_string(), &from),
        }
    }
}

/// Whether a heartbeat is newer than all heard of its boot; of boots out of memory, any is.
fn is_fresh(newest: &mut HashMap<BootId, u64>, heartbeat: &Heartbeat) -> bool {
    const MAX_BOOTS: usize = 1_024;
    if newest.len() >= MAX_BOOTS {
        newest.clear();
    }
    let known = newest.entry(heartbeat.boot).or_default();
    let fresh = heartbeat.counter > *known;
    *known = heartbeat.counter.max(*known);
    fresh
}
