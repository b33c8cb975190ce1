//! Addresses to connect to: seeds, nodes heard or told of, members lost.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use crate::{BootId, Instant};

/// The most addresses remembered.
const MAX_ADDRESSES: usize = 256;
/// An address that answers nobody is given up after this long; a seed never is.
const GIVE_UP: Duration = Duration::from_secs(600);

/// What is known of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeedState {
    /// Not yet tried.
    Untried,
    /// Nobody is there.
    Refused,
    /// No answer: somebody may be behind a cut.
    Silent,
    /// It has been a member.
    Met,
    /// This node itself.
    Itself,
}

#[derive(Clone, Debug)]
struct Target {
    seed: Option<SeedState>,
    in_flight: bool,
    next_at: Option<Instant>,
    wanted_since: Instant,
    /// Who is expected there, if anybody.
    boot: Option<BootId>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Dials {
    targets: BTreeMap<SocketAddr, Target>,
    /// Seeds whose addresses nobody has told yet.
    unresolved: Vec<String>,
}

impl Dials {
    /// Replaces the seeds; what is known of those that stay, stays.
    pub(super) fn set_seeds(&mut self, seeds: &[SocketAddr], unresolved: &[String], now: Instant) {
        self.unresolved = unresolved.to_vec();
        for (address, target) in &mut self.targets {
            if !seeds.contains(address) {
                target.seed = None;
            }
        }
        for address in seeds {
            let target = self.target(*address, now);
            if target.seed.is_none() {
                target.seed = Some(SeedState::Untried);
                target.next_at = Some(target.next_at.map_or(now, |at| at.min(now)));
            }
        }
    }

    fn target(&mut self, address: SocketAddr, now: Instant) -> &mut Target {
        self.targets.entry(address).or_insert(Target {
            seed: None,
            in_flight: false,
            next_at: None,
            wanted_since: now,
            boot: None,
        })
    }

    /// Wants an address dialled, not before `at`.
    pub(super) fn want(&mut self, address: SocketAddr, boot: Option<BootId>, at: Instant, now: Instant) {
        if self.targets.len() >= MAX_ADDRESSES && !self.targets.contains_key(&address) {
            return;
        }
        let target = self.target(address, now);
        target.boot = boot.or(target.boot);
        target.wanted_since = now;
        if !target.in_flight {
            target.next_at = Some(target.next_at.map_or(at, |next| next.min(at)));
        }
    }

    /// Wants an address dialled that has just been heard: at once, but not in a hail of attempts.
    pub(super) fn heard(&mut self, address: SocketAddr, boot: BootId, at: Instant, now: Instant) {
        let known =
            self.targets.get(&address).is_some_and(|target| target.next_at.is_some() || target.in_flight);
        if known {
            if let Some(target) = self.targets.get_mut(&address) {
                target.wanted_since = now;
                // Somebody else is there than was expected: no reason to wait.
                let stranger = target.boot.replace(boot) != Some(boot);
                if let Some(next) = target.next_at.as_mut().filter(|_| stranger) {
                    *next = at.min(*next);
                }
            }
        } else {
            self.want(address, Some(boot), at, now);
        }
    }

    /// The addresses to dial now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(SocketAddr, Option<BootId>)> {
        self.targets.retain(|_, target| {
            target.seed.is_some() || target.in_flight || now - target.wanted_since < GIVE_UP
        });
        let mut due = Vec::new();
        for (address, target) in &mut self.targets {
            if !target.in_flight && target.next_at.is_some_and(|at| at <= now) {
                target.in_flight = true;
                target.next_at = None;
                due.push((*address, target.boot));
            }
        }
        due
    }

    /// Whoever comes back to a seed's address is to be found.
    pub(super) fn retry_seed(&mut self, address: SocketAddr, at: Instant) {
        if let Some(target) = self.targets.get_mut(&address)
            && target.seed.is_some()
            && !target.in_flight
        {
            target.next_at = Some(at);
        }
    }

    /// Who is expected at an address, if anybody.
    pub(super) fn expected(&self, address: SocketAddr) -> Option<BootId> {
        self.targets.get(&address)?.boot
    }

    /// An attempt is over; try again at `next_at`, if at all.
    pub(super) fn ended(&mut self, address: SocketAddr, seed: SeedState, next_at: Option<Instant>) {
        if let Some(target) = self.targets.get_mut(&address) {
            target.in_flight = false;
            // Another name of this node stays one.
            if target.seed == Some(SeedState::Itself) {
                target.next_at = None;
                return;
            }
            target.next_at = next_at;
            if target.seed.is_some() {
                target.seed = Some(seed);
            }
        }
    }

    /// This node's own address is not to be dialled.
    pub(super) fn forget(&mut self, address: SocketAddr) {
        self.targets.retain(|known, target| *known != address || target.seed.is_some());
        self.ended(address, SeedState::Itself, None);
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.targets.values().filter(|target| !target.in_flight).filter_map(|target| target.next_at).min()
    }

    /// Seeds that may be alive and have not been met.
    pub(super) fn open_seeds(&self) -> impl Iterator<Item = (SocketAddr, SeedState)> {
        self.targets
            .iter()
            .filter_map(|(address, target)| Some((*address, target.seed?)))
            .filter(|(_, seed)| matches!(seed, SeedState::Untried | SeedState::Silent))
    }

    /// A seed whose address is not known because nobody answered, neither with one nor with "no such name".
    pub(super) fn unresolved(&self) -> Option<&str> {
        self.unresolved.first().map(String::as_str)
    }

    /// Where heartbeats go besides the group: seeds and addresses wanted.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.targets
            .iter()
            .filter(|(_, target)| target.seed != Some(SeedState::Itself))
            .map(|(address, _)| *address)
    }

    /// Extends all patience by the time that this node was paused.
    pub(super) fn shift(&mut self, by: Duration) {
        for target in self.targets.values_mut() {
            target.wanted_since += by;
        }
    }
}
