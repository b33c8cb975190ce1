//! The layer: a context around each request, and precise answers after it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use sessionmesh::{AckLevel, Cluster};
use tower_layer::Layer;
use tower_service::Service;
use tower_sessions_sessionmesh_store::{Failure, RequestContext, SessionMeshStore};

use crate::CookieConfig;

/// Gives the writes of the request that the current task serves a level of their own.
///
/// Says whether there is such a request: not outside the layer, nor in a task that a handler spawned.
pub fn set_level(level: AckLevel) -> bool {
    let context = RequestContext::current();
    if let Some(context) = &context {
        context.set_level(level);
    }
    context.is_some()
}

/// Goes outside `SessionManagerLayer`. See the [crate](crate).
#[derive(Clone, Debug)]
pub struct SessionMeshLayer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    cluster: Cluster,
    store: SessionMeshStore,
    cookie: CookieConfig,
}

impl SessionMeshLayer {
    /// For the same store and cookie as the `SessionManagerLayer` inside. See
    /// [`session_layers`](crate::session_layers), which makes both.
    pub fn new(cluster: &Cluster, store: SessionMeshStore, cookie: CookieConfig) -> Self {
        Self(Arc::new(Shared { cluster: cluster.clone(), store, cookie }))
    }
}

impl<S> Layer<S> for SessionMeshLayer {
    type Service = SessionMeshService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionMeshService { inner, shared: self.0.clone() }
    }
}

/// The service that [`SessionMeshLayer`] makes.
#[derive(Clone, Debug)]
pub struct SessionMeshService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionMeshService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Send + 'static,
    ResBody: From<String> + Send,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let shared = self.shared.clone();
        // The clone takes the place of the one that was polled ready.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            if let Err(reason) = shared.cluster.is_ready() {
                return Ok(unavailable(&reason));
            }
            let context = RequestContext::new();
            if let Some(id) = shared.cookie.session_id(request.headers())
                && let Err(error) = shared.store.preload(&context, &id).await
            {
                return Ok(unavailable(&error.to_string()));
            }
            let mut pending = PendingDelete { store: &shared.store, context: &context, armed: true };
            let response = context.clone().scope(inner.call(request)).await?;
            pending.armed = false;
            shared.store.finish(&context).await;
            Ok(match context.failure() {
                None => response,
                Some(failure) => shared.answer(response, failure),
            })
        })
    }
}

/// A logout is a logout even if the client has hung up or the handler panicked.
struct PendingDelete<'a> {
    store: &'a SessionMeshStore,
    context: &'a RequestContext,
    armed: bool,
}

impl Drop for PendingDelete<'_> {
    fn drop(&mut self) {
        if self.armed {
            let (store, context) = (self.store.clone(), self.context.clone());
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { store.finish(&context).await });
            }
        }
    }
}

impl Shared {
    fn answer<B: From<String>>(&self, response: Response<B>, failure: Failure) -> Response<B> {
        let (mut parts, _) = response.into_parts();
        let (status, body) = match failure {
            Failure::Undecided(reason) => {
                drop_cookie(&mut parts.headers, &self.cookie);
                parts.headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
                (StatusCode::SERVICE_UNAVAILABLE, reason)
            }
            // The cookie that tower-sessions set stays: the write is kept.
            Failure::LevelMissed(outcome) => (StatusCode::GATEWAY_TIMEOUT, outcome.to_string()),
            Failure::Ended => {
                drop_cookie(&mut parts.headers, &self.cookie);
                if let Some(removal) = self.cookie.removal() {
                    parts.headers.append(SET_COOKIE, removal);
                }
                (StatusCode::CONFLICT, "the session has ended".into())
            }
            Failure::OverLimit(reason) => (StatusCode::PAYLOAD_TOO_LARGE, reason),
            // The enum grows with the store.
            other => {
                tracing::error!(failure = ?other, "session failure");
                (StatusCode::INTERNAL_SERVER_ERROR, "the session could not be saved".into())
            }
        };
        parts.status = status;
        text(&mut parts.headers);
        Response::from_parts(parts, B::from(body + "\n"))
    }
}

fn text(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
}

/// Takes out what tower-sessions said of the cookie.
fn drop_cookie(headers: &mut HeaderMap, cookie: &CookieConfig) {
    let others: Vec<HeaderValue> =
        headers.get_all(SET_COOKIE).iter().filter(|header| !cookie.is_set_by(header)).cloned().collect();
    headers.remove(SET_COOKIE);
    for other in others {
        headers.append(SET_COOKIE, other);
    }
}

fn unavailable<B: From<String>>(reason: &str) -> Response<B> {
    let mut response = Response::new(B::from(format!("{reason}\n")));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    text(response.headers_mut());
    response
}
