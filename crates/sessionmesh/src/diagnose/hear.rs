//! Multicast: what comes back, who is heard, and who hears.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sessionmesh_core::BootId;
use sessionmesh_core::wire::{ClusterKey, Heartbeat, HeartbeatRejected, MAX_DATAGRAM_BYTES, Probe};
use tokio::net::UdpSocket;

use super::{Callees, Findings, Own, list};
use crate::config::Config;
use crate::host;
use crate::net::{bind, interface};

/// What came in.
#[derive(Debug, Default)]
struct Heard {
    echo: bool,
    /// By boot, where it accepts links.
    members: BTreeMap<BootId, SocketAddr>,
    /// Those that say that they hear this host.
    hear_us: BTreeSet<BootId>,
    other_clusters: BTreeSet<SocketAddr>,
    other_secrets: BTreeSet<SocketAddr>,
    foreign: BTreeSet<SocketAddr>,
}

/// Gives back whom to call.
pub(super) async fn look(config: &Config, key: &ClusterKey, own: &Own, findings: &mut Findings) -> Callees {
    let group = SocketAddr::new(config.address, config.port);
    let sockets = interface::choose(config).and_then(|interface| {
        let sockets = bind::open_probe(config, &interface)?;
        Ok((interface, sockets))
    });
    let (interface, (sender, receiver)) = match sockets {
        Ok(opened) => opened,
        Err(error) => {
            findings.wrong(error.to_string());
            return Callees::new();
        }
    };
    let through = format!("{group} on {} ({})", interface.name, interface.address);
    // Members answer in their next heartbeat: two of them, and some.
    let patience = config.membership.frequency * 2 + Duration::from_millis(500);
    let listened = async {
        let probe = Probe { boot: host::boot_id()? };
        listen(key, probe, group, sender, receiver, patience).await
    };
    let heard = match listened.await {
        Ok(heard) => heard,
        Err(error) => {
            let help = if config.bind.ip().is_loopback() != interface.address.is_loopback() {
                format!("bind is {} and the interface is not: both on loopback, or none", config.bind)
            } else {
                "choose another interface, allow UDP in this host's firewall, or name seeds".into()
            };
            findings.wrong(format!("multicast to {through} can't be sent: {error} ({help})"));
            return Callees::new();
        }
    };
    report(&heard, own, &through, patience, findings);
    heard.members.into_values().map(|address| (address, "heard by multicast".into())).collect()
}

async fn listen(
    key: &ClusterKey,
    probe: Probe,
    group: SocketAddr,
    sender: std::net::UdpSocket,
    receiver: std::net::UdpSocket,
    patience: Duration,
) -> io::Result<Heard> {
    let (sender, receiver) = (UdpSocket::from_std(sender)?, UdpSocket::from_std(receiver)?);
    let mut heard = Heard::default();
    let until = tokio::time::Instant::now() + patience;
    let mut again = tokio::time::interval(Duration::from_millis(250));
    let mut buffer = [0; MAX_DATAGRAM_BYTES + 1];
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return Ok(heard),
            _ = again.tick() => { sender.send_to(&probe.seal(key), group).await?; }
            Ok((length, from)) = receiver.recv_from(&mut buffer) => {
                heard.datagram(key, probe, buffer.get(..length).unwrap_or_default(), from);
            }
        }
    }
}

impl Heard {
    fn datagram(&mut self, key: &ClusterKey, probe: Probe, datagram: &[u8], from: SocketAddr) {
        let rejected = match Probe::open(key, datagram) {
            Some(Ok(own)) if own == probe => {
                self.echo = true;
                return;
            }
            // Somebody else asks.
            Some(Ok(_)) => return,
            Some(Err(rejected)) => rejected,
            None => match Heartbeat::open(key, datagram) {
                Ok(heartbeat) => {
                    self.members.insert(heartbeat.boot, heartbeat.address);
                    if heartbeat.heard.contains(&probe.boot) {
                        self.hear_us.insert(heartbeat.boot);
                    }
                    return;
                }
                Err(rejected) => rejected,
            },
        };
        match rejected {
            HeartbeatRejected::OtherCluster => self.other_clusters.insert(from),
            HeartbeatRejected::Unauthenticated => self.other_secrets.insert(from),
            _ => self.foreign.insert(from),
        };
    }
}

fn report(heard: &Heard, own: &Own, through: &str, patience: Duration, findings: &mut Findings) {
    if heard.echo {
        findings.fine(format!("multicast to {through} leaves and comes back to this host"));
    } else {
        findings.wrong(format!(
            "multicast to {through} does not even come back to this host: a firewall here drops UDP to the group, or the \
             interface has no multicast"
        ));
    }
    let others = || heard.members.iter().filter(|(_, address)| !own.is(**address));
    for (boot, address) in others() {
        if heard.hear_us.contains(boot) {
            findings.fine(format!("{address} is heard by multicast, and hears this host"));
        } else {
            findings.wrong(format!(
                "{address} is heard by multicast and does not hear this host: a firewall there, or a switch between that \
                 snoops IGMP and has no querier, or whose queries a firewall drops (allow protocol igmp)"
            ));
        }
    }
    if others().next().is_none() {
        findings.note(format!("no other node was heard by multicast in {} ms", patience.as_millis()));
    }
    if !heard.other_secrets.is_empty() {
        findings.wrong(format!(
            "heartbeats from {} have this cluster's name and another secret: compare the fingerprints",
            list(&heard.other_secrets)
        ));
    }
    if !heard.other_clusters.is_empty() {
        findings.note(format!(
            "heartbeats from {} are of a cluster with another name; if they should be of this one, `cluster` differs",
            list(&heard.other_clusters)
        ));
    }
    if !heard.foreign.is_empty() {
        findings.note(format!("{} sends something else to this group", list(&heard.foreign)));
    }
}
