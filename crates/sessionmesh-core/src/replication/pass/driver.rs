//! The side of a pass that asks.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::responder::{apply, approximate_bytes, is_over, lacked};
use super::summary::{Entry, Listed, Summary};
use super::{BATCH_BYTES, EXPANDED_PER_REQUEST, LISTED, PREFIXES_PER_REQUEST, STRAYS_PER_STEP, WINDOW};
use crate::replication::Table;
use crate::session::{Difference, Record, RecordUpdate, Version};
use crate::wire::{PassStep, PassWant, PeerMisbehaved, Prefix, PrefixSums, ReplyStep};
use crate::{HybridClock, Now, SessionId, mutated};

/// Sessions asked for in one request.
const WANTS_PER_REQUEST: usize = 128;

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassStats {
    /// Records here when it began.
    pub compared: u64,
    /// Records that differed or were missing on either side.
    pub differed: u64,
    /// Records received.
    pub pulled: u64,
    /// Records sent.
    pub pushed: u64,
    /// Records here that only the other side should hold, and there that only this one should.
    pub strays: u64,
}

#[derive(Debug)]
enum Asked {
    Sums(Vec<Prefix>),
    Listing(Vec<Prefix>),
    Records(Vec<SessionId>),
    Offered(Vec<(SessionId, u64)>),
    Strays(Option<SessionId>),
    Range(Prefix, Option<SessionId>),
    Pushed,
    Closed,
}

/// Drives one pass: take [`PassDriver::poll_request`] until `None`, hand in every reply, until
/// [`PassDriver::is_done`].
#[derive(Debug)]
pub struct PassDriver {
    summary: Summary,
    opened: bool,
    done: bool,
    asked: VecDeque<Asked>,
    expand: VecDeque<Prefix>,
    list: VecDeque<Prefix>,
    ranges: VecDeque<(Prefix, Option<SessionId>)>,
    wants: VecDeque<SessionId>,
    /// Below which the other side has nothing.
    absent: VecDeque<Prefix>,
    /// What the other side did not list and may have all the same: it sees other members.
    offers: VecDeque<(SessionId, u64)>,
    views_differ: bool,
    /// How many of this node's strays have been offered.
    offered: usize,
    /// Where the other side's strays are asked for next; `None` if they all are here.
    their_strays: Option<Option<SessionId>>,
    /// What is newer here, and what the other side has of it.
    pushes: VecDeque<(SessionId, Option<Version>)>,
    /// The digests that the other side listed, of sessions that are being pulled.
    theirs: BTreeMap<SessionId, u64>,
    stats: PassStats,
}

impl PassDriver {
    /// From a summary made after the stream to the other side was opened.
    pub fn new(summary: Summary) -> Self {
        let stats = PassStats { compared: summary.len(), ..PassStats::default() };
        Self {
            summary,
            opened: false,
            done: false,
            asked: VecDeque::new(),
            expand: VecDeque::new(),
            list: VecDeque::new(),
            ranges: VecDeque::new(),
            wants: VecDeque::new(),
            absent: VecDeque::new(),
            offers: VecDeque::new(),
            views_differ: false,
            offered: 0,
            their_strays: Some(None),
            pushes: VecDeque::new(),
            theirs: BTreeMap::new(),
            stats,
        }
    }

    /// Whether both sides hold all that either held when the pass began.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What the other side holds and this node does not: after the pass, the other side has it.
    pub fn strays(&self) -> &[(SessionId, u64)] {
        self.summary.strays()
    }

    /// The two sides see different members. What one of them lists and the other does not is perhaps there, on
    /// a node that is no holder in its own eyes: from here on nothing is moved before it was asked for.
    pub fn views_differ(&mut self) {
        self.views_differ = true;
    }

    /// What it did so far.
    pub fn stats(&self) -> PassStats {
        self.stats
    }

