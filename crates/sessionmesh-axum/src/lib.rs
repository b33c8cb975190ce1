//! [sessionmesh] for axum, outside the unmodified tower-sessions.
//!
//! The store alone can only answer 500 when something goes wrong. [`SessionMeshLayer`], put outside
//! `SessionManagerLayer`, tells the store about each request and answers precisely:
//!
//! | what happened | answer | the session cookie |
//! |---|---|---|
//! | the node joins, leaves, or can't tell whether the session exists | 503 before the handler runs | kept |
//! | the session ended while the request ran | 409, nothing written | removed |
//! | a change past a limit | 413, nothing written | kept |
//! | too few holders had the write in time | 504 with `have of want`; it is kept and still sent | set |
//!
//! `cycle_id` becomes one change of id, safe against a crash in between; [`set_level`] gives one
//! request a level of its own.
//!
//! ```no_run
//! # use axum::{Router, routing::get};
//! # fn app(cluster: &sessionmesh::Cluster) -> Router {
//! use sessionmesh_axum::{CookieConfig, session_layers};
//!
//! let (mesh, sessions) = session_layers(cluster, CookieConfig::default());
//! Router::new().route("/", get(|| async { "hello" })).layer(sessions).layer(mesh)
//! # }
//! ```

mod cookie;
#[cfg(fuzzing)]
pub mod fuzzing;
mod layer;
mod suffix;

pub use cookie::{CookieConfig, session_layers};
pub use layer::{STALE_HEADER, SessionMeshLayer, SessionMeshService, set_level, stale};
pub use sessionmesh::Stale;
pub use tower_sessions_sessionmesh_store::{Failure, RequestContext, SessionMeshStore};
