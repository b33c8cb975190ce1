//! Calls whoever is known, as a node would, and asks how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sessionmesh_core::wire::{HandshakeError, Hello, PROTOCOL_VERSIONS, Role};
use tokio::net::TcpStream;

use super::{Callees, Findings, Own, hello};
use crate::config::Config;
use crate::host;
use crate::net::channel::Channel;
use crate::net::dial::CONNECT_TIMEOUT;
use crate::net::handshake::{CLOCKS_DIFFER_MS, ShakeError, Shaken, Stage, introduce, open};
use crate::security::Credentials;

/// Addresses called at most: a cluster's worth.
const MAX_CALLS: usize = 256;
const TOLD: &str = "a member that";

/// One who answered.
struct Peer {
    hello: Hello,
    /// How far its clock is from this host's.
    differ_ms: u64,
}

/// Calls them and those whom they know. Gives back the names of the nodes that would take this one.
pub(super) async fn look(
    config: &Config,
    credentials: &Arc<Credentials>,
    own: &Own,
    mut callees: Callees,
    findings: &mut Findings,
) -> BTreeSet<String> {
    let mut called = BTreeSet::from([own.me.address]);
    let mut reached = BTreeMap::new();
    while !callees.is_empty() && called.len() < MAX_CALLS {
        let mut calls = Vec::new();
        for (address, what) in std::mem::take(&mut callees) {
            if config.insecure && !address.ip().is_loopback() {
                findings.wrong(format!(
                    "{address} ({what}) is not on loopback: with insecure = true it is not called"
                ));
            } else if called.insert(address) {
                let (credentials, hello) = (credentials.clone(), hello(&own.me));
                let called = tokio::spawn(call(address, credentials, hello, config.handshake_timeout));
                calls.push((address, what, called));
            }
        }
        for (address, what, called) in calls {
            let Ok(answer) = called.await else { continue };
            let peer = match answer {
                Ok(peer) => peer,
                // No node of this host runs yet.
                Err(_) if own.is(address) => continue,
                Err(why) => {
                    findings.wrong(format!("{address} ({what}): {why}"));
                    continue;
                }
            };
            for contact in &peer.hello.members {
                let told = format!("{TOLD} {} knows", peer.hello.name);
                callees.entry(contact.address).or_insert(told);
            }
            let heard = config.seeds.is_empty() && config.uses_multicast() && !own.is(address);
            if heard && what.starts_with(TOLD) {
                findings.wrong(format!(
                    "{address} ({what}) can be called and is not heard by multicast: once links break, it and this host \
                     will not find each other"
                ));
            }
            if report(own, address, &what, &peer, findings) {
                reached.insert(peer.hello.boot, peer.hello.name.to_string());
            }
        }
        callees.retain(|address, _| !called.contains(address));
    }
    reached.into_values().collect()
}

async fn call(
    address: SocketAddr,
    credentials: Arc<Credentials>,
    hello: Hello,
    patience: Duration,
) -> Result<Peer, String> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let mut channel = match connected {
        Ok(Ok(stream)) => Channel::new(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err("the host is there, and nothing listens on this port: the node does not run, or with another \
                        bind"
                .into());
        }
        Ok(Err(error)) => return Err(format!("can't be reached: {error}")),
        Err(_) => {
            return Err(format!(
                "no answer in {} ms: the host is down, the address is another's, or a firewall drops TCP to the port",
                CONNECT_TIMEOUT.as_millis()
            ));
        }
    };
    let shaken = async {
        let handshake = open(&mut channel, Role::Dialer, &credentials).await?;
        introduce(&mut channel, &handshake, &credentials, hello).await
    };
    match tokio::time::timeout(patience, shaken).await {
        Ok(Ok(Shaken { hello, .. })) => {
            let differ_ms = hello.clock_ms.abs_diff(host::now().wall_ms);
            Ok(Peer { hello, differ_ms })
        }
        Ok(Err(ShakeError::Broken(_, Stage::Header))) => Err("accepts and closes: a node of a cluster with another name, \
                                                             one that does (or does not) run with insecure = true, \
                                                             or no sessionmesh node"
            .into()),
        // Headers were right, so the secret is; certificates of the operator's may not be.
        Ok(Err(ShakeError::Broken(error, _))) => Err(format!("shares the secret, and encryption fails: {error}")),
        Ok(Err(ShakeError::Handshake(HandshakeError::Unauthenticated))) => {
            Err("a node of this cluster's name with another secret: compare the fingerprints".into())
        }
        Ok(Err(ShakeError::Handshake(HandshakeError::Misbehaved(error)))) => {
            Err(format!("a node of another version: {error}"))
        }
        Ok(Err(ShakeError::Handshake(error))) => Err(error.to_string()),
        Err(_) => Err(format!(
            "accepts and says nothing for {} ms: its process stands still, or it is no sessionmesh node",
            patience.as_millis()
        )),
    }
}

