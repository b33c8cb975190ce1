//! Asking other nodes for a session.
//!
//! The holders first: each has the session, or can say that there is none. If one of them can't (its
//! part has not been handed to it yet), all other nodes are asked for copies that they no longer hold.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use sessionmesh_core::placement::Mode;
use sessionmesh_core::replication::{Table, fetch};
use sessionmesh_core::session::{Record, RecordUpdate};
use sessionmesh_core::wire::{Fetch, FetchOutcome, Frame};
use sessionmesh_core::{Instant, SessionId};
use tokio::sync::oneshot;

use super::Snapshot;
use super::load::Local;
use crate::error::LoadError;
use crate::mesh::Mesh;
use crate::os;
use crate::peer::Peer;
use crate::routes::RouteTable;
use crate::stats::count;

/// A holder that has not answered for so long is not waited for alone.
const HEDGE: Duration = Duration::from_millis(5);

/// What came of asking the holders once.
enum Round {
    Decided(Option<Snapshot>),
    /// Not everybody has spoken.
    Silent {
        answered: usize,
        asked: usize,
    },
    /// Everybody has, but somebody could not tell.
    Undecided {
        answered: usize,
        asked: usize,
    },
}

impl Mesh {
    /// Asks the other holders, and decides with them. `access`: a request reads it.
    pub(crate) async fn look_up(&self, id: &SessionId, access: bool) -> Result<Option<Snapshot>, LoadError> {
        count(&self.counters.lookups);
        let _permit = self.lookups.try_acquire().map_err(|_| LoadError::Overloaded)?;
        let deadline = os::mono() + self.config.fetch_timeout;
        let lookup = LookUp { mesh: self, id, access, deadline };
        let (mut most_answered, mut most_asked) = (0, 0);
        loop {
            let (answered, asked) = match lookup.ask_holders().await {
                Round::Decided(found) => {
                    count(match found {
                        Some(_) => &self.counters.lookups_found,
                        None => &self.counters.lookups_denied,
                    });
                    return Ok(found);
                }
                Round::Undecided { answered, asked } => {
                    if let Some(snapshot) = lookup.ask_everybody().await {
                        count(&self.counters.lookups_found);
                        count(&self.counters.lookups_from_strays);
                        return Ok(Some(snapshot));
                    }
                    (answered, asked)
                }
                Round::Silent { answered, asked } => (answered, asked),
            };
            most_answered = answered.max(most_answered);
            most_asked = asked.max(most_asked);
            if os::until(deadline).is_zero() {
                count(&self.counters.lookups_undecided);
                return Err(LoadError::Unavailable { answered: most_answered, asked: most_asked });
            }
            // Views may differ for a moment after a change.
            tokio::time::sleep(os::until(deadline).min(self.config.fetch_timeout / 5)).await;
        }
    }
}

struct LookUp<'a> {
    mesh: &'a Mesh,
    id: &'a SessionId,
    access: bool,
    deadline: Instant,
}

