//! The layer: a context around each request, and precise answers after it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, Entry, HeaderName, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use sessionmesh::{AckLevel, Cluster, NodeName, Stale};
use tower_layer::Layer;
use tower_service::Service;
use tower_sessions_sessionmesh_store::{Failure, RequestContext, SessionMeshStore};

use crate::CookieConfig;
use crate::cookie::Carried;
use crate::suffix::Suffix;

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

/// Why the session that the current task serves is older than what its client has seen; `None` if it is not, or
/// nothing has been loaded yet. See [`Stale`].
pub fn stale() -> Option<Stale> {
    RequestContext::current()?.stale()
}

/// Says why the session of an answer is older than what its client had seen, or is gone with all who had it: in one word,
/// [`Stale::word`], or `garbled` if what it showed can't be read.
pub const STALE_HEADER: HeaderName = HeaderName::from_static("sessionmesh-stale");

/// Goes outside `SessionManagerLayer`. See the [crate](crate).
#[derive(Clone, Debug)]
pub struct SessionMeshLayer(Arc<Shared>);

type Ignores = dyn Fn(&Uri) -> bool + Send + Sync;

#[derive(Clone)]
struct Shared {
    cluster: Cluster,
    store: SessionMeshStore,
    cookie: CookieConfig,
    refuse_stale: bool,
    ignores: Option<Arc<Ignores>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionMeshLayer")
            .field("cookie", &self.cookie)
            .field("refuse_stale", &self.refuse_stale)
            .finish_non_exhaustive()
    }
}

impl SessionMeshLayer {
    /// For the same store and cookie as the `SessionManagerLayer` inside. See
    /// [`session_layers`](crate::session_layers), which makes both.
    pub fn new(cluster: &Cluster, store: SessionMeshStore, cookie: CookieConfig) -> Self {
        let cluster = cluster.clone();
        Self(Arc::new(Shared { cluster, store, cookie, refuse_stale: false, ignores: None }))
    }

    /// Answers 503 where a session older than what its client has seen would be served and marked. If nobody has
    /// the rest any more ([`Stale::Gone`], [`Stale::Unknown`]) that is said once: the next request gets what there is.
    /// A session that is gone as a whole is never refused: nothing older is shown.
    #[must_use]
    pub fn refuse_stale(mut self) -> Self {
        Arc::make_mut(&mut self.0).refuse_stale = true;
        self
    }

    /// Requests that need no session: they go in whether or not this node serves, load nothing before their handler,
    /// and never change the cookie by being read.
    ///
    /// ```
    /// # fn layer(layer: sessionmesh_axum::SessionMeshLayer) -> sessionmesh_axum::SessionMeshLayer {
    /// layer.ignore(|uri| uri.path().starts_with("/static/") || uri.path().ends_with(".css"))
    /// # }
    /// ```
    #[must_use]
    pub fn ignore(mut self, ignores: impl Fn(&Uri) -> bool + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).ignores = Some(Arc::new(ignores));
        self
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

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let shared = self.shared.clone();
        // The clone takes the place of the one that was polled ready.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let carried = shared.cookie.take(request.headers_mut());
            if shared.ignores.as_ref().is_some_and(|ignores| ignores(request.uri())) {
                return inner.call(request).await;
            }
            if let Err(reason) = shared.cluster.is_ready() {
                return Ok(unavailable(&reason));
            }
            let context = RequestContext::new();
            if carried.is_none() {
                context.set_new_client();
            }
            if let Some(carried) = &carried
                && let Err(failure) = shared.preload(&context, carried).await
            {
                let mut response = unavailable(&failure.to_string());
                shared.conclude(&mut response, &context, Some(carried), Some(&failure)).await;
                return Ok(response);
            }
            let mut pending = PendingDelete { store: &shared.store, context: &context, armed: true };
            let response = context.clone().scope(inner.call(request)).await?;
            shared.store.finish(&context).await;
            pending.armed = false;
            let failure = context.failure();
            let mut response = match &failure {
                None => response,
                Some(failure) => shared.answer(response, failure),
            };
            shared.conclude(&mut response, &context, carried.as_ref(), failure.as_ref()).await;
            Ok(response)
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
    /// Loads the session before the handler runs, if its id can be read.
    async fn preload(&self, context: &RequestContext, carried: &Carried) -> Result<(), Failure> {
        let id = carried.id();
        if let Some(token) = carried.suffix().and_then(|suffix| suffix.token.clone()) {
            context.set_seen(id.as_ref(), token, self.refuse_stale);
        }
        match &id {
            Some(id) => self.store.preload(context, id).await,
            None => Ok(()),
        }
    }

