//! A node's records, as sums by prefix.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{ControlFlow, RangeInclusive};

use crate::SessionId;
use crate::placement::Share;
use crate::replication::Table;
use crate::session::Record;
use crate::wire::{Prefix, PrefixSums};

/// A record that both should hold, and its digest.
pub type Entry = (SessionId, u64);

/// What one part of the ids comes to, for a pass with one node. It stays right until a record of the part, or who
/// holds it, changes.
#[derive(Clone, Debug, Default)]
pub struct PartSum {
    /// The wrapping sum of the digests of records that both should hold, and how many these are.
    sum: u64,
    count: u64,
    /// Records that the other holds and this node does not.
    strays: Vec<Entry>,
}

impl PartSum {
    /// Of about so many records, not summed up: for one who has none.
    pub fn uncompared(count: u64) -> Self {
        Self { count, ..Self::default() }
    }

    /// Adds a record, if the other node has to do with it. Records may come in any order.
    pub fn add(&mut self, id: &SessionId, record: &Record, share: Share) {
        match share {
            Share::Both => {
                self.sum = self.sum.wrapping_add(record.digest());
                self.count += 1;
            }
            Share::Stray => self.strays.push((*id, record.digest())),
            Share::Neither => {}
        }
    }
}

/// The records of one part, by id.
#[derive(Debug, Default)]
struct Listing {
    /// With digests that mean something if these were asked for.
    entries: Vec<Entry>,
    with: Listed,
    /// Wrapping sums of the digests before each entry, and of all.
    running: Vec<u64>,
}

impl Listing {
    fn new(mut entries: Vec<Entry>, with: Listed) -> Self {
        // Fast for runs that are in order.
        entries.sort_by_key(|entry| entry.0);
        let mut running = Vec::with_capacity(entries.len() + 1);
        let mut sum = 0u64;
        running.push(0);
        for (_, digest) in &entries {
            sum = sum.wrapping_add(*digest);
            running.push(sum);
        }
        Self { entries, with, running }
    }

    fn bounds(&self, prefix: Prefix) -> (usize, usize) {
        let range = prefix.range();
        let start = self.entries.partition_point(|entry| entry.0.prefix_bits() < *range.start());
        let end = self.entries.partition_point(|entry| entry.0.prefix_bits() <= *range.end());
        (start, end)
    }

    fn below(&self, prefix: Prefix) -> &[Entry] {
        let (start, end) = self.bounds(prefix);
        self.entries.get(start..end).unwrap_or_default()
    }

    fn sum(&self, prefix: Prefix) -> (u64, u64) {
        let (start, end) = self.bounds(prefix);
        let at = |index: usize| self.running.get(index).copied().unwrap_or_default();
        (at(end).wrapping_sub(at(start)), (end - start) as u64)
    }
}

/// What a list of records is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listed {
    /// To send them: digests may be left 0.
    #[default]
    Ids,
    /// To compare them.
    Digests,
}

/// Lists the records of one part that both should hold.
type List = Box<dyn Fn(usize, Listed) -> Vec<Entry> + Send + Sync>;

/// The records that two nodes compare in a pass: sums of all parts, and a list of each in which they differ.
pub struct Summary {
    parts: Vec<PartSum>,
    /// Of the parts that were listed.
    listings: Vec<Option<Listing>>,
    list: List,
    /// How many digits the prefix of a part has.
    depth: u8,
    strays: Vec<Entry>,
}

impl fmt::Debug for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Summary")
            .field("len", &self.len())
            .field("strays", &self.strays.len())
            .finish_non_exhaustive()
    }
}

impl Summary {
    /// From the sums of all parts, in the order of the ids: 1, or one for each prefix of 1 or of 2 digits. `list` is
    /// called at most once for each part and what it is for, when the two sides differ there; what has changed since the
    /// sum was taken makes no difference to what the pass achieves.
    ///
    /// # Panics
    /// With another number of parts.
    pub fn new(
        parts: Vec<PartSum>,
        list: impl Fn(usize, Listed) -> Vec<Entry> + Send + Sync + 'static,
    ) -> Self {
        assert!(matches!(parts.len(), 1 | 16 | 256), "{} parts, not 1, 16 or 256", parts.len());
        let depth = (parts.len().ilog2() / 4) as u8;
        let mut strays: Vec<Entry> = parts.iter().flat_map(|part| &part.strays).copied().collect();
        strays.sort_unstable();
        let listings = parts.iter().map(|_| None).collect();
        Self { parts, listings, list: Box::new(list), depth, strays }
    }

    /// Of a table's records as they are now, by what `share` says of each: in one part.
    pub fn collect(table: &impl Table, mut share: impl FnMut(&SessionId, &Record) -> Share) -> Self {
        let (mut part, mut entries) = (PartSum::default(), Vec::new());
        table.for_each(|id, record| {
            let share = share(id, record);
            part.add(id, record, share);
            if share == Share::Both {
                entries.push((*id, record.digest()));
            }
        });
        Self::new(alloc::vec![part], move |_, _| entries.clone())
    }

    /// The strays for the other node, by id.
    pub fn strays(&self) -> &[Entry] {
        &self.strays
    }

    /// The strays after an id.
    pub(super) fn strays_after(&self, after: Option<SessionId>) -> &[Entry] {
        let start = after.map_or(0, |after| self.strays.partition_point(|stray| stray.0 <= after));
        self.strays.get(start..).unwrap_or_default()
    }

