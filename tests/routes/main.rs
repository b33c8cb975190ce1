//! The scenarios of tower-sessions' own route tests, with this store: in both strengths, on one node,
//! and with every request sent to another node of three.

#![allow(clippy::unwrap_used)] // A test that can't go on says so and stops.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::routing::get;
use axum::{Extension, Router};
use cluster_tests::Net;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Request, StatusCode};
use sessionmesh::{AckLevel, BootId, Cluster, SessionId, Version};
use sessionmesh_axum::{CookieConfig, SessionMeshLayer, SessionMeshStore};
use sessionmesh_core::Hlc;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tower_sessions::cookie::time::{Duration as CookieDuration, OffsetDateTime};
use tower_sessions::session::Id;
use tower_sessions::{Expiry, Session, SessionManagerLayer};

mod token;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strength {
    /// The store behind the unmodified layer.
    Alone,
    /// With `SessionMeshLayer` outside.
    Layered,
}

/// The application on every node; each request goes to the next.
struct App {
    _net: Net,
    held: Arc<Held>,
    nodes: Vec<Cluster>,
    routers: Vec<Router>,
    turn: usize,
}

fn routes() -> Router {
    Router::new()
        .route("/", get(async |_: Session| "Hello, world!"))
        .route("/insert", get(async |session: Session| session.insert("foo", 42).await.unwrap()))
        .route(
            "/get",
            get(async |session: Session| format!("{}", session.get::<usize>("foo").await.unwrap().unwrap())),
        )
        .route(
            "/get_value",
            get(async |session: Session| format!("{:?}", session.get_value("foo").await.unwrap())),
        )
        .route(
            "/remove",
            get(async |session: Session| {
                session.remove::<usize>("foo").await.unwrap();
            }),
        )
        .route("/clear", get(async |session: Session| session.clear().await))
        .route(
            "/save_and_take_back",
            get(async |session: Session| {
                for (a, b) in [("1", "1"), ("2", "2"), ("1", "3")] {
                    session.insert("a", a).await.unwrap();
                    session.insert("b", b).await.unwrap();
                    session.save().await.unwrap();
                }
                session.remove::<String>("b").await.unwrap();
            }),
        )
        .route(
            "/take_back_and_cycle",
            get(async |session: Session| {
                for (a, b) in [("2", "2"), ("2", "3")] {
                    session.insert("a", a).await.unwrap();
                    session.insert("b", b).await.unwrap();
                    session.save().await.unwrap();
                }
                session.insert("a", "1").await.unwrap();
                session.remove::<String>("b").await.unwrap();
                session.cycle_id().await.unwrap();
            }),
        )
        .route(
            "/slow_cycle_twice",
            get(async |session: Session, held: Extension<Arc<Held>>| {
                let _ = session.get_value("foo").await.unwrap();
                held.wait().await;
                session.cycle_id().await.unwrap();
                session.cycle_id().await.unwrap();
            }),
        )
        .route("/cycle_id", get(async |session: Session| session.cycle_id().await.unwrap()))
        .route("/flush", get(async |session: Session| session.flush().await.unwrap()))
        .route(
            "/set_expiry",
            get(async |session: Session| {
                let tomorrow = OffsetDateTime::now_utc() + CookieDuration::days(1);
                session.set_expiry(Some(Expiry::AtDateTime(tomorrow)));
                session.insert("foo", 42).await.unwrap();
            }),
        )
        .route("/remove_expiry", get(async |session: Session| session.set_expiry(None)))
        .route(
            "/set/{key}/{value}",
            get(async |session: Session, path: axum::extract::Path<(String, String)>| {
                session.insert(&path.0.0, &path.0.1).await.unwrap();
            }),
        )
        .route(
            "/slow/{key}",
            get(async |session: Session, held: Extension<Arc<Held>>, path: axum::extract::Path<String>| {
                let _ = session.get_value(&path.0).await.unwrap();
                held.wait().await;
                session.insert(&path.0, "slow").await.unwrap();
            }),
        )
        .route(
            "/all",
            get(async |session: Session| {
                let mut all = Vec::new();
                for key in ["a", "b", "c", "foo"] {
                    if let Some(value) = session.get_value(key).await.unwrap() {
                        all.push(format!("{key}={value}"));
                    }
                }
                all.join(" ")
            }),
        )
}