    /// The next request, if one may be sent now.
    pub fn poll_request(&mut self, table: &impl Table, now: Now) -> Option<PassStep> {
        if self.asked.len() >= WINDOW {
            return None;
        }
        if !core::mem::replace(&mut self.opened, true) {
            self.asked.push_back(Asked::Sums(alloc::vec![Prefix::ROOT]));
            let empty = self.summary.is_empty() && self.summary.strays().is_empty();
            return Some(PassStep::Open { empty });
        }
        let (step, asked) = self.next_step(table, now)?;
        self.asked.push_back(asked);
        Some(step)
    }

    fn next_step(&mut self, table: &impl Table, now: Now) -> Option<(PassStep, Asked)> {
        if let Some((prefix, after)) = self.ranges.pop_front() {
            return Some((PassStep::Range(prefix, after), Asked::Range(prefix, after)));
        }
        if !self.wants.is_empty() {
            let count = self.wants.len().min(WANTS_PER_REQUEST);
            let held = |id: &SessionId| {
                table.read(id, |record| match record {
                    Some(Record::Held(state)) if !state.is_partial() && !mutated!(PassSendsAll) => {
                        Some(state.version().clone())
                    }
                    _ => None,
                })
            };
            let ids: Vec<SessionId> = self.wants.drain(..count).collect();
            let wants = ids.iter().map(|id| PassWant { version: held(id), id: *id }).collect();
            return Some((PassStep::Pull(wants), Asked::Records(ids)));
        }
        while self.offers.is_empty() && self.pushes.is_empty() {
            let Some(prefix) = self.absent.pop_front() else { break };
            self.list_absent(prefix);
        }
        if !self.offers.is_empty() {
            let count = self.offers.len().min(STRAYS_PER_STEP);
            let mut batch: Vec<(SessionId, u64)> = self.offers.drain(..count).collect();
            batch.sort_unstable();
            return Some((PassStep::Offer(batch.clone()), Asked::Offered(batch)));
        }
        let strays = self.summary.strays().get(self.offered..).unwrap_or_default();
        if !strays.is_empty() {
            let batch = strays.get(..STRAYS_PER_STEP).unwrap_or(strays).to_vec();
            self.offered += batch.len();
            self.stats.strays += batch.len() as u64;
            return Some((PassStep::Offer(batch.clone()), Asked::Offered(batch)));
        }
        if let Some(after) = self.their_strays.take() {
            return Some((PassStep::Strays(after), Asked::Strays(after)));
        }
        let records = self.next_push(table, now);
        if !records.is_empty() {
            return Some((PassStep::Push(records), Asked::Pushed));
        }
        if !self.expand.is_empty() {
            let count = self.expand.len().min(EXPANDED_PER_REQUEST);
            let prefixes: Vec<Prefix> = self.expand.drain(..count).collect();
            return Some((PassStep::Expand(prefixes.clone()), Asked::Sums(prefixes)));
        }
        if !self.list.is_empty() {
            let count = self.list.len().min(PREFIXES_PER_REQUEST);
            let prefixes: Vec<Prefix> = self.list.drain(..count).collect();
            return Some((PassStep::List(prefixes.clone()), Asked::Listing(prefixes)));
        }
        let idle = self.asked.is_empty() && !self.done;
        idle.then_some((PassStep::Close, Asked::Closed))
    }

    fn next_push(&mut self, table: &impl Table, now: Now) -> Vec<RecordUpdate> {
        let mut bytes = 0;
        let mut records = Vec::new();
        while bytes < BATCH_BYTES {
            let Some((id, base)) = self.pushes.pop_front() else { break };
            if let Some(update) = table.read(&id, |record| record?.update(id, base.as_ref(), now.mono)) {
                bytes += approximate_bytes(&update);
                records.push(update);
            }
        }
        self.stats.pushed += records.len() as u64;
        records
    }

