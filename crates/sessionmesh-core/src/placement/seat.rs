//! A member as placement sees it.

use core::net::IpAddr;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::mode::Mode;
use crate::{BootId, NodeName, SessionId};

/// The most holders of a session in backup-only mode.
const MAX_HOLDERS: usize = Mode::MAX_COPIES as usize + 1;

/// A member, by what decides which sessions it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// This start of it.
    pub boot: BootId,
    name: u64,
    host: IpAddr,
    zone: u64,
}

impl Seat {
    /// Of a member: `host` and `zone` are what is lost together.
    pub fn new(boot: BootId, name: &NodeName, host: IpAddr, zone: Option<&NodeName>) -> Self {
        let zone = zone.map_or(0, |zone| xxh3_64(zone.as_str().as_bytes()));
        Self { boot, name: xxh3_64(name.as_str().as_bytes()), host, zone }
    }

    /// By name, so that a node that restarts holds the same sessions again.
    pub(super) fn rank(&self, id: &SessionId) -> (u64, BootId) {
        (xxh3_64_with_seed(id.as_bytes(), self.name), self.boot)
    }
}

/// The holders of a session among some seats, the first of them first: the highest in rank, then
/// always the highest in a zone without one yet, or on a host without one, or at all.
pub(super) fn holders<'a>(
    seats: impl Iterator<Item = &'a Seat> + Clone,
    id: &SessionId,
    count: usize,
) -> impl Iterator<Item = &'a Seat> {
    let mut chosen: [Option<&Seat>; MAX_HOLDERS] = [None; MAX_HOLDERS];
    let mut held = 0;
    core::iter::from_fn(move || {
        if held >= count.min(MAX_HOLDERS) {
            return None;
        }
        let taken = chosen.iter().flatten();
        let others = seats.clone().filter(|seat| !taken.clone().any(|holder| holder.boot == seat.boot));
        let best = others.max_by_key(|seat| {
            let zone = !taken.clone().any(|holder| holder.zone == seat.zone);
            let host = !taken.clone().any(|holder| holder.host == seat.host);
            (zone, host, seat.rank(id))
        })?;
        *chosen.get_mut(held)? = Some(best);
        held += 1;
        Some(best)
    })
}
