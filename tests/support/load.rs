//! Users that go on working while nodes come and go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::{Answer, Browser, NodeProcess};

/// Attributes that each user writes in turn.
const KEYS: usize = 40;

/// Users, each with a session, who write on one node after the other as a balancer without stickiness
/// sends them: to the next if one does not serve.
#[derive(Debug)]
pub struct Load {
    nodes: Arc<RwLock<Vec<String>>>,
    stop: Arc<AtomicBool>,
    users: Vec<JoinHandle<User>>,
}

/// What one user did.
#[derive(Debug)]
pub struct User {
    browser: Browser,
    /// By attribute, the last value that was acknowledged, and those written since without an answer.
    acknowledged: BTreeMap<String, String>,
    unknown: BTreeMap<String, Vec<String>>,
    writes: usize,
    /// Requests that another node had to take, and why.
    refusals: Vec<String>,
    /// Answers at which the session was gone.
    lost: usize,
}

impl Load {
    /// So many users, on these nodes.
    pub fn start(users: usize, nodes: &[&NodeProcess]) -> Self {
        Self::on(users, nodes.iter().map(|node| node.url("")).collect())
    }

    /// So many users, all through one balancer.
    pub fn through(users: usize, url: &str) -> Self {
        Self::on(users, vec![url.into()])
    }

    fn on(users: usize, urls: Vec<String>) -> Self {
        let nodes = Arc::new(RwLock::new(urls));
        let stop = Arc::new(AtomicBool::new(false));
        let client = Browser::new();
        let users = (0..users)
            .map(|number| tokio::spawn(User::work(client.clone(), number, nodes.clone(), stop.clone())))
            .collect();
        Self { nodes, stop, users }
    }

    /// From now on these nodes.
    pub fn redirect(&self, nodes: &[&NodeProcess]) {
        *self.nodes.write().unwrap() = nodes.iter().map(|node| node.url("")).collect();
    }

    /// Stops, and gives back what was done.
    pub async fn stop(self) -> Vec<User> {
        self.stop.store(true, Ordering::Relaxed);
        let mut users = Vec::new();
        for user in self.users {
            users.push(user.await.unwrap());
        }
        users
    }
}

impl User {
    async fn work(
        browser: Browser,
        number: usize,
        nodes: Arc<RwLock<Vec<String>>>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let mut user = Self {
            browser,
            acknowledged: BTreeMap::new(),
            unknown: BTreeMap::new(),
            writes: 0,
            refusals: Vec::new(),
            lost: 0,
        };
        let mut turn = number;
        while !stop.load(Ordering::Relaxed) {
            let nodes = nodes.read().unwrap().clone();
            turn += 1;
            user.write(&nodes[turn % nodes.len()]).await;
        }
        user
    }

    async fn write(&mut self, node: &str) {
        let key = format!("k{}", self.writes % KEYS);
        let value = format!("v{}", self.writes);
        let before = self.browser.id();
        let answer = self.browser.try_post_to(node, &format!("/put?k={key}&v={value}")).await;
        match answer.as_ref().map(|answer| answer.status) {
            Some(200) => {
                self.acknowledged.insert(key.clone(), value);
                self.unknown.remove(&key);
                self.writes += 1;
            }
            // Refused before anything was touched: another node takes it.
            Some(503) => self.retry(&answer).await,
            // No answer, or the level was missed: it may be there.
            None | Some(502 | 504) => {
                self.unknown.entry(key).or_default().push(value);
                self.writes += 1;
                self.retry(&answer).await;
            }
            Some(status) => panic!("put {key}: {status} {:?}", answer.map(|answer| answer.body)),
        }
        if before.is_some() && self.browser.id() != before {
            self.lost += 1;
        }
    }

    async fn retry(&mut self, answer: &Option<Answer>) {
        self.refusals.push(match answer {
            Some(answer) => format!("{} {}", answer.status, answer.body),
            None => "no answer".into(),
        });
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    /// Writes that were acknowledged or may be there.
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// Requests that another node had to take.
    pub fn retries(&self) -> usize {
        self.refusals.len()
    }

    /// What they were told.
    pub fn refusals(&self) -> &[String] {
        &self.refusals
    }

    /// Checks that everything acknowledged is there; says what is not.
    pub async fn check(&mut self, node: &NodeProcess) -> Vec<String> {
        let mut missing = Vec::new();
        if self.lost > 0 {
            missing.push(format!("the session was lost {} times", self.lost));
        }
        for (key, value) in &self.acknowledged {
            let found = self.browser.value(node, key).await;
            let later = self.unknown.get(key).cloned().unwrap_or_default();
            if found.as_ref() != Some(value) && !found.as_ref().is_some_and(|found| later.contains(found)) {
                missing.push(format!("{key}: {found:?} instead of {value:?} (or {later:?})"));
            }
        }
        missing
    }
}
