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
//! The cookie's value ends in `~<token>.<route>`, taken off again before tower-sessions sees it. The token says what the client
//! has seen of its session, read or written: another node shows it no less, or says why with the header
//! [`STALE_HEADER`] and to the handler by [`stale`], or answers 503 ([`SessionMeshLayer::refuse_stale`]). The route is the name
//! of a node that holds the session, for balancers. An answer to a request that only read sets the cookie again if either
//! changed; [`SessionMeshLayer::ignore`] leaves out what needs no session.
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
