//! The demo for a machine: the whole story, step by step, each step checked. The same in both modes.

#![allow(clippy::disallowed_methods)] // Steps are timed on the wall of the one who watches.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use crate::nodes::{End, Nodes};
use crate::{Args, Error, front};

const NODES: usize = 3;

/// A browser: one cookie, sent to whoever is asked.
struct Browser {
    client: Client,
    cookie: Option<String>,
}

struct Page {
    status: StatusCode,
    body: String,
}

impl Browser {
    fn new() -> Result<Self, Error> {
        let client = Client::builder()
            .timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, cookie: None })
    }

    /// The session's id: the cookie without the token and the route at its end.
    fn id(&self) -> Option<String> {
        Some(self.cookie.as_deref()?.split('~').next()?.to_owned())
    }

    async fn ask(&mut self, method: Method, at: SocketAddr, path: &str) -> Result<Page, Error> {
        let mut request = self.client.request(method, format!("http://{at}{path}"));
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, format!("id={cookie}"));
        }
        let answer = request.send().await?;
        for header in answer.headers().get_all(SET_COOKIE) {
            let value = header.to_str()?.strip_prefix("id=").and_then(|rest| rest.split(';').next());
            self.cookie = value.filter(|value| !value.is_empty()).map(Into::into);
        }
        Ok(Page { status: answer.status(), body: answer.text().await? })
    }

    async fn post(&mut self, at: SocketAddr, path: &str) -> Result<Page, Error> {
        let page = self.ask(Method::POST, at, path).await?;
        expect(page.status.is_success(), || format!("POST {path}: {} {}", page.status, page.body))?;
        Ok(page)
    }

    /// The session as the node shows it; `None` if it shows none.
    async fn session(&mut self, at: SocketAddr) -> Result<Option<Value>, Error> {
        let page = self.ask(Method::GET, at, "/session").await?;
        match page.status {
            StatusCode::OK => Ok(Some(serde_json::from_str(&page.body)?)),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(format!("GET /session: {status} {}", page.body).into()),
        }
    }
}

fn expect(held: bool, otherwise: impl FnOnce() -> String) -> Result<(), Error> {
    if held { Ok(()) } else { Err(otherwise().into()) }
}

/// Numbers the steps and tells them.
struct Story(u32);

