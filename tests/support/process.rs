//! Nodes as processes, driven from outside.

use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::Client;
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub use rustix::process::Signal;

use crate::{Lan, eventually, within};

/// For an answer, or for a process to say something or to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Links are encrypted, as they are for users.
const SECRET: &str = "a secret that is long enough";

/// One test's cluster of processes.
#[derive(Debug)]
pub struct Processes {
    program: String,
    cluster: String,
    flags: Vec<String>,
    seeds: bool,
    insecure: bool,
    lan: Option<Arc<Lan>>,
    log: Option<PathBuf>,
    told: Option<Vec<String>>,
    /// In the order in which they were started.
    pub nodes: Vec<NodeProcess>,
}

/// A node, and where it is.
#[derive(Debug)]
pub struct NodeProcess {
    name: String,
    child: Option<Child>,
    host: usize,
    http: String,
    /// Where links are accepted.
    pub address: String,
}

impl Processes {
    /// A cluster of this program (`env!("CARGO_BIN_EXE_session-node-under-test")`) that finds itself
    /// by multicast.
    pub fn new(program: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            program: program.into(),
            cluster: format!("processes-{}-{number}", std::process::id()),
            flags: Vec::new(),
            seeds: false,
            insecure: false,
            lan: None,
            log: None,
            told: None,
            nodes: Vec::new(),
        }
    }

    /// By seeds instead.
    #[must_use]
    pub fn by_seeds(mut self) -> Self {
        self.seeds = true;
        self
    }

    /// From now on nodes are told of these only, not of all that were started before them.
    pub fn tell_seeds(&mut self, addresses: Vec<String>) {
        self.told = Some(addresses);
    }

    /// With a flag on every node.
    #[must_use]
    pub fn with(mut self, flag: &str) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Everything that the nodes log goes here, from the lowest level on.
    #[must_use]
    pub fn logging_to(mut self, path: &str) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Without a secret, and so without encryption.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.insecure = true;
        self
    }

    /// Each node on a host of its own, the first on the first; on loopback otherwise.
    #[must_use]
    pub fn on(mut self, lan: &Arc<Lan>) -> Self {
        self.lan = Some(lan.clone());
        self
    }

    /// The program as a node of this cluster, where it runs.
    pub fn command(&self, name: &str, host: usize) -> Command {
        let mut command = match &self.lan {
            Some(lan) => {
                let enter = lan.enter(host);
                let mut command = Command::new(&enter[0]);
                command.args(&enter[1..]).arg(&self.program);
                command.args(["--bind=0.0.0.0:4000", "--interface=eth0"]);
                command.arg(format!("--http={}:8080", lan.address(host)));
                command
            }
            None => {
                let mut command = Command::new(&self.program);
                command.args(["--bind=127.0.0.1:0", "--http=127.0.0.1:0"]);
                command
            }
        };
        if self.insecure {
            command.arg("--insecure");
        } else {
            command.env("SESSIONMESH_SECRET", SECRET);
        }
        command.args(["--name", name, "--drain=100ms", "--frequency=100ms", "--drop-time=1s"]);
        command.args(["--set=join_wait=500ms", "--set=fetch_timeout=250ms"]);
        command.arg(format!("--set=cluster={}", self.cluster));
        if self.seeds {
            let all = || self.nodes.iter().map(|node| node.address.clone()).collect();
            let known: Vec<String> = self.told.clone().unwrap_or_else(all);
            let known: Vec<String> = known.iter().map(|address| format!("--seed={address}")).collect();
            command.args(if known.is_empty() { vec!["--seed=127.0.0.1:9".into()] } else { known });
        } else {
            command.arg("--multicast=228.0.0.4:45564");
            if self.lan.is_none() {
                command.arg("--interface=127.0.0.1");
            }
        }
        command.args(&self.flags).stdout(Stdio::piped()).kill_on_drop(true);
        let log = std::env::var("TEST_LOG").unwrap_or_else(|_| "error".into());
        command.env("RUST_LOG", log);
        if let Some(path) = &self.log {
            command.env("RUST_LOG", "trace").stderr(File::options().append(true).open(path).unwrap());
        }
        command
    }

    /// Starts a node that must come up, on the next host if there are hosts.
    pub async fn start_one(&mut self, name: &str) -> usize {
        self.start_on(name, self.nodes.len(), &[]).await
    }

    /// Starts a node that must come up, on this host, with flags of its own.
    pub async fn start_on(&mut self, name: &str, host: usize, flags: &[&str]) -> usize {
        let mut command = self.command(name, host);
        command.args(flags);
        self.nodes.push(NodeProcess::launch(name, host, command).await);
        self.nodes.len() - 1
    }

    /// Starts nodes that must come up, all in the same moment.
    pub async fn start_together(&mut self, names: &[String]) {
        let first = self.nodes.len();
        let launched: Vec<(Child, &String, usize)> = names
            .iter()
            .zip(first..)
            .map(|(name, host)| (self.command(name, host).spawn().unwrap(), name, host))
            .collect();
        for (child, name, host) in launched {
            self.nodes.push(NodeProcess::announced(name, host, child).await);
        }
    }

    /// Starts a node that must fail, and gives back what it said.
    pub async fn start_failing(&self, name: &str, flags: &[&str]) -> String {
        let mut command = self.command(name, self.nodes.len());
        command.args(flags).stderr(Stdio::piped());
        let ended = tokio::time::timeout(PATIENCE, command.output()).await;
        let Output { status, stderr, .. } = ended.expect("a node that can't start ends within 10 s").unwrap();
        assert!(!status.success());
        String::from_utf8_lossy(&stderr).into_owned()
    }

    /// Starts nodes n1, n2, ... and waits until they are ready and see each other.
    pub async fn start(mut self, count: usize) -> Self {
        for n in 1..=count {
            self.start_one(&format!("n{n}")).await;
        }
        self.formed().await;
        self
    }

    /// Starts a node again, on the same ports.
    pub async fn restart(&mut self, index: usize) {
        // Its port is free only once the process that held it is gone.
        if self.nodes[index].child.is_some() {
            let _ = self.nodes[index].ended().await;
        }
        let node = &self.nodes[index];
        let mut command = self.command(&node.name, node.host);
        command.args(["--http", &node.http, "--bind", &node.address]);
        let again = NodeProcess::launch(&node.name, node.host, command).await;
        self.nodes[index] = again;
        self.nodes[index].ready().await;
    }

    /// Waits until all that run are ready and see each other.
    pub async fn formed(&self) {
        let running: Vec<&NodeProcess> = self.running().collect();
        for node in &running {
            node.ready().await;
            node.sees(running.len() - 1).await;
        }
    }
}