impl LookUp<'_> {
    async fn ask_holders(&self) -> Round {
        let mesh = self.mesh;
        let routes = mesh.routes.current();
        let order = routes.view.holders(self.id);
        let asked = order.iter().filter(|boot| **boot != mesh.me.boot).count();
        let mut waiting = order.iter().filter_map(|boot| routes.peer(*boot));
        let mut answers = Answers::default();
        if mesh.me.mode == Mode::AllPeers {
            // Nobody is first where all hold everything.
            waiting.by_ref().for_each(|peer| answers.ask(peer, self.fetch(&routes, false)));
        }
        let (mut answered, mut denied) = (0, 0);
        loop {
            let next = waiting.next();
            if let Some(peer) = next {
                answers.ask(peer, self.fetch(&routes, false));
            } else if answers.is_empty() {
                break;
            }
            let patience = os::until(self.deadline);
            let patience = if next.is_some() { patience.min(HEDGE) } else { patience };
            match tokio::time::timeout(patience, answers.next()).await {
                Err(_) if next.is_none() => break,
                // The next is asked too.
                Err(_) | Ok(None) => {}
                Ok(Some(FetchOutcome::Undecided)) => answered += 1,
                Ok(Some(FetchOutcome::Absent)) => {
                    answered += 1;
                    denied += 1;
                }
                Ok(Some(FetchOutcome::Record(record))) => {
                    answered += 1;
                    denied += 1;
                    self.apply(*record, &routes, true);
                    // One holder's word is as good as another's: this is the session as known there,
                    // joined with what is here.
                    match mesh.local(self.id, routes.view.i_hold(self.id)) {
                        Local::Live(snapshot) => return Round::Decided(Some(snapshot)),
                        Local::Ended => return Round::Decided(None),
                        Local::Unknown => {}
                    }
                }
            }
        }
        if answered < asked {
            return Round::Silent { answered: denied, asked };
        }
        if denied < asked {
            return Round::Undecided { answered: denied, asked };
        }
        self.decide(&routes, asked)
    }

    /// All other holders have spoken, and none has the session.
    fn decide(&self, routes: &RouteTable, asked: usize) -> Round {
        let mesh = self.mesh;
        let mine = routes.view.i_hold(self.id);
        match mesh.local(self.id, mine) {
            // Made here and not sent before this node was paused: nobody else can know it.
            Local::Live(snapshot) if mine => Round::Decided(Some(snapshot)),
            Local::Ended => Round::Decided(None),
            // Nobody to ask, and this node itself does not know.
            Local::Unknown if asked == 0 && !mesh.is_settled() => Round::Undecided { answered: 0, asked },
            Local::Live(_) | Local::Unknown => Round::Decided(None),
        }
    }

    /// The holders are there, but what they should hold is still on its way to them.
    async fn ask_everybody(&self) -> Option<Snapshot> {
        let mesh = self.mesh;
        if mesh.me.mode == Mode::AllPeers {
            return None;
        }
        let routes = mesh.routes.current();
        let mut answers = Answers::default();
        for peer in &routes.peers {
            answers.ask(peer, self.fetch(&routes, true));
        }
        // The newest may be on any of them; one that is dead and not yet dropped is not waited for.
        let patience = os::until(self.deadline).min(HEDGE * 2);
        let mut found = false;
        let heard_all = tokio::time::timeout(patience, async {
            while !answers.is_empty() {
                if let Some(FetchOutcome::Record(record)) = answers.next().await {
                    self.apply(*record, &routes, false);
                    found = true;
                }
            }
        })
        .await
        .is_ok();
        // What only this node has is worth something if nobody else can have more.
        let enough = found || (heard_all && !mesh.is_doubting());
        match mesh.local(self.id, false) {
            Local::Live(snapshot) if enough => Some(snapshot),
            _ => None,
        }
    }

    fn apply(&self, record: RecordUpdate, routes: &RouteTable, from_holder: bool) {
        let (mesh, id) = (self.mesh, self.id);
        let is_new = mesh.table.read(id, |here| here.is_none());
        let outcome = FetchOutcome::Record(Box::new(record));
        let Some(applied) = fetch::apply(&mesh.table, &mesh.clock, *id, outcome, os::now()) else { return };
        if mesh.me.mode != Mode::AllPeers && !routes.view.i_hold(id) {
            mesh.routes.strays().visited(*id, &routes.view, is_new && from_holder, os::mono());
        }
        if let Some(end) = applied.ended {
            mesh.ended(*id, end);
        }
    }

    /// Asks for what this node lacks of the session.
    fn fetch(&self, routes: &RouteTable, any_copy: bool) -> Fetch {
        let version = self.mesh.table.read(self.id, |record| match record {
            Some(Record::Held(state)) if !state.is_partial() => Some(state.version().clone()),
            _ => None,
        });
        Fetch { request: 0, id: *self.id, version, view: routes.view.hash(), access: self.access, any_copy }
    }
}

/// Answers on their way.
#[derive(Default)]
struct Answers(Vec<oneshot::Receiver<FetchOutcome>>);

impl Answers {
    fn ask(&mut self, peer: &Peer, fetch: Fetch) {
        self.0.push(peer.fetch(|request| Frame::Fetch(Fetch { request, ..fetch })));
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next of them; `None`: one asked was dropped. Never, if none is on its way.
    async fn next(&mut self) -> Option<FetchOutcome> {
        poll_fn(|context| {
            for index in 0..self.0.len() {
                let Some(answer) = self.0.get_mut(index) else { break };
                if let Poll::Ready(outcome) = Pin::new(answer).poll(context) {
                    self.0.swap_remove(index);
                    return Poll::Ready(outcome.ok());
                }
            }
            Poll::Pending
        })
        .await
    }
}