    /// The answer to a request whose session could not be read or written.
    fn answer<B: From<String>>(&self, response: Response<B>, failure: &Failure) -> Response<B> {
        let (mut parts, _) = response.into_parts();
        let mut body = failure.to_string();
        parts.status = match failure {
            Failure::Undecided(_) | Failure::Stale(_) => {
                drop_cookie(&mut parts.headers, &self.cookie);
                parts.headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
                StatusCode::SERVICE_UNAVAILABLE
            }
            // The cookie that tower-sessions set stays: the write is kept.
            Failure::LevelMissed(_) => StatusCode::GATEWAY_TIMEOUT,
            Failure::Ended => {
                drop_cookie(&mut parts.headers, &self.cookie);
                if let Some(removal) = self.cookie.removal() {
                    parts.headers.append(SET_COOKIE, removal);
                }
                StatusCode::CONFLICT
            }
            Failure::OverLimit(_) => StatusCode::PAYLOAD_TOO_LARGE,
            // The enum grows with the store.
            other => {
                tracing::error!(failure = ?other, "session failure");
                body = "the session could not be saved".into();
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        text(&mut parts.headers);
        Response::from_parts(parts, B::from(body + "\n"))
    }

    /// What the client has seen with this answer goes into its cookie.
    async fn conclude<B>(
        &self,
        response: &mut Response<B>,
        context: &RequestContext,
        carried: Option<&Carried>,
        failure: Option<&Failure>,
    ) {
        let session = context.session();
        let shown = carried.and_then(Carried::suffix);
        let garbled = session.is_some() && shown.is_some_and(|suffix| suffix.token.is_none());
        if let Some(word) = context.stale().map(Stale::word).or(garbled.then_some("garbled")) {
            response.headers_mut().insert(STALE_HEADER, HeaderValue::from_static(word));
        }
        let Some((id, token)) = session else { return };
        match failure {
            None | Some(Failure::LevelMissed(_) | Failure::Stale(Stale::Gone | Stale::Unknown)) => {}
            Some(_) => return,
        }
        let suffix = self.cookie.token.then(|| {
            let wanted = shown.and_then(|suffix| suffix.route.as_ref());
            let route = self.cluster.route(&id, wanted.map(NodeName::as_str));
            Suffix { token: Some(token), route: Some(route) }
        });
        let headers = response.headers_mut();
        if headers.get_all(SET_COOKIE).iter().any(|header| self.cookie.is_set_by(header)) {
            if let Some(suffix) = suffix {
                add_suffix(headers, &self.cookie, &suffix);
            }
            return;
        }
        // Nothing was written: the value goes back with another end, unless the session has another id by now.
        let Some(carried) = carried else { return };
        let value = match suffix {
            Some(suffix) => suffix.between(carried.inner(), ""),
            None => carried.inner().to_owned(),
        };
        let sessions = self.store.sessions();
        // A login or logout elsewhere may have been told to the holders alone.
        if value == carried.value() || Box::pin(sessions.is_over(&id)).await {
            return;
        }
        let left = self.cookie.max_age.map(|most| {
            let remaining = sessions.limits(&id).and_then(|limits| limits.remaining);
            remaining.map_or(most, |remaining| remaining.min(most))
        });
        if let Some(header) = self.cookie.set(value, left) {
            headers.append(SET_COOKIE, header);
        }
    }
}

fn add_suffix(headers: &mut HeaderMap, cookie: &CookieConfig, suffix: &Suffix) {
    let Entry::Occupied(mut entry) = headers.entry(SET_COOKIE) else { return };
    for header in entry.iter_mut().filter(|header| cookie.is_set_by(header)) {
        if let Some(changed) = cookie.with_suffix(header, suffix) {
            *header = changed;
        }
    }
}

fn text(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
}

/// Takes out what tower-sessions said of the cookie.
fn drop_cookie(headers: &mut HeaderMap, cookie: &CookieConfig) {
    let others = headers.get_all(SET_COOKIE).iter().filter(|header| !cookie.is_set_by(header));
    let others: Vec<HeaderValue> = others.cloned().collect();
    headers.remove(SET_COOKIE);
    for header in others {
        headers.append(SET_COOKIE, header);
    }
}

fn unavailable<B: From<String>>(reason: &str) -> Response<B> {
    let mut response = Response::new(B::from(format!("{reason}\n")));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    text(response.headers_mut());
    response
}
