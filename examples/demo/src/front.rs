//! The balancer: every request goes to the next node, sticky to none. What nginx does with
//! `proxy_next_upstream error timeout http_503 non_idempotent`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use crate::Error;

#[derive(Clone, Debug)]
struct Front {
    targets: Arc<Mutex<Vec<SocketAddr>>>,
    next: Arc<AtomicUsize>,
    client: reqwest::Client,
}

/// Serves on the port, or the next that is free; gives back where.
pub(crate) async fn serve(port: u16, targets: Arc<Mutex<Vec<SocketAddr>>>) -> Result<SocketAddr, Error> {
    let listener = bind(port).await?;
    let address = listener.local_addr()?;
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_millis(500))
        .timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let front = Front { targets, next: Arc::default(), client };
    let app = Router::new().fallback(forward).with_state(front);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

async fn bind(port: u16) -> Result<TcpListener, Error> {
    let mut last = None;
    for port in port..=port.saturating_add(20) {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    Err(format!(
        "no free port from {port} upwards: {}",
        last.map(|error| error.to_string()).unwrap_or_default()
    )
    .into())
}

async fn forward(State(front): State<Front>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, 1 << 20).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let targets = front.targets.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut last = (StatusCode::BAD_GATEWAY, "no node answers\n").into_response();
    // One turn per request, and from there every node once: requests that run at the same time must
    // not use up each other's tries.
    let turn = front.next.fetch_add(1, Ordering::Relaxed) % targets.len().max(1);
    for target in targets.iter().cycle().skip(turn).take(targets.len()) {
        let answer = front
            .client
            .request(parts.method.clone(), format!("http://{target}{path}"))
            .headers(end_to_end(&parts.headers))
            .body(body.clone())
            .send()
            .await;
        let Ok(answer) = answer else { continue };
        let status = answer.status();
        let headers = end_to_end(answer.headers());
        let Ok(bytes) = answer.bytes().await else { continue };
        let mut response = Response::new(Body::from(bytes));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        // A node that can't serve says so before it does anything: another may.
        if status != StatusCode::SERVICE_UNAVAILABLE {
            return response;
        }
        last = response;
    }
    last
}

/// Headers that are not about one connection.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers
}
