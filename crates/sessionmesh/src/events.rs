//! From events to logs and counters: the one place that decides how loud something is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sessionmesh_core::placement::Mode;
use sessionmesh_core::session::EndCause;
use sessionmesh_core::{DropCause, Event, Instant};

use crate::host;
use crate::mesh::Mesh;
use crate::stats::count;

/// At most one line a second of a kind; the rest is counted and told with the next.
#[derive(Debug, Default)]
pub(crate) struct RateLimit(Mutex<HashMap<String, (Instant, u64)>>);

const INTERVAL: Duration = Duration::from_secs(1);
/// Kinds are few, but some carry a peer's name.
const MAX_KINDS: usize = 1_024;

impl RateLimit {
    /// Whether to log now, and how many of the kind were not.
    pub(crate) fn allow(&self, kind: &str) -> Option<u64> {
        let now = host::mono();
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.len() >= MAX_KINDS {
            kinds.clear();
        }
        match kinds.get_mut(kind) {
            Some((last, suppressed)) if now - *last < INTERVAL => {
                *suppressed += 1;
                None
            }
            Some((last, suppressed)) => {
                *last = now;
                Some(std::mem::take(suppressed))
            }
            None => {
                kinds.insert(kind.into(), (now, 0));
                Some(0)
            }
        }
    }
}

/// Something that a stranger or a peer did wrong, or that failed: counted by cause, logged at most
/// once a second.
pub(crate) fn fault(mesh: &Mesh, kind: &'static str, cause: &str, detail: &dyn std::fmt::Display) {
    mesh.counters.cause(kind, cause);
    if let Some(suppressed) = mesh.log.allow(&format!("{kind}: {cause}")) {
        tracing::warn!(kind, cause, %detail, suppressed, "sessionmesh: {kind}");
    }
}

pub(crate) fn log(mesh: &Mesh, event: &Event) {
    let node = &mesh.me.name;
    match event {
        Event::MemberAdmitted { boot, name, address } => {
            tracing::info!(%node, member = %name, %boot, %address, "member admitted");
        }
        Event::MemberReady { boot, name } => tracing::info!(%node, member = %name, %boot, "member ready"),
        Event::MemberLeaving { boot, name } => tracing::info!(%node, member = %name, %boot, "member leaving"),
        Event::MemberDropped { boot, name, cause } => {
            mesh.counters.cause("member dropped", drop_word(*cause));
            if *cause == DropCause::Left {
                tracing::info!(%node, member = %name, %boot, "member left");
            } else {
                tracing::warn!(%node, member = %name, %boot, cause = drop_word(*cause), "member dropped");
            }
        }
        Event::Ready { after, members } => {
            tracing::info!(%node, ?after, members, "ready: serving sessions");
        }
        Event::NotReady { reason } => tracing::info!(%node, reason, "not ready"),
        Event::ViewChanged { ready, holders, wanted } if mesh.me.mode != Mode::AllPeers => {
            if holders < wanted && mesh.routes.current().view.am_ready() {
                tracing::warn!(%node, ready, holders, wanted, "too few members: each session is on all of them");
            } else {
                tracing::info!(%node, ready, holders, "sessions move to their new holders");
            }
        }
        Event::ViewChanged { ready, .. } => tracing::debug!(%node, ready, "view changed"),
        Event::Rebalanced { after, gap } => {
            mesh.counters.rebalanced(mesh.routes.current().view.ready(), *after, *gap);
            tracing::info!(%node, ?after, redundancy_gap = ?gap, "every session is where it belongs");
        }
        Event::Doubting { late } => {
            mesh.counters.cause("doubt", "paused");
            tracing::warn!(%node, ?late, "this node was paused: asking others until all is compared");
        }
        Event::Trusting => tracing::info!(%node, "all compared after the pause"),
        Event::Refused { name, reason, detail, by_peer } => {
            let cause = format!("{reason:?}");
            mesh.counters.cause(if *by_peer { "refused by" } else { "refused" }, &cause);
            if let Some(suppressed) = mesh.log.allow(&format!("refused {name} {cause} {by_peer}")) {
                tracing::warn!(%node, other = %name, by_peer, detail, suppressed, "refused");
            }
        }
        Event::Emptied { name } => {
            mesh.counters.cause("emptied", "cut off for longer than the horizon");
            tracing::error!(%node, other = %name, "cut off for longer than the horizon, on the smaller side: all sessions here are dropped, joining anew");
        }
        Event::PassDone { boot, name } => tracing::debug!(%node, member = %name, %boot, "sessions compared"),
        Event::SessionCreated { id } => tracing::trace!(%node, ?id, "session created"),
        Event::SessionIdChanged { from, to } => tracing::trace!(%node, ?from, ?to, "session id changed"),
        Event::SessionDestroyed { id, end } => {
            match end.cause {
                EndCause::Destroyed => count(&mesh.counters.destroyed),
                EndCause::Expired => count(&mesh.counters.expired),
            }
            tracing::trace!(%node, ?id, cause = ?end.cause, "session ended");
        }
        // The enum grows with the core; what is new there still shows.
        other => tracing::debug!(%node, event = ?other, "event"),
    }
}

fn drop_word(cause: DropCause) -> &'static str {
    match cause {
        DropCause::Left => "left",
        DropCause::Refused => "connection refused",
        DropCause::Silent => "silent",
        DropCause::Unreachable => "unreachable",
        DropCause::Deaf => "does not hear this node",
        DropCause::Replaced => "replaced by a new start",
        DropCause::Misbehaved => "broke the protocol",
        DropCause::Emptied => "this node starts empty",
    }
}