/// Whether it would take this node.
fn report(own: &Own, address: SocketAddr, what: &str, peer: &Peer, findings: &mut Findings) -> bool {
    let (me, Peer { hello: peer, differ_ms }) = (&own.me, peer);
    let name = &peer.name;
    let mut would = true;
    if own.is(peer.address) {
        let (state, others) = (peer.state, peer.members.len());
        findings.note(format!(
            "{address}: this host's own node {name} runs, is {state}, and sees {others} other(s)"
        ));
        return false;
    }
    if peer.name == me.name {
        findings.wrong(format!(
            "{address} ({what}): a node named {name}, as this one is to be, runs there already: names must be unique, give \
             this one another"
        ));
        return false;
    }
    let (lowest, highest) = peer.versions;
    if lowest > PROTOCOL_VERSIONS.1 || highest < PROTOCOL_VERSIONS.0 {
        would = false;
        findings.wrong(format!(
            "{address} ({what}): {name} speaks protocol {lowest} to {highest}, this one {} to {}: deploy a version between",
            PROTOCOL_VERSIONS.0, PROTOCOL_VERSIONS.1
        ));
    }
    if peer.mode != me.mode {
        would = false;
        findings.wrong(format!(
            "{address} ({what}): {name} is in mode {}, this one in {}: mode and copies must be the same on every node",
            peer.mode, me.mode
        ));
    }
    if *differ_ms > CLOCKS_DIFFER_MS {
        findings.wrong(format!(
            "{address} ({what}): the clocks of {name} and this host differ by {differ_ms} ms: of two writes of one attribute at \
             the same time, the fast clock's wins. Set both by NTP"
        ));
    }
    if peer.address != address && !address.ip().is_loopback() {
        findings.note(format!(
            "{address} ({what}): {name} tells others to reach it at {} (its `advertise`)",
            peer.address
        ));
    }
    if would {
        findings.fine(format!(
            "{address} ({what}): {name}, {}, sees {} other(s), shares the secret, clocks differ by {differ_ms} ms",
            peer.state,
            peer.members.len()
        ));
    }
    would
}

#[cfg(test)]
mod tests {
    use sessionmesh_core::membership::Identity;
    use sessionmesh_core::placement::Mode;
    use sessionmesh_core::{BootId, NodeName};

    use super::super::{Finding, Verdict};
    use super::*;

    fn identity(name: &str, number: u8) -> Identity {
        Identity {
            boot: BootId::new(number.into()).unwrap(),
            name: NodeName::new(name).unwrap(),
            address: SocketAddr::from(([10, 0, 0, number], 4000)),
            mode: Mode::AllPeers,
            zone: None,
            versions: PROTOCOL_VERSIONS,
        }
    }

    fn judged(change: impl FnOnce(&mut Peer)) -> (bool, Finding) {
        let (me, other) = (identity("n1", 1), identity("n2", 2));
        let own = Own { wanted: me.address, me };
        let mut peer = Peer { hello: hello(&other), differ_ms: 0 };
        change(&mut peer);
        let mut findings = Findings::default();
        let would = report(&own, other.address, "seed", &peer, &mut findings);
        (would, findings.0.remove(0))
    }

    #[test]
    fn a_clock_that_differs_by_more_than_two_seconds_is_wrong_and_keeps_nobody_out() {
        let (would, finding) = judged(|peer| peer.differ_ms = 2_000);
        assert_eq!((would, finding.verdict), (true, Verdict::Fine), "{finding}");
        let (would, finding) = judged(|peer| peer.differ_ms = 2_001);
        assert_eq!((would, finding.verdict), (true, Verdict::Wrong), "{finding}");
        assert!(finding.text.contains("clocks of n2") && finding.text.contains("NTP"), "{finding}");
    }

    #[test]
    fn another_protocol_version_would_not_take_this_node() {
        let (would, finding) = judged(|peer| peer.hello.versions = (7, 9));
        assert_eq!((would, finding.verdict), (false, Verdict::Wrong), "{finding}");
        assert!(finding.text.contains("n2 speaks protocol 7 to 9"), "{finding}");
    }

    #[test]
    fn a_name_is_anothers_wherever_else_it_is() {
        let (would, finding) = judged(|peer| peer.hello.name = NodeName::new("n1").unwrap());
        assert_eq!((would, finding.verdict), (false, Verdict::Wrong), "{finding}");
        // The same host, another port: a copied configuration.
        let (would, finding) = judged(|peer| {
            peer.hello.name = NodeName::new("n1").unwrap();
            peer.hello.address = "10.0.0.1:4001".parse().unwrap();
        });
        assert_eq!((would, finding.verdict), (false, Verdict::Wrong), "{finding}");
        let (would, finding) = judged(|peer| peer.hello.address = "10.0.0.1:4000".parse().unwrap());
        assert_eq!((would, finding.verdict), (false, Verdict::Note), "{finding}");
    }
}
