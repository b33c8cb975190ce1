//! Nodes on loopback that find each other quickly, each test's apart from all others'.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use sessionmesh::{Cluster, Config};

/// One test's cluster: its name keeps others out.
#[derive(Debug)]
pub struct Net {
    cluster: String,
    multicast: bool,
    options: Vec<(&'static str, String)>,
    known: Mutex<Vec<SocketAddr>>,
}

impl Net {
    fn new(multicast: bool) -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let _ = tracing_subscriber::fmt().with_test_writer().with_max_level(level()).try_init();
        Self {
            cluster: format!("test-{}-{number}", std::process::id()),
            multicast,
            options: Vec::new(),
            known: Mutex::default(),
        }
    }

    /// Nodes that find each other by multicast on loopback.
    pub fn multicast() -> Self {
        Self::new(true)
    }

    /// Nodes that find each other by seeds.
    pub fn seeds() -> Self {
        Self::new(false)
    }

    /// The cluster's name.
    pub fn name(&self) -> String {
        self.cluster.clone()
    }

    /// With an option set on every node.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: &str) -> Self {
        self.options.push((key, value.into()));
        self
    }

    /// The configuration of the next node.
    pub fn config(&self, name: &str) -> Config {
        let mut config = Config::new();
        config.set("cluster", &self.cluster).unwrap().set("name", name).unwrap();
        config.set("bind", "127.0.0.1:0").unwrap().set("interface", "127.0.0.1").unwrap();
        config.set("frequency", "100ms").unwrap().set("drop_time", "1s").unwrap();
        config.set("join_wait", "300ms").unwrap().set("fetch_timeout", "500ms").unwrap();
        config.set("ack_timeout", "2s").unwrap().set("secret", "0123456789abcdef").unwrap();
        if !self.multicast {
            let known = self.known.lock().unwrap();
            // Nobody listens on the discard port of loopback: a first node founds at once.
            let seeds: Vec<String> = known.iter().map(ToString::to_string).collect();
            config.seeds(if seeds.is_empty() { vec!["127.0.0.1:9".into()] } else { seeds });
        }
        for (key, value) in &self.options {
            config.set(key, value).unwrap();
        }
        config
    }

    /// Starts a node; it may not be ready yet.
    pub async fn node(&self, name: &str) -> Cluster {
        let cluster = Cluster::start(self.config(name)).await.unwrap();
        self.known.lock().unwrap().push(cluster.address());
        cluster
    }

    /// Nodes n1, n2 ... that see each other and are ready.
    pub async fn start(&self, count: usize) -> Vec<Cluster> {
        let mut nodes = Vec::new();
        for n in 1..=count {
            nodes.push(self.node(&format!("n{n}")).await);
        }
        for node in &nodes {
            eventually("the node is ready", || async {
                let ready = node
                    .members()
                    .await
                    .iter()
                    .filter(|m| m.state == sessionmesh::MemberState::Ready)
                    .count();
                (node.is_ready().is_ok() && ready + 1 == count).then_some(())
            })
            .await;
        }
        nodes
    }
}

fn level() -> tracing_subscriber::filter::LevelFilter {
    match std::env::var("TEST_LOG").as_deref() {
        Ok("trace") => tracing_subscriber::filter::LevelFilter::TRACE,
        Ok("debug") => tracing_subscriber::filter::LevelFilter::DEBUG,
        _ => tracing_subscriber::filter::LevelFilter::WARN,
    }
}

/// Asks again until there is an answer, for ten seconds at most.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, probe: impl FnMut() -> F) -> T {
    within(Duration::from_secs(10), what, probe).await
}

/// Asks again until there is an answer, for so long at most.
pub async fn within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let waiting = async {
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(patience, waiting).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited {patience:?} in vain: {what}"),
    }
}
