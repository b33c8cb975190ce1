//! Slow requests against logouts elsewhere.

use std::time::Duration;

use cluster_tests::{Browser, figure};
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
    let cluster = processes(mode).start(3).await;
    let users = size.pick(10, 200);
    let mut stories = JoinSet::new();
    for number in 0..users {
        let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("")).collect();
        stories.spawn(async move {
            // At once for all, not one after the other's.
            let pause = Duration::from_millis(200 + 13 * (number as u64 % 50));
            let mut browser = Browser::new();
            let (a, b) = (&urls[number % 3], &urls[(number + 1) % 3]);
            assert_eq!(browser.post_to(a, "/put?k=k&v=1").await.status, 200);
            let mut slow = browser.clone();
            let (late, ()) = tokio::join!(slow.post_to(a, "/slow?k=late&v=1&ms=1500"), async {
                tokio::time::sleep(pause).await;
                assert_eq!(browser.clone().post_to(b, "/logout").await.status, 200);
            });
            // The cookie that it had before.
            (browser, late.status)
        });
    }
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
