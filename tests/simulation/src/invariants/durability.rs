//! G1: as many nodes have a write as its answer says. G1 and G5: it survives, or what overwrote it, while a node
//! lives that has it.

use std::collections::{BTreeMap, BTreeSet};

use sessionmesh::{AckLevel, Committed, EndCause, SessionId};

use super::expiry::calm;
use crate::cluster::{Node, Run};
use crate::history::{OpId, Outcome, Session, Stamp, Write, op_of};

pub(crate) fn at_acknowledgement(
    run: &Run,
    id: &SessionId,
    op: OpId,
    stamp: Option<Stamp>,
    level: AckLevel,
    committed: &Committed,
) {
    // It may have died, or forgotten everything, between the write and its answer.
    run.listen();
    if run.has_lost_a_node_lately() {
        run.lose_of(id);
    }
    let Some(stamp) = stamp.filter(|_| level != AckLevel::Async) else { return };
    let outcome = committed.outcome;
    let have = outcome.have.min(outcome.want);
    let (write, older, removals) = run.history(|history| {
        let session = history.session(id);
        let removal = |write: &&Write| write.removal && write.outcome != Outcome::Refused;
        let removals: BTreeSet<String> =
            session.writes.values().filter(removal).map(|write| write.attribute.clone()).collect();
        (session.writes.get(&op).cloned(), ancestors(session, op), removals)
    });
    // Past a gap a write is applied and the version stays: then the value itself tells, unless it is something
    // older than what was overwritten. A removal does not tell.
    let has = |node: &Node| {
        let whole = || node.cluster.copy_of(id).is_some_and(|copy| !copy.partial);
        let applied = |write: &Write| {
            let there = node.cluster.values_of(id).get(&write.attribute).and_then(|value| op_of(value));
            let removed = write.removal || removals.contains(&write.attribute);
            there.map_or(removed, |there| !older.contains(&there))
        };
        stamp.is_in(node, id) || whole() && write.as_ref().is_none_or(applied)
    };
    let nodes = run.nodes();
    // Over meanwhile: whoever had it may have handed its end on.
    if nodes.iter().any(|node| node.knows_end_of(id)) {
        return;
    }
    let found = nodes.iter().filter(|node| has(node)).count();
    // A visitor counts its own copy, and may drop it once every holder has the write.
    let writer = nodes.iter().find(|node| node.boot == stamp.boot);
    let visits = writer.is_none_or(|node| node.cluster.copy_of(id).is_none_or(|copy| !copy.belongs));
    if found + usize::from(visits) < have && !run.has_lost_a_node_lately() {
        run.history(|history| {
            history.violated(
                "durability",
                format_args!("{id:?}: {} at {level:?}, yet {found} nodes have {stamp:?}", committed.outcome),
            );
        });
    }
}

/// What is left of each session when all is well again.
pub(crate) fn at_the_end(run: &Run, left: &BTreeMap<SessionId, BTreeMap<String, Vec<u8>>>) {
    // The last accesses may have died with a node that could tell nobody, or not been told yet beyond a cut: `expiry`
    // judges whether it was early.
    let mut expired = BTreeSet::new();
    for node in run.nodes() {
        node.cluster.for_each_end(|id, end| expired.extend((end == Some(EndCause::Expired)).then_some(*id)));
    }
    let idle = run.scenario().idle;
    let now = run.elapsed();
    run.history(|history| {
        let mut lost = Vec::new();
        for (id, session) in &history.sessions {
            let rested = now.saturating_sub(session.accessed_at);
            let announced = session.announced.iter().any(|(_, end, _)| end.cause == EndCause::Expired);
            let told = !run.has_lost_a_node_since(session.accessed_at)
                && run.was_quiet(calm(run), session.accessed_at);
            let ended = (announced || expired.contains(id)) && !told;
            if session.may_be_over || rested >= idle || ended {
                continue;
            }
            let Some(values) = left.get(id) else {
                let promised =
                    session.writes.values().any(|write| write.outcome == Outcome::Done { promised: true });
                if promised || session.created.promised {
                    lost.push(format!("{id:?} is gone, though it was never ended"));
                }
                continue;
            };
            lost.extend(of_session(session, values).map(|lost| format!("{id:?}: {lost}")));
        }
        for lost in lost {
            history.violated("durability", lost);
        }
    });
}

/// A write that must be there, and what is there instead.
fn of_session<'a>(
    session: &'a Session,
    values: &'a BTreeMap<String, Vec<u8>>,
) -> impl Iterator<Item = String> + 'a {
    // Beyond a cut the session may have been used since its node let it end by idleness: of the two sides only the other
    // has it still.
    let ended_with = |stamp: Stamp| {
        session.announced.iter().any(|(boot, end, _)| {
            end.cause == EndCause::Expired && *boot == stamp.boot && end.stamp.hlc.get() >= stamp.hlc
        })
    };
    let promised = move |op: &OpId| {
        let write = &session.writes[op];
        write.outcome == Outcome::Done { promised: true } && !write.stamp.is_some_and(ended_with)
    };
    session.writes.keys().copied().filter(promised).filter_map(|op| {
        let write = &session.writes[&op];
        let there = values.get(&write.attribute).and_then(|value| op_of(value));
        match there {
            // Something older than what it overwrote itself.
            Some(there) => ancestors(session, op).contains(&there).then(|| {
                format!("{}: {op} is lost, {there} is there, which it had overwritten", write.attribute)
            }),
            None if write.removal => None,
            // Gone: only a removal can have done it.
            None => {
                let removed = session.writes.values().any(|other| {
                    other.removal && other.attribute == write.attribute && other.outcome != Outcome::Refused
                });
                (!removed).then(|| format!("{}: {op} is lost, and nothing is there", write.attribute))
            }
        }
    })
}

/// The writes that one overwrote, directly or not.
pub(super) fn ancestors(session: &Session, op: OpId) -> BTreeSet<OpId> {
    let mut ancestors = BTreeSet::new();
    let mut next = session.writes.get(&op).and_then(|write| write.before);
    while let Some(before) = next {
        if before == op || !ancestors.insert(before) {
            break;
        }
        next = session.writes.get(&before).and_then(|write| write.before);
    }
    ancestors
}
