//! A small cart: the page on which a person sees the session follow them from node to node.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Form, State};
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use serde::Deserialize;
use tower_sessions::Session;

use crate::app::Failed;
use crate::serve::Node;

const GOODS: [&str; 4] = ["tea", "bread", "cheese", "apples"];
const CART: &str = "cart";

pub(crate) fn routes() -> Router<Node> {
    Router::new().route("/", get(page)).route("/cart/add", post(add)).route("/cart/clear", post(clear))
}

type Cart = BTreeMap<String, u32>;

#[derive(Deserialize)]
struct Item {
    item: String,
}

async fn add(session: Session, Form(item): Form<Item>) -> Result<Redirect, Failed> {
    if GOODS.contains(&item.item.as_str()) {
        let mut cart: Cart = session.get(CART).await?.unwrap_or_default();
        *cart.entry(item.item).or_default() += 1;
        session.insert(CART, cart).await?;
    }
    Ok(Redirect::to("/"))
}

async fn clear(session: Session) -> Result<Redirect, Failed> {
    session.flush().await?;
    Ok(Redirect::to("/"))
}

async fn page(State(node): State<Node>, session: Session) -> Result<Html<String>, Failed> {
    let cart: Cart = session.get(CART).await?.unwrap_or_default();
    let id = match session.id() {
        // Enough to see that it stays, too little to use.
        Some(id) => format!("{}…", &id.to_string()[..6]),
        None => "none yet: add something".into(),
    };
    let holders: Vec<String> = match session.id() {
        Some(id) => {
            let id = sessionmesh::SessionId::from_bytes(id.0.to_le_bytes());
            node.cluster.holders(&id).iter().map(ToString::to_string).collect()
        }
        None => Vec::new(),
    };
    let me = node.cluster.name();
    let mut members: Vec<(String, String)> = node
        .cluster
        .members()
        .await
        .into_iter()
        .map(|member| (member.name.to_string(), member.state.to_string()))
        .collect();
    members.push((me.to_string(), "serves you now".into()));
    members.sort();
    let members: String = members
        .iter()
        .map(|(name, state)| {
            let class = if name == me.as_str() { "here" } else { "" };
            format!("<li class=\"{class}\"><b>{name}</b> <span>{state}</span></li>")
        })
        .collect();
    let items: String = if cart.is_empty() {
        "<li class=\"empty\">nothing yet</li>".into()
    } else {
        cart.iter().map(|(item, count)| format!("<li><b>{item}</b> <span>× {count}</span></li>")).collect()
    };
    let goods: String = GOODS
        .iter()
        .map(|good| format!("<button name=\"item\" value=\"{good}\">+ {good}</button>"))
        .collect();
    let html = include_str!("cart.html")
        .replace("{{node}}", me.as_str())
        .replace("{{id}}", &id)
        .replace("{{holders}}", &holders.join(", "))
        .replace("{{members}}", &members)
        .replace("{{items}}", &items)
        .replace("{{goods}}", &goods);
    Ok(Html(html))
}
