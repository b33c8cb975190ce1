//! The application under load: the same handlers over each store.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use clap::ValueEnum;
use serde::Deserialize;
use sessionmesh::{AckLevel, Bytes, Cluster, Config};
use tokio::net::TcpListener;
use tower_sessions::{MemoryStore, SessionManagerLayer};
use tower_sessions_redis_store::RedisStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike as _, Config as RedisConfig, Pool, ServerConfig};

use crate::Error;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Serve {
    #[arg(long)]
    store: Store,
    /// With the layer of sessionmesh-axum around tower-sessions.
    #[arg(long)]
    layer: bool,
    #[arg(long, default_value_t = 6379)]
    redis_port: u16,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Of the node, KEY=VALUE.
    #[arg(long = "set")]
    set: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// No sessions at all.
    None,
    Memory,
    Redis,
    Mesh,
}

#[derive(Deserialize)]
struct Put {
    k: String,
    v: String,
    n: usize,
}

#[derive(Deserialize)]
struct Bulk {
    n: usize,
    attrs: usize,
    bytes: usize,
}

/// `v:` padded to n bytes.
fn padded(v: &str, n: usize) -> String {
    let mut value = format!("{v}:");
    value.extend(std::iter::repeat_n('x', n.saturating_sub(value.len())));
    value
}

/// The routes with a session, for one version of tower-sessions.
macro_rules! handlers {
    ($tower_sessions:ident) => {
        use axum::Router;
        use axum::extract::Query;
        use axum::http::StatusCode;
        use axum::routing::post;
        use $tower_sessions::Session;

        use super::{Put, padded};

        async fn put(session: Session, Query(put): Query<Put>) -> Result<String, StatusCode> {
            let value = padded(&put.v, put.n);
            session.insert(&put.k, value).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
            Ok(put.v)
        }

        pub(super) fn routes() -> Router {
            Router::new().route("/put", post(put))
        }
    };
}

mod handlers {
    handlers!(tower_sessions);
}

mod handlers_0_14 {
    handlers!(tower_sessions_0_14);
}

pub(crate) fn run(serve: &Serve) -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(serve.threads).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let app = match serve.store {
            Store::None => Router::new().route("/put", post(async |Query(put): Query<Put>| put.v)),
            Store::Memory => {
                let layer = SessionManagerLayer::new(MemoryStore::default()).with_secure(false);
                handlers::routes().layer(layer)
            }
            Store::Redis => redis(serve).await?,
            Store::Mesh => mesh(serve).await?,
        };
        announce(listener.local_addr()?)?;
        let nodelay = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        Ok(axum::serve(nodelay, app).await?)
    })
}

fn announce(http: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{http}")?;
    out.flush()
}

async fn redis(serve: &Serve) -> Result<Router, Error> {
    use tower_sessions_0_14::cookie::time::Duration;
    use tower_sessions_0_14::session::{Id, Record};
    use tower_sessions_0_14::{SessionManagerLayer, SessionStore as _};

    let server = ServerConfig::new_centralized("127.0.0.1", serve.redis_port);
    let pool = Pool::new(RedisConfig { server, ..RedisConfig::default() }, None, None, None, 6)?;
    pool.connect();
    pool.wait_for_connect().await?;
    let store = RedisStore::new(pool);
    let layer = SessionManagerLayer::new(store.clone()).with_secure(false);
    let bulk = async move |Query(bulk): Query<Bulk>| {
        for _ in 0..bulk.n {
            let data = (0..bulk.attrs).map(|n| (format!("a{n}"), "x".repeat(bulk.bytes).into())).collect();
            let expiry_date = time::OffsetDateTime::now_utc() + Duration::hours(1);
            let mut record = Record { id: Id::default(), data, expiry_date };
            if let Err(error) = store.create(&mut record).await {
                return error.to_string();
            }
        }
        bulk.n.to_string()
    };
    Ok(handlers_0_14::routes().layer(layer).route("/bulk", post(bulk)))
}

async fn mesh(serve: &Serve) -> Result<Router, Error> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "off,sessionmesh=error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut config = Config::new();
    config.load_env()?;
    for pair in &serve.set {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        config.set(key, value)?;
    }
    let cluster = Cluster::start(config).await?;
    let cookie = sessionmesh_axum::CookieConfig { secure: false, token: serve.layer, ..Default::default() };
    let routes = handlers::routes();
    let routes = if serve.layer {
        let (mesh, sessions) = sessionmesh_axum::session_layers(&cluster, cookie);
        routes.layer(sessions).layer(mesh)
    } else {
        let store = sessionmesh_axum::SessionMeshStore::new(&cluster);
        routes.layer(SessionManagerLayer::new(store).with_secure(false))
    };
    let admin = Router::new()
        .route("/ready", get(ready))
        .route("/members", get(members))
        .route("/count", get(count))
        .route("/stats", get(stats))
        .route("/bulk", post(bulk))
        .with_state(Arc::new(cluster));
    Ok(routes.merge(admin))
}

type Node = State<Arc<Cluster>>;

async fn ready(State(cluster): Node) -> String {
    cluster.is_ready().map_or_else(|reason| reason, |()| "ready".into())
}

async fn members(State(cluster): Node) -> String {
    cluster.members().await.len().to_string()
}

async fn count(State(cluster): Node) -> String {
    cluster.session_count().to_string()
}

async fn stats(State(cluster): Node) -> axum::Json<sessionmesh::Stats> {
    axum::Json(cluster.stats())
}

async fn bulk(State(cluster): Node, Query(bulk): Query<Bulk>) -> String {
    let sessions = cluster.at(AckLevel::Async);
    // As JSON, as the session layer writes them.
    let value = Bytes::from(format!("\"{}\"", "x".repeat(bulk.bytes)));
    for n in 0..bulk.n {
        let created = sessions.create(|session| {
            for attribute in 0..bulk.attrs {
                // Of its own, as if it had come with a request.
                session.set(&format!("a{attribute}"), Bytes::copy_from_slice(&value));
            }
        });
        if let Err(error) = created.await {
            return error.to_string();
        }
        if n % 100 == 99 {
            tokio::task::yield_now().await;
        }
    }
    bulk.n.to_string()
}
