//! A request looks for a session that this node can't answer for from memory.
//!
//! The holders are asked first, one after the other in their order, the next if one takes long, and those that took
//! long before at the end: each has the session, or can say that there is none. If they all answer and one
//! of them can't tell (what it should hold has not been handed to it yet), all members are asked for copies
//! that they no longer hold. A holder that has it and doubts it is asked again instead: older copies than its own may
//! be about. Not to know is never "no": that takes the word of every holder.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::fetch;
use super::table::Table;
use crate::placement::{Mode, View};
use crate::session::{Applied, Record};
use crate::wire::{Fetch, FetchOutcome};
use crate::{BootId, HybridClock, Instant, Now, SessionId, mutated};

/// How long one look-up may take, and its parts.
#[derive(Clone, Copy, Debug)]
pub struct LookUpTimes {
    /// A holder that has not answered for so long is not waited for alone. 5 ms.
    pub hedge: Duration,
    /// Between rounds: views may differ for a moment after a change.
    pub pause: Duration,
    /// In all.
    pub limit: Duration,
}

/// What a node knows at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Standpoint<'a> {
    /// The ready members.
    pub view: &'a View,
    /// The members that can be asked, in whatever state, this node left out.
    pub members: &'a [BootId],
    /// Of those, who has left a question unanswered: asked last, so that one that stands still costs one request
    /// the wait for it, and not each.
    pub slow: &'a [BootId],
    /// Whether it doubts what it holds.
    pub doubting: bool,
    /// Whether "not here" on this node is an answer about a session that it holds.
    pub settled: bool,
}