impl Processes {
    /// The nodes that run.
    pub fn running(&self) -> impl Iterator<Item = &NodeProcess> {
        self.nodes.iter().filter(|node| node.child.is_some())
    }

    /// Records in memory, whether they belong there or not, summed over all nodes that run.
    pub async fn records(&self) -> u64 {
        let mut records = 0;
        for node in self.running() {
            records += node.json("/stats").await.unwrap()["records"].as_u64().unwrap();
        }
        records
    }

    /// Sessions held, summed over all nodes that run.
    pub async fn copies(&self) -> u64 {
        let mut copies = 0;
        for node in self.running() {
            let count = node.ask("/count").await.unwrap().text().await.unwrap();
            copies += count.parse::<u64>().unwrap();
        }
        copies
    }

    /// Waits until users have made so many more writes.
    pub async fn goes_on(&self, writes: u64) {
        let before = self.sum("commits").await;
        eventually("users write on", || async {
            (self.sum("commits").await >= before + writes).then_some(())
        })
        .await;
    }

    /// A counter, summed over all nodes that run.
    pub async fn sum(&self, counter: &str) -> u64 {
        let mut sum = 0;
        for node in self.running() {
            sum += node.counter(counter).await;
        }
        sum
    }

    /// Members that were dropped, as all nodes that run count them.
    pub async fn drops(&self) -> u64 {
        let mut drops = 0;
        for node in self.running() {
            drops += node.cause("member dropped").await;
        }
        drops
    }

    /// Waits until every node that runs has compared with all others since its members changed.
    pub async fn settled(&self) {
        for node in self.running() {
            eventually(&format!("{} is settled", node.name), || async {
                let stats = node.json("/stats").await?;
                stats["placement"]["settled"].as_bool()?.then_some(())
            })
            .await;
        }
    }
}

impl NodeProcess {
    async fn launch(name: &str, host: usize, mut command: Command) -> Self {
        Self::announced(name, host, command.spawn().unwrap()).await
    }

