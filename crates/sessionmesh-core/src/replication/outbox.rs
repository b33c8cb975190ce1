//! What waits to be sent to one peer, and who waits for its acknowledgement.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::inbox::Inbox;
use super::pass::WINDOW;
use crate::membership::PassRole;
use crate::wire::{Ack, Frame, PeerMisbehaved};
use crate::{Instant, mutated};

/// The stream to one peer; `W` is whatever the driver wants back when a frame is acknowledged.
///
/// Data frames are counted within an epoch and acknowledged cumulatively. A new link or an overflow
/// begins a new epoch; waits of the old one end with the next pass, which brings the peer
/// everything, or when the driver gives up on them.
///
/// Data that nobody waits for goes together, once in a [`rest`]: what a write costs is mostly the call, the
/// record around it and the other side's wake-up. The first after a pause goes at once.
#[derive(Debug)]
pub struct Outbox<W> {
    limit_bytes: usize,
    open: bool,
    overflowed: bool,
    epoch: u64,
    announce: bool,
    appended: u64,
    acked: u64,
    control: VecDeque<Bytes>,
    data: VecDeque<Bytes>,
    bulk: VecDeque<Bytes>,
    queued_bytes: usize,
    /// Of control frames and passes.
    other_bytes: usize,
    waits: VecDeque<(u64, W)>,
    excepted: BTreeMap<u64, W>,
    orphans: Vec<W>,
    covered: [Vec<W>; 2],
    /// Data was dropped, and no pass has begun since; and of each role, whether the pass that runs brings it.
    uncompared: bool,
    comparing: [bool; 2],
    progress_at: Instant,
    stats: OutboxStats,
    /// Somebody waits for some of the data.
    awaited: bool,
    told: Told,
    /// When data was handed over the last time.
    filled_at: Instant,
    /// It was much: there will be more, and the writer looks for it when the rest is over, without being told.
    expects: bool,
}

/// Data that nobody waits for goes from a node so often, to one peer after the other.
const REST: Duration = Duration::from_millis(1);
/// More often in larger clusters: what is lost with a node is to be little.
const MAX_REST: Duration = Duration::from_millis(20);
/// So many frames handed over at once let more be expected when their rest is over.
const DENSE_FRAMES: usize = 4;
/// So much does not rest: about as much as a link writes at once.
const REST_BYTES: usize = 32 << 10;

/// What the writer knows of the data that waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    #[default]
    Nothing,
    /// There is some.
    Some,
    /// There is some that does not rest.
    Urgent,
}

/// One pass driven by each side: none of what they have on their way is refused.
const BULK_FRAMES: usize = 2 * WINDOW;

/// Counters of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxStats {
    /// Bytes waiting.
    pub queued_bytes: usize,
    /// Data frames sent or waiting, of all epochs.
    pub data_frames: u64,
    /// Bytes handed to the socket.
    pub bytes_sent: u64,
    /// Frames handed to the socket.
    pub frames_sent: u64,
    /// Times the outbox was dropped for want of room.
    pub overflows: u64,
    /// Frames that are no data, dropped for want of room.
    pub dropped_frames: u64,
    /// Data frames not yet acknowledged in this epoch.
    pub unacked: u64,
}

/// What became of a data frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It will be sent. Wake the writer.
    Queued,
    /// It will be sent with what waits already, of which the writer knows.
    Joined,
    /// There is no stream now; the pass that opens it brings what the frame says.
    Discarded,
}

/// What a call of [`Outbox::fill`] gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Something was put into the buffer.
    pub wrote: bool,
    /// The stream goes on after an overflow: a pass is due.
    pub pass_due: bool,
    /// Nothing was put there: what waits or is expected rests until then, unless something comes that does not.
    pub rests_until: Option<Instant>,
}

/// How long data that nobody waits for rests after the last that went to the same peer, in a node with so many peers: a millisecond
/// for each, 20 at most. So a node writes about once a millisecond however many there are, and one more to tell of a change
/// costs no message of its own.
pub fn rest(peers: usize) -> Duration {
    let peers = u32::try_from(peers.max(1)).unwrap_or(u32::MAX);
    REST.saturating_mul(peers).min(MAX_REST)
}

fn slot(role: PassRole) -> usize {
    match role {
        PassRole::Driver => 0,
        PassRole::Responder => 1,
    }
}