    /// How many records both should hold.
    pub fn len(&self) -> u64 {
        self.parts.iter().map(|part| part.count).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many digits of a prefix tell the part: below such a one the records are listed.
    pub(super) fn depth(&self) -> u8 {
        self.depth
    }

    /// The parts below a prefix, or the one that it lies in.
    fn parts(&self, prefix: Prefix) -> RangeInclusive<usize> {
        let part = |bits: u64| usize::from((bits >> 56) as u8) * self.parts.len() / 256;
        let range = prefix.range();
        part(*range.start())..=part(*range.end())
    }

    fn listing(&mut self, part: usize, with: Listed) -> &Listing {
        let Some(listing) = self.listings.get_mut(part) else {
            return const { &Listing { entries: Vec::new(), with: Listed::Digests, running: Vec::new() } };
        };
        if listing.as_ref().is_some_and(|listing| listing.with < with) {
            *listing = None;
        }
        listing.get_or_insert_with(|| Listing::new((self.list)(part, with), with))
    }

    /// The records below a prefix and after an id, by id: those of one part after the other, until told to stop.
    pub(super) fn visit(
        &mut self,
        prefix: Prefix,
        after: Option<SessionId>,
        with: Listed,
        mut f: impl FnMut(&[Entry]) -> ControlFlow<()>,
    ) {
        let first =
            after.map_or(0, |after| *self.parts(Prefix::new(after.prefix_bits(), Prefix::MAX_DEPTH)).start());
        for part in self.parts(prefix) {
            if part < first {
                continue;
            }
            let below = self.listing(part, with).below(prefix);
            let start = after.map_or(0, |after| below.partition_point(|entry| entry.0 <= after));
            if f(below.get(start..).unwrap_or_default()).is_break() {
                return;
            }
        }
    }

    /// The records below a prefix of which all lie in one part, by id.
    pub(super) fn below(&mut self, prefix: Prefix) -> &[Entry] {
        let part = *self.parts(prefix).start();
        self.listing(part, Listed::Digests).below(prefix)
    }

    /// Sum and count below a prefix.
    pub fn sum(&mut self, prefix: Prefix) -> (u64, u64) {
        let parts = self.parts(prefix);
        if prefix.depth > self.depth {
            return self.listing(*parts.start(), Listed::Digests).sum(prefix);
        }
        let parts = self.parts.get(parts).unwrap_or_default();
        parts.iter().fold((0, 0), |(sum, count), part| (sum.wrapping_add(part.sum), count + part.count))
    }

    /// Sums and counts of a prefix's children; of the deepest, only itself as the first.
    pub fn children(&mut self, prefix: Prefix) -> PrefixSums {
        let mut node = PrefixSums { prefix, sums: [0; 16], counts: [0; 16] };
        for digit in 0..16u8 {
            let Some(child) = prefix.child(digit) else { break };
            let index = usize::from(digit);
            (node.sums[index], node.counts[index]) = self.sum(child);
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_parts(count: usize) -> Summary {
        let entries = move |part: usize, _| {
            let id = |n: u64| {
                SessionId::from_bytes(
                    [n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(); 2].concat().try_into().unwrap(),
                )
            };
            let all = (0..1_000).map(|n| (id(n), n.wrapping_mul(0xd134_2543_de82_ef95)));
            all.filter(|(id, _)| usize::from(id.as_bytes()[0]) * count / 256 == part).collect::<Vec<Entry>>()
        };
        let parts = (0..count).map(|part| {
            let entries = entries(part, Listed::Digests);
            let sum = entries.iter().fold(0u64, |sum, entry| sum.wrapping_add(entry.1));
            PartSum { sum, count: entries.len() as u64, strays: Vec::new() }
        });
        Summary::new(parts.collect(), entries)
    }

    #[test]
    fn in_however_many_parts_it_comes_to_the_same() {
        let mut summaries = [1, 16, 256].map(in_parts);
        let prefixes =
            [(0, 0), (5 << 60, 1), (0x5a << 56, 2), (0x5a3 << 52, 3), (0x5a37 << 48, 4), (u64::MAX, 16)];
        for prefix in prefixes.map(|(bits, depth)| Prefix::new(bits, depth)) {
            let [one, sixteen, many] = summaries.each_mut().map(|summary| {
                let mut entries = Vec::new();
                summary.visit(prefix, None, Listed::Digests, |below| {
                    entries.extend_from_slice(below);
                    ControlFlow::Continue(())
                });
                let after = entries.get(entries.len() / 2).map(|entry| entry.0);
                let mut rest = Vec::new();
                summary.visit(prefix, after, Listed::Digests, |below| {
                    rest.extend_from_slice(below);
                    if rest.len() < 9 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
                rest.truncate(9);
                assert!(entries.windows(rest.len().max(1)).any(|some| some == rest) || rest.is_empty());
                (summary.sum(prefix), summary.children(prefix), entries, rest)
            });
            assert_eq!(one, sixteen);
            assert_eq!(one, many);
        }
        assert_eq!(summaries[2].len(), 1_000);
    }

    #[test]
    fn only_a_part_that_differs_is_listed() {
        let listed = alloc::sync::Arc::new(core::sync::atomic::AtomicUsize::new(0));
        let counted = listed.clone();
        let mut summary = Summary::new(alloc::vec![PartSum::default(); 256], move |_, _| {
            counted.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            Vec::new()
        });
        summary.children(Prefix::ROOT);
        summary.children(Prefix::new(0, 1));
        assert_eq!(listed.load(core::sync::atomic::Ordering::Relaxed), 0);
        summary.children(Prefix::new(0, 2));
        summary.children(Prefix::new(0, 2));
        assert_eq!(listed.load(core::sync::atomic::Ordering::Relaxed), 1);
        for with in [Listed::Ids, Listed::Ids, Listed::Digests, Listed::Ids] {
            summary.visit(Prefix::new(1 << 56, 2), None, with, |_| ControlFlow::Continue(()));
        }
        assert_eq!(listed.load(core::sync::atomic::Ordering::Relaxed), 3, "once for ids, once for digests");
    }
}
