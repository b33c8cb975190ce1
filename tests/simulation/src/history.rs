//! What was asked, answered and promised: all that the oracle knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sessionmesh::simulation::Copy;
use sessionmesh::{BootId, End, SessionId, Snapshot, Token};

use crate::cluster::Node;

/// A write's number: its value says it.
pub(crate) type OpId = u64;

/// A write as versions name it: its node's newest stamp with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) boot: BootId,
    pub(crate) hlc: u64,
}

impl Stamp {
    /// The newest of a node's own in a version.
    pub(crate) fn of(boot: BootId, token: &Token) -> Option<Self> {
        let hlc = token.version().get(boot).get();
        (hlc > 0).then_some(Self { boot, hlc })
    }

    /// Whether a copy has it for good.
    fn is_kept_by(self, copy: &Copy) -> bool {
        self.is_of(copy) && !copy.idle_visit
    }

    /// Whether a copy has it, or knows that the session is over.
    fn is_of(self, copy: &Copy) -> bool {
        copy.end.is_some() || !copy.partial && copy.version.get(self.boot).get() >= self.hlc
    }

    /// Whether a node has it, or knows that the session is over.
    pub(crate) fn is_in(self, node: &Node, id: &SessionId) -> bool {
        node.cluster.copy_of(id).is_some_and(|copy| self.is_of(&copy))
    }
}

/// What became of a request that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No answer yet, or none at all: it may be there or not.
    Unknown,
    /// It was refused: it is not there.
    Refused,
    /// It is there. `promised`: it must survive while a node lives that has it.
    Done { promised: bool },
}

/// One attribute written or removed.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) attribute: String,
    /// Removals leave no value.
    pub(crate) removal: bool,
    /// What it overwrote, as its node saw it in the same moment.
    pub(crate) before: Option<OpId>,
    pub(crate) outcome: Outcome,
    pub(crate) stamp: Option<Stamp>,
}

/// One session, under one id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    pub(crate) writes: BTreeMap<OpId, Write>,
    /// A logout or a change of id was asked for: from then on it may be over.
    pub(crate) may_be_over: bool,
    /// It is over, and must never be seen again while a node lives that knows it.
    pub(crate) over: bool,
    /// Since when everybody who is connected can know it.
    pub(crate) over_since: Option<Duration>,
    /// Boots that have told that it is over.
    pub(crate) told_over: BTreeSet<BootId>,
    /// When the first of them did.
    pub(crate) told_at: Option<Duration>,
    /// A node that was cut off for longer than the horizon from one that knew its end has it, or brought it back: what
    /// comes of it when they meet is not promised.
    pub(crate) outlived_horizon: bool,
    /// The last request that found it, by virtual time.
    pub(crate) accessed_at: Duration,
    /// When a node was lost the last time and a holder had it still.
    held_at: Option<Duration>,
    pub(crate) created: Creation,
    /// Its end, as nodes told their applications, and when.
    pub(crate) announced: Vec<(BootId, End, Duration)>,
}

impl Session {
    /// A request that began then has found it.
    pub(crate) fn accessed(&mut self, at: Duration) {
        self.accessed_at = self.accessed_at.max(at);
    }

    /// Whether no node may have it.
    pub(crate) fn must_be_over(&self) -> bool {
        self.over && !self.outlived_horizon
    }

    fn forgive(&mut self, id: &SessionId, live: &[Node], now: Duration, moment: Duration) -> usize {
        let promised = |write: &&mut Write| write.outcome == (Outcome::Done { promised: true });
        let mut promises: Vec<&mut Write> = self.writes.values_mut().filter(promised).collect();
        if promises.is_empty() && !self.created.promised && !self.over {
            return 0;
        }
        let mut copies: Vec<Copy> = live.iter().filter_map(|node| node.cluster.copy_of(id)).collect();
        // What is left with one who does not hold it goes as soon as it hears that they have it, who died in the same
        // moment.
        if copies.iter().any(|copy| copy.belongs) {
            self.held_at = Some(now);
        } else if self.held_at.is_some_and(|at| now - at <= moment) {
            copies.retain(|copy| copy.end.is_some());
        }
        let lost = |stamp: Option<Stamp>| {
            stamp.is_none_or(|stamp| !copies.iter().any(|copy| stamp.is_kept_by(copy)))
        };
        promises.retain(|write| lost(write.stamp));
        let mut forgiven = promises.len();
        for write in promises {
            write.outcome = Outcome::Done { promised: false };
        }
        if self.created.promised && lost(self.created.stamp) {
            self.created.promised = false;
            forgiven += 1;
        }
        if self.over && !copies.iter().any(|copy| copy.end.is_some()) {
            self.over = false;
            forgiven += 1;
        }
        forgiven
    }
}

