//! What came from one peer, and what to acknowledge.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::SessionId;
use crate::wire::Ack;

/// Counts the data frames of a peer's epoch.
#[derive(Debug, Default)]
pub struct Inbox {
    epoch: u64,
    received: u64,
    due: bool,
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

    /// A data frame was applied; `partial` names its session if that is not whole here.
    pub fn applied(&mut self, partial: Option<SessionId>) {
        self.received += 1;
        self.due = true;
        if let Some(id) = partial {
            self.except.push(self.received);
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

    /// The acknowledgement to send, if one is due.
    pub fn take_ack(&mut self) -> Option<Ack> {
        if !core::mem::take(&mut self.due) {
            return None;
        }
        Some(Ack {
            epoch: self.epoch,
            upto: self.received,
            except: core::mem::take(&mut self.except),
            also: core::mem::take(&mut self.also),
        })
    }
}
