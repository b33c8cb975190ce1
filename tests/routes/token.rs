//! What the layer adds to the session cookie, and what comes of what clients show.

use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use cluster_tests::{Net, eventually, in_both_modes};
use http::StatusCode;
use sessionmesh::{Cluster, Token};
use sessionmesh_axum::{CookieConfig, STALE_HEADER, SessionMeshLayer, session_layers};
use tower_sessions::Session;
use tower_sessions::cookie::Key;

use super::{Answer, Held, ask};

/// An application behind both layers.
fn app(node: &Cluster, change: impl FnOnce(SessionMeshLayer) -> SessionMeshLayer) -> Router {
    let (mesh, sessions) = session_layers(node, CookieConfig { secure: false, ..CookieConfig::default() });
    super::routes()
        .route("/static/style.css", get(async || "body {}"))
        .route(
            "/stale",
            get(async |session: Session| {
                let _ = session.get_value("foo").await;
                format!("{:?}", sessionmesh_axum::stale())
            }),
        )
        .route(
            "/held",
            get(async |session: Session, held: Extension<Arc<Held>>| {
                let value = session.get::<usize>("foo").await.unwrap();
                held.wait().await;
                format!("{value:?}")
            }),
        )
        .layer(sessions)
        .layer(change(mesh))
}

fn plain(node: &Cluster) -> Router {
    app(node, |layer| layer)
}

/// The cookie after an answer: the one that was set, or the one before.
fn keep(answer: &Answer, before: &str) -> String {
    answer.set_cookie().map_or_else(|| before.to_owned(), |_| answer.cookie())
}

fn id(cookie: &str) -> &str {
    cookie.split_once('~').unwrap().0
}

fn route(cookie: &str) -> &str {
    cookie.split_once('.').unwrap().1
}

fn stale(answer: &Answer) -> Option<&str> {
    answer.headers.get(STALE_HEADER).map(|value| value.to_str().unwrap())
}

async fn nodes(net: Net, mode: &str, count: usize) -> (Net, Vec<Cluster>) {
    let net = net.with("mode", mode);
    let nodes = net.start(count).await;
    (net, nodes)
}

in_both_modes! {
    a_write_here_is_read_there_at_once
    the_route_names_a_holder_and_another_when_that_is_gone
    what_a_client_makes_up_costs_a_wait_and_no_more
    an_older_state_is_marked_or_refused_and_the_next_request_gets_what_there_is
    a_session_that_is_lost_with_all_who_had_it_is_marked_and_one_that_was_ended_is_not
    a_session_past_its_time_is_not_marked_as_lost
    a_read_that_ends_after_a_login_does_not_bring_the_old_id_back
    with_the_token_off_its_end_is_taken_off_again
    signed_values_work_too
    ignored_paths_touch_nothing
    a_read_does_not_make_the_cookie_last_longer
}

/// At `async`, with a browser's cookies, over four nodes.
async fn a_write_here_is_read_there_at_once(mode: &str) {
    let (_net, nodes) = nodes(Net::seeds(), mode, 4).await;
    let apps: Vec<Router> = nodes.iter().map(plain).collect();
    let mut cookie = ask(apps[0].clone(), "/insert", None).await.cookie();
    let (mut reads, mut marked) = (0, 0);
    for round in 0..200 {
        let writer = round % apps.len();
        let written = ask(apps[writer].clone(), &format!("/set/a/{round}"), Some(&cookie)).await;
        assert_eq!(written.status, StatusCode::OK);
        cookie = keep(&written, &cookie);
        for reader in (0..apps.len()).filter(|reader| *reader != writer) {
            let read = ask(apps[reader].clone(), "/all", Some(&cookie)).await;
            reads += 1;
            match stale(&read) {
                Some(_) => marked += 1,
                None => assert_eq!(
                    (read.status, &*read.body),
                    (StatusCode::OK, &*format!("a=\"{round}\" foo=42"))
                ),
            }
            cookie = keep(&read, &cookie);
        }
    }
    println!("{mode}: {reads} reads elsewhere at once, {marked} marked stale");
    assert!(marked * 500 < reads, "{marked} of {reads}");
}

async fn the_route_names_a_holder_and_another_when_that_is_gone(mode: &str) {
    let (_net, nodes) = nodes(Net::seeds(), mode, 3).await;
    let apps: Vec<Router> = nodes.iter().map(plain).collect();
    let made = ask(apps[0].clone(), "/insert", None).await;
    let mut cookie = made.cookie();
    assert_eq!(route(&cookie), "n1", "a node mints ids that it holds");
    // Whoever else is asked leaves the route as it is.
    for app in &apps {
        cookie = keep(&ask(app.clone(), "/get", Some(&cookie)).await, &cookie);
        assert_eq!(route(&cookie), "n1");
    }
    nodes[0].leave().await.unwrap();
    let session = super::session_id(id(&cookie));
    let moved = ask(apps[1].clone(), "/get", Some(&cookie)).await;
    assert_eq!((moved.status, &*moved.body), (StatusCode::OK, "42"));
    let cookie = keep(&moved, &cookie);
    let holders = nodes[1].holders(&session);
    assert!(holders.iter().any(|name| name.as_str() == route(&cookie)), "{cookie} of {holders:?}");
    assert_eq!(id(&cookie), id(&made.cookie()));
    // A route that nobody ever had is mended, too.
    let wrong = cookie.replace(&format!(".{}", route(&cookie)), ".nobody");
    assert_ne!(route(&keep(&ask(apps[2].clone(), "/get", Some(&wrong)).await, &wrong)), "nobody");
}