/// What is in memory of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Here {
    /// It could be served.
    Live,
    /// It is over.
    Ended,
    /// It has not been used for too long, as far as is known here. Another holder may know of an access.
    Overdue,
    /// Nothing, or only part.
    Unknown,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The session is in memory now, as new as any holder has it. `by_stray`: no holder had it yet.
    Found {
        /// A copy helped out that should have gone elsewhere by then.
        by_stray: bool,
    },
    /// There is no such session, or it is over.
    Absent,
    /// It could not be told in time.
    Undecided {
        /// Holders that could tell.
        answered: usize,
        /// Holders asked.
        asked: usize,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum LookUpStep {
    /// Ask this member; hand in its answer under this number.
    Ask(u64, BootId, Fetch),
    /// Wait for an answer, but not longer.
    Wait(Instant),
    /// Done.
    Done(Verdict),
}

/// One look-up. Take [`LookUp::poll`] until it waits or is done; hand in every answer.
#[derive(Debug)]
pub struct LookUp {
    id: SessionId,
    access: bool,
    times: LookUpTimes,
    deadline: Instant,
    next_number: u64,
    /// Asked in this stage, without an answer yet; whether the word of the one asked counts.
    pending: Vec<(u64, bool)>,
    stage: Stage,
    most: (usize, usize),
}

#[derive(Debug)]
enum Stage {
    Begin,
    Holders(Holders),
    Everybody { waiting: VecDeque<BootId>, until: Instant, found: bool },
    Pause(Instant),
    Done(Verdict),
}

/// One round of asking the holders.
#[derive(Debug)]
struct Holders {
    /// Those to ask; joining members that may be ready by now come last, and can only say yes.
    waiting: VecDeque<(BootId, bool)>,
    /// When the next is asked whether or not the last has answered.
    next_at: Instant,
    others: usize,
    answered: usize,
    /// Of those, the ones that could tell.
    decided: usize,
    /// One of them has it, and can't tell yet whether it is old.
    doubted: bool,
}

impl LookUp {
    /// Begins. `access`: a request reads the session, which counts as use.
    pub fn new(id: SessionId, access: bool, times: LookUpTimes, now: Instant) -> Self {
        Self {
            id,
            access,
            times,
            deadline: now + times.limit,
            next_number: 0,
            pending: Vec::new(),
            stage: Stage::Begin,
            most: (0, 0),
        }
    }

    /// What to do next. `here` says what is in memory of the session.
    pub fn poll(
        &mut self,
        standpoint: Standpoint<'_>,
        table: &impl Table,
        here: impl Fn() -> Here,
        now: Instant,
    ) -> LookUpStep {
        loop {
            let view = standpoint.view;
            match &mut self.stage {
                Stage::Done(verdict) => return LookUpStep::Done(*verdict),
                Stage::Begin => self.stage = Stage::Holders(Self::round(self.id, standpoint, now)),
                Stage::Pause(until) if now < *until => return LookUpStep::Wait(*until),
                Stage::Pause(_) => self.stage = Stage::Begin,
                Stage::Holders(holders) => {
                    let next = holders.waiting.front().copied();
                    let at_once = view.mode() == Mode::AllPeers || self.pending.is_empty();
                    if let Some((boot, counts)) = next.filter(|_| at_once || now >= holders.next_at) {
                        holders.waiting.pop_front();
                        holders.next_at = now + self.times.hedge;
                        return self.ask(boot, counts, view, table, false);
                    }
                    if now >= self.deadline || self.pending.is_empty() {
                        self.stage = self.end_round(standpoint, &here, now);
                    } else {
                        let until = next.map_or(self.deadline, |_| holders.next_at.min(self.deadline));
                        return LookUpStep::Wait(until);
                    }
                }
                Stage::Everybody { waiting, until, found } => {
                    if let Some(boot) = waiting.pop_front() {
                        return self.ask(boot, true, view, table, true);
                    }
                    let heard_all = self.pending.is_empty();
                    if !heard_all && now < *until {
                        return LookUpStep::Wait(*until);
                    }
                    // Everybody, or one that is slow may know of a logout. What only this node has counts
                    // if nobody else can have more.
                    let enough = heard_all && (*found || !standpoint.doubting);
                    self.stage = if enough && here() == Here::Live {
                        Stage::Done(Verdict::Found { by_stray: true })
                    } else {
                        self.pause(now)
                    };
                }
            }
        }
    }

    fn round(id: SessionId, standpoint: Standpoint<'_>, now: Instant) -> Holders {
        let mut order = standpoint.view.holders(&id);
        order.sort_by_key(|boot| standpoint.slow.contains(boot));
        let others = order.iter().filter(|boot| !standpoint.view.is_me(**boot)).count();
        let holders = order.into_iter().map(|boot| (boot, true));
        let prospects = standpoint.view.prospects(&id).map(|boot| (boot, false));
        let known = |(boot, _): &(BootId, bool)| standpoint.members.contains(boot);
        let waiting = holders.chain(prospects).filter(known).collect();
        Holders { waiting, next_at: now, others, answered: 0, decided: 0, doubted: false }
    }

    fn ask(
        &mut self,
        boot: BootId,
        counts: bool,
        view: &View,
        table: &impl Table,
        any_copy: bool,
    ) -> LookUpStep {
        self.next_number += 1;
        self.pending.push((self.next_number, counts));
        let version = table.read(&self.id, |record| match record {
            Some(Record::Held(state)) if !state.is_partial() => Some(state.version().clone()),
            _ => None,
        });
        let fetch =
            Fetch { request: 0, id: self.id, version, view: view.hash(), access: self.access, any_copy };
        LookUpStep::Ask(self.next_number, boot, fetch)
    }

    /// An answer came; `None` if the one asked is gone. Gives back what it changed here.
    pub fn handle_answer(
        &mut self,
        number: u64,
        outcome: Option<FetchOutcome>,
        table: &impl Table,
        clock: &HybridClock,
        here: impl Fn() -> Here,
        now: Now,
    ) -> Option<Applied> {
        // An answer to a question of an earlier stage still brings what it brings.
        let current = self.pending.iter().position(|pending| pending.0 == number);
        let counts = current.is_some_and(|index| self.pending.swap_remove(index).1);
        let doubted = matches!(outcome, Some(FetchOutcome::Doubted));
        let undecided = doubted || matches!(outcome, Some(FetchOutcome::Undecided));
        let record = matches!(outcome, Some(FetchOutcome::Record(_)));
        let ended = matches!(&outcome, Some(FetchOutcome::Record(record)) if record.is_end());
        let answered = outcome.is_some();
        let applied = outcome.and_then(|outcome| fetch::apply(table, clock, self.id, outcome, now));
        match &mut self.stage {
            Stage::Holders(holders) if current.is_some() => {
                holders.answered += usize::from(counts && answered);
                holders.doubted |= counts && doubted;
                // One holder's word is as good as another's: this is the session as known there, joined
                // with what is here. But if what is here went while the difference to it was on its
                // way, that says only that there is a session.
                // That nobody has used it for long takes the word of all.
                let here = here();
                let verdict = match here {
                    Here::Live if record => Some(Verdict::Found { by_stray: false }),
                    Here::Ended if record => Some(Verdict::Absent),
                    _ => None,
                };
                // Of an end nothing can be missing, though the part of a session that is here may be newer.
                let told = answered && !undecided && (!record || ended || here != Here::Unknown);
                holders.decided += usize::from(counts && told);
                if let Some(verdict) = verdict {
                    self.stage = Stage::Done(verdict);
                }
            }
            Stage::Everybody { found, .. } => *found |= record,
            _ => {}
        }
        applied
    }

    /// All holders have been asked, and have answered or will not in time.
    fn end_round(&mut self, standpoint: Standpoint<'_>, here: &impl Fn() -> Here, now: Instant) -> Stage {
        let Stage::Holders(Holders { others, answered, decided, doubted, .. }) = self.stage else {
            return Stage::Begin;
        };
        // A joining member that does not answer may be the only one that knows.
        let silent = self.pending.iter().any(|pending| !pending.1);
        self.pending.clear();
        self.most = (self.most.0.max(decided), self.most.1.max(others));
        let mine = standpoint.view.i_hold(&self.id);
        if answered < others || silent || doubted {
            return self.pause(now);
        }
        let told = decided == others;
        let is_everywhere = standpoint.view.mode() == Mode::AllPeers;
        let everybody = || {
            let waiting = standpoint.members.iter().copied().collect();
            Stage::Everybody { waiting, until: self.deadline, found: false }
        };
        match here() {
            Here::Ended | Here::Overdue if told => Stage::Done(Verdict::Absent),
            // Made here and not sent before this node was paused: nobody else can know it.
            Here::Live if told && mine => Stage::Done(Verdict::Found { by_stray: false }),
            // The holders do not have yet what has come here already: they would know of an end.
            Here::Live if told && !is_everywhere => everybody(),
            // If it is a holder, or there is nobody to ask, this node itself must be able to tell, too.
            _ if told && (others > 0 && !mine || standpoint.settled || mutated!(DenialUnsettled)) => {
                Stage::Done(Verdict::Absent)
            }
            _ if is_everywhere => self.pause(now),
            _ => everybody(),
        }
    }

    fn pause(&self, now: Instant) -> Stage {
        if now >= self.deadline {
            let (answered, asked) = self.most;
            return Stage::Done(Verdict::Undecided { answered, asked });
        }
        Stage::Pause(self.deadline.min(now + self.times.pause))
    }

    /// Whether what comes now comes from a holder.
    pub fn asks_holders(&self) -> bool {
        matches!(self.stage, Stage::Holders(_))
    }
}