impl Story {
    fn tell(&mut self, what: &str) {
        self.0 += 1;
        println!("{:>2}. ok   {what}", self.0);
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let begun = Instant::now();
    let mut nodes = Nodes::start(&args, NODES).await?;
    let front = front::serve(args.port, nodes.targets.clone()).await?;
    let result = tell(&args, &mut nodes, front).await;
    if result.is_ok() {
        nodes.stop().await?;
        println!("all steps held in {:.1} s", begun.elapsed().as_secs_f32());
    }
    result
}

async fn tell(args: &Args, nodes: &mut Nodes, front: SocketAddr) -> Result<(), Error> {
    let mut story = Story(0);
    let mut browser = Browser::new()?;
    all_ready(nodes).await?;
    story.tell(&format!("three nodes are ready and see each other (mode {}, ack {})", args.mode, args.ack));

    browser.post(front, "/put?k=item1&v=tea").await?;
    let id = browser.id().ok_or("no session cookie was set")?;
    let session = browser.session(front).await?.ok_or("the session is gone")?;
    let held = session["holders"].as_array().map_or(0, Vec::len);
    let expected = if args.mode == "all-peers" { NODES } else { 2 };
    expect(held == expected, || format!("held by {expected} nodes, expected of {session}"))?;
    story.tell(&format!("the first item makes a session, held by {held} of {NODES} nodes"));

    let mut served = BTreeSet::new();
    for _ in 0..2 * NODES {
        let session = browser.session(front).await?.ok_or("the session is gone")?;
        expect(session["id"] == id.as_str(), || format!("the id changed: {session}"))?;
        expect(session["attributes"]["item1"] == "tea", || format!("the item is gone: {session}"))?;
        served.insert(session["node"].to_string());
    }
    expect(served.len() == NODES, || format!("served only by {served:?}"))?;
    story.tell("reloads are served by every node in turn, id and item stay");

    for (item, what) in [("item2", "bread"), ("item3", "cheese"), ("item4", "apples")] {
        browser.post(front, &format!("/put?k={item}&v={what}")).await?;
    }
    for index in 0..NODES {
        has_items(&mut browser, nodes.http(index)?, 4).await?;
    }
    story.tell("items added through different nodes are in the cart on all of them");

    let cart = browser.ask(Method::GET, front, "/").await?;
    let shown = cart.status == StatusCode::OK && cart.body.contains(&id[..6]) && !cart.body.contains(&id);
    expect(shown, || "the page does not show the session's short id, or shows all of it".into())?;
    story.tell("the page shows the session, its id only in part");

    let killed = Instant::now();
    nodes.end(1, End::Kill).await?;
    for request in 0..30 {
        let session = browser.session(front).await?.ok_or("the session is gone")?;
        expect(session["id"] == id.as_str(), || format!("request {request} after the kill: {session}"))?;
    }
    wait_members(nodes.http(0)?, 1).await?;
    let dropped = killed.elapsed();
    wait_members(nodes.http(2)?, 1).await?;
    story.tell(&format!(
        "n2 is killed (-9): 30 requests, none noticed; dropped after {} ms",
        dropped.as_millis()
    ));

    browser.post(front, "/put?k=item5&v=milk").await?;
    nodes.spawn(1).await?;
    let restarted = Instant::now();
    ready(nodes.http(1)?).await?;
    has_items(&mut browser, nodes.http(1)?, 5).await?;
    let caught_up = restarted.elapsed().as_millis();
    story.tell(&format!("n2 is back after {caught_up} ms with everything, also what was added without it"));
    all_ready(nodes).await?;

    let status = nodes.end(0, End::Terminate).await?;
    expect(status.success(), || format!("n1 ended with {status}"))?;
    has_items(&mut browser, front, 5).await?;
    wait_members(nodes.http(1)?, 1).await?;
    nodes.spawn(0).await?;
    all_ready(nodes).await?;
    has_items(&mut browser, nodes.http(0)?, 5).await?;
    story.tell("n1 is stopped as in a deploy, and started again: nothing is lost");

    browser.post(front, "/login?user=ada").await?;
    let renewed = browser.id().ok_or("the cookie is gone")?;
    expect(renewed != id, || "the id did not change at login".into())?;
    let mut planted = Browser::new()?;
    for index in 0..NODES {
        has_items(&mut browser, nodes.http(index)?, 6).await?;
        planted.cookie = Some(id.clone());
        let old = planted.session(nodes.http(index)?).await?;
        expect(old.is_none(), || format!("the old id still works: {old:?}"))?;
    }
    story.tell("login changes the id; the old one is dead on every node");

    browser.post(front, "/logout").await?;
    expect(browser.cookie.is_none(), || "the cookie stayed after the logout".into())?;
    for index in 0..NODES {
        planted.cookie = Some(renewed.clone());
        let old = planted.session(nodes.http(index)?).await?;
        expect(old.is_none(), || format!("logged out, but: {old:?}"))?;
    }
    story.tell("logout ends the session on every node");
    Ok(())
}

async fn has_items(browser: &mut Browser, at: SocketAddr, count: usize) -> Result<(), Error> {
    let session = browser.session(at).await?.ok_or("the session is gone")?;
    let held = session["attributes"].as_object().map_or(0, serde_json::Map::len);
    expect(held == count, || format!("{count} attributes expected: {session}"))
}

async fn all_ready(nodes: &Nodes) -> Result<(), Error> {
    for index in 0..NODES {
        let at = nodes.http(index)?;
        ready(at).await?;
        wait_members(at, NODES - 1).await?;
    }
    Ok(())
}

async fn ready(at: SocketAddr) -> Result<(), Error> {
    eventually(&format!("{at} is ready"), async || {
        let answer = reqwest::get(format!("http://{at}/readyz")).await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await
}

async fn wait_members(at: SocketAddr, count: usize) -> Result<(), Error> {
    eventually(&format!("{at} sees {count} ready members"), async || {
        let members: Vec<Value> =
            reqwest::get(format!("http://{at}/members")).await.ok()?.json().await.ok()?;
        let all_ready = members.iter().all(|member| member["state"] == "ready");
        (members.len() == count && all_ready).then_some(())
    })
    .await
}

async fn eventually(what: &str, probe: impl AsyncFn() -> Option<()>) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(15);
    while Instant::now() < deadline {
        if probe().await.is_some() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(format!("waited 15 s in vain: {what}").into())
}
