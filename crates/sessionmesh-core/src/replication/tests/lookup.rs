//! Look-ups while sessions are on their way to their holders.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::format;

use super::mesh::{Memory, id};
use crate::placement::{Mode, Seat, View};
use crate::replication::fetch::{self, Standing};
use crate::replication::{Here, LookUp, LookUpStep, LookUpTimes, Standpoint, Table, Verdict};
use crate::session::{Change, Record, SessionLimits};
use crate::{BootId, HybridClock, Instant, NodeName, Now, SessionId, Stamp};

const MS: Duration = Duration::from_millis(1);
const TIMES: LookUpTimes = LookUpTimes {
    hedge: Duration::from_millis(5),
    pause: MS.saturating_mul(10),
    limit: MS.saturating_mul(50),
};
/// A session that was not used for so long is over.
const IDLE: Duration = MS.saturating_mul(500);
const FOUND: Verdict = Verdict::Found { by_stray: false };
const FOUND_BY_STRAY: Verdict = Verdict::Found { by_stray: true };

fn boot(number: u64) -> BootId {
    BootId::new(number).unwrap()
}

fn seats(numbers: &[u64]) -> Vec<Seat> {
    let seat = |number: &u64| {
        let name = NodeName::new(&format!("n{number}")).unwrap();
        Seat::new(boot(*number), &name, Ipv4Addr::new(10, 0, 0, *number as u8).into(), None)
    };
    numbers.iter().map(seat).collect()
}

/// A node as others find it.
struct Member {
    boot: BootId,
    table: Memory,
    view: View,
    settled: bool,
    doubting: bool,
    silent: bool,
    /// Known to be silent.
    slow: bool,
}

/// Five nodes that hold sessions in pairs.
struct World {
    members: Vec<Member>,
    clock: HybridClock,
    now: Now,
}

impl World {
    /// All see all, and have compared.
    fn new() -> Self {
        let ready = [1, 2, 3, 4, 5];
        let member = |number: u64| Member {
            boot: boot(number),
            table: Memory::default(),
            view: View::new(boot(number), Mode::BackupOnly { copies: 1 }).followed_by(
                seats(&ready),
                Vec::new(),
                true,
            ),
            settled: true,
            doubting: false,
            silent: false,
            slow: false,
        };
        let now = Now { mono: Instant::from_nanos(1_000_000_000), wall_ms: 1_000 };
        Self { members: ready.map(member).into(), clock: HybridClock::new(), now }
    }

    fn member(&mut self, number: u64) -> &mut Member {
        &mut self.members[number as usize - 1]
    }

    /// A node sees others than before, and has not compared since.
    fn sees(&mut self, number: u64, ready: &[u64]) {
        let member = self.member(number);
        member.view = member.view.followed_by(seats(ready), Vec::new(), false);
        member.settled = false;
    }

    fn all_see(&mut self, ready: &[u64]) {
        for number in 1..=5 {
            self.sees(number, ready);
        }
    }

    fn put(&mut self, number: u64, id: SessionId) {
        let limits = SessionLimits { name_bytes: 10, attributes: 10, session_bytes: 100 };
        let stamp = Stamp { hlc: self.clock.tick(1_000, crate::Hlc::ZERO), origin: boot(9) };
        let (record, _) = Record::create(id, stamp, self.now.mono, Change::default(), &limits).unwrap();
        self.member(number).table.with(&id, |slot| *slot = Some(record));
    }

    /// A session that was made so long ago that it is over, unless somebody has used it since.
    fn put_long_ago(&mut self, numbers: [u64; 2], id: SessionId) {
        let [maker, other] = numbers;
        self.put(maker, id);
        let record = self.member(maker).table.read(&id, |record| record.cloned());
        self.member(other).table.with(&id, |slot| *slot = record);
        self.now.mono += IDLE;
    }

    /// The session is used, and only this node hears of it.
    fn touch(&mut self, number: u64, id: SessionId) {
        let (now, clock) = (self.now.mono, &self.clock);
        let tick = |floor| Stamp { hlc: clock.tick(1_000, floor), origin: boot(9) };
        let table = &self.members[number as usize - 1].table;
        table.with(&id, |slot| Record::touch(slot, id, now, tick)).unwrap();
    }

