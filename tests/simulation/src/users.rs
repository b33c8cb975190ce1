//! What is asked of the nodes: users with several tabs, sticky or not.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sessionmesh::simulation::HostId;
use sessionmesh::{AckLevel, Cluster, CommitError, Committed, Loaded, SessionId};

use crate::cluster::{Node, Run};
use crate::history::{OpId, Outcome, Seen, Stamp, Write, op_of, value};
use crate::invariants::denial::{self, Witnesses};
use crate::invariants::{durability, monotonic, provenance, resurrection};
use crate::scenario::level;

/// A user gives up after this long.
const PATIENCE: Duration = Duration::from_secs(3);
const ATTRIBUTES: u32 = 5;

/// What all tabs of one user share.
#[derive(Debug, Default)]
struct Browser {
    id: Option<SessionId>,
    sticky: Option<HostId>,
    tabs: usize,
    /// It keeps the token of its last answer and shows it again.
    keeps_token: bool,
    seen: Seen,
}

/// Users who work until told to stop.
pub(crate) fn start(
    run: &Run,
    random: &mut fastrand::Rng,
    stop: &Rc<RefCell<bool>>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut tabs = Vec::new();
    for _ in 0..run.scenario().users {
        let sticky = random.bool().then(|| random.usize(0..run.hosts()));
        let count = random.usize(1..=3);
        let browser = Rc::new(RefCell::new(Browser {
            id: None,
            sticky,
            tabs: count,
            keeps_token: random.bool(),
            seen: Seen::default(),
        }));
        for _ in 0..count {
            let tab = Tab {
                run: run.clone(),
                browser: browser.clone(),
                random: random.fork(),
                asked_at: Cell::default(),
                witnesses: RefCell::default(),
            };
            tabs.push(tokio::task::spawn_local(tab.work(stop.clone())));
        }
    }
    tabs
}

/// Sessions that nobody asks for: all nodes have them when trouble begins, some perhaps already dead.
pub(crate) async fn stock(run: &Run) {
    let nodes = run.nodes();
    if nodes.is_empty() {
        return;
    }
    for number in 0..run.scenario().stock {
        let node = &nodes[number % nodes.len()];
        let op = run.history(|history| history.next_op());
        let request = node.cluster.clone();
        let created = run.host(node.host).spawn(async move {
            request.at(AckLevel::Async).create(|session| _ = session.set("k0", value(op, 200))).await
        });
        let Ok(Ok(committed)) = created.await else { continue };
        let stamp = committed.token.as_ref().and_then(|token| Stamp::of(node.boot, token));
        let now = run.elapsed();
        run.history(|history| {
            let session = history.session(&committed.id);
            session.accessed(now);
            session.created.promised = stamp.is_some();
            session.created.stamp = stamp;
        });
        run.count("sessions in stock");
    }
}

struct Tab {
    run: Run,
    browser: Rc<RefCell<Browser>>,
    random: fastrand::Rng,
    /// When the last request began: from then on its session was in use, whatever its answer waited for.
    asked_at: Cell<Duration>,
    /// Who had its session then.
    witnesses: RefCell<Witnesses>,
}

/// What became of a request.
enum Answer<T> {
    /// The node answered.
    Said(T),
    /// It was killed, stood still, or was too slow.
    Nothing,
}

impl Tab {
    async fn work(mut self, stop: Rc<RefCell<bool>>) {
        while !*stop.borrow() {
            let think = self.run.scenario().think.as_micros() as u64;
            tokio::time::sleep(Duration::from_micros(self.random.u64(think / 2..=think * 2))).await;
            let Some(node) = self.choose() else { continue };
            let id = self.browser.borrow().id;
            match (id, self.random.u32(0..100)) {
                (None, _) => self.create(&node).await,
                (Some(id), 0..45) => self.write(&node, id, Duration::ZERO).await,
                (Some(id), 45..50) => {
                    let slow = Duration::from_millis(self.random.u64(10..800));
                    self.write(&node, id, slow).await;
                }
                (Some(id), 50..92) => self.read(&node, id).await,
                (Some(id), 92..95) => self.log_in(&node, id).await,
                (Some(id), _) => self.log_out(&node, id).await,
            }
        }
    }

    /// The node that a balancer would send this request to.
    fn choose(&mut self) -> Option<Node> {
        let sticky = self.browser.borrow().sticky.filter(|_| self.random.u32(0..20) > 0);
        let wanted = sticky.and_then(|host| self.run.node(host));
        let nodes = self.run.nodes();
        wanted.or_else(|| (!nodes.is_empty()).then(|| nodes[self.random.usize(0..nodes.len())].clone()))
    }

