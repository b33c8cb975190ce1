//! G2: a client that shows the token of its last answer sees nothing older on any node, unless it is told.
//! Judged by what is in the answers, not by versions.

use sessionmesh::{BootId, SessionId, Snapshot};

use super::durability::ancestors;
use crate::cluster::Run;
use crate::history::{Outcome, Seen, op_of};

pub(crate) fn check(run: &Run, id: &SessionId, boot: BootId, seen: &Seen, now: &Snapshot) {
    if seen.id.is_none() {
        return;
    }
    run.count("reads with a token");
    let mut older = Vec::new();
    run.history(|history| {
        let emptied = history.emptied_nodes().clone();
        let session = history.session(id);
        for (attribute, op) in &seen.writes {
            let writer = op.and_then(|op| session.writes.get(&op)?.stamp).map(|stamp| stamp.boot);
            if writer.is_some_and(|boot| emptied.contains(&boot)) {
                continue;
            }
            let there = now.get(attribute).and_then(|value| op_of(value));
            match (op, there) {
                (Some(op), Some(there)) if ancestors(session, *op).contains(&there) => {
                    older.push(format!("{attribute}: {there}, which {op} had overwritten"));
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