    /// Looks a session up on one node; gives back the verdict, who was asked, and how long it took.
    fn look_up(&mut self, number: u64, id: SessionId) -> (Verdict, Vec<u64>, Duration) {
        let begun = self.now.mono;
        let mut lookup = LookUp::new(id, true, TIMES, begun);
        let over = |record: &Record| record.live().is_some_and(|state| state.ends_at(IDLE) <= begun);
        let (mut asked, mut answers) = (Vec::new(), Vec::new());
        for _ in 0..1_000 {
            let me = &self.members[number as usize - 1];
            let others: Vec<BootId> =
                self.members.iter().map(|member| member.boot).filter(|boot| *boot != me.boot).collect();
            let here = || {
                me.table.read(&id, |record| match record {
                    Some(record) if over(record) => Here::Overdue,
                    Some(record) if record.live().is_some() => Here::Live,
                    Some(record) if record.end().is_some() => Here::Ended,
                    _ => Here::Unknown,
                })
            };
            let slow: Vec<BootId> =
                self.members.iter().filter(|member| member.slow).map(|member| member.boot).collect();
            let standpoint = Standpoint {
                view: &me.view,
                members: &others,
                slow: &slow,
                doubting: me.doubting,
                settled: me.settled && !me.doubting,
            };
            match lookup.poll(standpoint, &me.table, here, self.now.mono) {
                LookUpStep::Done(verdict) => return (verdict, asked, self.now.mono - begun),
                LookUpStep::Ask(question, boot, fetch) => {
                    asked.push(boot.get());
                    let member = self.members.iter().find(|member| member.boot == boot).unwrap();
                    if !member.silent {
                        let standing = match member.doubting {
                            true => Standing::Doubting,
                            false => Standing::of(&member.view, member.settled, &fetch),
                        };
                        answers.push((question, fetch::answer(&member.table, &fetch, standing, self.now)));
                    }
                }
                LookUpStep::Wait(until) => match answers.pop() {
                    Some((question, answer)) => {
                        let answer = Some(answer);
                        let _ =
                            lookup.handle_answer(question, answer, &me.table, &self.clock, here, self.now);
                    }
                    None => self.now.mono = until.max(self.now.mono + MS),
                },
            }
        }
        panic!("a look-up that never ends");
    }
}

/// A session with these holders, the first of them first, in a view of these nodes.
fn session(ready: &[u64], holders: [u64; 2]) -> SessionId {
    let view = View::new(boot(1), Mode::BackupOnly { copies: 1 }).followed_by(seats(ready), Vec::new(), true);
    let wanted = holders.map(boot);
    (0..100_000).map(id).find(|id| view.holders(id) == wanted).unwrap()
}

const ALL: [u64; 5] = [1, 2, 3, 4, 5];

#[test]
fn a_visitor_asks_the_first_holder_alone() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    world.put(2, id);
    world.put(3, id);
    assert_eq!(world.look_up(1, id), (FOUND, Vec::from([2]), Duration::ZERO));
}

#[test]
fn a_slow_first_holder_costs_five_milliseconds() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    world.put(3, id);
    world.member(2).silent = true;
    assert_eq!(world.look_up(1, id), (FOUND, Vec::from([2, 3]), MS * 5));
}

#[test]
fn an_unknown_id_takes_the_word_of_every_holder() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    assert_eq!(world.look_up(1, id), (Verdict::Absent, Vec::from([2, 3]), Duration::ZERO));
    world.member(3).silent = true;
    let (verdict, _, took) = world.look_up(1, id);
    assert_eq!((verdict, took), (Verdict::Undecided { answered: 1, asked: 2 }, MS * 50));
}

#[test]
fn a_session_that_only_the_second_holder_has_is_found_though_the_first_denies_it() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    world.put(3, id);
    assert_eq!(world.look_up(1, id), (FOUND, Vec::from([2, 3]), Duration::ZERO));
}

