//! What a node of this configuration would find on this host, without being one: for the operator whose
//! nodes do not find each other.
//!
//! | file | what |
//! |---|---|
//! | `hear` | multicast: what comes back, who is heard, who hears |
//! | `call` | seeds and whoever was heard: connections, secret, name, mode, clock |

mod call;
mod hear;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use sessionmesh_core::membership::{Identity, MemberState};
use sessionmesh_core::wire::{Hello, PROTOCOL_VERSIONS, Side};

use crate::cluster::identity;
use crate::config::Config;
use crate::error::StartError;
use crate::host;
use crate::net::bind::Bound;
use crate::net::resolve::resolve;
use crate::security::{Credentials, cluster_key};

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// Worth knowing; may be meant.
    Note,
    /// A node would not find or not be taken by others, or would not start.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it stands.
    pub verdict: Verdict,
    /// In plain words, with what would help.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Fine => "ok   ",
            Verdict::Note => "note ",
            Verdict::Wrong => "WRONG",
        };
        write!(f, "{word}  {}", self.text)
    }
}

/// What was found, in the order in which it was looked at.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn say(&mut self, verdict: Verdict, text: String) {
        let finding = Finding { verdict, text };
        if !self.0.contains(&finding) {
            self.0.push(finding);
        }
    }

    fn fine(&mut self, text: String) {
        self.say(Verdict::Fine, text);
    }

    fn note(&mut self, text: String) {
        self.say(Verdict::Note, text);
    }

    fn wrong(&mut self, text: String) {
        self.say(Verdict::Wrong, text);
    }
}

/// Looks at the configuration, this host's sockets and multicast, the seeds' names, and every node that can
/// be reached, as a node would. It joins nothing and disturbs nobody; a node of the same configuration may run
/// beside it. Takes some seconds.
pub async fn diagnose(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::default();
    if let Err(error) = config.validate() {
        findings.wrong(format!("the configuration can't be used: {error}"));
        return findings.0;
    }
    let without = if config.secret.is_some() { "" } else { " (no secret)" };
    findings.fine(format!(
        "cluster \"{}\"{without}: name and secret have the fingerprint {}, which must be the same on every node",
        config.cluster,
        cluster_key(config).fingerprint()
    ));
    let own = look_at_sockets(config, &mut findings);
    let mut callees = look_up_seeds(config, &mut findings).await;
    let Some(own) = own else { return findings.0 };
    let credentials = match Credentials::new(config, &own.me) {
        Ok(credentials) => Arc::new(credentials),
        Err(error) => {
            findings.wrong(error.to_string());
            return findings.0;
        }
    };
    if config.uses_multicast() {
        for (address, what) in hear::look(config, &credentials.key, &own, &mut findings).await {
            callees.entry(address).or_insert(what);
        }
    }
    let reached = call::look(config, &credentials, &own, callees, &mut findings).await;
    sum_up(config, &reached, &mut findings);
    findings.0
}

/// Who a node of the configuration would be, and what else is this host's own.
#[derive(Debug)]
struct Own {
    me: Identity,
    /// Where a node of the same configuration is, if one runs already.
    wanted: SocketAddr,
}

impl Own {
    fn is(&self, address: SocketAddr) -> bool {
        address == self.me.address || address == self.wanted
    }
}

/// The sockets that a node can have.
fn look_at_sockets(config: &Config, findings: &mut Findings) -> Option<Own> {
    let wanted = config.bind.port();
    let open = |config: &Config| Bound::open(config).and_then(|bound| identity(config, bound.address));
    let opened = match open(config) {
        Err(StartError::Ports { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
            let mut other = config.clone();
            other.bind.set_port(0);
            open(&other)
        }
        opened => opened,
    };
    let me = match opened {
        Ok(me) => me,
        Err(error) => {
            findings.wrong(error.to_string());
            return None;
        }
    };
    let taken = wanted != 0 && config.advertise.is_none() && me.address.port() != wanted;
    let wanted = SocketAddr::new(me.address.ip(), if wanted == 0 { me.address.port() } else { wanted });
    if taken {
        findings.note(format!("port {} is taken; fine if a node runs on this host already", wanted.port()));
    }
    findings.fine(format!("a node can listen, TCP and UDP; others must be able to reach it at {wanted}"));
    Some(Own { me, wanted })
}

/// Addresses to call, with what they are to the operator.
type Callees = BTreeMap<SocketAddr, String>;

async fn look_up_seeds(config: &Config, findings: &mut Findings) -> Callees {
    let mut callees = Callees::new();
    for seed in &config.seeds {
        let asked = host::mono();
        match resolve(seed.clone()).await {
            Ok(addresses) => {
                let took = (host::mono() - asked).as_millis();
                let text = format!("seed {seed} is {} (asked for {took} ms)", list(&addresses));
                if took > 1_000 {
                    findings.note(text);
                } else if seed.parse::<SocketAddr>().is_err() {
                    findings.fine(text);
                }
                callees.extend(addresses.into_iter().map(|address| (address, format!("seed {seed}"))));
            }
            Err(error) => findings.wrong(format!("seed {seed}: {error}")),
        }
    }
    callees
}

fn list(addresses: &BTreeSet<SocketAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Nobody: a node that is not one.
fn hello(me: &Identity) -> Hello {
    Hello {
        versions: PROTOCOL_VERSIONS,
        boot: me.boot,
        incarnation: 0,
        name: me.name.clone(),
        address: me.address,
        state: MemberState::Joining,
        mode: me.mode,
        zone: me.zone.clone(),
        view: 0,
        dial: 0,
        members: Vec::new(),
        side: Side::default(),
        forgotten: BTreeMap::new(),
        absent: Vec::new(),
        probe: true,
        clock_ms: 0,
    }
}

fn sum_up(config: &Config, reached: &BTreeSet<String>, findings: &mut Findings) {
    if !reached.is_empty() {
        let names: Vec<&str> = reached.iter().map(String::as_str).collect();
        findings.fine(format!("a node started here would meet {}", names.join(", ")));
        return;
    }
    let alone = "no other node was reached: a node started here would be alone, and ready";
    if config.uses_multicast() {
        findings.note(format!(
            "{alone}. If others run: their cluster, address, port and network (interface) must be as here; ttl = {} passes \
             {} router(s); most clouds and many container networks drop multicast, name seeds there",
            config.ttl,
            config.ttl.saturating_sub(1)
        ));
    } else {
        findings.note(format!("{alone}. If others run: none of the seeds is where they are"));
    }
}
