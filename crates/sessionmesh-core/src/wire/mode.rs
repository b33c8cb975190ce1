//! The wire's names of the modes, for [`crate::placement::Mode`].

use super::generated as pb;

pub(crate) type WireMode = pb::Mode;
pub(crate) const ALL_PEERS: WireMode = pb::Mode::AllPeers;
pub(crate) const BACKUP_ONLY: WireMode = pb::Mode::BackupOnly;