#[test]
fn a_joiner_that_is_first_in_order_and_not_yet_filled_sends_on_to_the_next() {
    let mut world = World::new();
    // Before n2 came, n3 and n4 held it.
    let id = (0..10_000)
        .map(id)
        .find(|id| {
            let view = |ready| {
                View::new(boot(1), Mode::BackupOnly { copies: 1 }).followed_by(seats(ready), Vec::new(), true)
            };
            view(&[1, 3, 4, 5]).holders(id) == [boot(3), boot(4)]
                && view(&ALL).holders(id) == [boot(2), boot(3)]
        })
        .unwrap();
    for number in 1..=5 {
        let member = world.member(number);
        let before = View::new(member.boot, Mode::BackupOnly { copies: 1 });
        let before = before.followed_by(seats(&[1, 3, 4, 5]), Vec::new(), true);
        member.view = before.followed_by(seats(&ALL), Vec::new(), false);
        member.settled = false;
    }
    world.put(3, id);
    world.put(4, id);
    assert_eq!(world.look_up(1, id), (FOUND, Vec::from([2, 3]), Duration::ZERO));
    // On the joiner itself: the other holder.
    assert_eq!(world.look_up(2, id), (FOUND, Vec::from([3]), Duration::ZERO));
    assert!(!world.member(4).view.may_serve(&id), "n4 no longer answers from memory");
}

#[test]
fn what_no_holder_has_yet_is_found_where_it_was() {
    let mut world = World::new();
    // A heal: n4 and n5 held it on their side, and all see all for the first time.
    let id = session(&ALL, [2, 3]);
    world.all_see(&[1]);
    world.all_see(&ALL);
    world.put(4, id);
    let (verdict, asked, took) = world.look_up(1, id);
    assert_eq!((verdict, took), (FOUND_BY_STRAY, Duration::ZERO));
    assert_eq!(asked[..2], [2, 3], "the holders first");
    // On the node that has it: nobody has anything newer.
    let mut alone = World::new();
    alone.all_see(&[1]);
    alone.all_see(&ALL);
    alone.put(4, id);
    assert_eq!(alone.look_up(4, id).0, FOUND_BY_STRAY);
    // While a holder is silent, it might know of a logout.
    let mut silent = World::new();
    silent.all_see(&[1]);
    silent.all_see(&ALL);
    silent.put(4, id);
    silent.member(3).silent = true;
    assert_eq!(silent.look_up(1, id).0, Verdict::Undecided { answered: 0, asked: 2 });
}

#[test]
fn a_holder_that_has_not_compared_denies_nothing() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    world.member(2).settled = false;
    let (verdict, ..) = world.look_up(1, id);
    assert_eq!(verdict, Verdict::Undecided { answered: 1, asked: 2 });
    world.put(3, id);
    assert_eq!(world.look_up(1, id).0, FOUND);
}

#[test]
fn a_holder_that_doubts_says_nothing_and_serves_nothing_from_memory() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    world.put(2, id);
    world.member(2).doubting = true;
    let (verdict, asked, _) = world.look_up(1, id);
    assert_eq!(verdict, Verdict::Undecided { answered: 1, asked: 2 });
    assert!(asked.contains(&3));
    // The doubter asks the other holder. That one denies it: only the doubter ever had it.
    assert_eq!(world.look_up(2, id), (FOUND, Vec::from([3]), Duration::ZERO));
    // If the other can't tell, its own copy is no answer.
    world.member(3).settled = false;
    assert!(matches!(world.look_up(2, id).0, Verdict::Undecided { .. }));
    world.put(3, id);
    assert_eq!(world.look_up(2, id).0, FOUND);
}

/// Both holders stood still, and are admitted before they have compared. What a third node has kept may be older.
#[test]
fn no_stray_helps_out_while_a_holder_doubts_what_it_has() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    for holder in [2, 3] {
        world.put(holder, id);
        world.member(holder).doubting = true;
    }
    world.put(5, id);
    let (verdict, asked, _) = world.look_up(1, id);
    assert!(matches!(verdict, Verdict::Undecided { .. }), "{verdict:?}");
    assert!(!asked.contains(&5), "{asked:?}");
    world.member(3).doubting = false;
    assert_eq!(world.look_up(1, id).0, FOUND);
    // Those that have nothing to doubt can't be waited for: they may never get it from anybody else.
    let mut empty = World::new();
    for holder in [2, 3] {
        empty.member(holder).doubting = true;
    }
    empty.put(5, id);
    assert_eq!(empty.look_up(1, id).0, FOUND_BY_STRAY);
}

