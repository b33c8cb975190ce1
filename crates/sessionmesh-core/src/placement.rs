//! Which members hold a session: one function of its id and the members' names.
//!
//! Rendezvous hashing (Thaler and Ravishankar 1996): every node finds the same holders without
//! asking, and a member that comes or goes moves only the sessions that it holds.

use alloc::vec::Vec;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::wire::mode::{self, WireMode};
use crate::{BootId, NodeName, SessionId};

/// How many members hold a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// All of them.
    #[default]
    AllPeers,
    /// One and this many more.
    BackupOnly {
        /// 1 to 7.
        copies: u8,
    },
}

impl Mode {
    /// The most copies.
    pub const MAX_COPIES: u8 = 7;

    /// How many members hold each session, of this many.
    pub fn holders(self, members: usize) -> usize {
        match self {
            Self::AllPeers => members,
            Self::BackupOnly { copies } => members.min(usize::from(copies) + 1),
        }
    }

    pub(crate) fn to_wire(self) -> (WireMode, u32) {
        match self {
            Self::AllPeers => (mode::ALL_PEERS, 0),
            Self::BackupOnly { copies } => (mode::BACKUP_ONLY, u32::from(copies)),
        }
    }

    pub(crate) fn from_wire(mode: WireMode, copies: u32) -> Option<Self> {
        if mode == mode::ALL_PEERS {
            return Some(Self::AllPeers);
        }
        let copies = u8::try_from(copies).ok().filter(|copies| (1..=Self::MAX_COPIES).contains(copies))?;
        (mode == mode::BACKUP_ONLY).then_some(Self::BackupOnly { copies })
    }
}

impl core::fmt::Display for Mode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::AllPeers => f.write_str("all-peers"),
            Self::BackupOnly { copies } => write!(f, "backup-only with copies = {copies}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seat {
    boot: BootId,
    seed: u64,
}

/// The ready members, as one node sees them. Immutable; a change makes another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    me: BootId,
    mode: Mode,
    seats: Vec<Seat>,
    hash: u64,
}

impl View {
    /// Of the ready members, this node among them if it is one.
    pub fn new<'a>(me: BootId, mode: Mode, ready: impl IntoIterator<Item = (BootId, &'a NodeName)>) -> Self {
        let mut seats: Vec<Seat> = ready
            .into_iter()
            .map(|(boot, name)| Seat { boot, seed: xxh3_64(name.as_str().as_bytes()) })
            .collect();
        seats.sort_by_key(|seat| seat.boot);
        let boots: Vec<u8> = seats.iter().flat_map(|seat| seat.boot.get().to_le_bytes()).collect();
        Self { me, mode, seats, hash: xxh3_64(&boots) }
    }

    /// Equal on nodes that see the same ready members.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How sessions are placed.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How many members are ready, this node included if it is.
    pub fn ready(&self) -> usize {
        self.seats.len()
    }

    /// The members that hold a session, the first of them first.
    pub fn holders(&self, id: &SessionId) -> Vec<BootId> {
        let mut ranked: Vec<(u64, BootId)> =
            self.seats.iter().map(|seat| (xxh3_64_with_seed(id.as_bytes(), seat.seed), seat.boot)).collect();
        ranked.sort_unstable_by(|a, b| b.cmp(a));
        ranked.truncate(self.mode.holders(ranked.len()));
        ranked.into_iter().map(|(_, boot)| boot).collect()
    }

    /// Whether a member holds a session.
    pub fn is_holder(&self, id: &SessionId, boot: BootId) -> bool {
        match self.mode {
            Mode::AllPeers => self.seats.iter().any(|seat| seat.boot == boot),
            Mode::BackupOnly { .. } => self.holders(id).contains(&boot),
        }
    }

    /// Whether this node is the session's first holder: the one that lets it expire and announces
    /// its end.
    pub fn am_first(&self, id: &SessionId) -> bool {
        self.seats
            .iter()
            .map(|seat| (xxh3_64_with_seed(id.as_bytes(), seat.seed), seat.boot))
            .max()
            .is_some_and(|(_, boot)| boot == self.me)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::format;

    fn boot(number: u64) -> BootId {
        BootId::new(number).unwrap()
    }

    fn view(mode: Mode, members: impl IntoIterator<Item = u64>) -> View {
        let members: Vec<(BootId, NodeName)> =
            members.into_iter().map(|n| (boot(n), NodeName::new(&format!("n{n}")).unwrap())).collect();
        View::new(boot(1), mode, members.iter().map(|(boot, name)| (*boot, name)))
    }

    fn ids() -> impl Iterator<Item = SessionId> {
        (0u128..1_000).map(|n| SessionId::from_bytes(((n << 64) | (n * 7919)).to_be_bytes()))
    }

    #[test]
    fn all_peers_hold_everything_and_backup_only_its_copies() {
        for id in ids() {
            assert_eq!(view(Mode::AllPeers, 1..=4).holders(&id).len(), 4);
            let holders = view(Mode::BackupOnly { copies: 1 }, 1..=4).holders(&id);
            assert_eq!(holders.iter().collect::<BTreeSet<_>>().len(), 2);
            assert_eq!(view(Mode::BackupOnly { copies: 7 }, 1..=4).holders(&id).len(), 4);
        }
    }

    #[test]
    fn a_member_that_goes_moves_only_what_it_held() {
        let mode = Mode::BackupOnly { copies: 1 };
        let (before, after) = (view(mode, 1..=5), view(mode, [1, 2, 4, 5]));
        for id in ids() {
            let held = before.holders(&id);
            let stayed: Vec<_> = held.iter().filter(|holder| **holder != boot(3)).copied().collect();
            assert!(after.holders(&id).starts_with(&stayed) || !held.contains(&boot(3)));
            if !held.contains(&boot(3)) {
                assert_eq!(after.holders(&id), held);
            }
        }
    }

    #[test]
    fn load_is_spread_evenly() {
        let view = view(Mode::BackupOnly { copies: 1 }, 1..=5);
        for n in 1..=5 {
            let held = ids().filter(|id| view.is_holder(id, boot(n))).count();
            assert!((300..500).contains(&held), "n{n} holds {held} of 1000, expected about 400");
        }
        let first = ids().filter(|id| view.am_first(id)).count();
        assert!((140..260).contains(&first), "first of {first} of 1000, expected about 200");
    }
}