    /// A reply came. `note` is called with each record in it as it is here then, under its
    /// session's lock.
    ///
    /// # Errors
    /// It does not answer what was asked.
    pub fn handle_reply(
        &mut self,
        reply: ReplyStep,
        table: &impl Table,
        clock: &HybridClock,
        now: Now,
        note: impl Fn(&SessionId, &Record),
    ) -> Result<(), PeerMisbehaved> {
        let asked = self.asked.pop_front().ok_or(PeerMisbehaved::Unexpected("pass reply"))?;
        match (asked, reply) {
            (Asked::Sums(prefixes), ReplyStep::Sums(nodes)) => {
                // Only what was asked for: each reply brings the end nearer.
                if !nodes.iter().map(|node| &node.prefix).eq(&prefixes) {
                    return Err(PeerMisbehaved::Invalid("pass sums"));
                }
                for node in &nodes {
                    self.compare(node);
                }
            }
            (Asked::Listing(prefixes), ReplyStep::Listing(entries)) => {
                let asked =
                    |id: &SessionId| prefixes.iter().any(|prefix| prefix.range().contains(&id.prefix_bits()));
                if !entries.iter().all(|(id, _)| asked(id)) {
                    return Err(PeerMisbehaved::Invalid("pass listing"));
                }
                self.match_up(&prefixes, entries, table);
            }
            (Asked::Records(ids), ReplyStep::Records(records, broke_off)) => {
                for record in records {
                    self.pull(record, table, clock, now, &note);
                }
                // A batch has its limit; the rest is asked for again.
                if let Some(last) = broke_off {
                    let rest = ids.into_iter().skip_while(|id| *id != last).skip(1);
                    self.wants.extend(rest);
                }
            }
            (Asked::Range(prefix, after), ReplyStep::Records(records, next)) => {
                let onward =
                    |next: SessionId| after < Some(next) && prefix.range().contains(&next.prefix_bits());
                if next.is_some_and(|next| !onward(next)) {
                    return Err(PeerMisbehaved::Invalid("pass range"));
                }
                self.stats.pulled += records.len() as u64;
                self.stats.differed += records.len() as u64;
                for record in records {
                    apply(table, clock, record, now, &note);
                }
                if next.is_some() {
                    self.ranges.push_back((prefix, next));
                }
            }
            (Asked::Offered(offered), ReplyStep::Wants(wants)) => {
                for want in wants {
                    if offered.binary_search_by_key(&want.id, |stray| stray.0).is_err() {
                        return Err(PeerMisbehaved::Invalid("pass wants"));
                    }
                    let lacks = |record: &Record| match (record, &want.version) {
                        (Record::Held(state), Some(theirs)) => {
                            state.idle_end().is_some() || !state.is_contained_in(theirs)
                        }
                        _ => true,
                    };
                    if table.read(&want.id, |record| record.is_some_and(lacks)) {
                        self.stats.differed += 1;
                        self.pushes.push_back((want.id, want.version));
                    }
                }
            }
            (Asked::Strays(after), ReplyStep::Strays(strays, next)) => {
                let last = strays.last().map(|stray| stray.0);
                if next.is_some() && (next != last || next <= after) {
                    return Err(PeerMisbehaved::Invalid("pass strays"));
                }
                self.stats.strays += strays.len() as u64;
                let wanted = strays.into_iter().filter_map(|stray| lacked(stray, table));
                self.wants.extend(wanted.map(|want| want.id));
                self.their_strays = next.map(Some);
            }
            (Asked::Pushed, ReplyStep::Done) => {}
            (Asked::Pushed, ReplyStep::Records(ends, None)) => {
                for end in ends {
                    apply(table, clock, end, now, &note);
                }
            }
            (Asked::Closed, ReplyStep::Done) => self.done = true,
            _ => return Err(PeerMisbehaved::Unexpected("pass reply")),
        }
        Ok(())
    }