#[test]
fn an_asker_with_another_view_is_denied_nothing_and_told_what_there_is() {
    let mut world = World::new();
    // n1 has not heard that n5 left.
    let id = session(&ALL, [2, 3]);
    for number in 2..=4 {
        world.sees(number, &[1, 2, 3, 4]);
        world.member(number).settled = true;
    }
    let (verdict, ..) = world.look_up(1, id);
    assert_eq!(verdict, Verdict::Undecided { answered: 0, asked: 2 });
    world.put(3, id);
    assert_eq!(world.look_up(1, id).0, FOUND);
}

#[test]
fn a_former_holder_does_not_answer_with_what_may_be_old() {
    let mut world = World::new();
    // n1 has not heard of n2, which holds it now with n3; n4 holds it no more.
    let before = [1, 3, 4, 5];
    let id = (0..10_000)
        .map(id)
        .find(|id| {
            let view = |ready| {
                View::new(boot(1), Mode::BackupOnly { copies: 1 }).followed_by(seats(ready), Vec::new(), true)
            };
            view(&before).holders(id) == [boot(4), boot(3)] && view(&ALL).holders(id) == [boot(2), boot(4)]
                || view(&before).holders(id) == [boot(4), boot(3)]
                    && view(&ALL).holders(id) == [boot(4), boot(2)]
        })
        .unwrap();
    let asker = world.member(1);
    asker.view =
        View::new(boot(1), Mode::BackupOnly { copies: 1 }).followed_by(seats(&before), Vec::new(), true);
    world.put(3, id);
    world.member(4).silent = true;
    let (verdict, asked, _) = world.look_up(1, id);
    assert!(matches!(verdict, Verdict::Undecided { .. }), "{verdict:?} of {asked:?}");
}

#[test]
fn a_logout_is_final_whoever_tells_of_it() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    world.all_see(&[1]);
    world.all_see(&ALL);
    world.put(4, id);
    world.put(3, id);
    let end = Stamp { hlc: world.clock.tick(1_000, crate::Hlc::ZERO), origin: boot(9) };
    world.member(3).table.with(&id, |slot| Record::destroy(slot, true, |_| end)).unwrap();
    assert_eq!(world.look_up(1, id).0, Verdict::Absent, "though a live copy is left on n4");
}

/// Whoever asks it first waits for the hedge; the next does not, once it is known to say nothing.
#[test]
fn a_holder_that_has_left_a_question_unanswered_is_asked_last() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    world.put(2, id);
    world.put(3, id);
    assert_eq!(world.look_up(1, id).1, [2]);
    world.member(2).silent = true;
    let (verdict, asked, took) = world.look_up(1, id);
    assert_eq!((verdict, asked, took >= TIMES.hedge), (FOUND, [2, 3].into(), true));
    world.member(2).slow = true;
    let (verdict, asked, took) = world.look_up(1, id);
    assert_eq!((verdict, asked, took), (FOUND, [3].into(), Duration::ZERO));
    // To deny takes its word all the same.
    let unknown = (0..).map(super::mesh::id).filter(|other| *other != id);
    let unknown = unknown.into_iter().find(|id| world.member(1).view.holders(id).contains(&boot(2))).unwrap();
    assert!(matches!(world.look_up(1, unknown).0, Verdict::Undecided { .. }));
}

/// A visitor's copy may go at any time, also while two holders answer with what they have beyond it.
#[test]
fn differences_to_a_copy_that_is_gone_are_no_denial() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    world.put(2, id);
    let record = world.member(2).table.read(&id, |record| record.cloned());
    for number in [1, 3] {
        let record = record.clone();
        world.member(number).table.with(&id, |slot| *slot = record);
    }
    let now = world.now;
    let [me, first, second, ..] = &world.members[..] else { unreachable!() };
    let here =
        || me.table.read(&id, |record| record.and_then(Record::live).map_or(Here::Unknown, |_| Here::Live));
    let members = [boot(2), boot(3)];
    let standpoint =
        Standpoint { view: &me.view, members: &members, slow: &[], doubting: false, settled: true };
    let mut lookup = LookUp::new(id, true, TIMES, now.mono);
    let mut asked = Vec::new();
    for wait in [Duration::ZERO, TIMES.hedge] {
        let LookUpStep::Ask(number, _, fetch) = lookup.poll(standpoint, &me.table, here, now.mono + wait)
        else {
            panic!("both holders are asked")
        };
        asked.push((number, fetch));
    }
    me.table.with(&id, |slot| *slot = None);
    for ((number, fetch), holder) in asked.iter().zip([first, second]) {
        let answer = fetch::answer(&holder.table, fetch, Standing::Settled, now);
        let _ = lookup.handle_answer(*number, Some(answer), &me.table, &world.clock, here, now);
    }
    let next = lookup.poll(standpoint, &me.table, here, now.mono + TIMES.hedge);
    assert!(!matches!(next, LookUpStep::Done(_)), "{next:?}");
}

