//! What is measured: programs that this one starts, and ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::load::{Done, Load, ask};
use crate::machine::{self, cpu, cpu_of_all};
use crate::results::Results;
use crate::{Args, Error, tomcat};

/// What is the same for all.
pub(crate) struct Bench {
    pub(crate) quick: bool,
    rounds: usize,
    secs: f64,
    program: PathBuf,
    secret: String,
    /// Of everything that a server writes; gone with this.
    dir: TempDir,
    /// The loopback is this program's own.
    pub(crate) own_loopback: bool,
    has_redis: bool,
    tomcat: Option<tomcat::Tomcat>,
}

/// Something that keeps sessions, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// axum without sessions.
    Axum,
    /// tower-sessions' MemoryStore, on nodes that know nothing of each other.
    Memory {
        nodes: usize,
    },
    /// tower-sessions' RedisStore on three nodes; with a replica, or without.
    Redis {
        replica: bool,
    },
    Mesh(Mesh),
    Tomcat(tomcat::Manager),
}

/// A cluster of sessionmesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mesh {
    /// So many, that know nothing of each other.
    pub(crate) clusters: usize,
    /// Of each.
    pub(crate) nodes: usize,
    pub(crate) backup_only: bool,
    pub(crate) ack: &'static str,
    pub(crate) layer: bool,
    pub(crate) insecure: bool,
}

impl Mesh {
    /// Three nodes, all-peers, async, the store alone.
    pub(crate) const DEFAULT: Self =
        Self { clusters: 1, nodes: 3, backup_only: false, ack: "async", layer: false, insecure: false };
}

impl System {
    /// As it stands in the report.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Axum => "axum, no session, 1 node".into(),
            Self::Memory { nodes: 1 } => "MemoryStore, 1 node".into(),
            Self::Memory { nodes } => format!("MemoryStore, {nodes} nodes that share nothing"),
            Self::Redis { replica: false } => "Redis store, 3 nodes".into(),
            Self::Redis { replica: true } => "Redis store and a replica, 3 nodes".into(),
            Self::Mesh(mesh) => format!(
                "sessionmesh, {}{} node{}, {}, {}{}{}",
                if mesh.clusters == 1 { String::new() } else { format!("{} x ", mesh.clusters) },
                mesh.nodes,
                if mesh.nodes == 1 { "" } else { "s" },
                if mesh.backup_only { "backup-only" } else { "all-peers" },
                mesh.ack,
                if mesh.layer { ", with the layer" } else { "" },
                if mesh.insecure { ", not encrypted" } else { "" }
            ),
            Self::Tomcat(manager) => manager.name().into(),
        }
    }
}

/// A system that runs, ready for load. Ends with this value.
pub(crate) struct Running {
    pub(crate) http: Vec<SocketAddr>,
    pub(crate) servers: Vec<Server>,
}

/// One process.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Stands still, or goes on.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a load cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Processor time of all servers for each write.
    pub(crate) each_us: f64,
    /// And what it was counted in, which is a little longer than the load.
    pub(crate) window: Duration,
    /// Of the machine, by whoever is neither a server nor this program: a neighbour spoils the figures.
    pub(crate) others_percent: f64,
}

impl Running {
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.servers.iter().map(Server::pid).collect()
    }

    /// A load, and what it cost.
    pub(crate) async fn load(&self, load: Load) -> Result<(Done, Cost), Error> {
        let begun = Instant::now();
        let pids = self.pids();
        let own = std::process::id();
        let (before, own_before, (busy, all)) = (cpu_of_all(&pids)?, cpu(own)?, machine::busy());
        let done = load.run(&self.http).await?;
        // What is on its way belongs to it.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (spent, window) = (cpu_of_all(&pids)? - before, begun.elapsed());
        let (busy_after, all_after) = machine::busy();
        let ours = (spent + cpu(own)? - own_before).as_secs_f64();
        let others_percent = ((busy_after - busy - ours) / (all_after - all) * 100.0).max(0.0);
        if done.failed > 0 {
            return Err(format!("{} of {} requests failed", done.failed, done.written + done.failed).into());
        }
        let each_us = spent.as_secs_f64() * 1e6 / done.written as f64;
        Ok((done, Cost { each_us, window, others_percent }))
    }

    /// Processor time of all servers when nobody asks them, in cores.
    pub(crate) async fn idle(&self, time: Duration) -> Result<f64, Error> {
        let (pids, begun) = (self.pids(), Instant::now());
        let before = cpu_of_all(&pids)?;
        tokio::time::sleep(time).await;
        Ok((cpu_of_all(&pids)? - before).as_secs_f64() / begun.elapsed().as_secs_f64())
    }
}

impl Bench {
    pub(crate) fn new(args: &Args) -> Result<Self, Error> {
        let has = |program: &str| {
            Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok()
        };
        let dir = tempfile::tempdir()?;
        Ok(Self {
            quick: args.quick,
            rounds: if args.quick { 1 } else { args.rounds },
            secs: if args.quick { 0.5 } else { args.secs },
            program: std::env::current_exe()?,
            secret: "measured with what is on by default".into(),
            tomcat: tomcat::Tomcat::find(dir.path()),
            dir,
            own_loopback: !args.shared_loopback && std::env::var_os("PERFORMANCE_ISOLATED").is_some(),
            has_redis: has("redis-server"),
        })
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds
    }