/// Pages that have loaded their sessions, and go on when they are told to.
struct Held {
    loaded: Semaphore,
    ends: Semaphore,
}

impl Default for Held {
    fn default() -> Self {
        Self { loaded: Semaphore::new(0), ends: Semaphore::new(0) }
    }
}

impl Held {
    /// In a page, when it has loaded its session.
    async fn wait(&self) {
        self.loaded.add_permits(1);
        self.ends.acquire().await.unwrap().forget();
    }

    async fn have_loaded(&self, pages: u32) {
        let loaded = self.loaded.acquire_many(pages);
        let loaded = tokio::time::timeout(Duration::from_secs(10), loaded).await;
        loaded.expect("pages load their sessions").unwrap().forget();
    }

    fn end(&self, pages: usize) {
        self.ends.add_permits(pages);
    }
}

impl App {
    async fn new(strength: Strength, nodes: usize, max_age: Option<CookieDuration>) -> Self {
        let net = Net::seeds();
        let nodes = net.start(nodes).await;
        let held = Arc::new(Held::default());
        let routers = nodes
            .iter()
            .map(|node| {
                let store = SessionMeshStore::new(node).with_level(AckLevel::All);
                let mut sessions = SessionManagerLayer::new(store.clone()).with_secure(true);
                if let Some(max_age) = max_age {
                    sessions = sessions.with_expiry(Expiry::OnInactivity(max_age));
                }
                let app = routes().layer(Extension(held.clone())).layer(sessions);
                match strength {
                    Strength::Alone => app,
                    Strength::Layered => {
                        app.layer(SessionMeshLayer::new(node, store, CookieConfig::default()))
                    }
                }
            })
            .collect();
        Self { _net: net, held, nodes, routers, turn: 0 }
    }

    fn next(&mut self) -> Router {
        self.turn += 1;
        self.routers[self.turn % self.routers.len()].clone()
    }

