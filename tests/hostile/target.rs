//! Two nodes with a session, under attack while somebody writes to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster_tests::{Net, eventually};
use sessionmesh::{AckLevel, Cluster, Event, SessionId};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Mutex, broadcast};

use super::liar::Liar;

pub(crate) struct Target {
    pub(crate) net: Net,
    pub(crate) nodes: Vec<Cluster>,
    pub(crate) id: SessionId,
    writer: Writer,
    events: Mutex<broadcast::Receiver<Event>>,
}

impl Target {
    pub(crate) async fn new() -> Self {
        Self::on(Net::seeds()).await
    }

    pub(crate) async fn on(net: Net) -> Self {
        let nodes = net.start(2).await;
        let id = nodes[0]
            .at(AckLevel::All)
            .create(|s| {
                s.set("k", "v");
            })
            .await
            .unwrap()
            .id;
        let writer = Writer::start(nodes[0].clone()).await;
        let events = Mutex::new(nodes[0].events());
        Self { net, nodes, id, writer, events }
    }

    /// One who knows the secret.
    pub(crate) fn liar(&self) -> Liar {
        Liar::new(&self.net.name(), 66)
    }

    /// Whatever happened: the members are members, the session is as it was, and requests took no longer than before.
    pub(crate) async fn unharmed(&self) {
        for node in &self.nodes {
            eventually("the other is the only member", || async {
                let members = node.members().await;
                (members.len() == 1 && members[0].name.as_str() != "liar").then_some(())
            })
            .await;
            let session = node.sessions().load(&self.id).await.unwrap().unwrap();
            assert_eq!(session.get("k"), Some(&b"v"[..]));
        }
        let written = self.nodes[0].at(AckLevel::All).set(&self.id, "probe", "1").await.unwrap();
        assert_eq!((written.outcome.have, written.outcome.want), (2, 2));
        while let Ok(event) = self.events.lock().await.try_recv() {
            assert!(
                !matches!(&event, Event::MemberDropped { name, .. } if name.as_str() == "n2"),
                "{event:?}"
            );
        }
        self.writer.unmoved();
    }
}

/// Writes at level `all`, again and again, before and during an attack.
struct Writer {
    took: Arc<std::sync::Mutex<Vec<Result<Duration, String>>>>,
    stop: Arc<AtomicBool>,
    before: usize,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Writer {
    async fn start(node: Cluster) -> Self {
        let took = Arc::new(std::sync::Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (taking, stopping) = (took.clone(), stop.clone());
        tokio::spawn(async move {
            let sessions = node.at(AckLevel::All);
            let id = sessions.create(|_| {}).await.unwrap().id;
            let mut beat = tokio::time::interval(Duration::from_millis(5));
            let mut number = 0;
            while !stopping.load(Ordering::Relaxed) {
                beat.tick().await;
                number += 1;
                let begun = tokio::time::Instant::now();
                let written = sessions.set(&id, "n", number.to_string()).await;
                let took = written.map(|_| begun.elapsed()).map_err(|error| error.to_string());
                taking.lock().unwrap().push(took);
            }
        });
        eventually("it has written for a while", || async {
            (took.lock().unwrap().len() >= 50).then_some(())
        })
        .await;
        let before = took.lock().unwrap().len();
        Self { took, stop, before }
    }

    /// No write has failed since, and the middle one took about as long as before. Of the slowest this says nothing: other
    /// tests share the machine.
    fn unmoved(&self) {
        let took: Result<Vec<Duration>, String> = self.took.lock().unwrap().iter().cloned().collect();
        let took = took.expect("every write has reached its level");
        let (before, during) = took.split_at(self.before);
        let (before, during) = (median(before), median(during));
        assert!(during <= before * 3 + Duration::from_millis(5), "{during:?}, {before:?} before");
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Until the other side closes.
pub(crate) async fn closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    let _ =
        tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("it closes");
}

pub(crate) fn caused(node: &Cluster, words: &str) -> u64 {
    node.stats().causes.iter().filter(|(cause, _)| cause.contains(words)).map(|(_, count)| count).sum()
}

pub(crate) async fn counted(node: &Cluster, words: &str) {
    eventually(&format!("{words:?} is counted"), || async { (caused(node, words) > 0).then_some(()) }).await;
}