    /// The other side's sums below one prefix.
    fn compare(&mut self, node: &PrefixSums) {
        for digit in 0..16u8 {
            let index = usize::from(digit);
            let (Some(child), Some(their_sum), Some(their_count)) =
                (node.prefix.child(digit), node.sums.get(index), node.counts.get(index))
            else {
                continue;
            };
            let (my_sum, my_count) = self.summary.sum(child);
            let is_same = (my_sum, my_count) == (*their_sum, *their_count) && !mutated!(PassSendsAll);
            if is_same || digit == 7 && mutated!(PassSkipsRange) {
                continue;
            }
            if *their_count == 0 {
                self.absent.push_back(child);
            } else if my_count == 0 && !self.views_differ {
                self.ranges.push_back((child, None));
            } else if my_count.max(*their_count) <= LISTED || child.depth == Prefix::MAX_DEPTH {
                self.list.push_back(child);
            } else {
                self.expand.push_back(child);
            }
        }
    }

    /// What is below a prefix goes to the other side, which has nothing there: one part at a time, so that not all of
    /// them are listed at once.
    fn list_absent(&mut self, prefix: Prefix) {
        if prefix.depth < self.summary.depth() {
            let children = (0..16).filter_map(|digit| prefix.child(digit));
            self.absent.extend(children);
            return;
        }
        for entry in self.summary.below(prefix).to_vec() {
            self.give(entry);
        }
    }

    /// The other side lacks it, or, if it sees other members, perhaps.
    fn give(&mut self, entry: Entry) {
        if self.views_differ {
            self.offers.push_back(entry);
        } else {
            self.stats.differed += 1;
            self.pushes.push_back((entry.0, None));
        }
    }

    /// The other side's records below some prefixes, against those here.
    fn match_up(&mut self, prefixes: &[Prefix], entries: Vec<(SessionId, u64)>, table: &impl Table) {
        let theirs: BTreeMap<SessionId, u64> = entries.into_iter().collect();
        for prefix in prefixes {
            let mut absent = Vec::new();
            self.summary.visit(*prefix, None, Listed::Digests, |below| {
                absent.extend(below.iter().filter(|entry| !theirs.contains_key(&entry.0)).copied());
                ControlFlow::Continue(())
            });
            for entry in absent {
                self.give(entry);
            }
        }
        for (id, digest) in theirs {
            let mine = self.summary.below(Prefix::new(id.prefix_bits(), Prefix::MAX_DEPTH));
            let is_same =
                mine.contains(&(id, digest)) || self.views_differ && lacked((id, digest), table).is_none();
            if is_same && !mutated!(PassSendsAll) {
                continue;
            }
            self.stats.differed += 1;
            self.theirs.insert(id, digest);
            self.wants.push_back(id);
        }
    }

    /// A record that the other side had otherwise: join it, and send the result back if the other
    /// side lacks something of it.
    fn pull(
        &mut self,
        record: RecordUpdate,
        table: &impl Table,
        clock: &HybridClock,
        now: Now,
        note: &impl Fn(&SessionId, &Record),
    ) {
        let id = record.id;
        let their_version = match &record.difference {
            Difference::State(state) => Some(state.version.clone()),
            Difference::Ended(_) => None,
        };
        self.stats.pulled += 1;
        apply(table, clock, record, now, note);
        let Some(their_digest) = self.theirs.remove(&id) else {
            // A stray of theirs that is over: they must hear of it, whoever else holds it has perhaps forgotten.
            if their_version.is_some() && is_over(&id, table) {
                self.pushes.push_back((id, None));
            }
            return;
        };
        let (digest, version) = table.read(&id, |record| match record {
            Some(record @ Record::Held(state)) => (Some(record.digest()), Some(state.version().clone())),
            Some(record) => (Some(record.digest()), None),
            None => (None, None),
        });
        if digest.is_some_and(|digest| digest != their_digest) {
            // If versions tell nothing apart, the whole record does.
            let base = their_version.filter(|base| version.is_some_and(|version| !base.covers(&version)));
            self.pushes.push_back((id, base));
        }
    }
}
