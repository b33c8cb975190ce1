//! Multicast: what comes back, who is heard, and who hears.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use sessionmesh_core::BootId;
use sessionmesh_core::wire::{ClusterKey, Heartbeat, HeartbeatRejected, MAX_DATAGRAM_BYTES, Probe};
use tokio::net::UdpSocket;

use super::{Callees, Findings};
use crate::config::Config;
use crate::net::{bind, interface};
use crate::os;

/// What came in.
#[derive(Debug, Default)]
struct Heard {
    echo: bool,
    /// By boot, where it accepts links.
    by_group: BTreeMap<BootId, SocketAddr>,
    answers: BTreeSet<BootId>,
    other_clusters: BTreeSet<SocketAddr>,
    other_secrets: BTreeSet<SocketAddr>,
    foreign: BTreeSet<SocketAddr>,
}

/// Gives back whom to call.
pub(super) async fn look(config: &Config, key: &ClusterKey, findings: &mut Findings) -> Callees {
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
    let probe = Probe { nonce: os::random().unwrap_or_default() };
    // Members answer with their next heartbeat: two of them, and some.
    let patience = config.membership.frequency * 2 + Duration::from_millis(500);
    let heard = match listen(key, probe, group, sender, receiver, patience).await {
        Ok(heard) => heard,
        Err(error) => {
            findings.wrong(format!(
                "multicast to {through} can't be sent: {error}. Choose another interface, allow UDP in the firewall, or \
                 name seeds"
            ));
            return Callees::new();
        }
    };
    report(&heard, &through, patience, findings);
    heard.by_group.into_values().map(|address| (address, "heard by multicast".into())).collect()
}

async fn listen(
    key: &ClusterKey,
    probe: Probe,
    group: SocketAddr,
    sender: std::net::UdpSocket,
    receiver: std::net::UdpSocket,
    patience: Duration,
) -> std::io::Result<Heard> {
    let (sender, receiver) = (UdpSocket::from_std(sender)?, UdpSocket::from_std(receiver)?);
    let mut heard = Heard::default();
    let until = tokio::time::Instant::now() + patience;
    let mut again = tokio::time::interval(Duration::from_millis(250));
    let (mut by_group, mut direct) = ([0; MAX_DATAGRAM_BYTES + 1], [0; MAX_DATAGRAM_BYTES + 1]);
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return Ok(heard),
            _ = again.tick() => { sender.send_to(&probe.seal(key), group).await?; }
            Ok((length, from)) = receiver.recv_from(&mut by_group) => {
                heard.datagram(key, probe, by_group.get(..length).unwrap_or_default(), from);
            }
            Ok((length, _)) = sender.recv_from(&mut direct) => {
                if let Ok(heartbeat) = Heartbeat::open(key, direct.get(..length).unwrap_or_default()) {
                    heard.answers.insert(heartbeat.boot);
                }
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
                    self.by_group.insert(heartbeat.boot, heartbeat.address);
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

fn report(heard: &Heard, through: &str, patience: Duration, findings: &mut Findings) {
    let list = |addresses: &BTreeSet<SocketAddr>| {
        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        list.join(", ")
    };
    if heard.echo {
        findings.fine(format!("multicast to {through} leaves and comes back to this host"));
    } else {
        findings.wrong(format!(
            "multicast to {through} does not even come back to this host: a firewall here drops UDP to the group, or the \
             interface has no multicast"
        ));
    }
    for (boot, address) in &heard.by_group {
        if heard.answers.contains(boot) {
            findings.fine(format!("{address} is heard by multicast, and hears this host"));
        } else {
            findings.wrong(format!(
                "{address} is heard by multicast and does not answer: what this host sends does not reach it (a firewall \
                 there, or a switch that snoops IGMP without a querier), or its UDP does not come back"
            ));
        }
    }
    if heard.by_group.is_empty() {
        findings.note(format!("nobody was heard by multicast in {} ms", patience.as_millis()));
    }
    if !heard.other_secrets.is_empty() {
        findings.wrong(format!(
            "{} has this cluster's name and another secret: compare the fingerprints",
            list(&heard.other_secrets)
        ));
    }
    if !heard.other_clusters.is_empty() {
        findings.note(format!(
            "{} is of another cluster on the same group; if it should be of this one, `cluster` differs",
            list(&heard.other_clusters)
        ));
    }
    if !heard.foreign.is_empty() {
        findings.note(format!("{} sends something else to this group", list(&heard.foreign)));
    }
}
