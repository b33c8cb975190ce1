//! A browser: what a user sends, and what comes back.

use std::collections::BTreeMap;

use reqwest::header::{COOKIE, HeaderMap, SET_COOKIE};
use reqwest::{Client, Method};
use serde_json::Value;

use crate::NodeProcess;
use crate::process::PATIENCE;

/// A browser with its cookies, which it sends to whichever node it asks.
#[derive(Clone, Debug)]
pub struct Browser {
    client: Client,
    /// The session cookie's value.
    pub cookie: Option<String>,
    /// A balancer's.
    others: BTreeMap<String, String>,
}

/// What a node answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Default for Browser {
    fn default() -> Self {
        Self::new()
    }
}

impl Browser {
    /// Without a cookie.
    pub fn new() -> Self {
        let client = Client::builder().timeout(PATIENCE).build().unwrap();
        Self { client, cookie: None, others: BTreeMap::new() }
    }

    /// The session's id: the cookie without what the layer adds.
    pub fn id(&self) -> Option<String> {
        let cookie = self.cookie.as_deref()?;
        Some(cookie.split('~').next().unwrap_or_default().to_owned())
    }

    /// The same user with nothing but the id: no token that a node would wait for.
    pub fn bare(&self) -> Self {
        Self { cookie: self.id(), ..self.clone() }
    }

    /// The node that the cookie names.
    pub fn route(&self) -> Option<&str> {
        Some(self.cookie.as_deref()?.split_once('.')?.1)
    }

    async fn ask(&mut self, method: Method, node: &NodeProcess, path: &str) -> Answer {
        self.try_ask(method, &node.url(path))
            .await
            .unwrap_or_else(|error| panic!("{path} on {}: {error}", node.name()))
    }

    async fn try_ask(&mut self, method: Method, url: &str) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.request(method, url);
        let session = self.cookie.iter().map(|cookie| format!("id={cookie}"));
        let others = self.others.iter().map(|(name, value)| format!("{name}={value}"));
        let cookies: Vec<String> = session.chain(others).collect();
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        let answer = request.send().await?;
        for header in answer.headers().get_all(SET_COOKIE) {
            let pair = header.to_str().unwrap().split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').unwrap();
            if name == "id" {
                self.cookie = Some(value.to_owned()).filter(|value| !value.is_empty());
            } else {
                self.others.insert(name.into(), value.into());
            }
        }
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Answer { status, headers, body: answer.text().await? })
    }

    /// GET.
    pub async fn get(&mut self, node: &NodeProcess, path: &str) -> Answer {
        self.ask(Method::GET, node, path).await
    }

    /// POST.
    pub async fn post(&mut self, node: &NodeProcess, path: &str) -> Answer {
        self.ask(Method::POST, node, path).await
    }

    /// GET from a node that may be dying.
    pub async fn try_get(&mut self, node: &NodeProcess, path: &str) -> Option<Answer> {
        self.try_ask(Method::GET, &node.url(path)).await.ok()
    }

    /// POST to a node that may be dying.
    pub async fn try_post(&mut self, node: &NodeProcess, path: &str) -> Option<Answer> {
        self.try_post_to(&node.url(""), path).await
    }

    /// POST to whatever is at an address.
    pub async fn try_post_to(&mut self, url: &str, path: &str) -> Option<Answer> {
        self.try_ask(Method::POST, &format!("{url}{path}")).await.ok()
    }

    /// GET from whatever is at an address; it must answer.
    pub async fn get_from(&mut self, url: &str, path: &str) -> Answer {
        self.try_ask(Method::GET, &format!("{url}{path}")).await.unwrap()
    }

    /// POST to whatever is at an address; it must answer.
    pub async fn post_to(&mut self, url: &str, path: &str) -> Answer {
        self.try_ask(Method::POST, &format!("{url}{path}")).await.unwrap()
    }

    /// Sets an attribute; it must work.
    pub async fn put(&mut self, node: &NodeProcess, key: &str, value: &str) {
        let answer = self.post(node, &format!("/put?k={key}&v={value}")).await;
        assert_eq!((answer.status, &*answer.body), (200, value), "put {key} on {}", node.name());
    }

    /// A new browser with a session that has `k` = `value`, made on one node; another that should hold it does so.
    pub async fn held_by(maker: &NodeProcess, holder: &NodeProcess, value: &str) -> Self {
        // Of three nodes two hold each.
        for _ in 0..100 {
            let mut browser = Self::new();
            browser.put(maker, "k", value).await;
            if browser.holders(maker).await.iter().any(|name| name == holder.name()) {
                maker.is_heard().await;
                return browser;
            }
        }
        panic!("{} holds none of a hundred sessions of {}", holder.name(), maker.name());
    }

    /// The names of the nodes that hold the session, as one of them sees it.
    pub async fn holders(&mut self, node: &NodeProcess) -> Vec<String> {
        let shown: Value = serde_json::from_str(&self.get(node, "/session").await.body).unwrap();
        let names = shown["holders"].as_array().unwrap();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    /// An attribute; it must be decided.
    pub async fn value(&mut self, node: &NodeProcess, key: &str) -> Option<String> {
        let answer = self.get(node, &format!("/get?k={key}")).await;
        match answer.status {
            200 => Some(answer.body),
            404 => None,
            status => panic!("get {key} on {}: {status} {}", node.name(), answer.body),
        }
    }
}