    pub(crate) fn secs(&self) -> f64 {
        self.secs
    }

    /// One figure when it is to mean something, another when it is only to work.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// How long a system runs before it is measured: a JVM compiles meanwhile.
    pub(crate) fn warm(&self, system: System) -> f64 {
        let full = if matches!(system, System::Tomcat(_)) { 45.0 } else { 2.0 };
        self.pick(0.3, full)
    }

    /// The options of a node, for whoever makes one in this process.
    pub(crate) fn options(&self, mesh: Mesh, cluster: &str, name: &str) -> Vec<(String, String)> {
        let mut options = vec![
            ("name".to_owned(), name.to_owned()),
            ("cluster".into(), cluster.to_owned()),
            ("bind".into(), "127.0.0.1:0".into()),
            ("interface".into(), "127.0.0.1".into()),
            ("mode".into(), if mesh.backup_only { "backup-only" } else { "all-peers" }.into()),
            ("ack".into(), mesh.ack.into()),
        ];
        let secret = ("secret".into(), self.secret.clone());
        options.push(if mesh.insecure { ("insecure".into(), "true".into()) } else { secret });
        options
    }

    pub(crate) fn tomcat(&self) -> Option<&tomcat::Tomcat> {
        self.tomcat.as_ref()
    }

    /// One more name that no other cluster has.
    pub(crate) fn cluster_name() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("performance-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Starts a system; `None` if it is not installed.
    pub(crate) async fn start(&self, system: System) -> Result<Option<Running>, Error> {
        Ok(Some(match system {
            System::Axum => self.serve_apart("none", 1)?,
            System::Memory { nodes } => self.serve_apart("memory", nodes)?,
            System::Redis { replica } => match self.redis(replica)? {
                Some(running) => running,
                None => return Ok(None),
            },
            System::Mesh(mesh) => {
                let mut running = Running { http: Vec::new(), servers: Vec::new() };
                for _ in 0..mesh.clusters {
                    let cluster = Self::cluster_name();
                    for n in 1..=mesh.nodes {
                        self.join(&mut running, mesh, &cluster, &format!("n{n}"))?;
                    }
                }
                self.formed(&running, mesh.nodes).await?;
                running
            }
            System::Tomcat(manager) => match &self.tomcat {
                Some(tomcat) => tomcat.start(manager).await?,
                None => return Ok(None),
            },
        }))
    }

    fn serve_apart(&self, store: &str, nodes: usize) -> Result<Running, Error> {
        let mut running = Running { http: Vec::new(), servers: Vec::new() };
        for _ in 0..nodes {
            let (server, http) = self.serve(&["--store", store], &[])?;
            running.servers.push(server);
            running.http.push(http);
        }
        Ok(running)
    }

    /// A process that uses a core for so long and does nothing else.
    pub(crate) fn burn(&self, secs: f64) -> Result<Server, Error> {
        Ok(Server(Command::new(&self.program).args(["burn", &secs.to_string()]).spawn()?))
    }

    /// Has the machine's host find so much memory, which it may take seconds for, and gives it back to the machine;
    /// half of what is free at most.
    pub(crate) fn touch(&self, bytes: u64) -> Result<(), Error> {
        let bytes = bytes.min(machine::free_bytes() / 2);
        let touched = Command::new(&self.program).args(["touch", &bytes.to_string()]).status()?;
        if touched.success() { Ok(()) } else { Err(format!("no {bytes} bytes of memory: {touched}").into()) }
    }

    /// Processes of the lowest priority on all cores, until they are dropped: what a virtual core costs to halt and to wake
    /// is many times a delta, and less the more there is to do.
    pub(crate) fn keep_awake(&self) -> Result<Vec<Server>, Error> {
        let cores = std::thread::available_parallelism()?.get();
        let burn = |_| {
            let program =
                Command::new("nice").args(["-n", "19"]).arg(&self.program).args(["burn", "3600"]).spawn()?;
            Ok(Server(program))
        };
        (0..cores).map(burn).collect()
    }

    /// Starts one more node.
    pub(crate) fn join(
        &self,
        running: &mut Running,
        mesh: Mesh,
        cluster: &str,
        name: &str,
    ) -> Result<(), Error> {
        let mut args = vec!["--store".to_owned(), "mesh".into()];
        let mut env = Vec::new();
        for (key, value) in self.options(mesh, cluster, name) {
            // Never on a command line.
            if key == "secret" {
                env.push(("SESSIONMESH_SECRET", value));
            } else {
                args.push(format!("--set={key}={value}"));
            }
        }
        if mesh.layer {
            args.push("--layer".into());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (server, http) = self.serve(&args, &env)?;
        running.servers.push(server);
        running.http.push(http);
        Ok(())
    }

    /// Waits until all are ready and see each other.
    pub(crate) async fn formed(&self, running: &Running, nodes: usize) -> Result<(), Error> {
        for node in &running.http {
            wait(*node, "/ready", |said| said == "ready").await?;
            wait(*node, "/members", |said| said == (nodes - 1).to_string()).await?;
        }
        Ok(())
    }

    fn serve(&self, args: &[&str], env: &[(&str, String)]) -> Result<(Server, SocketAddr), Error> {
        let mut command = Command::new(&self.program);
        command.arg("serve").args(args).envs(env.iter().map(|(key, value)| (key, value)));
        let mut server = Server(command.stdout(Stdio::piped()).spawn()?);
        let mut line = String::new();
        let stdout = server.0.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let http = line.trim().parse().map_err(|_| format!("{args:?} did not start: {line:?}"))?;
        Ok((server, http))
    }

    fn redis(&self, replica: bool) -> Result<Option<Running>, Error> {
        if !self.has_redis {
            return Ok(None);
        }
        let port = free_port()?;
        let mut servers = vec![self.redis_server(port, &[])?];
        if replica {
            let of = ["--replicaof", "127.0.0.1", &port.to_string()];
            let copy = free_port()?;
            servers.push(self.redis_server(copy, &of)?);
            replicating(copy)?;
        }
        let mut http = Vec::new();
        for _ in 0..3 {
            let (server, at) = self.serve(&["--store", "redis", "--redis-port", &port.to_string()], &[])?;
            servers.push(server);
            http.push(at);
        }
        Ok(Some(Running { http, servers }))
    }

    fn redis_server(&self, port: u16, args: &[&str]) -> Result<Server, Error> {
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg(self.dir.path()).args(args);
        let server = Server(command.stdout(Stdio::null()).spawn()?);
        listening(port)?;
        Ok(server)
    }

    /// A Redis of one's own, and its port.
    pub(crate) fn redis_alone(&self) -> Result<Option<(Server, u16)>, Error> {
        if !self.has_redis {
            return Ok(None);
        }
        let port = free_port()?;
        Ok(Some((self.redis_server(port, &[])?, port)))
    }

    /// All systems at once, and a load on one after the other, in another order in each round: on a shared machine two figures
    /// belong together only if seconds lie between them. A node that does nothing costs a thousandth of a core.
    pub(crate) async fn side_by_side(
        &self,
        systems: &[System],
        results: &mut Results,
        mut measure: impl AsyncFnMut(System, &Running, &mut Results) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut all = Vec::new();
        for system in systems {
            eprintln!("   {} starts and warms up", system.name());
            match self.start(*system).await? {
                Some(running) => {
                    running.load(Load::saturated(self.warm(*system))).await?;
                    all.push((*system, running));
                }
                None => results.leave_out(&format!("{}: not installed", system.name())),
            }
        }
        for round in 0..self.rounds {
            eprintln!("   round {} of {}", round + 1, self.rounds);
            let turn = (0..all.len()).map(|n| (n + round * 3) % all.len());
            let turn: Vec<usize> = if round % 2 == 0 { turn.collect() } else { turn.rev().collect() };
            for (system, running) in turn.into_iter().map(|n| &all[n]) {
                measure(*system, running, results).await?;
            }
        }
        Ok(())
    }

    /// Each system in each round, in another order each time, as `measure` does it; what is not installed is said.
    pub(crate) async fn rounds_of(
        &self,
        systems: &[System],
        results: &mut Results,
        mut measure: impl AsyncFnMut(System, &Running, &mut Results) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Each starts anew: fewer than where all run at once.
        let rounds = self.rounds.min(3);
        for round in 0..rounds {
            let mut turn = systems.to_vec();
            let shift = round * 3 % systems.len().max(1);
            turn.rotate_left(shift);
            if round % 2 == 1 {
                turn.reverse();
            }
            for system in turn {
                eprintln!("   round {} of {rounds}: {}", round + 1, system.name());
                match self.start(system).await? {
                    Some(running) => measure(system, &running, results).await?,
                    None => results.leave_out(&format!("{}: not installed", system.name())),
                }
            }
        }
        Ok(())
    }
}

/// Asks until the answer is right.
pub(crate) async fn wait(node: SocketAddr, path: &str, right: impl Fn(&str) -> bool) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let said = ask(node, "GET", path).await;
        if matches!(&said, Ok((200, said)) if right(said)) {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(90) {
            return Err(format!("{node}{path} says {said:?} after 90 s").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn listening(port: u16) -> Result<(), Error> {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if begun.elapsed() > Duration::from_secs(10) {
            return Err(format!("nobody listens on port {port} after 10 s").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until a Redis has its first copy of another.
fn replicating(port: u16) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"INFO replication\r\nQUIT\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        if said.contains("master_link_status:up") {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(30) {
            return Err(format!("the Redis on port {port} does not replicate after 30 s: {said}").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A child of this program, wrapped so that it ends with it.
pub(crate) fn server(mut command: Command) -> Result<Server, Error> {
    Ok(Server(command.spawn()?))
}
