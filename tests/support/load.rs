//! Users that go on working while nodes come and go.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Answer, Browser, NodeProcess};

/// Attributes that each user writes in turn.
const KEYS: usize = 40;

/// How users work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Between two requests of one user.
    pub rest: Duration,
    /// What each writes at once; a few bytes otherwise.
    pub value_bytes: Option<usize>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// When it was sent.
    pub begun: Instant,
    /// Until its answer was there, or that there is none.
    pub took: Duration,
    /// The answer's status.
    pub status: Option<u16>,
}

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
    requests: Vec<Request>,
}

impl Load {
    /// So many users, on these nodes.
    pub fn start(users: usize, nodes: &[&NodeProcess]) -> Self {
        Self::at(users, nodes, Pace::default())
    }

    /// So many users, on these nodes, who work like this.
    pub fn at(users: usize, nodes: &[&NodeProcess], pace: Pace) -> Self {
        Self::on(users, nodes.iter().map(|node| node.url("")).collect(), pace)
    }

    /// So many users, all through one balancer.
    pub fn through(users: usize, url: &str) -> Self {
        Self::on(users, vec![url.into()], Pace::default())
    }

    fn on(users: usize, urls: Vec<String>, pace: Pace) -> Self {
        let nodes = Arc::new(RwLock::new(urls));
        let stop = Arc::new(AtomicBool::new(false));
        let client = Browser::new();
        let users = (0..users)
            .map(|number| tokio::spawn(User::work(client.clone(), number, pace, nodes.clone(), stop.clone())))
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
        pace: Pace,
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
            requests: Vec::new(),
        };
        let mut turn = number;
        while !stop.load(Ordering::Relaxed) {
            let nodes = nodes.read().unwrap().clone();
            turn += 1;
            user.write(&nodes[turn % nodes.len()], pace.value_bytes).await;
            if !pace.rest.is_zero() {
                tokio::time::sleep(pace.rest).await;
            }
        }
        user
    }

    async fn write(&mut self, node: &str, bytes: Option<usize>) {
        // Few attributes if they are large: a session has its limit.
        let key = format!("k{}", self.writes % if bytes.is_some() { 4 } else { KEYS });
        let value = format!("v{}", self.writes);
        let before = self.browser.id();
        let padding = bytes.map(|bytes| format!("&n={bytes}")).unwrap_or_default();
        let begun = Instant::now();
        let answer = self.browser.try_post_to(node, &format!("/put?k={key}&v={value}{padding}")).await;
        let status = answer.as_ref().map(|answer| answer.status);
        self.requests.push(Request { begun, took: begun.elapsed(), status });
        match status {
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

    /// All requests, in their order.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Checks that everything acknowledged is there; says what is not.
    pub async fn check(&mut self, node: &NodeProcess) -> Vec<String> {
        let mut missing = Vec::new();
        if self.lost > 0 {
            missing.push(format!("the session was lost {} times", self.lost));
        }
        for (key, value) in &self.acknowledged {
            let found = self.browser.value(node, key).await;
            // Without the padding.
            let found = found.map(|found| found.split(':').next().unwrap_or_default().to_owned());
            let later = self.unknown.get(key).cloned().unwrap_or_default();
            if found.as_ref() != Some(value) && !found.as_ref().is_some_and(|found| later.contains(found)) {
                missing.push(format!("{key}: {found:?} instead of {value:?} (or {later:?})"));
            }
        }
        missing
    }
}

/// The 99th percentile and the number of the requests that began between two moments.
pub fn p99(users: &[User], within: Range<Instant>) -> (Duration, usize) {
    let requests = users.iter().flat_map(|user| &user.requests);
    let begun = requests.filter(|request| within.contains(&request.begun));
    let mut took: Vec<Duration> = begun.map(|request| request.took).collect();
    took.sort_unstable();
    (took.get(took.len() * 99 / 100).copied().unwrap_or_default(), took.len())
}
