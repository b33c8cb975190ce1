//! Slow requests against logouts elsewhere.

use std::time::Duration;

use cluster_tests::{Browser, eventually, figure};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{Size, Story, processes};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    Story::both(
        "logouts::a_slow_request_learns_that_it_lost_and_the_session_stays_dead",
        size,
        slow_requests_lose,
    )
}

async fn slow_requests_lose(mode: &'static str, size: Size) {
    // Each access is told that comes a millisecond after the one before.
    let cluster = processes(mode).with("--set=touch_interval=1ms").start(3).await;
    let users = size.pick(10, 200);
    let mut browsers = Vec::new();
    for number in 0..users {
        let mut browser = Browser::new();
        browser.put(&cluster.nodes[number % 3], "k", "1").await;
        browsers.push(browser);
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    let touches = cluster.sum("touches").await;
    let (loaded, all_loaded) = watch::channel(false);
    let mut stories = JoinSet::new();
    for (number, browser) in browsers.into_iter().enumerate() {
        let [a, b] = [number, number + 1].map(|node| cluster.nodes[node % 3].url(""));
        let mut all_loaded = all_loaded.clone();
        stories.spawn(async move {
            // At once for all, not one after the other's.
            let pause = Duration::from_millis(13 * (number as u64 % 50));
            let mut slow = browser.clone();
            let (late, ()) = tokio::join!(slow.post_to(&a, "/slow?k=late&v=1&ms=4000"), async {
                all_loaded.wait_for(|loaded| *loaded).await.unwrap();
                tokio::time::sleep(pause).await;
                assert_eq!(browser.clone().post_to(&b, "/logout").await.status, 200);
            });
            // The cookie that it had before.
            (browser, late.status)
        });
    }
    eventually("all slow requests have their sessions", || async {
        (cluster.sum("touches").await >= touches + users as u64).then_some(())
    })
    .await;
    loaded.send_replace(true);
    let mut told = 0;
    while let Some(ended) = stories.join_next().await {
        let (browser, late) = ended.unwrap();
        assert_eq!(late, 409, "the slow request is told");
        told += 1;
        for node in &cluster.nodes {
            let answer = browser.clone().get(node, "/get?k=late").await;
            assert_eq!(answer.status, 404, "on {}: {answer:?}", node.name());
            assert_eq!(browser.clone().get(node, "/session").await.status, 404);
        }
    }
    figure(
        &format!("slow request against logout, {mode}"),
        format!(
            "{told} of {users} slow requests were told (409), and their sessions are dead on all 3 nodes"
        ),
    );
}