impl<W> Outbox<W> {
    /// A closed stream that may hold this many bytes of data frames.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            open: false,
            overflowed: false,
            epoch: 0,
            announce: false,
            appended: 0,
            acked: 0,
            control: VecDeque::new(),
            data: VecDeque::new(),
            bulk: VecDeque::new(),
            queued_bytes: 0,
            other_bytes: 0,
            waits: VecDeque::new(),
            excepted: BTreeMap::new(),
            orphans: Vec::new(),
            covered: [Vec::new(), Vec::new()],
            uncompared: false,
            comparing: [false; 2],
            progress_at: Instant::ZERO,
            stats: OutboxStats::default(),
            awaited: false,
            told: Told::Nothing,
            filled_at: Instant::ZERO,
            expects: false,
        }
    }

    /// A link is up: a new epoch begins.
    pub fn open(&mut self, now: Instant) {
        // The link may replace one that was never seen to end.
        self.close();
        self.begin_epoch();
        self.open = true;
        self.progress_at = now;
    }

    /// The link is gone.
    pub fn close(&mut self) {
        self.cut();
        self.control.clear();
        self.bulk.clear();
        self.other_bytes = 0;
        self.open = false;
        for role in [PassRole::Driver, PassRole::Responder] {
            self.pass_failed(role);
        }
    }

    fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.announce = true;
        self.overflowed = false;
        self.appended = 0;
        self.acked = 0;
    }

    /// Drops the data that waits; who waits for it waits for a pass now.
    fn cut(&mut self) {
        self.uncompared |= self.open;
        self.data.clear();
        self.queued_bytes = 0;
        (self.awaited, self.told) = (false, Told::Nothing);
        self.orphans.extend(self.waits.drain(..).map(|(_, wait)| wait));
        self.orphans.extend(core::mem::take(&mut self.excepted).into_values());
    }

    /// Adds a data frame. Never waits for room: past the limit the stream is cut, and goes on with a
    /// pass once the peer reads again.
    pub fn append(&mut self, frame: &Bytes, wait: Option<W>, now: Instant) -> Appended {
        if self.open
            && !self.overflowed
            && self.queued_bytes + frame.len() > self.limit_bytes
            && !mutated!(OverflowIgnored)
        {
            self.cut();
            self.overflowed = true;
            self.stats.overflows += 1;
        }
        if !self.open || self.overflowed {
            self.orphans.extend(wait);
            return Appended::Discarded;
        }
        if self.acked == self.appended {
            self.progress_at = now;
        }
        self.appended += 1;
        self.stats.data_frames += 1;
        self.queued_bytes += frame.len();
        self.data.push_back(frame.clone());
        if let Some(wait) = wait {
            self.waits.push_back((self.appended, wait));
            self.awaited = true;
        }
        let tell = if self.is_urgent() { Told::Urgent } else { Told::Some };
        if tell > self.told {
            self.told = tell;
            Appended::Queued
        } else {
            Appended::Joined
        }
    }

    /// Whether the data that waits does not rest.
    fn is_urgent(&self) -> bool {
        self.awaited || self.queued_bytes >= REST_BYTES.min(self.limit_bytes / 2)
    }

    /// Until when all that waits rests.
    fn rests_until(&self, inbox: &Inbox, now: Instant, rest: Duration) -> Option<Instant> {
        let other = !self.control.is_empty() || !self.bulk.is_empty() || self.announce || self.overflowed;
        let nothing = self.data.is_empty() && !self.expects;
        let goes = nothing || self.is_urgent() || other || inbox.is_due();
        let until = self.filled_at + rest;
        (!goes && now < until).then_some(until)
    }

    /// Adds a frame that goes before all data. Past the limit it is dropped and counted: whoever waits
    /// for it runs into a time-out.
    pub fn push_control(&mut self, frame: Bytes) {
        if self.has_room(&frame) {
            self.control.push_back(frame);
        }
    }

    /// Adds a frame of a pass: goes after the data, so that a transfer does not delay it. As many as
    /// two passes have on their way always find room, or a pass with large sessions would never end;
    /// beyond, the limit is that of control frames.
    pub fn push_bulk(&mut self, frame: Bytes) {
        if self.open && self.bulk.len() < BULK_FRAMES {
            self.other_bytes += frame.len();
            self.bulk.push_back(frame);
        } else if self.has_room(&frame) {
            self.bulk.push_back(frame);
        }
    }

    fn has_room(&mut self, frame: &Bytes) -> bool {
        if !self.open {
            return false;
        }
        let room = self.other_bytes + frame.len() <= self.limit_bytes;
        if room {
            self.other_bytes += frame.len();
        } else {
            self.stats.dropped_frames += 1;
        }
        room
    }

    /// Forgets waits that nobody waits for any more.
    pub fn prune_waits(&mut self, abandoned: impl Fn(&W) -> bool) {
        self.waits.retain(|(_, wait)| !abandoned(wait));
        self.excepted.retain(|_, wait| !abandoned(wait));
        self.orphans.retain(|wait| !abandoned(wait));
        for covered in &mut self.covered {
            covered.retain(|wait| !abandoned(wait));
        }
    }

    /// Moves what waits and does not rest into the socket's buffer, up to about `room` bytes; the inbox's acknowledgement
    /// goes first, if it is due or anything else goes. What rests does so for `rest` after the last that went.
    pub fn fill(
        &mut self,
        inbox: &mut Inbox,
        buffer: &mut BytesMut,
        room: usize,
        now: Instant,
        rest: Duration,
    ) -> Filled {
        let before = buffer.len();
        let rests_until = self.rests_until(inbox, now, rest);
        let mut filled = Filled { rests_until, ..Filled::default() };
        if rests_until.is_some() {
            self.told = Told::Some;
            return filled;
        }
        if self.overflowed {
            self.begin_epoch();
            filled.pass_due = true;
        }
        let mut put = |buffer: &mut BytesMut, frame: &[u8]| {
            buffer.put_slice(frame);
            self.stats.frames_sent += 1;
        };
        let waits = [&self.control, &self.data, &self.bulk].iter().any(|queue| !queue.is_empty());
        if let Some(ack) = inbox.take_ack(waits || self.announce) {
            put(buffer, &Frame::Ack(ack).encode());
        }
        if core::mem::take(&mut self.announce) {
            put(buffer, &Frame::Epoch(self.epoch).encode());
        }
        while let Some(frame) = self.control.pop_front() {
            self.other_bytes -= frame.len();
            put(buffer, &frame);
        }
        let waiting = self.data.len();
        if waiting > 0 {
            self.filled_at = now;
        }
        while buffer.len() - before < room {
            if let Some(frame) = self.data.pop_front() {
                self.queued_bytes -= frame.len();
                put(buffer, &frame);
            } else if let Some(frame) = self.bulk.pop_front() {
                self.other_bytes -= frame.len();
                put(buffer, &frame);
            } else {
                break;
            }
        }
        if self.data.is_empty() {
            // What others wait for has no rest of its own to look forward to.
            self.expects = waiting >= DENSE_FRAMES && !self.awaited;
            (self.awaited, self.told) = (false, Told::Nothing);
        }
        let wrote = buffer.len() - before;
        self.stats.bytes_sent += wrote as u64;
        filled.wrote = wrote > 0;
        filled
    }

    /// Takes an acknowledgement; gives back the waits that it ends.
    ///
    /// # Errors
    /// It names frames that were never sent.
    pub fn acknowledge(&mut self, ack: &Ack, now: Instant) -> Result<Vec<W>, PeerMisbehaved> {
        if ack.epoch > self.epoch {
            return Err(PeerMisbehaved::Invalid("ack epoch"));
        }
        if ack.epoch < self.epoch && !mutated!(AckAcrossEpochs) {
            return Ok(Vec::new());
        }
        if ack.upto > self.appended && !mutated!(AckAcrossEpochs) {
            return Err(PeerMisbehaved::Invalid("ack"));
        }
        if ack.upto > self.acked {
            self.acked = ack.upto;
            self.progress_at = now;
        }
        let mut ended = Vec::new();
        while let Some((sequence, _)) = self.waits.front()
            && *sequence <= ack.upto
        {
            if let Some((sequence, wait)) = self.waits.pop_front() {
                if ack.except.contains(&sequence) {
                    self.excepted.insert(sequence, wait);
                } else {
                    ended.push(wait);
                }
            }
        }
        ended.extend(ack.also.iter().filter_map(|sequence| self.excepted.remove(sequence)));
        Ok(ended)
    }

    /// A pass begins: it will bring the peer all that is lost by now.
    pub fn pass_began(&mut self, role: PassRole) {
        let orphans = core::mem::take(&mut self.orphans);
        if let Some(covered) = self.covered.get_mut(slot(role)) {
            covered.extend(orphans);
        }
        if let Some(comparing) = self.comparing.get_mut(slot(role)) {
            *comparing |= core::mem::take(&mut self.uncompared);
        }
    }

    /// A pass is done; gives back the waits that it ends.
    pub fn pass_done(&mut self, role: PassRole) -> Vec<W> {
        self.comparing.get_mut(slot(role)).map(core::mem::take);
        self.covered.get_mut(slot(role)).map(core::mem::take).unwrap_or_default()
    }

    /// A pass came to nothing.
    pub fn pass_failed(&mut self, role: PassRole) {
        self.uncompared |= self.comparing.get(slot(role)).is_some_and(|comparing| *comparing);
        let covered = self.pass_done(role);
        self.orphans.extend(covered);
    }

    /// The peer is gone: gives back all waits.
    pub fn desert(&mut self) -> Vec<W> {
        self.close();
        core::mem::take(&mut self.orphans)
    }

    /// For how long data has waited for an acknowledgement without any progress.
    pub fn stalled_since(&self) -> Option<Instant> {
        (self.open && self.acked < self.appended).then_some(self.progress_at)
    }

    /// Whether everything sent has been applied by the peer, but for what it [may refuse](super::Taken::Not).
    pub fn is_drained(&self, may_refuse: impl Fn(&W) -> bool) -> bool {
        let lost = !self.orphans.is_empty() || self.covered.iter().any(|covered| !covered.is_empty());
        let excepted = self.excepted.values().any(|wait| !may_refuse(wait));
        let uncompared = self.uncompared || self.comparing.contains(&true);
        self.open && !self.overflowed && !uncompared && !lost && self.acked == self.appended && !excepted
    }

    /// Whether there is a link.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// The counters.
    pub fn stats(&self) -> OutboxStats {
        OutboxStats { queued_bytes: self.queued_bytes, unacked: self.appended - self.acked, ..self.stats }
    }
}