    async fn get(&mut self, path: &str, cookie: Option<&str>) -> Answer {
        ask(self.next(), path, cookie).await
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

async fn ask(router: Router, path: &str, cookie: Option<&str>) -> Answer {
    let mut request = Request::builder().uri(path);
    if let Some(cookie) = cookie {
        request = request.header(COOKIE, format!("id={cookie}"));
    }
    let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

impl Answer {
    /// The session cookie that was set, with its attributes.
    fn set_cookie(&self) -> Option<&str> {
        self.headers.get(SET_COOKIE).map(|header| header.to_str().unwrap())
    }

    fn cookie(&self) -> String {
        let set = self.set_cookie().expect("a cookie is set");
        set.strip_prefix("id=").and_then(|rest| rest.split(';').next()).unwrap().into()
    }
}

/// A token of these boots and stamps, as a cookie holds it.
fn token(entries: &[(u64, u64)]) -> String {
    let entry = |(boot, stamp): &(u64, u64)| (BootId::new(*boot).unwrap(), Hlc::from_raw(*stamp));
    token::encode(&entries.iter().map(entry).collect::<Version>().into())
}

fn session_id(cookie: &str) -> SessionId {
    SessionId::from_bytes(cookie.parse::<Id>().unwrap().0.to_le_bytes())
}

macro_rules! scenarios {
    ($($name:ident;)*) => {
        mod alone_on_one_node { $(
            #[tokio::test] async fn $name() { super::$name(super::Strength::Alone, 1).await; }
        )* }
        mod alone_on_three_nodes { $(
            #[tokio::test] async fn $name() { super::$name(super::Strength::Alone, 3).await; }
        )* }
        mod layered_on_one_node { $(
            #[tokio::test] async fn $name() { super::$name(super::Strength::Layered, 1).await; }
        )* }
        mod layered_on_three_nodes { $(
            #[tokio::test] async fn $name() { super::$name(super::Strength::Layered, 3).await; }
        )* }
    };
}

scenarios! {
    no_session_set;
    bogus_session_cookie;
    malformed_session_cookie;
    insert_session;
    session_max_age;
    get_session;
    get_no_value;
    remove_last_value;
    cycle_session_id;
    flush_session;
    flush_with_no_session;
    set_expiry;
    change_expiry_type;
    parallel_requests_that_write_different_attributes;
    clear_removes_everything;
    what_was_saved_is_taken_back_in_the_same_request;
    what_was_saved_is_taken_back_before_a_change_of_id;
    save_after_destroy;
    no_change_of_id_brings_back_what_was_logged_out;
    change_of_id_under_a_parallel_write;
}

async fn no_session_set(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let answer = app.get("/", None).await;
    assert_eq!((answer.status, answer.set_cookie()), (StatusCode::OK, None));
}

async fn bogus_session_cookie(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let answer = app.get("/insert", Some("AAAAAAAAAAAAAAAAAAAAAA")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_ne!(answer.cookie(), "AAAAAAAAAAAAAAAAAAAAAA");
}

async fn malformed_session_cookie(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let answer = app.get("/", Some("malformed")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_ne!(answer.cookie(), "malformed");
}

async fn insert_session(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let answer = app.get("/insert", None).await;
    assert_eq!(answer.status, StatusCode::OK);
    let set = answer.set_cookie().unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && set.contains("Secure"), "{set}");
    assert!(set.contains("Path=/"), "{set}");
    let id = answer.cookie();
    assert_eq!(id.split('~').next().unwrap().len(), 22);
    assert_eq!(id.contains('~'), strength == Strength::Layered);
}

async fn session_max_age(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, Some(CookieDuration::days(7))).await;
    let set = app.get("/insert", None).await;
    assert!(set.set_cookie().unwrap().contains("Max-Age=604800"));
}

async fn get_session(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let cookie = app.get("/insert", None).await.cookie();
    for _ in 0..3 {
        let answer = app.get("/get", Some(&cookie)).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, "42"));
    }
}

async fn get_no_value(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let answer = app.get("/get_value", None).await;
    assert_eq!(answer.body, "None");
}

async fn remove_last_value(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let cookie = app.get("/insert", None).await.cookie();
    app.get("/remove", Some(&cookie)).await;
    assert_eq!(app.get("/get_value", Some(&cookie)).await.body, "None");
}

async fn cycle_session_id(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let first = app.get("/insert", None).await.cookie();
    let second = app.get("/cycle_id", Some(&first)).await.cookie();
    assert_ne!(first, second);
    for _ in 0..3 {
        assert_eq!(app.get("/get", Some(&second)).await.body, "42");
        assert_eq!(app.get("/get_value", Some(&first)).await.body, "None");
    }
}

async fn flush_session(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let cookie = app.get("/insert", None).await.cookie();
    let flushed = app.get("/flush", Some(&cookie)).await;
    assert!(flushed.set_cookie().unwrap().contains("Max-Age=0"), "{:?}", flushed.set_cookie());
    for _ in 0..3 {
        assert_eq!(app.get("/get_value", Some(&cookie)).await.body, "None");
    }
}

async fn flush_with_no_session(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let answer = app.get("/flush", None).await;
    assert_eq!((answer.status, answer.set_cookie()), (StatusCode::OK, None));
}

async fn set_expiry(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let set = app.get("/set_expiry", None).await;
    let max_age: u64 = set
        .set_cookie()
        .and_then(|set| set.split("Max-Age=").nth(1)?.split(';').next()?.parse().ok())
        .expect("a Max-Age");
    assert!((86_390..=86_400).contains(&max_age), "{max_age}");
}

async fn change_expiry_type(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, Some(CookieDuration::days(7))).await;
    let first = app.get("/insert", None).await;
    assert!(first.set_cookie().unwrap().contains("Max-Age=604800"));
    let second = app.get("/remove_expiry", Some(&first.cookie())).await;
    assert!(!second.set_cookie().unwrap().contains("Max-Age"), "{:?}", second.set_cookie());
    assert_eq!(app.get("/get", Some(&first.cookie())).await.body, "42");
}

// What no official store does.

async fn parallel_requests_that_write_different_attributes(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let cookie = app.get("/insert", None).await.cookie();
    let (one, two) = (app.next(), app.next());
    let held = app.held.clone();
    let (a, b, ()) =
        tokio::join!(ask(one, "/slow/a", Some(&cookie)), ask(two, "/slow/b", Some(&cookie)), async {
            held.have_loaded(2).await;
            held.end(2);
        });
    assert_eq!((a.status, b.status), (StatusCode::OK, StatusCode::OK));
    for _ in 0..3 {
        assert_eq!(app.get("/all", Some(&cookie)).await.body, "a=\"slow\" b=\"slow\" foo=42");
    }
}

