//! P9: changes from commit on one node to applied on another, a core each, without HTTP.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use performance::{BATCH, Stage, Way};
use sessionmesh::{AckLevel, Bytes, Change, Cluster, Config, SessionId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::Error;
use crate::results::Results;
use crate::systems::{Bench, Mesh};

const MESH: &str = "sessionmesh, commit to applied";
const INSECURE: &str = "sessionmesh, commit to applied, not encrypted";
const COMMIT: &str = "sessionmesh, commit with no peer";
const TCP: &str = "bare tokio TCP, the same bytes in 64 KiB";
const RATE: &str = "deltas";
const TIME: &str = "time of a delta";
/// What a delta of 100 bytes takes as a frame.
const FRAME_BYTES: usize = 150;

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let deltas = bench.pick(20_000, 2_000_000);
    for _ in 0..bench.rounds().min(5) {
        for (what, insecure) in [(MESH, false), (INSECURE, true)] {
            let pair = Pair::start(bench, Mesh { insecure, ..Mesh::DEFAULT })?;
            pair.write(deltas / 10, Duration::ZERO)?;
            let took = pair.write(deltas, Duration::ZERO)?;
            results.add(what, RATE, "/s", deltas as f64 / took.as_secs_f64());
        }
        let alone = Writer::start(bench, Mesh::DEFAULT, Bench::cluster_name(), 0)?;
        alone.write(deltas / 10, Duration::ZERO)?;
        let took = alone.write(deltas, Duration::ZERO)?;
        results.add(COMMIT, RATE, "/s", deltas as f64 / took.as_secs_f64());
        results.add(TCP, RATE, "/s", bare_tcp(deltas)?);
    }
    results.table(
        "The engine without HTTP: changes of 100 bytes",
        &[RATE],
        &[MESH, INSECURE, COMMIT, TCP],
        "One thread commits, one applies; each is a core.",
    );
    stages(bench, results)?;
    results.at_least("P9", "deltas from commit to applied", results.median(MESH, RATE), 1_000_000.0, "/s");
    Ok(())
}

/// Where the time goes: each stage by itself, and what the two cores do beside.
fn stages(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    const SENDS: &str = "commit to write: the sending core";
    const TAKES: &str = "read to apply: the receiving core";
    const MEASURED: &str = "measured between two nodes";
    const BARE: &str = "measured, bare tokio TCP";
    let batches = bench.pick(5, 1_000);
    let deltas = batches as f64 * BATCH as f64;
    let mut way = Way::new()?;
    for _ in 0..bench.rounds().min(5) {
        let mut totals = [0.0; Stage::ALL.len()];
        for _ in 0..batches {
            for (total, took) in totals.iter_mut().zip(way.carry()?) {
                *total += took.as_nanos() as f64 / deltas;
            }
        }
        for (stage, total) in Stage::ALL.iter().zip(totals) {
            results.add(stage.name(), TIME, "ns", total);
        }
        let (sends, takes) = totals.split_at(Stage::Read as usize);
        results.add(SENDS, TIME, "ns", sends.iter().sum());
        results.add(TAKES, TIME, "ns", takes.iter().sum());
    }
    for (what, of) in [(MEASURED, MESH), (BARE, TCP)] {
        let rates = results.figure(of, RATE).map(|figure| figure.values.clone()).unwrap_or_default();
        rates.into_iter().for_each(|rate| results.add(what, TIME, "ns", 1e9 / rate));
    }
    let mut rows: Vec<&str> = Stage::ALL.iter().map(|stage| stage.name()).collect();
    rows.extend([SENDS, TAKES, MEASURED, BARE]);
    results.table(
        "The engine, stage by stage",
        &[TIME],
        &rows,
        "One thread, batches of 400 changes over 10,000 sessions. Between two nodes the slower core decides; what it takes longer than its \
         stages is tasks, wakes, acknowledgements and the session API.",
    );
    Ok(())
}

/// Two nodes, each with one thread of this process.
pub(super) struct Pair {
    writer: Writer,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    reader: Option<std::thread::JoinHandle<()>>,
    applied: Cluster,
}

/// How many changes, and the pause after each.
type Order = (u64, Duration);

/// A node whose thread commits when it is told to.
struct Writer {
    orders: Option<mpsc::Sender<Order>>,
    done: mpsc::Receiver<Result<Duration, String>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn node(options: Vec<(String, String)>) -> Result<Cluster, Error> {
    let mut config = Config::new();
    for (key, value) in options {
        config.set(&key, &value)?;
    }
    let cluster = Cluster::start(config).await?;
    cluster.ready().await?;
    Ok(cluster)
}

impl Pair {
    pub(super) fn start(bench: &Bench, mesh: Mesh) -> Result<Self, Error> {
        let name = Bench::cluster_name();
        let options = bench.options(mesh, &name, "reader");
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let reader = std::thread::Builder::new().name("reader".into()).spawn(move || {
            let started = runtime().map_err(Error::from).and_then(|runtime| {
                let cluster = runtime.block_on(node(options))?;
                Ok((runtime, cluster))
            });
            match started {
                Ok((runtime, cluster)) => {
                    let _ = tell.send(Ok(cluster));
                    let _ = runtime.block_on(stopped);
                }
                Err(error) => drop(tell.send(Err(error.to_string()))),
            }
        })?;
        let applied = told.recv()??;
        let writer = Writer::start(bench, mesh, name, 1)?;
        Ok(Self { writer, stop: Some(stop), reader: Some(reader), applied })
    }