/// Whether a session's creation was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Creation {
    pub(crate) promised: bool,
    pub(crate) stamp: Option<Stamp>,
}

/// What a client knows of a session by its last answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) id: Option<SessionId>,
    /// What it shows to the next node.
    pub(crate) token: Token,
    /// The writes that it saw, by attribute; `None`: it saw that there is nothing.
    pub(crate) writes: BTreeMap<String, Option<OpId>>,
}

impl Seen {
    /// By a read.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let writes = snapshot.iter().map(|(name, value)| (name.to_owned(), op_of(value))).collect();
        Self { id: Some(snapshot.id()), token: snapshot.token(), writes }
    }

    /// By a write of its own.
    pub(crate) fn written(id: SessionId, token: &Token, attribute: String, op: Option<OpId>) -> Self {
        Self { id: Some(id), token: token.clone(), writes: [(attribute, op)].into() }
    }
}

/// Everything that was asked.
#[derive(Debug, Default)]
pub(crate) struct History {
    next: OpId,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    emptied: BTreeSet<BootId>,
    /// What was found wrong.
    pub(crate) violations: Vec<String>,
    /// Of these, not yet in the log.
    pub(crate) fresh: Vec<String>,
}

impl History {
    pub(crate) fn next_op(&mut self) -> OpId {
        self.next += 1;
        self.next
    }

    pub(crate) fn session(&mut self, id: &SessionId) -> &mut Session {
        self.sessions.entry(*id).or_default()
    }

    pub(crate) fn violated(&mut self, invariant: &str, detail: impl std::fmt::Display) {
        let violation = format!("{invariant}: {detail}");
        // What stays wrong is found again and again.
        if !self.violations.contains(&violation) {
            self.fresh.push(violation.clone());
            self.violations.push(violation);
        }
    }

    /// A node has forgotten everything, ends too.
    pub(crate) fn emptied(&mut self, boot: BootId) {
        self.emptied.insert(boot);
        for session in self.sessions.values_mut() {
            session.told_over.remove(&boot);
        }
    }

    /// The nodes that were on the smaller side of a cut longer than the horizon: what they had written may be gone.
    pub(crate) fn emptied_nodes(&self) -> &BTreeSet<BootId> {
        &self.emptied
    }

    /// Forgives what no live node has.
    ///
    /// `moment`: those who are lost within it are lost at once, as others see it.
    pub(crate) fn forgive(&mut self, live: &[Node], now: Duration, moment: Duration) -> usize {
        self.sessions.iter_mut().map(|(id, session)| session.forgive(id, live, now, moment)).sum()
    }

    /// The same of one session.
    pub(crate) fn forgive_of(
        &mut self,
        id: &SessionId,
        live: &[Node],
        now: Duration,
        moment: Duration,
    ) -> usize {
        self.session(id).forgive(id, live, now, moment)
    }
}

/// A value that says which write it is.
pub(crate) fn value(op: OpId, bytes: usize) -> Vec<u8> {
    let mut value = op.to_be_bytes().to_vec();
    value.resize(bytes.max(8), op as u8);
    value
}

/// Which write a value is of; `None` if it is of none.
pub(crate) fn op_of(value: &[u8]) -> Option<OpId> {
    let (op, padding) = value.split_first_chunk::<8>()?;
    let op = OpId::from_be_bytes(*op);
    padding.iter().all(|byte| *byte == op as u8).then_some(op)
}
