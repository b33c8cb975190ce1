//! Counters, and a snapshot of them for whoever asks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters since the node's start.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            causes: Mutex<BTreeMap<String, u64>>,
            rebalances: Mutex<VecDeque<Rebalance>>,
        }

        /// Counters since the node's start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Writes made by this node's requests.
    commits,
    /// Writes that changed nothing and were not sent.
    unchanged,
    /// Accesses that other nodes were told of.
    touches,
    /// Writes at level `one` or `all` that were answered `1 of 1`.
    alone,
    /// Writes that missed their level in time.
    level_timeouts,
    /// Writes refused because the session had ended.
    writes_after_end,
    /// Writes of other nodes that came after the session's end.
    late_deltas,
    /// Writes of other nodes that lost against writes of the same attribute that they did not know of.
    conflicts,
    /// Writes refused by a limit.
    over_limit,
    /// Sessions created here.
    created,
    /// Sessions destroyed here.
    destroyed,
    /// Sessions that this node let expire.
    expired,
    /// Requests for sessions that this node had to ask others for.
    lookups,
    /// Of those, found elsewhere.
    lookups_found,
    /// Of those, denied by every holder.
    lookups_denied,
    /// Of those, not decided in time.
    lookups_undecided,
    /// Requests whose client had seen more than was here.
    token_waits,
    /// Sessions asked for because a delta did not follow on what was here.
    pulls,
    /// Fetches answered.
    fetches_answered,
    /// Passes begun.
    passes_begun,
    /// Passes driven to their end.
    passes,
    /// Passes answered to their end.
    passes_answered,
    /// Passes that came to nothing.
    passes_failed,
    /// Records that passes driven here compared.
    pass_records_compared,
    /// Bytes that passes sent, both driven and answered.
    pass_bytes_sent,
    /// Records that passes found different or missing.
    pass_records_differed,
    /// Records that passes brought here.
    pass_records_pulled,
    /// Records that passes sent.
    pass_records_pushed,
    /// Sessions found by a copy that should have gone elsewhere by then, because no holder had them yet.
    lookups_from_strays,
    /// Copies that are not held here, sent whole to the holders.
    strays_sent,
    /// Copies that are not held here, dropped because every holder has them.
    strays_dropped,
    /// Records that passes driven here found on one side and belonging on the other.
    pass_strays,
    /// Ends of ids that nobody knew, left for a while.
    unknown_ends,
    /// Parts of sessions dropped because no node had the rest.
    parts_dropped,
    /// Ends forgotten before the horizon.
    ends_forgotten,
    /// Ends forgotten past the horizon.
    ends_aged_out,
    /// Heartbeats sent.
    heartbeats_sent,
    /// Bytes of them.
    heartbeat_bytes_sent,
    /// Heartbeats heard.
    heartbeats_heard,
    /// Heartbeats heard twice, or out of order.
    heartbeats_replayed,
    /// Questions of hosts that are no members (`session-node --diagnose`) answered.
    probes_answered,
    /// Heartbeats that could not be sent.
    heartbeats_failed,
    /// Times that secrets and certificates were loaded anew.
    secrets_reloaded,
    /// Connections that proved who they are.
    handshakes,
    /// Connections refused because too many had not yet.
    handshakes_over_limit,
    /// Connections that could not be accepted.
    accepts_failed,
    /// Times that an outbox was dropped for want of room, of members that are gone too.
    outbox_overflows,
    /// Frames that are no data, dropped for want of room, of members that are gone too.
    dropped_frames,
    /// Update closures run again because another request was faster.
    update_retries,
}

impl Counters {
    /// Counts something by its cause, in words.
    pub(crate) fn cause(&self, kind: &str, cause: &str) {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cause = format!("{kind}: {cause}");
        // Causes are few, but some carry a name or a number of a peer's.
        if causes.len() >= MAX_CAUSES && !causes.contains_key(&cause) {
            cause = format!("{kind}: other");
        }
        *causes.entry(cause).or_default() += 1;
    }

    /// Notes that sessions are where they belong again.
    pub(crate) fn rebalanced(&self, members: usize, after: Duration, gap: Duration) {
        let mut rebalances = self.rebalances.lock().unwrap_or_else(PoisonError::into_inner);
        if rebalances.len() == MAX_REBALANCES {
            rebalances.pop_front();
        }
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        rebalances.push_back(Rebalance { members, after_ms: millis(after), gap_ms: millis(gap) });
    }

    pub(crate) fn rebalances(&self) -> Vec<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    pub(crate) fn causes(&self) -> BTreeMap<String, u64> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// Causes that are counted apart.
const MAX_CAUSES: usize = 1_024;

/// One peer's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PeerStats {
    /// Its name.
    pub name: String,
    /// Bytes that wait to be sent to it.
    pub outbox_bytes: usize,
    /// Data frames that it has not acknowledged.
    pub unacked: u64,
    /// Times its outbox was dropped for want of room.
    pub outbox_overflows: u64,
    /// Frames that are no data, dropped for want of room.
    pub dropped_frames: u64,
    /// Data frames made for it.
    pub data_frames: u64,
    /// Bytes sent to it.
    pub bytes_sent: u64,
    /// Frames sent to it.
    pub frames_sent: u64,
    /// Bytes that came from it.
    pub bytes_received: u64,
    /// Frames that came from it.
    pub frames_received: u64,
    /// Acknowledgements that came from it.
    pub acks_received: u64,
    /// Links with it so far.
    pub links: u64,
}

/// Changes of the ready members of which the end is remembered.
const MAX_REBALANCES: usize = 16;

/// A change of the ready members, when all sessions were where they belong again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Rebalance {
    /// Ready members since.
    pub members: usize,
    /// Since the change.
    pub after_ms: u64,
    /// For how long some sessions had fewer copies than they should, since the lost member was last
    /// known to live. 0 if no copy was lost.
    pub gap_ms: u64,
}

/// Where sessions are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Placement {
    /// The mode, and its copies.
    pub mode: String,
    /// Ready members, this one included if it is.
    pub ready: usize,
    /// On how many of them each session is.
    pub holders: usize,
    /// On how many the mode asks for: more than `holders` if the cluster is too small for it.
    pub holders_wanted: usize,
    /// Whether this node has compared with all members since they changed.
    pub settled: bool,
    /// Copies of sessions that this node served without holding them, kept for a while.
    pub visited: usize,
    /// The newest changes of the ready members that were followed through, oldest first.
    pub rebalances: Vec<Rebalance>,
}

/// Everything that a node counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Counters since the start.
    pub counts: Counts,
    /// By cause: drops of members, rejected heartbeats, failed handshakes, misbehaviour.
    pub causes: BTreeMap<String, u64>,
    /// Per member.
    pub peers: Vec<PeerStats>,
    /// Where sessions are.
    pub placement: Placement,
    /// Records in memory: sessions, ends and parts.
    pub records: usize,
    /// Of the secrets in use: the same on every node that can be in the cluster.
    pub fingerprint: String,
    /// How far the fastest clock that wrote is ahead of this node's, in milliseconds.
    pub clock_ahead_ms: u64,
}
