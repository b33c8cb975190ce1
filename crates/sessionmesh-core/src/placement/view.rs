//! The members as one node sees them.

use alloc::vec::Vec;

use xxhash_rust::xxh3::xxh3_64;

use super::mode::Mode;
use super::seat::{Seat, holders};
use crate::{BootId, SessionId};

/// Views gone through without having compared with all, of which a node keeps track.
const MAX_EARLIER: usize = 16;

/// The members, as one node sees them. Immutable; a change makes another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    me: BootId,
    mode: Mode,
    ready: Vec<Seat>,
    /// This node among them if it is.
    joining: Vec<Seat>,
    /// The ready members of the views since this node had last compared with all.
    earlier: Vec<Vec<Seat>>,
    hash: u64,
    serial: u64,
}

/// What two nodes have to do with each other about one session that one of them has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Both hold it.
    Both,
    /// The other holds it, and this node does not: its copy is a stray.
    Stray,
    /// It is not the other's.
    Neither,
}

impl View {
    /// Of one who knows nobody.
    pub fn new(me: BootId, mode: Mode) -> Self {
        Self {
            me,
            mode,
            ready: Vec::new(),
            joining: Vec::new(),
            earlier: Vec::new(),
            hash: hash(&[]),
            serial: 0,
        }
    }

    /// The view that follows. `trusted`: this node holds all that it should in it.
    #[must_use]
    pub fn followed_by(&self, mut ready: Vec<Seat>, joining: Vec<Seat>, trusted: bool) -> Self {
        ready.sort_unstable_by_key(|seat| seat.boot);
        let hash = hash(&ready);
        let mut earlier = if trusted { Vec::new() } else { self.earlier.clone() };
        if !trusted && hash != self.hash {
            if earlier.len() == MAX_EARLIER {
                // Too many to tell: it has held nothing all the time.
                earlier = alloc::vec![Vec::new()];
            } else {
                earlier.push(self.ready.clone());
            }
        }
        let serial = self.serial + u64::from(hash != self.hash);
        Self { me: self.me, mode: self.mode, ready, joining, earlier, hash, serial }
    }

    /// The same view, in which this node answers for nothing from memory until it has compared with all.
    #[must_use]
    pub fn distrusted(&self) -> Self {
        Self { earlier: alloc::vec![Vec::new()], ..self.clone() }
    }

    /// Equal on nodes that see the same ready members.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Greater on this node whenever other members are ready, also if they were before.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// How sessions are placed.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How many members are ready, this node included if it is.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// How many members hold each session, and how many the mode asks for.
    pub fn holder_counts(&self) -> (usize, usize) {
        (self.mode.holders(self.ready.len()), self.mode.holders(usize::MAX))
    }