    /// So many changes, with a pause after each; how long until the other has applied the last.
    pub(super) fn write(&self, deltas: u64, pause: Duration) -> Result<Duration, Error> {
        let before = self.frames();
        let begun = Instant::now();
        self.writer.write(deltas, pause)?;
        while self.frames() < before + deltas {
            if begun.elapsed() > Duration::from_secs(120) {
                return Err(format!("{} of {deltas} were applied", self.frames() - before).into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(begun.elapsed())
    }

    /// Data that came from the writer; its other frames are few.
    fn frames(&self) -> u64 {
        self.applied.stats().peers.iter().map(|peer| peer.frames_received).sum()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Writer {
    fn start(bench: &Bench, mesh: Mesh, name: String, peers: usize) -> Result<Self, Error> {
        let options = bench.options(mesh, &name, "writer");
        let (orders, ordered) = mpsc::channel::<Order>();
        let (tell, done) = mpsc::channel();
        let thread = std::thread::Builder::new().name("writer".into()).spawn(move || {
            let write = || -> Result<(), Error> {
                let runtime = runtime()?;
                let cluster = runtime.block_on(node(options))?;
                let ids = runtime.block_on(sessions(&cluster, peers))?;
                tell.send(Ok(Duration::ZERO))?;
                // No value twice: what changes nothing is not sent.
                let mut values = 1..;
                loop {
                    // Meanwhile its links are served.
                    let order = loop {
                        match ordered.try_recv() {
                            Ok(order) => break order,
                            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
                            Err(mpsc::TryRecvError::Empty) => {
                                runtime
                                    .block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
                            }
                        }
                    };
                    let took = runtime.block_on(commit(&cluster, &ids, &mut values, order))?;
                    tell.send(Ok(took))?;
                }
            };
            if let Err(error) = write() {
                let _ = tell.send(Err(error.to_string()));
            }
        })?;
        let writer = Self { orders: Some(orders), done, thread: Some(thread) };
        writer.done.recv()??;
        Ok(writer)
    }

    fn write(&self, deltas: u64, pause: Duration) -> Result<Duration, Error> {
        if let Some(orders) = &self.orders {
            orders.send((deltas, pause))?;
        }
        Ok(self.done.recv()??)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn sessions(cluster: &Cluster, peers: usize) -> Result<Vec<SessionId>, Error> {
    while cluster.members().await.len() < peers {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sessions = cluster.at(AckLevel::Async);
    let mut ids = Vec::new();
    for _ in 0..10_000 {
        let created = sessions
            .create(|session| {
                session.set("k", value(0));
            })
            .await?;
        ids.push(created.id);
        tokio::task::yield_now().await;
    }
    Ok(ids)
}

/// A JSON string of 100 bytes, cheaply another each time.
fn value(n: u64) -> Bytes {
    let mut value = vec![b'x'; 102];
    for (byte, place) in value[1..].iter_mut().zip(0..16) {
        *byte = b'a' + u8::try_from(n >> (4 * place) & 15).unwrap_or(0);
    }
    (value[0], value[101]) = (b'"', b'"');
    Bytes::from(value)
}

async fn commit(
    cluster: &Cluster,
    ids: &[SessionId],
    values: &mut impl Iterator<Item = u64>,
    (deltas, pause): Order,
) -> Result<Duration, Error> {
    let sessions = cluster.at(AckLevel::Async);
    let begun = Instant::now();
    for ((n, id), written) in (0..deltas).zip(ids.iter().cycle()).zip(values) {
        let change = Change { attributes: vec![("k".into(), Some(value(written)))], limits: None };
        sessions.apply(id, change).await?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        } else if n % 64 == 63 {
            tokio::task::yield_now().await;
            if n % 1024 == 1023 {
                // As fast as the other reads, no faster: past its bound an outbox is cut.
                while cluster.stats().peers.iter().any(|peer| peer.outbox_bytes > 4 << 20) {
                    tokio::time::sleep(Duration::from_micros(500)).await;
                }
            }
        }
    }
    Ok(begun.elapsed())
}

/// Messages of that size a second from one thread to another, each with a runtime of its own.
fn bare_tcp(messages: u64) -> Result<f64, Error> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let total = messages as usize * FRAME_BYTES;
    let reader = std::thread::spawn(move || -> std::io::Result<()> {
        runtime()?.block_on(async {
            let (mut stream, _) = tokio::net::TcpListener::from_std(listener)?.accept().await?;
            let mut buffer = vec![0; 64 << 10];
            let mut read = 0;
            while read < total {
                read += stream.read(&mut buffer).await?.max(1);
            }
            stream.write_all(b"done").await
        })
    });
    let writer = std::thread::spawn(move || -> std::io::Result<Duration> {
        runtime()?.block_on(async {
            let mut stream = tokio::net::TcpStream::connect(at).await?;
            let begun = Instant::now();
            let buffer = vec![7; 64 << 10];
            let mut written = 0;
            while written < total {
                let next = buffer.len().min(total - written);
                stream.write_all(&buffer[..next]).await?;
                written += next;
            }
            stream.read_exact(&mut [0; 4]).await?;
            Ok(begun.elapsed())
        })
    });
    let took = writer.join().map_err(|_| "the writer panicked")??;
    reader.join().map_err(|_| "the reader panicked")??;
    Ok(messages as f64 / took.as_secs_f64())
}
