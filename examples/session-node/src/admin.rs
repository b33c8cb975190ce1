//! What operators, balancers and tests ask of a node. No session is needed, and none is made.

use axum::Router;
use axum::extract::{Query, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use sessionmesh::{AckLevel, CommitError, Stats};

use crate::app::MAX_VALUE_BYTES;
use crate::serve::Node;

pub(crate) fn routes() -> Router<Node> {
    Router::new()
        .route("/count", get(count))
        .route("/bulk", post(bulk))
        .route("/members", get(members))
        .route("/stats", get(stats))
        .route("/readyz", get(readyz))
        .route("/livez", get(async || "alive\n"))
        .route("/leave", post(leave))
}

async fn count(State(node): State<Node>) -> String {
    node.cluster.session_count().to_string()
}

#[derive(Deserialize)]
struct Bulk {
    n: usize,
    attrs: usize,
    bytes: usize,
}

async fn bulk(State(node): State<Node>, Query(bulk): Query<Bulk>) -> Result<String, Response> {
    if bulk.bytes > MAX_VALUE_BYTES {
        return Err(
            (StatusCode::PAYLOAD_TOO_LARGE, format!("at most {MAX_VALUE_BYTES} bytes\n")).into_response()
        );
    }
    let sessions = node.cluster.at(AckLevel::Async);
    // As JSON, as the session layer writes them.
    let value = serde_json::to_vec(&"x".repeat(bulk.bytes)).unwrap_or_default();
    let value = sessionmesh::Bytes::from(value);
    for n in 0..bulk.n {
        let created = sessions.create(|session| {
            for attribute in 0..bulk.attrs {
                session.set(&format!("a{attribute}"), value.clone());
            }
        });
        created.await.map_err(|error| {
            let status = match error {
                CommitError::OverLimit(_) => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, format!("{error}\n")).into_response()
        })?;
        if n % 100 == 99 {
            tokio::task::yield_now().await;
        }
    }
    Ok(count(State(node)).await)
}

async fn members(State(node): State<Node>, RawQuery(query): RawQuery) -> Response {
    let members = node.cluster.members().await;
    if query.is_some_and(|query| query.split('&').any(|part| part == "count" || part.starts_with("count="))) {
        return members.len().to_string().into_response();
    }
    let list: Vec<_> = members
        .iter()
        .map(|member| {
            serde_json::json!({
                "name": member.name.as_str(),
                "address": member.address.to_string(),
                "state": member.state.to_string(),
            })
        })
        .collect();
    Json(list).into_response()
}

async fn stats(State(node): State<Node>) -> Json<Stats> {
    Json(node.cluster.stats())
}

async fn readyz(State(node): State<Node>) -> Response {
    match node.readiness() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn leave(State(node): State<Node>) -> Response {
    let alone = node.cluster.members().await.is_empty();
    match node.cluster.leave().await {
        Ok(()) if alone => "left; there was no other node to hand anything to\n".into_response(),
        Ok(()) => "left, everything is handed over\n".into_response(),
        Err(error) => (StatusCode::GATEWAY_TIMEOUT, format!("{error}\n")).into_response(),
    }
}
