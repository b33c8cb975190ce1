//! G2: a client that shows the token of its last answer sees nothing older on any node, unless it is told.
//! Judged by what is in the answers, not by versions.

use std::collections::BTreeSet;

use sessionmesh::{BootId, SessionId, Snapshot};

use super::durability::ancestors;
use crate::cluster::{Node, Run};
use crate::history::{OpId, Outcome, Seen, Stamp, op_of};

pub(crate) fn check(run: &Run, id: &SessionId, boot: BootId, seen: &Seen, now: &Snapshot) {
    if seen.id.is_none() {
        return;
    }
    run.count("reads with a token");
    let mut older = Vec::new();
    // A visitor that dropped its copy when all holders had it, and writes the session again when all of them are
    // dead: its version says that it has what only they had.
    let written_over = |stamp: Option<Stamp>, attribute: &str, ancestors: &BTreeSet<OpId>| {
        let survives = |node: &Node| {
            let there = node.cluster.values_of(id).get(attribute).and_then(|value| op_of(value));
            there.is_some_and(|there| !ancestors.contains(&there))
        };
        run.scenario().backup_only
            && stamp.is_some_and(|stamp| now.version().get(stamp.boot).get() > stamp.hlc)
            && !run.nodes().iter().any(survives)
    };
    run.history(|history| {
        let emptied = history.emptied_nodes().clone();
        let session = history.session(id);
        for (attribute, op) in &seen.writes {
            let stamp = op.and_then(|op| session.writes.get(&op)?.stamp);
            if stamp.is_some_and(|stamp| emptied.contains(&stamp.boot)) {
                continue;
            }
            let there = now.get(attribute).and_then(op_of);
            match (op, there) {
                (Some(op), Some(there)) => {
                    let ancestors = ancestors(session, *op);
                    if ancestors.contains(&there) && !written_over(stamp, attribute, &ancestors) {
                        older.push(format!("{attribute}: {there}, which {op} had overwritten"));
                    }
                }
                (Some(op), None) => {
                    // Only a removal can have done it.
                    let removed = session.writes.values().any(|write| {
                        write.removal && write.attribute == *attribute && write.outcome != Outcome::Refused
                    });
                    if !removed {
                        older.push(format!("{attribute}: nothing, where {op} was seen"));
                    }
                }
                _ => {}
            }
        }
    });
    for older in older {
        run.history(|history| {
            history.violated("monotonic", format_args!("{id:?} on {boot} with a token: {older}"));
        });
    }
}
