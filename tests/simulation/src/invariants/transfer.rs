//! G4: what passes move is bounded by what differs.

use std::collections::BTreeMap;
use std::time::Duration;

use sessionmesh::{BootId, SessionId};

use crate::cluster::Run;

/// What each link may move though nothing differs.
const SLACK_BYTES: u64 = 64 << 10;
/// How often what differs may be moved.
const TIMES: u64 = 3;

/// When all requests have been answered, and everything is about to be well.
pub(crate) struct Before {
    at: Duration,
    sent: BTreeMap<BootId, u64>,
    most: u64,
}

impl Before {
    /// Notes what differs. In backup-only mode sessions move to other holders, too; and what a pass moves that
    /// runs already differed when that began.
    pub(crate) fn note(run: &Run) -> Option<Self> {
        if run.scenario().backup_only || is_comparing(run) {
            return None;
        }
        let records: Vec<BTreeMap<SessionId, (usize, u64)>> = (0..run.hosts())
            .map(|host| {
                let mut records = BTreeMap::new();
                if let Some(node) = run.node(host) {
                    node.cluster
                        .for_each_encoded(|id, bytes, digest| _ = records.insert(*id, (bytes, digest)));
                }
                records
            })
            .collect();
        let mut most = 0;
        for (index, one) in records.iter().enumerate() {
            for two in &records[index + 1..] {
                let differ = |a: Option<&(usize, u64)>, b: Option<&(usize, u64)>| match (a, b) {
                    (Some(a), Some(b)) if a.1 == b.1 => 0,
                    (a, b) => a.map_or(0, |a| a.0).max(b.map_or(0, |b| b.0)),
                };
                let here: usize = one.iter().map(|(id, record)| differ(Some(record), two.get(id))).sum();
                let there = two.iter().filter(|(id, _)| !one.contains_key(id));
                let there: usize = there.map(|(_, record)| record.0).sum();
                most += TIMES * (here + there) as u64 + SLACK_BYTES;
            }
        }
        let sent = sent(run);
        run.count("heals whose bytes were counted");
        Some(Self { at: run.elapsed(), sent, most })
    }

    /// All hold the same again.
    pub(crate) fn check(&self, run: &Run) {
        // Whoever starts or leaves later moves what did not differ.
        if run.has_lost_a_node_since(self.at) {
            return;
        }
        let since = sent(run).into_iter().map(|(boot, bytes)| bytes - self.sent.get(&boot).unwrap_or(&0));
        let bytes: u64 = since.sum();
        if bytes > self.most {
            let most = self.most;
            run.history(|history| {
                history.violated("transfer", format_args!("passes moved {bytes} bytes, not at most {most}"));
            });
        }
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
