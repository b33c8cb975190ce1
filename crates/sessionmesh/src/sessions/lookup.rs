//! Asking other nodes for a session: drives [`LookUp`].

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use sessionmesh_core::placement::Mode;
use sessionmesh_core::replication::{Here, LookUp, LookUpStep, LookUpTimes, Standpoint, Table, Verdict};
use sessionmesh_core::wire::{Fetch, FetchOutcome, Frame};
use sessionmesh_core::{BootId, Instant, SessionId};
use tokio::sync::oneshot;

use super::Snapshot;
use super::load::Local;
use crate::error::LoadError;
use crate::host;
use crate::mesh::Mesh;
use crate::peer::{HEDGE, Peer};
use crate::routes::RouteTable;
use crate::stats::count;

impl Mesh {
    /// Asks the other holders, and decides with them. `access`: a request reads it.
    pub(crate) async fn look_up(&self, id: &SessionId, access: bool) -> Result<Option<Snapshot>, LoadError> {
        let counters = &self.counters;
        count(&counters.lookups);
        let _permit = self.lookups.try_acquire().map_err(|_| LoadError::Overloaded)?;
        let deadline = host::mono() + self.config.fetch_timeout;
        loop {
            match self.drive(id, access, deadline).await {
                Verdict::Found { by_stray } => {
                    // A holder that gave it has counted the access; one that only helped out has not.
                    let access = access && (by_stray || self.routes.current().view.i_hold(id));
                    match self.local(id, access) {
                        Local::Live(snapshot) => {
                            count(&counters.lookups_found);
                            if by_stray {
                                count(&counters.lookups_from_strays);
                            }
                            return Ok(Some(snapshot));
                        }
                        Local::Ended => return Ok(None),
                        // The copy went in this very moment, because it does not belong here, or somebody took the
                        // session for idle: again.
                        Local::Overdue | Local::Unknown => {}
                    }
                }
                Verdict::Absent => {
                    count(&counters.lookups_denied);
                    return Ok(None);
                }
                Verdict::Undecided { answered, asked } => {
                    count(&counters.lookups_undecided);
                    return Err(LoadError::Unavailable { answered, asked });
                }
            }
        }
    }

    async fn drive(&self, id: &SessionId, access: bool, deadline: Instant) -> Verdict {
        let pause = self.config.fetch_timeout / 5;
        let times = LookUpTimes { hedge: HEDGE, pause, limit: host::until(deadline) };
        let mut lookup = LookUp::new(*id, access, times, host::mono());
        let mut answers = Answers::default();
        let routes = self.routes.kept();
        // Where all are asked at once, their order is nothing.
        let slow: Vec<BootId> = match routes.view.mode() {
            Mode::AllPeers => Vec::new(),
            _ => routes.peers.iter().filter(|peer| peer.is_slow()).map(|peer| peer.boot).collect(),
        };
        let here = || match self.local(id, false) {
            Local::Live(_) => Here::Live,
            Local::Ended => Here::Ended,
            Local::Overdue => Here::Overdue,
            Local::Unknown => Here::Unknown,
        };
        loop {
            let routes = self.routes.kept();
            let members: Vec<BootId> = routes.peers.iter().map(|peer| peer.boot).collect();
            let standpoint = Standpoint {
                view: &routes.view,
                members: &members,
                slow: &slow,
                doubting: self.is_doubting(),
                settled: self.is_settled_in(&routes.view),
            };
            match lookup.poll(standpoint, &self.table, here, host::mono()) {
                LookUpStep::Ask(number, boot, fetch) => answers.ask(number, routes.peer(boot), fetch),
                LookUpStep::Done(verdict) => return verdict,
                LookUpStep::Wait(until) => {
                    let answer = tokio::time::timeout(host::until(until), answers.next()).await;
                    let Ok((number, outcome)) = answer else { continue };
                    let is_new = self.table.read(id, |record| record.is_none());
                    let fresh = is_new && lookup.asks_holders();
                    let applied =
                        lookup.handle_answer(number, outcome, &self.table, &self.clock, here, host::now());
                    let Some(applied) = applied else { continue };
                    self.note_visit(id, &routes, fresh);
                    if let Some(end) = applied.ended {
                        self.ended(*id, end);
                    }
                }
            }
        }
    }

    /// A copy came here by a look-up: if it does not belong here, it goes again. `fresh`: all of it is
    /// from a holder.
    pub(super) fn note_visit(&self, id: &SessionId, routes: &RouteTable, fresh: bool) {
        // The members may have changed since it was asked for.
        let view = &self.routes.current().view;
        if view.mode() != Mode::AllPeers && !view.i_hold(id) {
            let now = host::mono();
            self.routes.strays(|strays| strays.visited(*id, &routes.view, fresh, now));
        }
    }
}

/// Answers on their way, by number.
#[derive(Default)]
pub(super) struct Answers(Vec<(u64, oneshot::Receiver<FetchOutcome>)>);

impl Answers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of one that is no member any more, the answer is that it is gone.
    pub(super) fn ask(&mut self, number: u64, peer: Option<&std::sync::Arc<Peer>>, fetch: Fetch) {
        let answer = match peer {
            Some(peer) => peer.fetch(|request| Frame::Fetch(Fetch { request, ..fetch })),
            None => oneshot::channel().1,
        };
        self.0.push((number, answer));
    }

    /// The next of them; `None`: the one asked is gone. Never, if none is on its way.
    pub(super) async fn next(&mut self) -> (u64, Option<FetchOutcome>) {
        poll_fn(|context| {
            for index in 0..self.0.len() {
                let Some((number, answer)) = self.0.get_mut(index) else { break };
                if let Poll::Ready(outcome) = Pin::new(answer).poll(context) {
                    let number = *number;
                    self.0.swap_remove(index);
                    return Poll::Ready((number, outcome.ok()));
                }
            }
            Poll::Pending
        })
        .await
    }
}
