//! What a node of this configuration would find on this host, without being one: for the operator whose
//! nodes do not find each other.
//!
//! | file | what |
//! |---|---|
//! | `hear` | multicast: what comes back, who is heard, who hears |
//! | `call` | seeds and whoever was heard: names, connections, secret, clock |

mod call;
mod hear;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use sessionmesh_core::membership::{Identity, MemberState};
use sessionmesh_core::wire::{Hello, PROTOCOL_VERSIONS, Side};

use crate::cluster::identity;
use crate::config::Config;
use crate::net::bind;
use crate::net::resolve::resolve;
use crate::os;

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
    fn fine(&mut self, text: impl Into<String>) {
        self.0.push(Finding { verdict: Verdict::Fine, text: text.into() });
    }

    fn note(&mut self, text: impl Into<String>) {
        self.0.push(Finding { verdict: Verdict::Note, text: text.into() });
    }

    fn wrong(&mut self, text: impl Into<String>) {
        self.0.push(Finding { verdict: Verdict::Wrong, text: text.into() });
    }

    fn is_wrong(&self) -> bool {
        self.0.iter().any(|finding| finding.verdict == Verdict::Wrong)
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
    let key = config.key();
    let secret = if config.secret.is_some() { "secret" } else { "cluster without a secret" };
    findings.fine(format!(
        "cluster \"{}\", {secret} with the fingerprint {}: must be the same on every node",
        config.cluster,
        key.fingerprint()
    ));
    let me = look_at_sockets(config, &mut findings);
    let mut callees = look_up_seeds(config, &mut findings).await;
    if config.uses_multicast() {
        for (address, what) in hear::look(config, &key, &mut findings).await {
            callees.entry(address).or_insert(what);
        }
    }
    if let Some(me) = me {
        let reached = call::look(config, &key, &me, callees, &mut findings).await;
        sum_up(config, reached, &mut findings);
    }
    findings.0
}

/// Who a node of this configuration would be, with the sockets that it can have.
fn look_at_sockets(config: &Config, findings: &mut Findings) -> Option<Identity> {
    let opened = bind::Bound::open(config).and_then(|bound| identity(config, bound.address));
    let me = match opened {
        Ok(me) => me,
        Err(error) => {
            findings.wrong(error.to_string());
            return None;
        }
    };
    let wanted = config.bind.port();
    if wanted != 0 && config.advertise.is_none() && me.address.port() != wanted {
        findings.note(format!("port {wanted} is taken; fine if a node runs on this host already"));
    }
    findings
        .fine(format!("a node can listen, TCP and UDP; others must be able to reach it at {}", me.address));
    Some(me)
}

/// Addresses to call, with what they are to the operator.
type Callees = BTreeMap<SocketAddr, String>;

async fn look_up_seeds(config: &Config, findings: &mut Findings) -> Callees {
    let mut callees = Callees::new();
    for seed in &config.seeds {
        let asked = os::mono();
        match resolve(seed.clone()).await {
            Ok(addresses) => {
                let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let took = os::mono() - asked;
                let text = format!("seed {seed} is {} (asked for {} ms)", list.join(", "), took.as_millis());
                if took.as_millis() > 1_000 {
                    findings.note(text)
                } else {
                    findings.fine(text)
                }
                callees.extend(addresses.into_iter().map(|address| (address, format!("seed {seed}"))));
            }
            Err(error) => findings.wrong(format!("seed {seed}: {error}")),
        }
    }
    callees
}

/// Nobody: a node that is not one.
fn hello(me: &Identity) -> Hello {
    Hello {
        versions: PROTOCOL_VERSIONS,
        boot: me.boot,
        name: me.name.clone(),
        address: me.address,
        state: MemberState::Joining,
        mode: me.mode,
        zone: me.zone.clone(),
        view: 0,
        dial: 0,
        members: Vec::new(),
        side: Side::default(),
        forgotten: Vec::new(),
        probe: true,
        clock_ms: 0,
    }
}

fn sum_up(config: &Config, reached: BTreeSet<String>, findings: &mut Findings) {
    if findings.is_wrong() {
        return;
    }
    let names: Vec<String> = reached.into_iter().collect();
    if names.is_empty() {
        let alone = "no other node was found: a node started here would be alone";
        if config.uses_multicast() {
            findings.note(format!(
                "{alone}. If others run: their cluster, address and port must be as here; ttl = {} passes {} \
                 router(s); most clouds and many container networks drop multicast, name seeds there",
                config.ttl,
                config.ttl.saturating_sub(1)
            ));
        } else {
            findings.note(format!("{alone}. If others run: none of the seeds is where they are"));
        }
    } else {
        findings.fine(format!("a node started here would meet {}", names.join(", ")));
    }
}
