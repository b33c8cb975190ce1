//! A node of the cluster, as the application holds it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sessionmesh_core::membership::{Identity, MemberInfo, Node};
use sessionmesh_core::placement::Mode;
use sessionmesh_core::replication::AckLevel;
use sessionmesh_core::wire::Frame;
use sessionmesh_core::{BootId, Event, NodeName, SessionId};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::config::Config;
use crate::control::{Control, Input};
use crate::error::{ClusterError, LeaveError, ReloadError, StartError};
use crate::events::fault;
use crate::host::Bound;
use crate::mesh::{Mesh, Phase};
use crate::net::heartbeat::{self, Beacons};
use crate::net::{listener, seeds};
use crate::peer::Peer;
use crate::security::Credentials;
use crate::sessions::Sessions;
use crate::stats::{Stats, count};
use crate::{expiry, host, strays};

/// A leaving node that has compared with all hands over one by one what is left after so long without progress.
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(250);

/// This process as a node of the cluster.
///
/// Cheap to clone; all clones are the same node. When the last is dropped without
/// [`Cluster::leave`], the node stops as if it had crashed, and says so in the log.
#[derive(Clone, Debug)]
pub struct Cluster {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    mesh: Arc<Mesh>,
    /// Open as long as this node's ports are.
    ports: watch::Receiver<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let was_running = !self.mesh.stop.send_replace(true);
        if was_running {
            tracing::warn!(node = %self.mesh.me.name, "the last handle is dropped: this node stops without leaving");
        }
    }
}

/// Who a node of this configuration is that others reach at this address.
pub(crate) fn identity(config: &Config, address: SocketAddr) -> Result<Identity, StartError> {
    let name = match config.name.clone() {
        Some(name) => name,
        None => NodeName::new(&format!("node-{}", host::process_label()))
            .map_err(|error| StartError::Io(std::io::Error::other(error)))?,
    };
    let (mode, zone) = (config.mode(), config.zone.clone());
    Ok(Identity { boot: host::boot_id()?, name, address, mode, zone, versions: host::protocol_versions() })
}

impl Cluster {
    /// Starts a node: binds its sockets, announces it, and collects sessions in the background. It
    /// serves once [`Cluster::ready`] returns.
    ///
    /// # Errors
    /// The configuration can't be used, or the system refuses something. Nothing is left then.
    pub async fn start(mut config: Config) -> Result<Self, StartError> {
        config.validate()?;
        // From here on it does not step.
        let _ = host::steady_wall_ms();
        let bound = Bound::open(&config)?;
        let me = identity(&config, bound.address)?;
        let credentials = Credentials::new(&config, &me)?;
        // What is made from them is enough.
        (config.secret, config.other_secret) = (None, None);
        SessionId::salt_debug(credentials.key.log_salt());
        let (control, inputs) = mpsc::unbounded_channel();
        let node = Node::new(me.clone(), config.membership, host::mono());
        let mesh = Arc::new(Mesh::new(config, me, credentials, control));
        let beacons = Beacons::new();
        beacons.set(node.beacon());
        let (open, ports) = watch::channel(());
        let sockets = (bound.unicast, bound.multicast);
        heartbeat::spawn(mesh.clone(), beacons.clone(), sockets, open.clone())?;
        host::spawn(Control::new(mesh.clone(), node, inputs, beacons).run());
        let listening = listener::listen(mesh.clone(), bound.listener);
        host::spawn(async move {
            listening.await;
            drop(open);
        });
        host::spawn(expiry::watch(mesh.clone()));
        if mesh.me.mode != Mode::AllPeers {
            host::spawn(strays::watch(mesh.clone()));
        }
        if !mesh.config.seeds.is_empty() {
            host::spawn(seeds::watch(mesh.clone()));
        }
        tracing::info!(
            node = %mesh.me.name, boot = %mesh.me.boot, address = %mesh.me.address, mode = %mesh.me.mode,
            multicast = mesh.config.uses_multicast(), "node started"
        );
        Ok(Self { handle: Arc::new(Handle { mesh, ports }) })
    }

    pub(crate) fn mesh(&self) -> &Arc<Mesh> {
        &self.handle.mesh
    }

    /// Waits until this node holds all sessions and serves.
    ///
    /// # Errors
    /// It was refused by the cluster, or has left.
    pub async fn ready(&self) -> Result<(), ClusterError> {
        let mut phase = self.mesh().phase.subscribe();
        let reached =
            phase.wait_for(|phase| !matches!(phase, Phase::Joining(_))).await.map(|phase| phase.clone());
        match reached {
            Ok(Phase::Stopped(error)) => Err(error),
            Ok(Phase::Leaving) | Err(_) => Err(ClusterError::Left),
            Ok(_) => Ok(()),
        }
    }

    /// Whether this node serves now; if not, why.
    ///
    /// # Errors
    /// The reason, in plain words.
    pub fn is_ready(&self) -> Result<(), String> {
        self.mesh().check_serving().map_err(|error| error.to_string())
    }

