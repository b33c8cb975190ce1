//! The application: what a request does with its session.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::Value;
use sessionmesh_axum::{CookieConfig, session_layers};
use tower_sessions::Session;
use tower_sessions::session::Error;

use crate::serve::Node;
use crate::{admin, cart};

pub(crate) fn router(node: Node, cookie: CookieConfig) -> Router {
    let (mesh, sessions) = session_layers(&node.cluster, cookie);
    // `mesh` goes outside `sessions`: it is added last.
    Router::new()
        .route("/put", post(put))
        .route("/get", get(read))
        .route("/del", post(delete))
        .route("/slow", post(slow))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/session", get(show))
        .merge(cart::routes())
        .layer(sessions)
        .layer(mesh)
        .merge(admin::routes())
        .with_state(node)
}

/// No request makes this node allocate more for one value, whatever sessions may hold.
pub(crate) const MAX_VALUE_BYTES: usize = 64 << 20;

/// A session error that the layer has no better answer for.
pub(crate) struct Failed(Error);

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", self.0)).into_response()
    }
}

#[derive(Deserialize)]
struct Put {
    k: String,
    v: String,
    n: Option<usize>,
}

/// `v`, or with `n` `v:` padded with x to n bytes.
fn value(v: &str, n: Option<usize>) -> String {
    match n {
        Some(n) => {
            let mut value = format!("{v}:");
            let padding = n.saturating_sub(value.len());
            value.extend(std::iter::repeat_n('x', padding));
            value
        }
        None => v.into(),
    }
}

async fn put(session: Session, Query(put): Query<Put>) -> Result<Response, Failed> {
    if put.n.is_some_and(|n| n > MAX_VALUE_BYTES) {
        return Ok(
            (StatusCode::PAYLOAD_TOO_LARGE, format!("at most {MAX_VALUE_BYTES} bytes\n")).into_response()
        );
    }
    session.insert(&put.k, value(&put.v, put.n)).await?;
    Ok(put.v.into_response())
}

#[derive(Deserialize)]
struct Key {
    k: String,
}

async fn read(session: Session, Query(key): Query<Key>) -> Result<Response, Failed> {
    Ok(match session.get::<String>(&key.k).await? {
        Some(value) => value.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

async fn delete(session: Session, Query(key): Query<Key>) -> Result<StatusCode, Failed> {
    // A removal marks the session as changed even if there is nothing to remove.
    if session.get_value(&key.k).await?.is_some() {
        session.remove_value(&key.k).await?;
    }
    Ok(StatusCode::OK)
}

#[derive(Deserialize)]
struct Slow {
    k: String,
    v: String,
    ms: u64,
}

/// The slow parallel request: reads early, writes late.
async fn slow(session: Session, Query(slow): Query<Slow>) -> Result<String, Failed> {
    session.get_value(&slow.k).await?;
    tokio::time::sleep(Duration::from_millis(slow.ms.min(60_000))).await;
    session.insert(&slow.k, &slow.v).await?;
    Ok(slow.v)
}

#[derive(Deserialize)]
struct Login {
    user: String,
}

/// A login gives the session a new id, so that one planted before it is worth nothing.
async fn login(session: Session, Query(login): Query<Login>) -> Result<String, Failed> {
    if session.id().is_some() {
        session.cycle_id().await?;
    }
    session.insert("user", &login.user).await?;
    Ok(login.user)
}

async fn logout(session: Session) -> Result<StatusCode, Failed> {
    if session.id().is_some() {
        session.flush().await?;
    }
    Ok(StatusCode::OK)
}

async fn show(State(node): State<Node>, session: Session) -> Result<Response, Failed> {
    // Loading tells whether the id is one of a live session.
    session.get_value("").await?;
    let Some(id) = session.id() else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    // All attributes and the version are not to be had of tower-sessions, but of the cluster.
    let session_id = sessionmesh::SessionId::from_bytes(id.0.to_le_bytes());
    let snapshot = match node.cluster.sessions().load(&session_id).await {
        Ok(Some(snapshot)) => snapshot,
        Ok(None) => return Ok(StatusCode::NOT_FOUND.into_response()),
        // Not knowing is not "no".
        Err(error) => return Ok((StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()),
    };
    let value = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or(Value::Null);
    let attributes: BTreeMap<&str, Value> =
        snapshot.iter().map(|(name, bytes)| (name, value(bytes))).collect();
    let version: BTreeMap<String, u64> =
        snapshot.version().entries().map(|(boot, hlc)| (boot.to_string(), hlc.get())).collect();
    let shown = serde_json::json!({
        "id": id.to_string(),
        "node": node.cluster.name().as_str(),
        "holders": node.cluster.holders(&session_id).iter().map(|name| name.to_string()).collect::<Vec<_>>(),
        "version": version,
        "attributes": attributes,
    });
    Ok(Json(shown).into_response())
}
