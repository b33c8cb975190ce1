//! Hosts on both sides of a cut: who writes, logs out and logs in there, and what the heal makes of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::{Browser, Lan, NodeProcess, Processes, Traffic, figure, within};
use tokio::time::Instant;

use crate::{Size, Story, holders, processes, usual_times};

pub(crate) fn stories(size: Size) -> Vec<Story> {
    [
        Story::on_hosts(
            "cuts::two_and_three_are_one_again_and_nothing_that_ended_lives",
            5,
            size,
            two_and_three,
        ),
        Story::on_hosts("cuts::a_cut_one_way_is_a_cut", 5, size, one_way),
        Story::on_hosts("cuts::what_a_pass_moves_is_bounded_by_what_differs", 5, size, transfer),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Until a hundred thousand sessions are where they belong.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first two hosts.
const LEFT: [usize; 2] = [0, 1];
const RIGHT: [usize; 3] = [2, 3, 4];

async fn two_and_three(lan: Arc<Lan>, mode: &'static str, size: Size) {
    cuts(
        lan,
        mode,
        size,
        "cut between 2 and 3 hosts",
        &[(LEFT.as_slice(), RIGHT.as_slice()), (&RIGHT, &LEFT)],
    )
    .await;
}

async fn one_way(lan: Arc<Lan>, mode: &'static str, size: Size) {
    cuts(lan, mode, size, "nothing gets from 2 to 3 hosts", &[(LEFT.as_slice(), RIGHT.as_slice())]).await;
}

/// From these to those nothing gets through.
type Blocked<'a> = [(&'a [usize], &'a [usize])];

fn cut(lan: &Lan, blocked: &Blocked<'_>) {
    for (from, to) in blocked {
        for from in *from {
            for to in *to {
                lan.block(*from, *to, Traffic::All);
            }
        }
    }
}

async fn cuts(lan: Arc<Lan>, mode: &str, size: Size, what: &str, blocked: &Blocked<'_>) {
    let mut cluster = processes(mode).on(&lan);
    if size == Size::Full {
        cluster = usual_times(cluster);
    }
    let cluster = cluster.start(5).await;
    for seconds in size.pick(vec![3], vec![1, 10, 60]) {
        cluster.settled().await;
        let users = Users::new(&cluster).await;
        let story = format!("{what} for {seconds} s, {mode}");
        one_cut(&lan, &cluster, users, blocked, Duration::from_secs(seconds), &story).await;
    }
}

/// What users have, on both sides.
struct Users {
    /// Written on both sides.
    shared: Vec<Browser>,
    /// Logged out on the left, and on the right.
    ended: [Vec<Browser>; 2],
    /// Logged in on the left, and on the right.
    logged_in: [Vec<Browser>; 2],
}

impl Users {
    /// Each side holds all of them, whatever the mode.
    async fn new(cluster: &Processes) -> Self {
        let [a, b] = [&cluster.nodes[0], &cluster.nodes[2]];
        let mut users = Self { shared: Vec::new(), ended: Default::default(), logged_in: Default::default() };
        for _ in 0..5 {
            users.shared.push(Browser::held_by(a, b, "v").await);
            for side in 0..2 {
                users.ended[side].push(Browser::held_by(a, b, "v").await);
                users.logged_in[side].push(Browser::held_by(a, b, "v").await);
            }
        }
        users
    }
}

async fn one_cut(
    lan: &Lan,
    cluster: &Processes,
    mut users: Users,
    blocked: &Blocked<'_>,
    time: Duration,
    story: &str,
) {
    let node = |index: usize| &cluster.nodes[index];
    cut(lan, blocked);
    let begun = Instant::now();
    let stolen: [Vec<Browser>; 2] = [0, 1].map(|side| users.ended[side].iter().map(Browser::bare).collect());
    let planted: [Vec<Browser>; 2] =
        [0, 1].map(|side| users.logged_in[side].iter().map(Browser::bare).collect());
    let mut ended = [vec![false; 5], vec![false; 5]];
    let mut changed = [vec![false; 5], vec![false; 5]];
    // By side, the newest value that was acknowledged, and one that may be there.
    let mut newest = vec![[(0, 0); 2]; users.shared.len()];
    let mut round = 0;
    // To the end, and until all have logged out and in: before the others are dropped some answers are late or undecided.
    while begun.elapsed() < time || ended.iter().chain(&changed).flatten().any(|done| !done) {
        round += 1;
        for (side, hosts) in [&LEFT[..], &RIGHT[..]].into_iter().enumerate() {
            let host = node(hosts[round % hosts.len()]);
            for (browser, newest) in users.shared.iter().zip(&mut newest) {
                newest[side].1 = round;
                let own = browser.bare().post(host, &format!("/put?k=side{side}&v={round}")).await;
                let same = browser.bare().post(host, &format!("/put?k=same&v={side}-{round}")).await;
                assert!(
                    [&own, &same].iter().all(|answer| matches!(answer.status, 200 | 503 | 504)),
                    "{own:?} {same:?}"
                );
                if own.status == 200 {
                    newest[side].0 = round;
                }
            }
            for (browser, ended) in users.ended[side].iter_mut().zip(&mut ended[side]) {
                // 504: it is over here, and nobody else has said so in time.
                *ended = *ended || matches!(browser.post(host, "/logout").await.status, 200 | 504);
            }
            for (browser, changed) in users.logged_in[side].iter_mut().zip(&mut changed[side]) {
                if !*changed {
                    *changed = matches!(browser.post(host, "/login?user=ada").await.status, 200 | 504);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(begun.elapsed() < time + Duration::from_secs(15), "{ended:?} {changed:?}");
    }
    let lasted = begun.elapsed();
    // It was a cut: what was written last is where it was written.
    for (from, to) in blocked {
        let side = usize::from(*from == RIGHT);
        for (browser, newest) in users.shared.iter().zip(&newest) {
            let there = value(node(to[0]), browser, &format!("side{side}")).await;
            assert_ne!(there, Some(newest[side].1.to_string()), "it came through");
        }
    }

    lan.mend();
    let healed = Instant::now();
    // G3, from the first moment: where it was ended it stays so.
    let equal = loop {
        for (side, hosts) in [&LEFT[..], &RIGHT[..]].into_iter().enumerate() {
            for host in hosts {
                for browser in stolen[side].iter().chain(&planted[side]) {
                    let answer = browser.clone().get(node(*host), "/get?k=k").await;
                    assert_ne!(answer.status, 200, "what ended on {} lives there again", node(*host).name());
                }
            }
        }
        let mut all = true;
        for (browser, newest) in users.shared.iter().zip(&newest) {
            all &= is_everywhere(cluster, browser, newest).await;
        }
        for browser in stolen.iter().chain(&planted).flatten() {
            all &= is_over_everywhere(cluster, browser).await;
        }
        if all {
            break healed.elapsed();
        }
        assert!(healed.elapsed() < Duration::from_secs(20), "not equal after 20 s");
    };
    cluster.formed().await;
    let formed = healed.elapsed();
    cluster.settled().await;
    let settled = healed.elapsed();
    for host in &cluster.nodes {
        for browser in users.logged_in.iter().flatten() {
            assert_eq!(browser.bare().value(host, "user").await.as_deref(), Some("ada"));
            assert_eq!(browser.bare().value(host, "k").await.as_deref(), Some("v"));
        }
    }
    figure(
        story,
        format!(
            "lasted {lasted:.1?}; {round} rounds of writes on both sides to 5 sessions, 10 logouts, 10 logins; healed: all 5 hosts equal \
             after {equal:.2?}, members again after {formed:.2?}, all compared after {settled:.2?}; no attribute lost, nothing that ended lived"
        ),
    );
    assert!(equal < Duration::from_secs(8), "{equal:?}");
}

/// Whether both sides' newest writes are on every host, and of the one attribute that both wrote the same.
async fn is_everywhere(cluster: &Processes, browser: &Browser, newest: &[(usize, usize); 2]) -> bool {
    let mut same = BTreeSet::new();
    for host in &cluster.nodes {
        for (side, (acknowledged, sent)) in newest.iter().enumerate() {
            let answer = browser.bare().get(host, &format!("/get?k=side{side}")).await;
            let value: usize = match answer.status {
                200 => answer.body.parse().unwrap(),
                // Nothing of this side's was acknowledged.
                404 => 0,
                _ => return false,
            };
            if !(*acknowledged..=*sent).contains(&value) {
                return false;
            }
        }
        same.insert(value(host, browser, "same").await);
    }
    same.len() == 1
}

async fn is_over_everywhere(cluster: &Processes, browser: &Browser) -> bool {
    for host in &cluster.nodes {
        if browser.clone().get(host, "/get?k=k").await.status != 404 {
            return false;
        }
    }
    true
}

async fn value(host: &NodeProcess, browser: &Browser, key: &str) -> Option<String> {
    let answer = browser.bare().get(host, &format!("/get?k={key}")).await;
    (answer.status == 200).then_some(answer.body)
}

/// G4's bytes: what one side made during the cut, against what passes sent to mend it.
async fn transfer(lan: Arc<Lan>, mode: &'static str, size: Size) {
    let sessions: u64 = size.pick(2_000, 100_000);
    for per_mille in size.pick(vec![100], vec![1, 10, 1_000]) {
        let differ = sessions * per_mille / 1_000;
        let mut cluster = usual_times(processes(mode).on(&lan)).start(5).await;
        cluster.settled().await;
        if sessions > differ {
            bulk(&cluster, sessions - differ, 5).await;
        }
        cut(&lan, &[(&LEFT, &RIGHT), (&RIGHT, &LEFT)]);
        for host in LEFT {
            cluster.nodes[host].sees(1).await;
        }
        for host in RIGHT {
            cluster.nodes[host].sees(2).await;
        }
        cluster.settled().await;
        // What of it is encoded once.
        let before = sent(&cluster.nodes[0]).await;
        Browser::new().post(&cluster.nodes[0], &format!("/bulk?n={differ}&attrs=4&bytes=100")).await;
        cluster.nodes[0].is_heard().await;
        let difference = sent(&cluster.nodes[0]).await - before;
        let passes_before = cluster.sum("pass_bytes_sent").await;
        lan.mend();
        let healed = Instant::now();
        let copies = holders(mode, 5) as u64 * sessions;
        let equal = loop {
            // Every session where it belongs, and nowhere else.
            if cluster.copies().await == copies && cluster.records().await == copies {
                break healed.elapsed();
            }
            assert!(healed.elapsed() < Duration::from_secs(120), "{} of {copies}", cluster.copies().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        cluster.formed().await;
        cluster.settled().await;
        let settled = healed.elapsed();
        let moved = cluster.sum("pass_bytes_sent").await - passes_before;
        let links = (LEFT.len() * RIGHT.len()) as u64;
        // Copies in wrong places are offered to their holders.
        let offers = if mode == "all-peers" { 0 } else { 100 * sessions };
        let bound = links * (3 * difference + (64 << 10)) + offers;
        figure(
            &format!(
                "5 hosts, {sessions} sessions of 4 x 100 B, {} % made beyond a cut, {mode}",
                per_mille as f64 / 10.0
            ),
            format!(
                "differ {} KiB; passes over 6 links moved {} KiB ({:.2} x the difference a link; at most {} KiB promised); all copies there \
                 after {equal:.2?}, all compared after {settled:.2?}",
                difference >> 10,
                moved >> 10,
                moved as f64 / links as f64 / difference as f64,
                bound >> 10,
            ),
        );
        assert!(moved <= bound, "{moved} of {bound}");
        // The next cluster needs the hosts' ports.
        for node in &mut cluster.nodes {
            node.kill().await;
        }
    }
}

async fn bulk(cluster: &Processes, sessions: u64, nodes: u64) {
    for (index, node) in cluster.nodes.iter().enumerate() {
        let share = sessions / nodes + u64::from((index as u64) < sessions % nodes);
        let answer = Browser::new().post(node, &format!("/bulk?n={share}&attrs=4&bytes=100")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    within(PATIENCE, "every session has its copies", || async {
        (cluster.copies().await >= 2 * sessions).then_some(())
    })
    .await;
    cluster.settled().await;
}

/// Bytes to one peer: the most that any got.
async fn sent(node: &NodeProcess) -> u64 {
    let stats = node.json("/stats").await.unwrap();
    let peers = stats["peers"].as_array().unwrap();
    peers.iter().map(|peer| peer["bytes_sent"].as_u64().unwrap()).max().unwrap_or_default()
}
