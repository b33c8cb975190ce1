//! What came from one peer, and what to acknowledge.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::SessionId;
use crate::wire::Ack;

/// The sender is to see that its data is taken.
const MAX_OWED: u32 = 4_096;

/// What became of a data frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is applied.
    Whole,
    /// It is applied, but the rest of its session is missing: acknowledged when that has come.
    Part(SessionId),
    /// Something newer is known here, of which the sender will hear: never acknowledged.
    Not,
}

/// Counts the data frames of a peer's epoch.
#[derive(Debug, Default)]
pub struct Inbox {
    epoch: u64,
    received: u64,
    due: bool,
    /// How many are not acknowledged yet that nobody waits for.
    owed: u32,
    except: Vec<u64>,
    also: Vec<u64>,
    /// Frames that are part of a session whose rest is missing.
    partial: BTreeMap<SessionId, Vec<u64>>,
}

impl Inbox {
    /// Nothing has come.
    pub fn new() -> Self {
        Self::default()
    }

    /// The peer begins an epoch.
    pub fn begin_epoch(&mut self, epoch: u64) {
        *self = Self { epoch, ..Self::default() };
    }

    /// A data frame came. `later`: nobody waits for its acknowledgement.
    pub fn applied(&mut self, taken: Taken, later: bool) {
        self.received += 1;
        if later && self.owed < MAX_OWED {
            self.owed += 1;
        } else {
            self.due = true;
        }
        if taken != Taken::Whole {
            self.except.push(self.received);
        }
        if let Taken::Part(id) = taken {
            self.partial.entry(id).or_default().push(self.received);
        }
    }

    /// A session is whole here now.
    pub fn completed(&mut self, id: &SessionId) {
        if let Some(frames) = self.partial.remove(id) {
            self.also.extend(frames);
            self.due = true;
        }
    }

    /// Whether any session waits for its rest.
    pub fn is_incomplete(&self) -> bool {
        !self.partial.is_empty()
    }

    /// The sessions that wait for their rest.
    pub fn incomplete(&self) -> Vec<SessionId> {
        self.partial.keys().copied().collect()
    }

    /// Whether frames wait to be acknowledged together with others.
    pub fn owes(&self) -> bool {
        self.owed > 0
    }

    /// Whether an acknowledgement goes even if nothing else does.
    pub(crate) fn is_due(&self) -> bool {
        self.due
    }

    /// They have waited long enough.
    pub fn pay(&mut self) {
        self.due |= self.owes();
    }

    /// The acknowledgement to send, if one is due, or owed and `something` is sent anyway.
    pub fn take_ack(&mut self, something: bool) -> Option<Ack> {
        let goes = self.due || something && self.owes();
        if !goes {
            return None;
        }
        (self.due, self.owed) = (false, 0);
        Some(Ack {
            epoch: self.epoch,
            upto: self.received,
            except: core::mem::take(&mut self.except),
            also: core::mem::take(&mut self.also),
        })
    }
}