    /// It says where it is.
    async fn announced(name: &str, host: usize, mut child: Child) -> Self {
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let said = tokio::time::timeout(PATIENCE, stdout.read_line(&mut line)).await;
        said.expect("a node says within 10 s where it is").unwrap();
        let place: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("{name} did not start: {line:?}"));
        let text = |key: &str| place[key].as_str().unwrap().to_owned();
        let (http, address) = (text("http"), text("address"));
        Self { name: name.into(), child: Some(child), host, http, address }
    }

    /// Waits until its peers have acknowledged all that it has told them: what nobody waits for rests before it is sent.
    pub async fn is_heard(&self) {
        // All sessions of a node may be among it.
        let patience = 6 * PATIENCE;
        within(patience, &format!("the others have what {} told them", self.name), || async {
            let stats = self.json("/stats").await?;
            let waiting = stats["peers"].as_array()?.iter().map(|peer| peer["unacked"].as_u64());
            (waiting.sum::<Option<u64>>()? == 0).then_some(())
        })
        .await;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it serves HTTP.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// An address of this node.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    fn pid(&self) -> Pid {
        let pid = self.child.as_ref().and_then(Child::id).expect("the node runs");
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }

    /// Bytes of memory that it has.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most that it had since its peak was forgotten.
    pub fn peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// From now on its peak is what it has now, which is given back.
    pub fn forget_peak_bytes(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5").unwrap();
        self.peak_bytes()
    }

    fn status_bytes(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1_024
    }

    /// Its thread of this name, as the system numbers threads.
    pub fn thread(&self, name: &str) -> i32 {
        let threads = format!("/proc/{}/task", self.pid().as_raw_nonzero());
        let named = |thread: &std::fs::DirEntry| {
            let comm = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
            // The system keeps fifteen characters.
            !comm.trim().is_empty() && name.starts_with(comm.trim())
        };
        let mut threads = std::fs::read_dir(threads).unwrap().map(Result::unwrap);
        let thread = threads.find(named).unwrap_or_else(|| panic!("{} has no thread {name}", self.name));
        thread.file_name().to_string_lossy().parse().unwrap()
    }

    /// What it has used of all cores, in steps of the system's ticks.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // The name in parentheses may hold anything; user and system time are the 14th and 15th field.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// The process, as the system numbers them.
    pub fn id(&self) -> i32 {
        self.pid().as_raw_nonzero().get()
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Stops the process, and waits until it stands still: it may run on for a moment.
    pub async fn stop(&self) {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.pid().as_raw_nonzero());
        eventually(&format!("{} stands still", self.name), || async {
            let stat = std::fs::read_to_string(&stat).ok()?;
            stat.rsplit_once(')')?.1.trim_start().starts_with('T').then_some(())
        })
        .await;
    }

    /// `kill -9`, and waits until it is dead.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().await.unwrap();
    }

    /// Waits for the process to end, ten seconds at most.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the node runs");
        tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends within 10 s").unwrap()
    }

    /// Waits until it serves.
    pub async fn ready(&self) {
        eventually(&format!("{} is ready", self.name), || async {
            let answer = self.ask("/readyz").await?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Waits until it sees so many ready members.
    pub async fn sees(&self, count: usize) {
        eventually(&format!("{} sees {count} members", self.name), || async {
            let members = self.json("/members").await?;
            let ready = members.as_array()?.iter().filter(|member| member["state"] == "ready").count();
            (ready == count && members.as_array()?.len() == count).then_some(())
        })
        .await;
    }

    /// What it answers, within ten seconds.
    async fn ask(&self, path: &str) -> Option<reqwest::Response> {
        Client::new().get(self.url(path)).timeout(PATIENCE).send().await.ok()
    }

    /// What it answers, as JSON.
    pub async fn json(&self, path: &str) -> Option<Value> {
        self.ask(path).await?.json().await.ok()
    }

    /// A counter of its stats; it must be one.
    pub async fn counter(&self, name: &str) -> u64 {
        let stats = self.json("/stats").await.unwrap();
        stats["counts"][name].as_u64().unwrap_or_else(|| panic!("no counter is called {name}"))
    }

    /// How often something was counted by a cause that contains these words.
    pub async fn cause(&self, words: &str) -> u64 {
        let stats = self.json("/stats").await.unwrap();
        let causes = stats["causes"].as_object().unwrap().clone();
        causes.iter().filter(|(cause, _)| cause.contains(words)).filter_map(|(_, count)| count.as_u64()).sum()
    }
}