async fn clear_removes_everything(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let cookie = app.get("/insert", None).await.cookie();
    app.get("/set/a/1", Some(&cookie)).await;
    app.get("/clear", Some(&cookie)).await;
    for _ in 0..3 {
        assert_eq!(app.get("/all", Some(&cookie)).await.body, "");
    }
    app.get("/set/b/2", Some(&cookie)).await;
    assert_eq!(app.get("/all", Some(&cookie)).await.body, "b=\"2\"");
}

async fn what_was_saved_is_taken_back_in_the_same_request(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let cookie = app.get("/set/a/1", None).await.cookie();
    assert_eq!(app.get("/save_and_take_back", Some(&cookie)).await.status, StatusCode::OK);
    // The store alone knows only what was loaded: the `a` of then changes nothing for it, and `b` was not there.
    let expected = match strength {
        Strength::Alone => "a=\"2\" b=\"3\"",
        Strength::Layered => "a=\"1\"",
    };
    assert_eq!(app.get("/all", Some(&cookie)).await.body, expected);
}

async fn what_was_saved_is_taken_back_before_a_change_of_id(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let cookie = app.get("/set/a/1", None).await.cookie();
    let cookie = app.get("/take_back_and_cycle", Some(&cookie)).await.cookie();
    // As above.
    let expected = match strength {
        Strength::Alone => "a=\"2\" b=\"3\"",
        Strength::Layered => "a=\"1\"",
    };
    assert_eq!(app.get("/all", Some(&cookie)).await.body, expected);
}

/// The second one deletes an id that tower-sessions has made up, and that was never a session.
async fn no_change_of_id_brings_back_what_was_logged_out(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let cookie = app.get("/insert", None).await.cookie();
    logs_out_meanwhile(&mut app, "/slow_cycle_twice", &cookie, strength).await;
}

/// The page is told that its session has ended.
async fn logs_out_meanwhile(app: &mut App, page: &str, cookie: &str, strength: Strength) {
    let (one, two) = (app.next(), app.next());
    let held = app.held.clone();
    let (late, ()) = tokio::join!(ask(one, page, Some(cookie)), async {
        held.have_loaded(1).await;
        ask(two, "/flush", Some(cookie)).await;
        held.end(1);
    });
    let expected = match strength {
        Strength::Alone => StatusCode::INTERNAL_SERVER_ERROR,
        Strength::Layered => StatusCode::CONFLICT,
    };
    assert_eq!(late.status, expected);
}

async fn save_after_destroy(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let cookie = app.get("/insert", None).await.cookie();
    logs_out_meanwhile(&mut app, "/slow/a", &cookie, strength).await;
    for _ in 0..3 {
        assert_eq!(app.get("/all", Some(&cookie)).await.body, "", "a logged-out session stays so");
    }
}

async fn change_of_id_under_a_parallel_write(strength: Strength, nodes: usize) {
    let mut app = App::new(strength, nodes, None).await;
    let old = app.get("/insert", None).await.cookie();
    // One request cycles the id; another, which began before, has written a by then, and a third
    // writes b too late.
    app.get("/set/a/1", Some(&old)).await;
    let (one, two) = (app.next(), app.next());
    let held = app.held.clone();
    let (late, cycled) = tokio::join!(ask(one, "/slow/b", Some(&old)), async {
        held.have_loaded(1).await;
        let cycled = ask(two, "/cycle_id", Some(&old)).await;
        held.end(1);
        cycled
    });
    assert!(
        matches!(late.status, StatusCode::CONFLICT | StatusCode::INTERNAL_SERVER_ERROR),
        "{}",
        late.status
    );
    let new = cycled.cookie();
    for _ in 0..3 {
        assert_eq!(app.get("/all", Some(&new)).await.body, "a=\"1\" foo=42");
        assert_eq!(app.get("/all", Some(&old)).await.body, "");
    }
    if strength == Strength::Layered {
        let destroyed: u64 = app.nodes.iter().map(|node| node.stats().counts.destroyed).sum();
        assert_eq!(destroyed, 0, "one change of id, no end");
    }
}