async fn what_a_client_makes_up_costs_a_wait_and_no_more(mode: &str) {
    let (_net, nodes) = nodes(Net::seeds(), mode, 2).await;
    let app = plain(&nodes[0]);
    let cookie = ask(app.clone(), "/insert", None).await.cookie();
    let clock = nodes[0].stats().clock_ahead_ms;
    for garbled in ["", ".", "AAAA.n1", "!!!!.n1", "x.y.z"] {
        let answer = ask(app.clone(), "/get", Some(&format!("{}~{garbled}", id(&cookie)))).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, "42"), "{garbled}");
        let expected = (!matches!(garbled, "" | ".")).then_some("garbled");
        assert_eq!(stale(&answer), expected, "{garbled}");
        assert_eq!(answer.cookie(), cookie, "{garbled}");
    }
    // What nobody has written yet, by a member, and by a boot that never was.
    let ahead = u64::MAX >> 8;
    for boot in [nodes[1].boot().get(), 42] {
        let forged = super::token(&[(boot, ahead)]);
        let begun = tokio::time::Instant::now();
        let answer = ask(app.clone(), "/get", Some(&format!("{}~{forged}.n1", id(&cookie)))).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!((answer.status, stale(&answer)), (StatusCode::OK, Some("unknown")));
        assert_eq!(answer.cookie(), cookie, "its token is that of the state served");
    }
    assert!(nodes[0].stats().clock_ahead_ms <= clock + 1_000, "no client moves the clock");
}

async fn an_older_state_is_marked_or_refused_and_the_next_request_gets_what_there_is(mode: &str) {
    let (_net, nodes) = nodes(Net::seeds(), mode, 2).await;
    let (marks, refuses) = (plain(&nodes[0]), app(&nodes[0], SessionMeshLayer::refuse_stale));
    let cookie = ask(marks.clone(), "/insert", None).await.cookie();
    let forged = format!("{}~{}.n1", id(&cookie), super::token(&[(42, 1 << 40)]));
    let marked = ask(marks.clone(), "/stale", Some(&forged)).await;
    assert_eq!((marked.status, stale(&marked)), (StatusCode::OK, Some("unknown")));
    assert_eq!(marked.body, "Some(Unknown)", "the handler can tell");
    let refused = ask(refuses.clone(), "/get", Some(&forged)).await;
    assert_eq!((refused.status, stale(&refused)), (StatusCode::SERVICE_UNAVAILABLE, Some("unknown")));
    let again = ask(refuses, "/get", Some(&keep(&refused, &forged))).await;
    assert_eq!((again.status, stale(&again), &*again.body), (StatusCode::OK, None, "42"));
}

async fn a_session_that_is_lost_with_all_who_had_it_is_marked_and_one_that_was_ended_is_not(mode: &str) {
    let (net, mut all) = nodes(Net::seeds(), mode, 2).await;
    let lost = ask(plain(&all[0]), "/insert", None).await.cookie();
    // No node that had them is left; the next one knows of none.
    drop(all.drain(..));
    let other = net.node("n9").await;
    other.ready().await.unwrap();
    for app in [plain(&other), app(&other, SessionMeshLayer::refuse_stale)] {
        let answer = ask(app, "/get_value", Some(&lost)).await;
        // Refusing would be for ever.
        assert_eq!((answer.status, stale(&answer), &*answer.body), (StatusCode::OK, Some("gone"), "None"));
    }
    let (_net, all) = nodes(Net::seeds(), mode, 2).await;
    let cookie = ask(plain(&all[0]), "/insert", None).await.cookie();
    ask(plain(&all[0]), "/flush", Some(&cookie)).await;
    for node in &all {
        let answer = ask(plain(node), "/get_value", Some(&cookie)).await;
        assert_eq!((stale(&answer), &*answer.body), (None, "None"));
    }
}

/// Also before the sweep has ended it.
async fn a_session_past_its_time_is_not_marked_as_lost(mode: &str) {
    let (_net, nodes) = nodes(Net::seeds().with("absolute", "500ms"), mode, 3).await;
    let cookie = ask(plain(&nodes[0]), "/insert", None).await.cookie();
    for node in &nodes {
        let marked = eventually("it is over", || async {
            let answer = ask(plain(node), "/get_value", Some(&cookie)).await;
            (answer.body == "None").then(|| stale(&answer).map(str::to_owned))
        })
        .await;
        assert_eq!(marked, None);
    }
}

