//! P5: load and save through each store, one client, without HTTP.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use dashmap::DashMap;
use hdrhistogram::Histogram;
use sessionmesh::{Cluster, Config};
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::{Error as StoreError, Result as StoreResult, SessionStore};
use tower_sessions_redis_store::RedisStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike as _, Config as RedisConfig, Pool, ServerConfig};
use tower_sessions_sessionmesh_store::SessionMeshStore;

use crate::Error;
use crate::results::Results;
use crate::systems::{Bench, Mesh, Running, wait};

const MEMORY: &str = "MemoryStore";
const BYTES: &str = "a map of JSON bytes, on one node";
const REDIS: &str = "Redis store";
const MESH: &str = "sessionmesh store, two live peers";

/// For one version of tower-sessions: median load and save, in nanoseconds. Each save changes the value.
macro_rules! clients {
    ($name:ident, $tower_sessions:ident) => {
        async fn $name(store: &impl $tower_sessions::SessionStore, times: u64) -> Result<(f64, f64), Error> {
            let (mut loads, mut saves) = (nanos()?, nanos()?);
            let expiry_date = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
            let data = [("k".to_owned(), "x".repeat(100).into())].into();
            let mut record = $tower_sessions::session::Record {
                id: $tower_sessions::session::Id::default(),
                data,
                expiry_date,
            };
            store.create(&mut record).await?;
            let id = record.id;
            for n in 0..times {
                let begun = Instant::now();
                let loaded = store.load(&id).await?;
                loads.record(u64::try_from(begun.elapsed().as_nanos())?)?;
                let mut record = loaded.ok_or("the session is gone")?;
                record.data.insert("k".into(), format!("{n:0100}").into());
                let begun = Instant::now();
                store.save(&record).await?;
                saves.record(u64::try_from(begun.elapsed().as_nanos())?)?;
                if n % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Ok((loads.value_at_quantile(0.5) as f64, saves.value_at_quantile(0.5) as f64))
        }
    };
}

clients!(client, tower_sessions);
clients!(client_0_14, tower_sessions_0_14);

/// What any store does that keeps bytes: another node has no use for values in this one's memory.
#[derive(Clone, Debug, Default)]
struct BytesStore(Arc<DashMap<Id, Kept, foldhash::fast::RandomState>>);

#[derive(Debug)]
struct Kept {
    attributes: Vec<(String, Vec<u8>)>,
    expiry_date: time::OffsetDateTime,
}

#[async_trait]
impl SessionStore for BytesStore {
    async fn create(&self, record: &mut Record) -> StoreResult<()> {
        self.save(record).await
    }

    async fn save(&self, record: &Record) -> StoreResult<()> {
        let attribute = |(name, value): (&String, _)| Ok((name.clone(), serde_json::to_vec(value)?));
        let attributes: Result<_, serde_json::Error> = record.data.iter().map(attribute).collect();
        let attributes = attributes.map_err(|error| StoreError::Encode(error.to_string()))?;
        self.0.insert(record.id, Kept { attributes, expiry_date: record.expiry_date });
        Ok(())
    }

    async fn load(&self, id: &Id) -> StoreResult<Option<Record>> {
        let Some(kept) = self.0.get(id) else { return Ok(None) };
        let attribute =
            |(name, value): &(String, Vec<u8>)| Ok((name.clone(), serde_json::from_slice(value)?));
        let data: Result<HashMap<_, _>, serde_json::Error> = kept.attributes.iter().map(attribute).collect();
        let data = data.map_err(|error| StoreError::Decode(error.to_string()))?;
        Ok(Some(Record { id: *id, data, expiry_date: kept.expiry_date }))
    }

    async fn delete(&self, id: &Id) -> StoreResult<()> {
        self.0.remove(id);
        Ok(())
    }
}

fn nanos() -> Result<Histogram<u64>, Error> {
    Ok(Histogram::new_with_bounds(1, 10_000_000_000, 3)?)
}

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let times = bench.pick(2_000, 100_000);
    let mesh = Mesh { nodes: 2, ..Mesh::DEFAULT };
    let name = Bench::cluster_name();
    let mut peers = Running { http: Vec::new(), servers: Vec::new() };
    for n in ["n1", "n2"] {
        bench.join(&mut peers, mesh, &name, n)?;
    }
    bench.formed(&peers, 2).await?;
    let (options, http) = (bench.options(mesh, &name, "client"), peers.http.clone());
    let redis = bench.redis_alone()?;
    let port = redis.as_ref().map(|(_, port)| *port);
    let rounds = bench.rounds().min(5);
    // As a web node has it.
    let measured = std::thread::spawn(move || -> Result<Vec<(&'static str, f64, f64)>, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let mut config = Config::new();
            for (key, value) in options {
                config.set(&key, &value)?;
            }
            let cluster = Cluster::start(config).await?;
            cluster.ready().await?;
            for node in http {
                wait(node, "/members", |said| said == "2").await?;
            }
            let pool = match port {
                Some(port) => {
                    let server = ServerConfig::new_centralized("127.0.0.1", port);
                    let pool =
                        Pool::new(RedisConfig { server, ..RedisConfig::default() }, None, None, None, 6)?;
                    pool.connect();
                    pool.wait_for_connect().await?;
                    Some(pool)
                }
                None => None,
            };
            let mut measured = Vec::new();
            for _ in 0..rounds {
                let (load, save) =
                    tokio::spawn(async move { client(&tower_sessions::MemoryStore::default(), times).await })
                        .await??;
                measured.push((MEMORY, load, save));
                let (load, save) =
                    tokio::spawn(async move { client(&BytesStore::default(), times).await }).await??;
                measured.push((BYTES, load, save));
                let store = SessionMeshStore::new(&cluster);
                let (load, save) = tokio::spawn(async move { client(&store, times).await }).await??;
                measured.push((MESH, load, save));
                if let Some(pool) = pool.clone() {
                    let store = RedisStore::new(pool);
                    let (load, save) =
                        tokio::spawn(async move { client_0_14(&store, times / 20).await }).await??;
                    measured.push((REDIS, load, save));
                }
            }
            Ok(measured)
        })
    });
    while !measured.is_finished() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for (store, load, save) in measured.join().map_err(|_| "the client panicked")?? {
        results.add(store, "load", "us", load / 1e3);
        results.add(store, "save", "us", save / 1e3);
    }
    drop((peers, redis));
    results.table(
        "Load and save, one client",
        &["load", "save"],
        &[MEMORY, BYTES, MESH, REDIS],
        "Medians; each save changes 100 bytes.",
    );
    let times = |what, of, by| results.by_round(what, [of, by], |[of, by]| of / by);
    let (load, bytes) = (times("load", MESH, MEMORY), times("load", BYTES, MEMORY));
    let redis = [times("load", REDIS, MESH), times("save", REDIS, MESH)];
    results.at_most("P5", "load", load, 3.0, "x MemoryStore's");
    results.floor("P5", "load of a map of JSON bytes that nobody shares", bytes, "x MemoryStore's");
    results.at_most("P5", "save", results.median(MESH, "save"), 1.5, "us");
    results.at_least("P5", "the Redis store's load", redis[0], 50.0, "x ours");
    results.at_least("P5", "the Redis store's save", redis[1], 50.0, "x ours");
    Ok(())
}
