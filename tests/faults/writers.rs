//! Twenty that write at once, on all nodes.

use std::collections::BTreeSet;

use cluster_tests::{Browser, eventually, figure};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Size, Story, processes};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    Story::both("writers::twenty_at_once_lose_nothing_and_one_of_them_wins", size, twenty_at_once)
}

const WRITERS: usize = 20;

async fn twenty_at_once(mode: &'static str, size: Size) {
    let writes = size.pick(10, 200);
    for level in ["async", "one", "all"] {
        let cluster = processes(mode).with(&format!("--ack={level}")).start(3).await;
        let mut browser = Browser::new();
        browser.put(&cluster.nodes[0], "k", "v").await;
        let begun = Instant::now();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let mut browser = browser.clone();
            let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("")).collect();
            writers.spawn(async move {
                for n in 0..writes {
                    let url = &urls[(writer + n) % urls.len()];
                    for path in [format!("/put?k=own{writer}&v={n}"), format!("/put?k=same&v={writer}-{n}")] {
                        let answer = browser.post_to(url, &path).await;
                        assert_eq!(answer.status, 200, "{path}: {answer:?}");
                    }
                }
            });
        }
        while let Some(written) = writers.join_next().await {
            written.unwrap();
        }
        let took = begun.elapsed();
        // By the token of any of them nobody else's writes are waited for.
        let bare = browser.bare();
        let begun = Instant::now();
        let winner = eventually("all nodes say the same", || async {
            let mut said = BTreeSet::new();
            for node in &cluster.nodes {
                said.insert(all_of(node, &bare).await?);
            }
            (said.len() == 1).then(|| said.pop_first())?
        })
        .await;
        let (same, own) = winner.split_last().unwrap();
        let last = format!("{}", writes - 1);
        assert!(own.iter().all(|value| *value == last), "{own:?}");
        // Each browser's own writes came one after the other.
        assert!(same.ends_with(&format!("-{last}")), "{same}");
        let conflicts = cluster.sum("conflicts").await;
        figure(
            &format!("20 parallel writers, {mode}, {level}"),
            format!(
                "{} writes on 3 nodes in {took:.1?}: 20 distinct attributes all kept, of one attribute {same} won on all nodes \
                 ({conflicts} lost against ones they did not know), equal {:.0?} after the last answer",
                2 * writes * WRITERS,
                begun.elapsed()
            ),
        );
    }
}

/// Each writer's own attribute, and the one that is everybody's.
async fn all_of(node: &cluster_tests::NodeProcess, browser: &Browser) -> Option<Vec<String>> {
    let mut values = Vec::new();
    for key in (0..WRITERS).map(|writer| format!("own{writer}")).chain(["same".into()]) {
        let answer = browser.clone().get(node, &format!("/get?k={key}")).await;
        values.push((answer.status == 200).then_some(answer.body)?);
    }
    Some(values)
}
