//! Users: connections that write, each to its own session, and how long that takes.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What users do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) users: usize,
    /// Requests a second of all of them; as many as are answered if `None`.
    pub(crate) rate: Option<f64>,
    pub(crate) time: Duration,
    /// Each goes to the node that its cookie names, as through a balancer that sticks by it, in a cluster of so many; it
    /// stays where it came first if `None`.
    pub(crate) routed: Option<usize>,
}

/// What became of it.
pub(crate) struct Done {
    pub(crate) written: u64,
    pub(crate) failed: u64,
    /// In microseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) took: Duration,
}

impl Done {
    pub(crate) fn per_second(&self) -> f64 {
        self.written as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64
    }
}

impl Load {
    /// As fast as they are answered.
    pub(crate) fn saturated(secs: f64) -> Self {
        Self { users: 32, rate: None, time: Duration::from_secs_f64(secs), routed: None }
    }

    /// Users that have a session, each on its node.
    pub(crate) async fn users(self, nodes: &[SocketAddr]) -> io::Result<Vec<User>> {
        let mut users = Vec::new();
        for n in 0..self.users {
            let mut user = User::connect(nodes[n % nodes.len()]).await?;
            user.put(0).await?;
            // Its cluster is that of the node that it came to.
            let first = n % nodes.len() / self.routed.unwrap_or(1) * self.routed.unwrap_or(1);
            if self.routed.is_some()
                && let Some(node) = user.route().and_then(|node| nodes.get(first + node))
            {
                user = User { cookie: user.cookie, ..User::connect(*node).await? };
            }
            users.push(user);
        }
        Ok(users)
    }

    /// Each user stays on its node.
    pub(crate) async fn run(self, nodes: &[SocketAddr]) -> io::Result<Done> {
        self.run_with(self.users(nodes).await?).await
    }

    pub(crate) async fn run_with(self, users: Vec<User>) -> io::Result<Done> {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for (n, user) in users.into_iter().enumerate() {
            tasks.spawn(self.play(n, user, begun));
        }
        let mut done = Done { written: 0, failed: 0, latency: histogram(), took: Duration::ZERO };
        while let Some(ended) = tasks.join_next().await {
            let (written, failed, latency) = ended.map_err(io::Error::other)?;
            done.written += written;
            done.failed += failed;
            done.latency.add(latency).map_err(io::Error::other)?;
        }
        done.took = begun.elapsed();
        Ok(done)
    }

    async fn play(self, n: usize, mut user: User, begun: Instant) -> (u64, u64, Histogram<u64>) {
        let (mut written, mut failed, mut latency) = (0, 0, histogram());
        let end = begun + self.time;
        let pace = self.rate.map(|rate| Duration::from_secs_f64(self.users as f64 / rate));
        let mut due = begun
            + pace.unwrap_or_default() * u32::try_from(n).unwrap_or(0)
                / u32::try_from(self.users).unwrap_or(1);
        for value in 1.. {
            let mut from = Instant::now();
            if let Some(pace) = pace {
                if due > from {
                    tokio::time::sleep_until(due.into()).await;
                    from = Instant::now();
                } else {
                    // Who is late because the answer before was late has waited since then.
                    from = due;
                }
                due += pace;
            }
            if from >= end {
                break;
            }
            match user.put(value).await {
                Ok(200) => {
                    written += 1;
                    let _ =
                        latency.record(u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX).max(1));
                }
                Ok(_) => failed += 1,
                Err(_) => {
                    failed += 1;
                    let Ok(again) = User::connect(user.node).await else { break };
                    user = User { cookie: user.cookie, ..again };
                }
            }
        }
        (written, failed, latency)
    }
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("fixed bounds")
}

/// One connection and the cookie that it was given.
pub(crate) struct User {
    node: SocketAddr,
    stream: TcpStream,
    cookie: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl User {
    pub(crate) async fn connect(node: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(node).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            node,
            stream,
            cookie: String::new(),
            request: Vec::new(),
            answer: Vec::with_capacity(8192),
        })
    }

    /// The node that the cookie names, counted from 0; they are called n1, n2 and so on.
    fn route(&self) -> Option<usize> {
        let (_, name) = self.cookie.rsplit_once('.')?;
        name.strip_prefix('n')?.parse::<usize>().ok()?.checked_sub(1)
    }

    /// Changes one attribute of 100 bytes; gives back the status.
    pub(crate) async fn put(&mut self, value: u64) -> io::Result<u16> {
        let path = format!("/put?k=k&n=100&v={value}");
        Ok(self.request("POST", &path).await?.0)
    }

    /// The status and the body.
    pub(crate) async fn request(&mut self, method: &str, path: &str) -> io::Result<(u16, String)> {
        use io::Write as _;
        self.request.clear();
        write!(self.request, "{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.node)?;
        if !self.cookie.is_empty() {
            write!(self.request, "Cookie: {}\r\n", self.cookie)?;
        }
        if method == "POST" {
            self.request.extend_from_slice(b"Content-Length: 0\r\n");
        }
        self.request.extend_from_slice(b"\r\n");
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&self.answer).map_err(io::Error::other)?;
            let httparse::Status::Complete(head) = parsed else { continue };
            let status = response.code.unwrap_or(0);
            let (mut length, mut cookie) = (0, None);
            for header in response.headers.iter() {
                let value = String::from_utf8_lossy(header.value);
                if header.name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().map_err(io::Error::other)?;
                } else if header.name.eq_ignore_ascii_case("set-cookie") {
                    cookie = value.split(';').next().map(str::to_owned);
                }
            }
            while self.answer.len() < head + length {
                if self.stream.read_buf(&mut self.answer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            if let Some(cookie) = cookie {
                self.cookie = cookie;
            }
            return Ok((status, String::from_utf8_lossy(&self.answer[head..head + length]).into_owned()));
        }
    }
}

/// One request by somebody who has no session.
pub(crate) async fn ask(node: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
    User::connect(node).await?.request(method, path).await
}