    /// Takes secrets and certificates from a configuration, all else in it is left aside: for a rotation, or for
    /// certificates that run out. Links stay up, except those with nodes whose secret is accepted no longer; they
    /// are made anew with what is.
    ///
    /// # Errors
    /// [`ReloadError`]: secrets and certificates are as before.
    pub fn reload_secrets(&self, config: &Config) -> Result<(), ReloadError> {
        config.validate()?;
        let mesh = self.mesh();
        if config.insecure != mesh.config.insecure {
            return Err(ReloadError::Restart("whether there is a secret"));
        }
        if config.cluster != mesh.config.cluster {
            return Err(ReloadError::Restart("cluster"));
        }
        let credentials = Credentials::new(config, &mesh.me)?;
        let fingerprint = credentials.key.fingerprint();
        SessionId::salt_debug(credentials.key.log_salt());
        mesh.set_credentials(credentials);
        count(&mesh.counters.secrets_reloaded);
        tracing::info!(node = %mesh.me.name, fingerprint, "secrets and certificates are loaded anew");
        Ok(())
    }

    /// Waits until the node has stopped, and says why.
    pub async fn stopped(&self) -> ClusterError {
        let mut phase = self.mesh().phase.subscribe();
        match phase.wait_for(|phase| matches!(phase, Phase::Stopped(_))).await.map(|phase| phase.clone()) {
            Ok(Phase::Stopped(error)) => error,
            _ => ClusterError::Left,
        }
    }