/// Whoever sent the part is dead, and an end by idleness is all that the other holder knows.
#[test]
fn part_of_a_session_that_has_ended_for_all_others_is_no_session() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    world.put(3, id);
    let tick = Stamp { hlc: world.clock.tick(1_000, crate::Hlc::ZERO), origin: boot(9) };
    let (now, limits) =
        (world.now.mono, SessionLimits { name_bytes: 10, attributes: 10, session_bytes: 100 });
    let mut beyond = world.member(3).table.read(&id, |record| record.cloned());
    let change = Change { attributes: [("k".into(), Some("v".into()))].into(), limits: None };
    let delta = Record::change(&mut beyond, id, change, &limits, now, |_| tick).unwrap().unwrap();
    world.member(3).table.with(&id, |slot| {
        let _ = Record::expire(slot);
        slot.as_mut().unwrap().compact();
    });
    let ended = world.member(3).table.read(&id, |record| record.cloned());
    world.member(2).table.with(&id, |slot| {
        *slot = ended;
        assert_eq!(Record::apply(slot, &delta, Duration::ZERO, now).want, Some(None));
    });
    assert_eq!(world.look_up(2, id).0, Verdict::Absent, "on the holder that has the part");
    assert_eq!(world.look_up(1, id).0, Verdict::Absent, "for a visitor");
}

/// Two join at once, and are ready before a third node has heard of it.
#[test]
fn a_joining_member_that_may_be_ready_by_now_is_asked_before_anything_is_denied() {
    let mut world = World::new();
    let id = session(&ALL, [4, 5]);
    let joining = |number: u64| {
        View::new(boot(number), Mode::BackupOnly { copies: 1 }).followed_by(
            seats(&[1, 2, 3]),
            seats(&[4, 5]),
            true,
        )
    };
    for number in 1..=3 {
        world.member(number).view = joining(number);
    }
    world.put(4, id);
    world.put(5, id);
    assert_eq!(world.look_up(1, id).0, FOUND);
    // An id that nobody knows, and a joining member that says nothing: not to be told.
    let unknown = (0..).map(super::mesh::id).filter(|other| *other != id);
    let unknown = unknown.into_iter().find(|id| joining(1).prospects(id).count() == 2).unwrap();
    assert_eq!(world.look_up(1, unknown).0, Verdict::Absent);
    world.member(4).silent = true;
    assert!(matches!(world.look_up(1, unknown).0, Verdict::Undecided { .. }));
}

/// A holder that is far behind takes what is used elsewhere for idle.
#[test]
fn an_access_that_one_holder_knows_of_is_enough() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    world.put_long_ago([2, 3], id);
    world.touch(3, id);
    assert_eq!(world.look_up(1, id), (FOUND, [2, 3].into(), Duration::ZERO), "for a visitor");
    assert_eq!(world.look_up(2, id), (FOUND, [3].into(), Duration::ZERO), "for who is behind");
}

#[test]
fn that_nobody_has_used_a_session_takes_the_word_of_every_holder() {
    let mut world = World::new();
    let id = session(&ALL, [2, 3]);
    world.put_long_ago([2, 3], id);
    assert_eq!(world.look_up(2, id), (Verdict::Absent, [3].into(), Duration::ZERO));
    world.member(3).silent = true;
    assert_eq!(world.look_up(2, id).0, Verdict::Undecided { answered: 0, asked: 1 });
    world.member(3).silent = false;
    world.member(3).doubting = true;
    assert!(matches!(world.look_up(2, id).0, Verdict::Undecided { .. }), "its word is no word yet");
}
