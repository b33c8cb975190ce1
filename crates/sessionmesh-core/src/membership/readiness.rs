//! When a node may serve: it holds all that the members hold that it has heard of.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::dials::SeedState;
use super::member::{MemberState, PassState};
use super::node::Node;
use crate::wire::Contact;
use crate::{Instant, mutated};

/// A node heard or told of that is no member (yet).
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) first_at: Instant,
    pub(super) heard_at: Instant,
    pub(super) counter: u64,
    /// A member's heartbeats name it.
    pub(super) by_member: bool,
    /// As the member that is linked with it told of it.
    pub(super) told: Option<Contact>,
}

impl Sighting {
    pub(super) fn new(now: Instant) -> Self {
        Self { first_at: now, heard_at: now, counter: 0, by_member: false, told: None }
    }
}

impl Node {
    /// What this node still waits for; `None` if nothing.
    pub fn unready_reason(&self, now: Instant) -> Option<String> {
        match self.state {
            MemberState::Ready => return None,
            MemberState::Leaving => return Some("leaving".into()),
            MemberState::Joining => {}
        }
        let waiting = self.members.values().find(|member| member.pass != PassState::Done);
        if let Some(member) = waiting.filter(|_| !mutated!(ReadyBeforeCompared)) {
            return Some(format!("comparing sessions with {} at {}", member.name, member.address));
        }
        // One that is heard but can't be reached is waited for, though not for ever if there is a
        // cluster without it: that cluster may hold it for dead.
        let patient = |since: Duration| !self.met_ready || since < self.config.drop_time;
        let heard = self.sightings.iter().find(|(_, sighting)| patient(now - sighting.first_at));
        if let Some((boot, _)) = heard {
            return Some(format!("heard node {boot}, not linked with it yet"));
        }
        if self.met_ready && self.members.values().any(|member| member.state == MemberState::Ready) {
            return None;
        }
        if now - self.started_at < self.config.join_wait {
            return Some("listening for other nodes".into());
        }
        if self.config.found {
            return None;
        }
        if let Some(seed) = self.dials.unresolved() {
            return Some(format!(
                "no answer from the name service for seed {seed}: a cluster may be behind it (found = true founds \
                 one without it)"
            ));
        }
        let seed = self.dials.open_seeds().next()?;
        Some(match seed {
            (address, SeedState::Untried) => format!("trying seed {address}"),
            (address, _) => format!(
                "seed {address} does not answer: a cluster may be behind it (found = true founds one without it)"
            ),
        })
    }
}