    fn holders_among<'a>(
        &self,
        seats: impl Iterator<Item = &'a Seat> + Clone,
        id: &SessionId,
    ) -> impl Iterator<Item = &'a Seat> {
        holders(seats.clone(), id, self.mode.holders(seats.count()))
    }

    /// The members that hold a session, the first of them first.
    pub fn holders(&self, id: &SessionId) -> Vec<BootId> {
        match self.mode {
            Mode::AllPeers => {
                let mut all: Vec<&Seat> = self.ready.iter().collect();
                all.sort_unstable_by_key(|seat| core::cmp::Reverse(seat.rank(id)));
                all.into_iter().map(|seat| seat.boot).collect()
            }
            Mode::BackupOnly { .. } => {
                self.holders_among(self.ready.iter(), id).map(|seat| seat.boot).collect()
            }
        }
    }

    /// Whether a member holds a session.
    pub fn is_holder(&self, id: &SessionId, boot: BootId) -> bool {
        self.holds_among(&self.ready, id, boot)
    }

    fn holds_among(&self, seats: &[Seat], id: &SessionId, boot: BootId) -> bool {
        match self.mode {
            Mode::AllPeers => seats.iter().any(|seat| seat.boot == boot),
            Mode::BackupOnly { .. } => self.holders_among(seats.iter(), id).any(|seat| seat.boot == boot),
        }
    }

    /// Whether this node holds a session.
    pub fn i_hold(&self, id: &SessionId) -> bool {
        self.is_holder(id, self.me)
    }

    /// Whether this node may answer for a session from memory: it holds it, and has done so in every
    /// view since it had compared with all.
    pub fn may_serve(&self, id: &SessionId) -> bool {
        match self.mode {
            Mode::AllPeers => true,
            Mode::BackupOnly { .. } => {
                self.i_hold(id) && self.earlier.iter().all(|ready| self.holds_among(ready, id, self.me))
            }
        }
    }

    /// Whether this node is the session's first holder: the one that lets it expire and announces
    /// its end.
    pub fn am_first(&self, id: &SessionId) -> bool {
        self.ready.iter().map(|seat| seat.rank(id)).max().is_some_and(|(_, boot)| boot == self.me)
    }

    /// To whom a change of a session goes, this node left out: to its holders (`true`: their
    /// acknowledgement counts), and to joining members that will hold it once they are ready.
    pub fn receivers(&self, id: &SessionId, mut receive: impl FnMut(BootId, bool)) {
        for seat in self.holders_among(self.ready.iter(), id).filter(|seat| seat.boot != self.me) {
            receive(seat.boot, true);
        }
        self.prospects(id).for_each(|boot| receive(boot, false));
    }

    /// Joining members that will hold a session once they are ready, this node left out. They may be so
    /// already, and this node has not heard of it.
    pub fn prospects(&self, id: &SessionId) -> impl Iterator<Item = BootId> {
        let prospect = |joiner: &&Seat| {
            let with = self.ready.iter().chain(core::iter::once(*joiner));
            self.holders_among(with, id).any(|seat| seat.boot == joiner.boot)
        };
        self.joining.iter().filter(|seat| seat.boot != self.me).filter(prospect).map(|seat| seat.boot)
    }

    /// What this node and another have to compare of a session that this node has. A joining node
    /// counts as ready: it collects what it will hold.
    pub fn share(&self, id: &SessionId, other: BootId) -> Share {
        if self.mode == Mode::AllPeers {
            return Share::Both;
        }
        let pair = |seat: &&Seat| seat.boot == self.me || seat.boot == other;
        let seats = self.ready.iter().chain(self.joining.iter().filter(pair));
        let (mut mine, mut theirs) = (false, false);
        for holder in self.holders_among(seats, id) {
            mine |= holder.boot == self.me;
            theirs |= holder.boot == other;
        }
        match (mine, theirs) {
            (true, true) => Share::Both,
            (false, true) => Share::Stray,
            (_, false) => Share::Neither,
        }
    }

    /// Whether every holder of a session is among these. Not if it has none.
    pub fn are_all_holders(&self, id: &SessionId, these: &[BootId]) -> bool {
        let mut any = false;
        self.holders_among(self.ready.iter(), id).all(|seat| {
            any = true;
            these.contains(&seat.boot)
        }) && any
    }

    /// Whether this node has compared with all in this view.
    pub fn is_trusted(&self) -> bool {
        self.earlier.is_empty()
    }

    /// The ready members, and then the joining ones.
    pub fn members(&self) -> impl Iterator<Item = BootId> {
        self.ready.iter().chain(&self.joining).map(|seat| seat.boot)
    }

    /// Whether this node is ready.
    pub fn am_ready(&self) -> bool {
        self.ready.iter().any(|seat| seat.boot == self.me)
    }

    /// Whether this is the node whose view it is.
    pub fn is_me(&self, boot: BootId) -> bool {
        self.me == boot
    }
}

