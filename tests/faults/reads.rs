//! Read your writes: with a browser's cookies, at once, on any other node, at `async`.

use std::sync::Arc;

use cluster_tests::{Browser, Lan, Processes, figure};

use crate::{Size, Story, processes};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    let mut stories = Story::both("reads::a_write_here_is_read_there_at_once", size, on_processes);
    stories.extend(Story::on_hosts("reads::a_write_here_is_read_there_at_once_on_hosts", 4, size, on_hosts));
    stories
}

async fn on_processes(mode: &'static str, size: Size) {
    let cluster = processes(mode).start(4).await;
    read_elsewhere(&cluster, &format!("read elsewhere at once, 4 processes, {mode}"), size).await;
}

async fn on_hosts(lan: Arc<Lan>, mode: &'static str, size: Size) {
    let cluster = processes(mode).on(&lan).start(4).await;
    read_elsewhere(&cluster, &format!("read elsewhere at once, 4 hosts, {mode}"), size).await;
}

async fn read_elsewhere(cluster: &Processes, story: &str, size: Size) {
    let writes = size.pick(100, 3_000);
    cluster.settled().await;
    let mut browser = Browser::new();
    let (mut reads, mut marked) = (0, 0);
    for n in 0..writes {
        let value = n.to_string();
        let writer = n % 4;
        // Now and then a new session: it must be found, too.
        if n % 10 == 0 {
            browser = Browser::new();
        }
        browser.put(&cluster.nodes[writer], "k", &value).await;
        for reader in (0..4).filter(|reader| *reader != writer) {
            let answer = browser.get(&cluster.nodes[reader], "/get?k=k").await;
            reads += 1;
            if answer.headers.contains_key("sessionmesh-stale") {
                marked += 1;
            } else {
                assert_eq!((answer.status, &*answer.body), (200, &*value), "{answer:?}");
            }
        }
    }
    let waits = cluster.sum("token_waits").await;
    figure(
        story,
        format!(
            "{reads} reads at async: {marked} marked stale, none older and unmarked, none 404; {waits} had to ask another node first"
        ),
    );
    // Few reads can't tell two of a thousand from none.
    assert!(marked <= 1 + reads / 500, "{marked} of {reads}");
}
