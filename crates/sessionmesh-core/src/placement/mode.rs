//! How many members hold a session.

use core::fmt;

use crate::wire::mode::{self, WireMode};

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

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllPeers => f.write_str("all-peers"),
            Self::BackupOnly { copies } => write!(f, "backup-only with copies = {copies}"),
        }
    }
}