fn hash(ready: &[Seat]) -> u64 {
    let boots: Vec<u8> = ready.iter().flat_map(|seat| seat.boot.get().to_le_bytes()).collect();
    xxh3_64(&boots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeName;
    use core::net::{IpAddr, Ipv4Addr};
    use std::collections::BTreeSet;
    use std::format;

    const BACKUP: Mode = Mode::BackupOnly { copies: 1 };

    fn boot(number: u64) -> BootId {
        BootId::new(number).unwrap()
    }

    fn host(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    fn seat(number: u64) -> Seat {
        Seat::new(boot(number), &NodeName::new(&format!("n{number}")).unwrap(), host(number as u8), None)
    }

    fn seats(numbers: impl IntoIterator<Item = u64>) -> Vec<Seat> {
        numbers.into_iter().map(seat).collect()
    }

    fn seen_by(me: u64, mode: Mode, ready: impl IntoIterator<Item = u64>) -> View {
        View::new(boot(me), mode).followed_by(seats(ready), Vec::new(), true)
    }

    fn view(mode: Mode, ready: impl IntoIterator<Item = u64>) -> View {
        seen_by(1, mode, ready)
    }

    fn ids() -> impl Iterator<Item = SessionId> {
        (0u128..1_000).map(|n| SessionId::from_bytes(((n << 64) | (n * 7919)).to_be_bytes()))
    }

    #[test]
    fn all_peers_hold_everything_and_backup_only_its_copies() {
        for id in ids() {
            assert_eq!(view(Mode::AllPeers, 1..=4).holders(&id).len(), 4);
            let holders = view(BACKUP, 1..=4).holders(&id);
            assert_eq!(holders.iter().collect::<BTreeSet<_>>().len(), 2);
            assert_eq!(view(Mode::BackupOnly { copies: 7 }, 1..=4).holders(&id).len(), 4);
        }
        assert_eq!(view(Mode::BackupOnly { copies: 7 }, 1..=4).holder_counts(), (4, 8));
    }

    #[test]
    fn a_member_that_goes_moves_only_what_it_held() {
        let (before, after) = (view(BACKUP, 1..=5), view(BACKUP, [1, 2, 4, 5]));
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
        let view = view(BACKUP, 1..=5);
        for n in 1..=5 {
            let held = ids().filter(|id| view.is_holder(id, boot(n))).count();
            assert!((300..500).contains(&held), "n{n} holds {held} of 1000, expected about 400");
        }
        let first = ids().filter(|id| view.am_first(id)).count();
        assert!((140..260).contains(&first), "first of {first} of 1000, expected about 200");
    }

    #[test]
    fn the_backup_is_in_another_zone_and_if_there_is_none_on_another_host() {
        // Zone a: n1 and n2 on one host, n3 on another; zone b: n4.
        let zoned = |number: u64, at: u8, zone: &str| {
            let zone = NodeName::new(zone).unwrap();
            Seat::new(boot(number), &NodeName::new(&format!("n{number}")).unwrap(), host(at), Some(&zone))
        };
        let zone_a = alloc::vec![zoned(1, 1, "a"), zoned(2, 1, "a"), zoned(3, 2, "a")];
        let one_zone = View::new(boot(1), BACKUP).followed_by(zone_a.clone(), Vec::new(), true);
        let both = zone_a.into_iter().chain([zoned(4, 3, "b")]).collect();
        let two_zones = View::new(boot(1), BACKUP).followed_by(both, Vec::new(), true);
        for id in ids() {
            assert!(one_zone.is_holder(&id, boot(3)), "the only one on the other host");
            assert!(two_zones.is_holder(&id, boot(4)), "the only one in the other zone");
            for view in [&one_zone, &two_zones] {
                assert_eq!(view.am_first(&id), view.holders(&id).first() == Some(&boot(1)));
            }
        }
    }

    #[test]
    fn a_session_is_served_from_memory_only_by_one_that_held_it_all_the_time() {
        // n3 comes, and goes again before n1 has compared with anybody.
        let two = view(BACKUP, [1, 2, 4]);
        let three = two.followed_by(seats([1, 2, 3, 4]), Vec::new(), false);
        let again = three.followed_by(seats([1, 2, 4]), Vec::new(), false);
        let compared = again.followed_by(seats([1, 2, 4]), Vec::new(), true);
        let mut lost_for_a_while = 0;
        for id in ids() {
            assert_eq!(two.may_serve(&id), two.i_hold(&id));
            assert_eq!(three.may_serve(&id), three.i_hold(&id), "who comes takes, it gives nobody anything");
            if again.i_hold(&id) && !three.i_hold(&id) {
                lost_for_a_while += 1;
                assert!(!again.may_serve(&id), "others may have written meanwhile");
            }
            assert_eq!(compared.may_serve(&id), compared.i_hold(&id));
        }
        assert!(lost_for_a_while > 50);
        let mut dizzy = two.clone();
        for n in 0..20 {
            dizzy = dizzy.followed_by(seats([1, 2, 4, 10 + n]), Vec::new(), false);
        }
        assert!(ids().all(|id| !dizzy.may_serve(&id)));
    }

    #[test]
    fn a_joiner_is_sent_what_it_will_hold_whoever_becomes_ready_first() {
        let now = view(BACKUP, 1..=3).followed_by(seats(1..=3), seats([4, 5]), true);
        let then = [view(BACKUP, [1, 2, 3, 4]), view(BACKUP, [1, 2, 3, 5]), view(BACKUP, 1..=5)];
        for id in ids() {
            let mut sent = BTreeSet::new();
            now.receivers(&id, |boot, counts| {
                assert_eq!(counts, now.is_holder(&id, boot));
                assert!(sent.insert(boot));
            });
            assert!(!sent.contains(&boot(1)), "not to itself");
            for view in &then {
                for joiner in [boot(4), boot(5)] {
                    assert!(!view.is_holder(&id, joiner) || sent.contains(&joiner));
                }
            }
        }
    }

    #[test]
    fn two_nodes_agree_on_what_they_compare_and_a_stray_is_for_each_holder() {
        let ready = || seats(1..=3);
        let (a, joiner) = (
            View::new(boot(1), BACKUP).followed_by(ready(), seats([4]), true),
            View::new(boot(4), BACKUP).followed_by(ready(), seats([4]), true),
        );
        let mut strays = 0;
        for id in ids() {
            assert_eq!(a.share(&id, boot(4)) == Share::Both, joiner.share(&id, boot(1)) == Share::Both);
            let settled = view(BACKUP, 1..=4);
            assert_eq!(a.share(&id, boot(4)) != Share::Neither, settled.is_holder(&id, boot(4)));
            strays += usize::from(a.share(&id, boot(4)) == Share::Stray);
            let holders = settled.holders(&id);
            assert!(settled.are_all_holders(&id, &holders));
            assert!(!settled.are_all_holders(&id, &holders[..1]));
            assert!(!View::new(boot(1), BACKUP).are_all_holders(&id, &[]), "nobody is not everybody");
        }
        assert!(strays > 100);
    }
}
