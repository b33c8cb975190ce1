//! G4: what passes move is bounded by what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sessionmesh::{BootId, EndCause, NodeName, SessionId};

use crate::cluster::Run;

/// What each link may move though nothing differs.
const SLACK_BYTES: usize = 64 << 10;
/// How often what differs may be moved.
const TIMES: usize = 3;

/// What it costs to say that a copy is there that belongs elsewhere: once in each view on the way.
const OFFER_BYTES: usize = 32;

/// By session: how long its record is, and over what holders must agree.
type Records = BTreeMap<SessionId, (usize, u64)>;

/// When all requests have been answered, and everything is about to be well.
pub(crate) struct Before {
    at: Duration,
    sent: BTreeMap<BootId, u64>,
    views: BTreeMap<BootId, u64>,
    records: Vec<(NodeName, Records)>,
}

impl Before {
    /// Notes who has what. What a pass moves that runs already differed when that began.
    pub(crate) fn note(run: &Run) -> Option<Self> {
        if is_comparing(run) {
            return None;
        }
        let records = run.nodes().into_iter().map(|node| {
            let mut records = Records::new();
            node.cluster.for_each_encoded(|id, bytes, digest| _ = records.insert(*id, (bytes, digest)));
            (node.cluster.name().clone(), records)
        });
        Some(Self { at: run.elapsed(), sent: sent(run), views: views(run), records: records.collect() })
    }

    /// All hold the same again.
    pub(crate) fn check(&self, run: &Run) {
        // Whoever starts or leaves later moves what did not differ.
        if run.has_lost_a_node_since(self.at) || run.nodes().len() != self.records.len() {
            return;
        }
        run.count("heals whose bytes were counted");
        let since = sent(run).into_iter().map(|(boot, bytes)| bytes - self.sent.get(&boot).unwrap_or(&0));
        let (bytes, most): (u64, u64) = (since.sum(), self.most(run));
        if bytes > most {
            run.history(|history| {
                history.violated("transfer", format_args!("passes moved {bytes} bytes, not at most {most}"));
            });
        }
    }

    /// Sessions that some node has let expire since: all of them at once, if it stood still meanwhile.
    fn expired_since(&self, run: &Run) -> BTreeSet<SessionId> {
        let mut expired = BTreeSet::new();
        for node in run.nodes() {
            let here = self.records.iter().find(|(name, _)| name == node.cluster.name());
            let was = |id: &SessionId| here.and_then(|(_, records)| records.get(id)).map(|record| record.1);
            let mut over = Vec::new();
            node.cluster.for_each_end(|id, end| over.extend((end == Some(EndCause::Expired)).then_some(*id)));
            expired.extend(over.into_iter().filter(|id| node.cluster.digest_of(id) != was(id)));
        }
        expired
    }

    /// What all links may move.
    fn most(&self, run: &Run) -> u64 {
        let Some(node) = run.nodes().into_iter().next() else { return 0 };
        let expired = self.expired_since(run);
        let mut holders: BTreeMap<SessionId, Vec<NodeName>> = BTreeMap::new();
        for id in self.records.iter().flat_map(|(_, records)| records.keys()) {
            holders.entry(*id).or_insert_with(|| run.host(node.host).run(|| node.cluster.holders(id)));
        }
        // Members come back one by one, and a copy stays where it is until all its holders have it.
        let since = views(run).into_iter().map(|(boot, serial)| serial - self.views.get(&boot).unwrap_or(&0));
        let views = usize::try_from(since.max().unwrap_or(0)).unwrap_or(usize::MAX).max(1);
        let offer = if run.scenario().backup_only { OFFER_BYTES * views } else { 0 };
        let mut most = 0;
        for (index, (one, here)) in self.records.iter().enumerate() {
            for (two, there) in &self.records[index + 1..] {
                let ids: BTreeSet<&SessionId> = here.keys().chain(there.keys()).collect();
                let cost =
                    |id: &SessionId| {
                        let held = [one, two].map(|name| holders[id].contains(name));
                        match (here.get(id), there.get(id)) {
                            // Between two that do not hold it nothing moves.
                            _ if held == [false, false] => 0,
                            (Some(a), Some(b)) if a.1 == b.1 && !expired.contains(id) => {
                                if held == [true, true] { 0 } else { offer }
                            }
                            (a, b) => TIMES * a.map_or(0, |a| a.0).max(b.map_or(0, |b| b.0)) + offer,
                        }
                    };
                most += ids.into_iter().map(cost).sum::<usize>() + SLACK_BYTES;
            }
        }
        most as u64
    }
}

fn is_comparing(run: &Run) -> bool {
    run.nodes().iter().any(|node| {
        let counts = run.host(node.host).run(|| node.cluster.stats()).counts;
        counts.passes_begun > counts.passes + counts.passes_failed
    })
}

fn sent(run: &Run) -> BTreeMap<BootId, u64> {
    let nodes = run.nodes();
    let sent = |node: &crate::cluster::Node| run.host(node.host).run(|| node.cluster.stats());
    nodes.iter().map(|node| (node.boot, sent(node).counts.pass_bytes_sent)).collect()
}

fn views(run: &Run) -> BTreeMap<BootId, u64> {
    run.nodes().iter().map(|node| (node.boot, node.cluster.inspect().view_serial)).collect()
}
