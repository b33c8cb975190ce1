//! Node processes: this program, started again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::{Args, Error};

/// Where a node is; it says so itself when it has its ports.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Place {
    pub(crate) http: SocketAddr,
    address: SocketAddr,
}

/// One node: a name, and the process that has it now, if any.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    pub(crate) name: String,
    child: Option<Child>,
    place: Option<Place>,
}

/// The nodes of the demo.
#[derive(Debug)]
pub(crate) struct Nodes {
    flags: Vec<String>,
    multicast: bool,
    verbose: bool,
    pub(crate) nodes: Vec<NodeProcess>,
    /// Where the front sends requests: all nodes, dead or alive; it finds out.
    pub(crate) targets: Arc<Mutex<Vec<SocketAddr>>>,
}

/// How a process is made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `kill -9`: it can do nothing about it.
    Kill,
    /// SIGTERM: it hands over and leaves.
    Terminate,
}

impl Nodes {
    pub(crate) async fn start(args: &Args, count: usize) -> Result<Self, Error> {
        let multicast = !args.seeds && probe_multicast();
        if multicast {
            println!("nodes find each other by multicast on the loopback interface");
        } else if args.seeds {
            println!("nodes find each other by seeds");
        } else {
            println!("multicast does not work on this machine's loopback interface: nodes use seeds");
        }
        let cluster = format!("demo-{}", std::process::id());
        let flags = [
            "--insecure".into(),
            format!("--ack={}", args.ack),
            format!("--mode={}", args.mode),
            format!("--set=cluster={cluster}"),
            "--set=join_wait=1s".into(),
            "--drain=200ms".into(),
        ];
        let mut nodes = Self {
            flags: flags.into(),
            multicast,
            verbose: args.verbose,
            nodes: Vec::new(),
            targets: Arc::default(),
        };
        for number in 1..=count {
            nodes.nodes.push(NodeProcess { name: format!("n{number}"), child: None, place: None });
            nodes.spawn(number - 1).await?;
        }
        Ok(nodes)
    }

    /// Starts a node; a second time on the same ports.
    pub(crate) async fn spawn(&mut self, index: usize) -> Result<(), Error> {
        let seeds: Vec<String> = self
            .nodes
            .iter()
            .filter_map(|node| Some(format!("--seed={}", node.place.as_ref()?.address)))
            .collect();
        let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let node = self.nodes.get_mut(index).ok_or("no such node")?;
        let (http, bind) = node.place.as_ref().map_or((any, any), |place| (place.http, place.address));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("node").args(&self.flags);
        command.args(["--name", &node.name, "--http", &http.to_string(), "--bind", &bind.to_string()]);
        if self.multicast {
            command.args(["--multicast", "228.0.0.4:45564", "--interface", "127.0.0.1"]);
        } else if seeds.is_empty() {
            // Nobody listens there: the first node founds the cluster.
            command.arg("--seed=127.0.0.1:9");
        } else {
            command.args(seeds);
        }
        if !self.verbose && std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "error");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdout = child.stdout.take().ok_or("a node without output")?;
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        let said = stdout.read_line(&mut line);
        tokio::time::timeout(Duration::from_secs(10), said)
            .await
            .map_err(|_| "a node did not start in 10 s")??;
        if line.is_empty() {
            return Err(format!(
                "{} did not start ({}): its message is above",
                node.name,
                child.wait().await?
            )
            .into());
        }
        node.place = Some(serde_json::from_str(&line)?);
        node.child = Some(child);
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let targets = self.nodes.iter().filter_map(|node| Some(node.place.as_ref()?.http)).collect();
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets;
    }

    pub(crate) fn http(&self, index: usize) -> Result<SocketAddr, Error> {
        let place = self.nodes.get(index).and_then(|node| node.place.as_ref());
        Ok(place.ok_or("a node that never started")?.http)
    }

    pub(crate) fn pid(&self, index: usize) -> Option<u32> {
        self.nodes.get(index)?.child.as_ref()?.id()
    }

    /// Ends a node's process, and waits for it.
    pub(crate) async fn end(&mut self, index: usize, how: End) -> Result<ExitStatus, Error> {
        let node = self.nodes.get_mut(index).ok_or("no such node")?;
        let mut child = node.child.take().ok_or("the node does not run")?;
        match how {
            End::Kill => child.start_kill()?,
            End::Terminate => terminate(&mut child)?,
        }
        match tokio::time::timeout(Duration::from_secs(10), child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                child.kill().await?;
                Err(format!("{} did not stop within 10 s", node.name).into())
            }
        }
    }

    /// The nodes whose process has ended by itself since the last call, and how.
    pub(crate) fn reap(&mut self) -> Vec<(usize, ExitStatus)> {
        let mut ended = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if let Some(status) = node.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                node.child = None;
                ended.push((index, status));
            }
        }
        ended
    }

    /// Ends all nodes as an operator would.
    pub(crate) async fn stop(&mut self) -> Result<(), Error> {
        for index in 0..self.nodes.len() {
            if self.pid(index).is_some() {
                let status = self.end(index, End::Terminate).await?;
                if !status.success() {
                    return Err(format!("node {} ended with {status}", index + 1).into());
                }
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn terminate(child: &mut Child) -> io::Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    match pid {
        Some(pid) => Ok(kill_process(pid, Signal::TERM)?),
        None => Ok(()),
    }
}

#[cfg(not(unix))]
fn terminate(child: &mut Child) -> io::Result<()> {
    child.start_kill()
}

/// Whether a datagram to a group on loopback comes back.
fn probe_multicast() -> bool {
    let probe = || -> io::Result<bool> {
        use socket2::{Domain, Protocol, Socket, Type};
        let (group, local) = (Ipv4Addr::new(228, 0, 0, 4), Ipv4Addr::LOCALHOST);
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into())?;
        socket.join_multicast_v4(&group, &local)?;
        socket.set_multicast_if_v4(&local)?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        let port = socket.local_addr()?.as_socket_ipv4().map_or(0, |address| address.port());
        let socket: std::net::UdpSocket = socket.into();
        socket.send_to(b"probe", (group, port))?;
        let mut buffer = [0; 16];
        Ok(socket.recv(&mut buffer)? == 5)
    };
    probe().unwrap_or(false)
}
