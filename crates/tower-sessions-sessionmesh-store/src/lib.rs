//! A [tower-sessions](tower_sessions_core) store without a store: sessions live in the web nodes
//! themselves, replicated by [sessionmesh].
//!
//! ```no_run
//! # async fn run(cluster: sessionmesh::Cluster) {
//! use tower_sessions_sessionmesh_store::SessionMeshStore;
//!
//! let store = SessionMeshStore::new(&cluster);
//! // let layer = SessionManagerLayer::new(store);   // the one line that changes
//! # let _ = store; }
//! ```
//!
//! # What it does better than a store that saves whole records
//!
//! * **Parallel requests of one browser** do not overwrite each other. A loaded record carries, under
//!   a reserved key, a hash of each value; [`save`](tower_sessions_core::SessionStore::save) commits
//!   only what the request changed.
//! * **A logged-out session stays logged out.** `save` fails for a session that has ended; the layer
//!   answers 500 (with `sessionmesh-axum`: 409).
//! * **"I don't know" is not "no".** `load` returns `None` only for an end, an expiry, or when every
//!   holder was asked and has none; otherwise an error, so that a node in trouble never makes the
//!   layer remove a user's cookie.
//!
//! # What to know
//!
//! * The idle limit is the cluster's (`idle`), and every load counts as an access; the record's
//!   expiry date is a cap on top. Use `Expiry::OnSessionEnd`. A cap that moves by less than 1 % of
//!   the time left is not written again.
//! * [`Session::cycle_id`](tower_sessions_core::Session::cycle_id) reaches a store as `delete(old)`
//!   and later `create(new)`. This store links the two and carries over what other requests wrote to
//!   the old id before its end; but **a crash of the node between the two loses the session**, as
//!   with every store. With `sessionmesh-axum`'s layer it is one change of id.
//! * A second `save` of one `Session` in one request compares with what was loaded, not with the
//!   first save: it sets the same values again, and what was set back to what was loaded stays as the
//!   first save left it. With `sessionmesh-axum`'s layer it compares with the first.
//! * A session cleared by the handler loses the reserved key, and its next `save` removes every
//!   attribute, those that other requests have set meanwhile too.
//! * Values are stored as JSON, so [`sessionmesh::Snapshot::get_json`] reads them.
//!
//! The minor version of this crate is that of `tower-sessions-core`.

mod base;
mod context;
mod hash;
mod recent;
mod store;

pub use context::{Failure, RequestContext};
pub use store::SessionMeshStore;
pub use tower_sessions_core;
