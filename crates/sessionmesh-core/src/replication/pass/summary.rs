//! A node's records, as sums by prefix.

use alloc::vec::Vec;

use crate::SessionId;
use crate::placement::Share;
use crate::replication::Table;
use crate::session::Record;
use crate::wire::{Prefix, PrefixSums};

/// The ids and digests of the records at one moment, made by one scan, for a pass with one node.
#[derive(Debug, Default)]
pub struct Summary {
    /// Of records that both should hold.
    entries: Vec<(SessionId, u64)>,
    /// Wrapping sums of the digests before each entry, and of all.
    running: Vec<u64>,
    /// Of records that the other holds and this node does not.
    strays: Vec<(SessionId, u64)>,
}

/// A summary being made, perhaps with rests in between.
#[derive(Debug, Default)]
pub struct SummaryBuilder(Summary);

impl SummaryBuilder {
    /// Adds a record, if the other node has to do with it. Records may come in any order.
    pub fn add(&mut self, id: &SessionId, record: &Record, share: Share) {
        match share {
            Share::Both => self.0.entries.push((*id, record.digest())),
            Share::Stray => self.0.strays.push((*id, record.digest())),
            Share::Neither => {}
        }
    }

    /// The summary of what was added.
    pub fn finish(self) -> Summary {
        let Summary { mut entries, mut strays, mut running } = self.0;
        // Fast for runs that are in order.
        entries.sort_by_key(|entry| entry.0);
        strays.sort_by_key(|entry| entry.0);
        let mut sum = 0u64;
        running.reserve(entries.len() + 1);
        running.push(0);
        for (_, digest) in &entries {
            sum = sum.wrapping_add(*digest);
            running.push(sum);
        }
        Summary { entries, running, strays }
    }
}

impl Summary {
    /// Of a table's records, by what `share` says of each.
    pub fn collect(table: &impl Table, mut share: impl FnMut(&SessionId, &Record) -> Share) -> Self {
        let mut summary = SummaryBuilder::default();
        table.for_each(|id, record| summary.add(id, record, share(id, record)));
        summary.finish()
    }

    /// The strays for the other node, by id.
    pub fn strays(&self) -> &[(SessionId, u64)] {
        &self.strays
    }

    /// The strays after an id.
    pub(super) fn strays_after(&self, after: Option<SessionId>) -> &[(SessionId, u64)] {
        let start = after.map_or(0, |after| self.strays.partition_point(|stray| stray.0 <= after));
        self.strays.get(start..).unwrap_or_default()
    }

    /// How many records both should hold.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn bounds(&self, prefix: Prefix) -> (usize, usize) {
        let range = prefix.range();
        let start = self.entries.partition_point(|entry| entry.0.prefix_bits() < *range.start());
        let end = self.entries.partition_point(|entry| entry.0.prefix_bits() <= *range.end());
        (start, end)
    }

    /// The records below a prefix, by id.
    pub fn below(&self, prefix: Prefix) -> &[(SessionId, u64)] {
        let (start, end) = self.bounds(prefix);
        self.entries.get(start..end).unwrap_or_default()
    }

    /// Sum and count below a prefix.
    pub fn sum(&self, prefix: Prefix) -> (u64, u64) {
        let (start, end) = self.bounds(prefix);
        let at = |index: usize| self.running.get(index).copied().unwrap_or_default();
        (at(end).wrapping_sub(at(start)), (end - start) as u64)
    }

    /// Sums and counts of a prefix's children; of the deepest, only itself as the first.
    pub fn children(&self, prefix: Prefix) -> PrefixSums {
        let mut node = PrefixSums { prefix, sums: [0; 16], counts: [0; 16] };
        for digit in 0..16u8 {
            let Some(child) = prefix.child(digit) else { break };
            let index = usize::from(digit);
            (node.sums[index], node.counts[index]) = self.sum(child);
        }
        node
    }
}