    /// `id`: of the session that it is about, if there is one.
    async fn ask<F>(
        &self,
        node: &Node,
        id: Option<SessionId>,
        request: impl FnOnce(Cluster) -> F,
    ) -> Answer<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.asked_at.set(self.run.elapsed());
        let witnesses = id.map(|id| denial::witnesses(&self.run, node, &id));
        *self.witnesses.borrow_mut() = witnesses.unwrap_or_default();
        let asked = self.run.host(node.host).spawn(request(node.cluster.clone()));
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(said)) => Answer::Said(said),
            Ok(Err(_)) | Err(_) => {
                self.run.count("requests without an answer");
                Answer::Nothing
            }
        }
    }

    fn attribute(&mut self) -> String {
        format!("k{}", self.random.u32(0..ATTRIBUTES))
    }

    fn size(&mut self) -> usize {
        let most = self.run.scenario().session_bytes as usize / 6;
        if self.run.scenario().heavy {
            self.random.usize(most / 2..most)
        } else if self.random.u32(0..30) == 0 {
            self.random.usize(0..800)
        } else {
            self.random.usize(0..60)
        }
    }

    async fn create(&mut self, node: &Node) {
        let (level, attribute, size) = (level(&mut self.random), self.attribute(), self.size());
        let op = self.run.history(|history| history.next_op());
        let written = attribute.clone();
        let answer = self
            .ask(node, None, move |cluster| async move {
                cluster.at(level).create(|s| _ = s.set(&written, value(op, size))).await
            })
            .await;
        let Answer::Said(said) = answer else { return };
        let committed = match said {
            Ok(committed) | Err(CommitError::LevelMissed(committed)) => committed,
            Err(_) => return self.run.count("requests refused"),
        };
        self.run.count("sessions created");
        let id = committed.id;
        let stamp = committed.token.as_ref().and_then(|token| Stamp::of(node.boot, token));
        let now = self.asked_at.get();
        self.run.say(format_args!("{op} created {id:?} on {}: {}", node.boot, committed.outcome));
        self.run.history(|history| {
            let session = history.session(&id);
            session.accessed(now);
            session.created.promised = stamp.is_some();
            session.created.stamp = stamp;
            let outcome = Outcome::Done { promised: stamp.is_some() };
            session.writes.insert(op, Write { attribute, removal: false, before: None, outcome, stamp });
        });
        durability::at_acknowledgement(&self.run, &id, op, stamp, level, &committed);
        // Tabs that began at the same time each made a session; the last cookie stays.
        self.browser.borrow_mut().id = Some(id);
    }

    async fn write(&mut self, node: &Node, id: SessionId, slow: Duration) {
        let (level, attribute, size) = (level(&mut self.random), self.attribute(), self.size());
        let removal = self.random.u32(0..12) == 0;
        let op = self.run.history(|history| history.next_op());
        let write = Write {
            attribute: attribute.clone(),
            removal,
            before: None,
            outcome: Outcome::Unknown,
            stamp: None,
        };
        let over = self.run.history(|history| {
            let session = history.session(&id);
            session.writes.insert(op, write);
            session.over && session.told_over.contains(&node.boot)
        });
        let before = Arc::new(Mutex::new(None));
        let written = attribute.clone();
        let seen = before.clone();
        let answer = self
            .ask(node, Some(id), move |cluster| async move {
                let sessions = cluster.at(level);
                if !slow.is_zero() {
                    // Reads early, writes late.
                    sessions.load(&id).await?;
                    tokio::time::sleep(slow).await;
                }
                sessions
                    .update(&id, |s| {
                        *seen.lock().unwrap() = s.get(&attribute).and_then(|value| op_of(&value));
                        if removal {
                            s.remove(&attribute)
                        } else {
                            s.set(&attribute, value(op, size))
                        };
                    })
                    .await
            })
            .await;
        let Answer::Said(said) = answer else { return };
        let before: Option<OpId> = *before.lock().unwrap();
        match said {
            Ok(committed) | Err(CommitError::LevelMissed(committed)) => {
                if over {
                    resurrection::written(&self.run, &id, node.boot);
                }
                self.done(node, id, (op, written, removal), before, level, &committed);
            }
            Err(error) => self.refused(node, id, op, &error).await,
        }
    }

    fn done(
        &self,
        node: &Node,
        id: SessionId,
        (op, attribute, removal): (OpId, String, bool),
        before: Option<OpId>,
        level: AckLevel,
        committed: &Committed,
    ) {
        self.run.count("writes");
        let stamp = committed.token.as_ref().and_then(|token| Stamp::of(node.boot, token));
        let now = self.asked_at.get();
        if let Some(token) = &committed.token {
            self.browser.borrow_mut().seen = Seen::written(id, token, attribute, (!removal).then_some(op));
        }
        self.run
            .say(format_args!("{op} wrote {id:?} on {} over {before:?}: {}", node.boot, committed.outcome));
        self.run.history(|history| {
            let session = history.session(&id);
            session.accessed(now);
            if let Some(write) = session.writes.get_mut(&op) {
                write.before = before;
                // Removing what is not there is no write.
                write.outcome = Outcome::Done { promised: stamp.is_some() };
                write.stamp = stamp;
            }
        });
        durability::at_acknowledgement(&self.run, &id, op, stamp, level, committed);
    }

    async fn refused(&self, node: &Node, id: SessionId, op: OpId, error: &CommitError) {
        self.run.count("requests refused");
        self.run.say(format_args!("{op} refused on {}: {error}", node.boot));
        self.run.history(|history| {
            if let Some(write) = history.session(&id).writes.get_mut(&op) {
                write.outcome = Outcome::Refused;
            }
        });
        if matches!(error, CommitError::NotFound | CommitError::Ended) {
            self.denied(node, id);
        }
    }

    /// A node says that there is no such session: the browser forgets it, if that can be.
    fn denied(&self, node: &Node, id: SessionId) {
        denial::check(&self.run, node, &id, &self.witnesses.borrow());
        self.run.count("sessions denied");
        let mut browser = self.browser.borrow_mut();
        if browser.id == Some(id) {
            browser.id = None;
        }
    }

    /// What the last answer about a session showed, if it was about this one.
    fn seen(&self, id: &SessionId) -> Seen {
        let browser = self.browser.borrow();
        if browser.keeps_token && browser.seen.id == Some(*id) {
            browser.seen.clone()
        } else {
            Seen::default()
        }
    }

    async fn read(&mut self, node: &Node, id: SessionId) {
        let seen = self.seen(&id);
        let token = seen.token.clone();
        let answer =
            self.ask(node, Some(id), move |cluster| async move {
                cluster.sessions().load_covering(&id, &token).await
            })
            .await;
        let Answer::Said(said) = answer else { return };
        match said {
            Ok(Loaded { snapshot: Some(snapshot), stale }) => {
                self.run.count("reads");
                if stale.is_some() {
                    self.run.count("reads marked stale");
                } else {
                    monotonic::check(&self.run, &id, node.boot, &seen, &snapshot);
                }
                self.browser.borrow_mut().seen = Seen::of(&snapshot);
                let now = self.asked_at.get();
                self.run.history(|history| history.session(&id).accessed(now));
                resurrection::read(&self.run, &id, node.boot, now);
                for (attribute, value) in snapshot.iter() {
                    provenance::check(&self.run, &id, attribute, value);
                }
            }
            Ok(Loaded { snapshot: None, .. }) => self.denied(node, id),
            Err(_) => self.run.count("requests refused"),
        }
    }

    async fn log_in(&mut self, node: &Node, id: SessionId) {
        self.run.say(format_args!("{id:?} is to change its id on {}", node.boot));
        self.run.history(|history| history.session(&id).may_be_over = true);
        let level = level(&mut self.random);
        let answer = self
            .ask(node, Some(id), move |cluster| async move { cluster.at(level).change_id(&id).await })
            .await;
        let Answer::Said(said) = answer else { return };
        match said {
            Ok(to) => {
                self.run.count("logins");
                self.run.say(format_args!("{id:?} became {:?} on {}: {}", to.id, node.boot, to.outcome));
                let now = self.asked_at.get();
                self.run.history(|history| {
                    let former = history.session(&id);
                    former.over |= to.outcome.have >= 2;
                    let mut writes = former.writes.clone();
                    // What the old id had may be in the new one; what must be is not known here.
                    writes.values_mut().for_each(|write| write.outcome = Outcome::Unknown);
                    let session = history.session(&to.id);
                    session.writes.extend(writes);
                    session.accessed(now);
                });
                self.browser.borrow_mut().id = Some(to.id);
            }
            Err(CommitError::NotFound | CommitError::Ended) => self.denied(node, id),
            // The old id may or may not be dead, and the new one may exist: the user begins anew.
            Err(_) => self.browser.borrow_mut().id = None,
        }
    }

    async fn log_out(&mut self, node: &Node, id: SessionId) {
        self.run.say(format_args!("{id:?} is to end on {}", node.boot));
        self.run.history(|history| history.session(&id).may_be_over = true);
        let level = level(&mut self.random);
        let answer = self
            .ask(node, Some(id), move |cluster| async move { cluster.at(level).destroy(&id).await })
            .await;
        if self.browser.borrow().tabs == 1 || self.random.bool() {
            self.browser.borrow_mut().id = None;
        }
        let Answer::Said(said) = answer else { return };
        if let Ok(committed) = said {
            self.run.count("logouts");
            self.run.say(format_args!("{id:?} ended on {}: {}", node.boot, committed.outcome));
            let known = node.knows_end_of(&id);
            let now = self.run.elapsed();
            self.run.history(|history| {
                let session = history.session(&id);
                session.over |= known && committed.outcome.have >= 2;
                session.over_since.get_or_insert(now);
            });
        }
    }
}