async fn a_read_that_ends_after_a_login_does_not_bring_the_old_id_back(mode: &str) {
    let (_net, nodes) = nodes(Net::seeds(), mode, 2).await;
    let apps: Vec<Router> = nodes.iter().map(plain).collect();
    let old = ask(apps[0].clone(), "/insert", None).await.cookie();
    ask(apps[1].clone(), "/set/a/1", Some(&old)).await;
    // The page began with the old id; its answer must not set it when the login has replaced it.
    let held = Arc::new(Held::default());
    let page = apps[0].clone().layer(Extension(held.clone()));
    // With a route that would have to be mended.
    let cookie = old.replace(".n1", ".nobody");
    let slow = tokio::spawn(async move { ask(page, "/held", Some(&cookie)).await });
    held.have_loaded(1).await;
    let login = ask(apps[1].clone(), "/cycle_id", Some(&old)).await;
    assert_ne!(id(&login.cookie()), id(&old));
    held.end(1);
    let slow = slow.await.unwrap();
    assert_eq!((&*slow.body, slow.set_cookie()), ("Some(42)", None));
}

async fn with_the_token_off_its_end_is_taken_off_again(mode: &str) {
    let (_net, nodes) = nodes(Net::seeds(), mode, 2).await;
    let config = CookieConfig { secure: false, token: false, ..CookieConfig::default() };
    let (mesh, sessions) = session_layers(&nodes[1], config);
    let off = super::routes().layer(sessions).layer(mesh);
    let on = plain(&nodes[0]);
    let with = ask(on.clone(), "/insert", None).await.cookie();
    let answer = ask(off.clone(), "/get", Some(&with)).await;
    assert_eq!((&*answer.body, &*answer.cookie()), ("42", id(&with)), "rolling it out");
    let bare = ask(off.clone(), "/insert", None).await.cookie();
    assert!(!bare.contains('~'));
    assert_eq!(ask(off, "/get", Some(&bare)).await.set_cookie(), None);
    let answer = ask(on, "/get", Some(&bare)).await;
    assert_eq!((&*answer.body, id(&answer.cookie())), ("42", &*bare), "rolling it in");
}

async fn signed_values_work_too(mode: &str) {
    let (_net, nodes) = nodes(Net::seeds(), mode, 2).await;
    let key = Key::generate();
    let app = |node: &Cluster| {
        let (mesh, sessions) =
            session_layers(node, CookieConfig { secure: false, ..CookieConfig::default() });
        super::routes().layer(sessions.with_signed(key.clone())).layer(mesh)
    };
    let (one, two) = (app(&nodes[0]), app(&nodes[1]));
    let mut cookie = ask(one.clone(), "/insert", None).await.cookie();
    for round in 0..20 {
        cookie = keep(&ask(one.clone(), &format!("/set/a/{round}"), Some(&cookie)).await, &cookie);
        let read = ask(two.clone(), "/all", Some(&cookie)).await;
        assert_eq!((&*read.body, stale(&read)), (&*format!("a=\"{round}\" foo=42"), None));
        cookie = keep(&read, &cookie);
    }
    // Another's signature is no session, whatever follows it.
    let forged = format!("AAAA{cookie}");
    assert_eq!(ask(two, "/get_value", Some(&forged)).await.body, "None");
}

async fn ignored_paths_touch_nothing(mode: &str) {
    let (_net, nodes) = nodes(Net::seeds(), mode, 2).await;
    let app = app(&nodes[1], |layer| layer.ignore(|uri| uri.path().starts_with("/static/")));
    let cookie = ask(plain(&nodes[0]), "/insert", None).await.cookie();
    let other = cookie.replace(".n1", ".n9");
    let style = ask(app.clone(), "/static/style.css", Some(&other)).await;
    assert_eq!((style.status, style.set_cookie()), (StatusCode::OK, None));
    nodes[1].leave().await.unwrap();
    eventually("the node serves no more", || async { nodes[1].is_ready().err() }).await;
    assert_eq!(ask(app.clone(), "/get", Some(&cookie)).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(app, "/static/style.css", Some(&cookie)).await.status, StatusCode::OK);
}

async fn a_read_does_not_make_the_cookie_last_longer(mode: &str) {
    let (_net, nodes) = nodes(Net::seeds(), mode, 2).await;
    let max_age = Some(Duration::from_secs(3_600));
    let config = CookieConfig { secure: false, max_age, ..CookieConfig::default() };
    let app = |node: &Cluster| {
        let (mesh, sessions) = session_layers(node, config.clone());
        super::routes().layer(sessions).layer(mesh)
    };
    let (one, two) = (app(&nodes[0]), app(&nodes[1]));
    let cookie = ask(one.clone(), "/insert", None).await.cookie();
    tokio::time::sleep(Duration::from_millis(1_100)).await; // Part of its time passes.
    let other = cookie.replace(".n1", ".nobody");
    let read = ask(two, "/get", Some(&other)).await;
    let set = read.set_cookie().unwrap();
    let left = set.split("Max-Age=").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    let left: u64 = left.parse().unwrap();
    assert!((3_500..3_600).contains(&left), "{set}");
}

/// A token as a cookie holds it.
pub(super) fn encode(token: &Token) -> String {
    use base64::Engine;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(token.encode())
}