    /// Leaves the cluster: serves no more sessions, waits until the others, each of which must answer once more or be
    /// dropped, have all that this node holds (at most `leave_timeout` without any progress), in backup-only mode on as many other nodes
    /// as the mode asks for, says goodbye, and stops. Its ports are free then. A second call waits for the
    /// first.
    ///
    /// # Errors
    /// [`LeaveError`]: the node has left, but not every member was known to have everything.
    pub async fn leave(&self) -> Result<(), LeaveError> {
        let mesh = self.mesh();
        let (answer, answered) = oneshot::channel();
        mesh.tell(Input::Leave(answer));
        if answered.await.is_err() {
            // The membership has ended; if by its runtime, nobody else has told the rest.
            mesh.stop.send_replace(true);
            self.ports_closed().await;
            return Ok(());
        }
        let begun = host::mono();
        // One that has applied everything may have died since, and who counts on it would be the last to have it: each
        // must answer once more, or be dropped.
        let mut heard: BTreeMap<BootId, u64> = BTreeMap::new();
        for peer in &mesh.routes.kept().peers {
            heard.insert(peer.boot, peer.frames_received());
            peer.send(Frame::Ping(begun.as_nanos()));
        }
        let is_silent =
            |peer: &Peer| peer.frames_received() == heard.get(&peer.boot).copied().unwrap_or_default();
        let behind = || -> Vec<NodeName> {
            let routes = mesh.routes.current();
            let behind = routes.peers.iter().filter(|peer| {
                is_silent(peer) || !peer.outbox(|outbox| outbox.is_drained(|wait| wait.is_proposal))
            });
            behind.map(|peer| peer.name.clone()).collect()
        };
        if mesh.routes.current().view.ready() == 0 && mesh.table.len() > 0 {
            let records = mesh.table.len();
            tracing::warn!(node = %mesh.me.name, records, "the last node leaves: its sessions end with it");
        }
        let (mut least, mut moved, mut progress_at) = (u64::MAX, 0, begun);
        let passes = || {
            let counters = &mesh.counters;
            counters.passes.load(Ordering::Relaxed) + counters.passes_answered.load(Ordering::Relaxed)
        };
        let (mut passes_before, mut one_by_one) = (passes(), None);
        let result = loop {
            if *mesh.stop.borrow() {
                // The first of two calls has left.
                self.stopped().await;
                self.ports_closed().await;
                return Ok(());
            }
            let compared = mesh.compared.load(Ordering::Acquire);
            let left = mesh.left_to_hand_over() as u64;
            if compared && left == 0 && behind().is_empty() {
                break Ok(());
            }
            let routes = mesh.routes.kept();
            let unacked: u64 =
                routes.peers.iter().map(|peer| peer.outbox(|outbox| outbox.stats().unacked)).sum();
            let silent = routes.peers.iter().filter(|peer| is_silent(peer)).count() as u64;
            let remaining = left + unacked + silent + u64::from(!compared);
            let now = host::mono();
            let pass_bytes = mesh.counters.pass_bytes_sent.load(Ordering::Relaxed);
            if remaining < least {
                passes_before = passes();
            }
            // Bytes are progress while passes go on that may bring something; those that come again and again
            // and change nothing are none.
            let in_vain = passes() - passes_before > 2 * routes.peers.len() as u64;
            if remaining < least || pass_bytes > moved && !in_vain {
                (least, moved, progress_at) = (remaining.min(least), pass_bytes, now);
            }
            // All that had to be compared has been, and they did not take all.
            let rejected = compared && left > 0 && now - progress_at >= HAND_OVER_PATIENCE;
            // Again when other members are ready: what was on its way to the former is not any more.
            let serial = Some(routes.view.serial());
            if (in_vain || rejected) && std::mem::replace(&mut one_by_one, serial) != serial {
                mesh.hand_over_one_by_one();
            }
            // Many sessions take their time; only one who gets nowhere is given up.
            if now - progress_at >= mesh.config.leave_timeout {
                let strays = mesh.left_to_hand_over();
                let error = LeaveError { after: now - begun, behind: behind(), strays };
                fault(mesh, "left early", "leave_timeout", &error);
                break Err(error);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        // Without a goodbye the others compare what this node had told only some of them.
        if result.is_ok() {
            self.say_goodbye().await;
        }
        mesh.stop.send_replace(true);
        self.stopped().await;
        self.ports_closed().await;
        tracing::info!(node = %mesh.me.name, handed_over = result.is_ok(), "left the cluster");
        result
    }

    /// Another node may listen where this one did.
    async fn ports_closed(&self) {
        let mut ports = self.handle.ports.clone();
        while ports.changed().await.is_ok() {}
    }

    async fn say_goodbye(&self) {
        let peers = self.mesh().routes.current().peers.clone();
        self.mesh().tell(Input::Goodbye);
        for peer in &peers {
            peer.send(Frame::Leave);
        }
        // The others close their links on it.
        let closed = async {
            while peers.iter().any(|peer| peer.outbox(|outbox| outbox.is_open())) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = tokio::time::timeout(self.mesh().config.membership.ping_timeout, closed).await;
    }

    /// The sessions, with writes acknowledged at the configured level.
    pub fn sessions(&self) -> Sessions {
        self.at(self.mesh().config.ack)
    }

    /// The sessions, with writes acknowledged at this level.
    pub fn at(&self, level: AckLevel) -> Sessions {
        Sessions::new(self.mesh().clone(), level)
    }

    /// This node's name, its route in a sticky cookie.
    pub fn name(&self) -> &NodeName {
        &self.mesh().me.name
    }

    /// This start of the node.
    pub fn boot(&self) -> BootId {
        self.mesh().me.boot
    }

    /// Where other nodes reach this one.
    pub fn address(&self) -> SocketAddr {
        self.mesh().me.address
    }

    /// The nodes that hold a session, this one included if it does, the first of them first. A balancer
    /// that sends its requests there makes every load local.
    pub fn holders(&self, id: &SessionId) -> Vec<NodeName> {
        let mesh = self.mesh();
        let routes = mesh.routes.current();
        let name = |boot| match routes.peer(boot) {
            Some(peer) => Some(peer.name.clone()),
            None => (boot == mesh.me.boot).then(|| mesh.me.name.clone()),
        };
        routes.view.holders(id).into_iter().filter_map(name).collect()
    }

    /// The name of a node that holds a session, for a balancer that follows it: the wanted one if it does, else
    /// this node, else the first of the others.
    pub fn route(&self, id: &SessionId, wanted: Option<&str>) -> NodeName {
        let mesh = self.mesh();
        let routes = mesh.routes.current();
        let (me, view) = (&mesh.me, &routes.view);
        // One whose link is lost is about to be dropped.
        let is_linked = |peer: &&Arc<Peer>| peer.outbox(|outbox| outbox.is_open());
        if let Some(wanted) = wanted.filter(|wanted| *wanted != me.name.as_str()) {
            let holder = |peer: &&Arc<Peer>| peer.name.as_str() == wanted && view.is_holder(id, peer.boot);
            if let Some(peer) = routes.peers.iter().find(holder).filter(is_linked) {
                return peer.name.clone();
            }
        }
        if view.i_hold(id) {
            return me.name.clone();
        }
        let first = view.holders(id).into_iter().filter_map(|boot| routes.peer(boot)).find(is_linked);
        first.map_or_else(|| me.name.clone(), |peer| peer.name.clone())
    }

    /// The other members. Empty after the node has stopped.
    pub fn members(&self) -> impl Future<Output = Vec<MemberInfo>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        self.mesh().tell(Input::Members(answer));
        async { answered.await.unwrap_or_default() }
    }

    /// What happens from now on. A listener that falls 1024 events behind misses the oldest, and is
    /// told how many.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.mesh().subscribe()
    }

    /// Everything that this node counts.
    pub fn stats(&self) -> Stats {
        self.mesh().stats()
    }

    /// Sessions that this node holds. Scans them all.
    pub fn session_count(&self) -> usize {
        let routes = self.mesh().routes.current();
        let all = routes.view.mode() == Mode::AllPeers;
        self.mesh().table.live(|id| all || routes.view.i_hold(id))
    }
}
