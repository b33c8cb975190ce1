//! Backup-only mode: what a write costs, what a crash costs, and what a change of members does not.

use std::collections::BTreeSet;

use cluster_tests::{Browser, Load, NodeProcess, Processes, eventually};

use crate::processes;

fn backup() -> Processes {
    processes("backup-only")
}

/// Bytes that all nodes have sent to each other by now, heartbeats left out.
async fn bytes_sent(cluster: &Processes) -> u64 {
    let mut sent = 0;
    for node in &cluster.nodes {
        let stats = node.json("/stats").await.unwrap();
        let peers = stats["peers"].as_array().unwrap().clone();
        sent += peers.iter().map(|peer| peer["bytes_sent"].as_u64().unwrap()).sum::<u64>();
    }
    sent
}

/// Bytes per write, on a node that holds the session, and on one that does not.
async fn cost(mode: &str, nodes: usize) -> (f64, Option<f64>) {
    const WRITES: usize = 400;
    // Each write is acknowledged on its own: otherwise it is a matter of pace how many share an acknowledgement.
    let cluster = processes(mode).with("--ack=one").start(nodes).await;
    cluster.settled().await;
    let maker = &cluster.nodes[0];
    let mut browser = Browser::new();
    browser.put(maker, "k", "0").await;
    let holders = browser.holders(maker).await;
    let stranger = cluster.nodes.iter().find(|node| !holders.contains(&node.name().to_owned()));
    let mut costs = Vec::new();
    for node in [Some(maker), stranger].into_iter().flatten() {
        let before = bytes_sent(&cluster).await;
        for n in 0..WRITES {
            // 100 bytes as the session layer stores them.
            browser.put(node, "k", &format!("{n:098}")).await;
        }
        costs.push((bytes_sent(&cluster).await - before) as f64 / WRITES as f64);
    }
    (costs[0], costs.get(1).copied())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_costs_the_same_in_any_cluster() {
    let mut holder_costs = Vec::new();
    for nodes in [2, 4, 8] {
        let (holder, visitor) = cost("backup-only", nodes).await;
        let (all, _) = cost("all-peers", nodes).await;
        let visitor = visitor.map_or("-".into(), |cost| format!("{cost:.0}"));
        println!(
            "{nodes} processes: {holder:.0} bytes per 100-byte write at a holder, {visitor} at a visitor \
             (load included); all-peers {all:.0}"
        );
        holder_costs.push(holder);
    }
    let (least, most) =
        holder_costs.iter().fold((f64::MAX, 0f64), |(least, most), cost| (least.min(*cost), most.max(*cost)));
    assert!(most / least < 1.15, "{holder_costs:?}");
}

/// Sessions made in turn on all nodes, with the names of their holders.
async fn sessions(cluster: &Processes, count: usize) -> Vec<(Browser, BTreeSet<String>)> {
    let client = Browser::new();
    let mut sessions = Vec::new();
    for n in 0..count {
        let maker = &cluster.nodes[n % cluster.nodes.len()];
        let mut browser = client.clone();
        browser.put(maker, "k", &format!("v{n}")).await;
        let holders = browser.holders(maker).await.into_iter().collect();
        sessions.push((browser, holders));
    }
    sessions
}

/// How many are lost, asked of one node that lives; each other must be there with its value.
async fn lost(sessions: &[(Browser, BTreeSet<String>)], node: &NodeProcess) -> BTreeSet<usize> {
    let mut lost = BTreeSet::new();
    for (n, (browser, _)) in sessions.iter().enumerate() {
        match browser.clone().value(node, "k").await {
            Some(value) => assert_eq!(value, format!("v{n}")),
            None => {
                lost.insert(n);
            }
        }
    }
    lost
}

async fn survivors_settled(cluster: &Processes, dead: &[usize]) {
    for (index, node) in cluster.nodes.iter().enumerate() {
        if !dead.contains(&index) {
            node.sees(cluster.nodes.len() - dead.len() - 1).await;
        }
    }
    cluster.settled().await;
}

/// Every single node and every pair of four, killed at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loses_nothing_and_two_at_once_exactly_the_sessions_that_only_they_held() {
    let mut victims: Vec<Vec<usize>> = (0..4).map(|one| vec![one]).collect();
    victims.extend((0..4).flat_map(|one| (one + 1..4).map(move |two| vec![one, two])));
    for dead in victims {
        let mut cluster = backup().with("--ack=one").start(4).await;
        cluster.settled().await;
        let sessions = sessions(&cluster, 200).await;
        let names: BTreeSet<String> =
            dead.iter().map(|index| cluster.nodes[*index].name().to_owned()).collect();
        let doomed: BTreeSet<usize> =
            (0..sessions.len()).filter(|n| sessions[*n].1.is_subset(&names)).collect();
        for index in &dead {
            cluster.nodes[*index].signal(cluster_tests::Signal::KILL);
        }
        for index in &dead {
            cluster.nodes[*index].ended().await;
        }
        survivors_settled(&cluster, &dead).await;
        let survivors: Vec<&NodeProcess> =
            (0..4).filter(|index| !dead.contains(index)).map(|index| &cluster.nodes[index]).collect();
        for node in &survivors {
            assert_eq!(lost(&sessions, node).await, doomed, "{names:?}, asked of {}", node.name());
        }
        assert_eq!(doomed.is_empty(), dead.len() == 1, "each pair holds some of 200");
        let kept = (sessions.len() - doomed.len()) as u64;
        assert_eq!(cluster.copies().await, 2 * kept, "two copies of each again");
        println!("{names:?} killed at once: {} of 200 lost, as many as only they held", doomed.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_die_one_after_the_other_lose_nothing_once_the_first_gap_has_closed() {
    let mut cluster = backup().with("--ack=one").start(4).await;
    cluster.settled().await;
    let sessions = sessions(&cluster, 200).await;
    for dead in [1, 2] {
        cluster.nodes[dead].kill().await;
        survivors_settled(&cluster, &(1..=dead).collect::<Vec<_>>()).await;
        assert_eq!(lost(&sessions, &cluster.nodes[0]).await, BTreeSet::new());
        assert_eq!(cluster.copies().await, 400);
        let stats = cluster.nodes[0].json("/stats").await.unwrap();
        let last = stats["placement"]["rebalances"].as_array().unwrap().last().unwrap().clone();
        let gap = last["gap_ms"].as_u64().unwrap();
        println!("redundancy gap after the crash of one of {}: {gap} ms", 5 - dead);
        assert!(gap > 0 && gap < 5_000, "{last}");
        assert_eq!(last["members"].as_u64(), Some(4 - dead as u64));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_by_leave_under_load_without_stickiness_loses_nothing() {
    let mut cluster = backup().with("--ack=one").start(4).await;
    cluster.settled().await;
    let load = Load::start(6, &cluster.nodes.iter().collect::<Vec<_>>());
    cluster.goes_on(200).await;
    for index in 0..4 {
        let answer = Browser::new().post(&cluster.nodes[index], "/leave").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        cluster.nodes[index].kill().await;
        cluster.restart(index).await;
        cluster.formed().await;
        cluster.goes_on(100).await;
    }
    check(load, &cluster).await;
}

/// 1, 2, 3, 2, 1 nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_grows_and_shrinks_under_load_keeps_every_session() {
    let mut cluster = backup().with("--ack=one").with("--set=copies=1").start(1).await;
    let load = Load::start(6, &[&cluster.nodes[0]]);
    for name in ["n2", "n3"] {
        let index = cluster.start_one(name).await;
        cluster.formed().await;
        load.redirect(&cluster.nodes.iter().collect::<Vec<_>>());
        cluster.goes_on(150).await;
        let stats = cluster.nodes[index].json("/stats").await.unwrap();
        let placement = &stats["placement"];
        assert_eq!((placement["holders"].as_u64(), placement["holders_wanted"].as_u64()), (Some(2), Some(2)));
    }
    // The one that began it all goes first, then a joiner.
    for index in [0, 1] {
        let staying: Vec<&NodeProcess> = cluster.nodes[index + 1..].iter().collect();
        load.redirect(&staying);
        let answer = Browser::new().post(&cluster.nodes[index], "/leave").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        cluster.nodes[index].kill().await;
        cluster.goes_on(150).await;
    }
    eventually("the last one is the only holder: all there are", || async {
        let stats = cluster.nodes[2].json("/stats").await?;
        (stats["placement"]["holders"].as_u64() == Some(1)).then_some(())
    })
    .await;
    check(load, &cluster).await;
}

async fn check(load: Load, cluster: &Processes) {
    let mut users = load.stop().await;
    cluster.settled().await;
    let (writes, retries): (usize, usize) = users
        .iter()
        .fold((0, 0), |(writes, retries), user| (writes + user.writes(), retries + user.retries()));
    println!("{writes} writes by {} users, {retries} taken by another node", users.len());
    assert!(writes > 500, "{writes}");
    for user in &mut users {
        for node in cluster.running() {
            let missing = user.check(node).await;
            assert!(missing.is_empty(), "on {}: {missing:?}", node.name());
        }
    }
    // What visitors left behind goes by itself.
    eventually("every copy is where it belongs", || async {
        let holders = cluster.running().count().min(2) as u64;
        (cluster.records().await == users.len() as u64 * holders).then_some(())
    })
    .await;
}

#[tokio::test]
async fn more_copies_than_nodes_are_served_with_what_there_is_and_reported() {
    let cluster = backup().with("--copies=7").with("--ack=all").start(3).await;
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[0], "k", "v").await;
    for node in &cluster.nodes {
        assert_eq!(browser.value(node, "k").await.as_deref(), Some("v"));
        let stats = node.json("/stats").await.unwrap();
        let placement = &stats["placement"];
        assert_eq!((placement["holders"].as_u64(), placement["holders_wanted"].as_u64()), (Some(3), Some(8)));
    }
    assert_eq!(cluster.copies().await, 3);
}

#[tokio::test]
async fn nodes_of_another_mode_or_number_of_copies_are_refused_and_both_are_named() {
    let cluster = backup().start(2).await;
    for (flags, words) in [
        (vec!["--copies=2"], "n3 is backup-only with copies = 2"),
        (vec!["--set=mode=all-peers"], "n3 is all-peers"),
    ] {
        let said = cluster.start_failing("n3", &flags).await;
        assert!(said.contains(words) || said.contains("backup-only with copies = 1"), "{said}");
        assert!(said.contains("give all nodes the same mode and copies"), "{said}");
    }
    cluster.formed().await;
}

/// The copy on a node that has just served a session must not take the place of its holders: it has not
/// heard of the logout.
#[tokio::test]
async fn a_logout_stays_one_though_both_holders_die_and_a_visitor_lives() {
    let mut cluster = backup().with("--ack=all").start(3).await;
    cluster.settled().await;
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[0], "user", "ada").await;
    let holders = browser.holders(&cluster.nodes[0]).await;
    let visitor = cluster.nodes.iter().position(|node| !holders.contains(&node.name().to_owned())).unwrap();
    assert_eq!(browser.value(&cluster.nodes[visitor], "user").await.as_deref(), Some("ada"));
    assert_eq!(browser.clone().post(&cluster.nodes[0], "/logout").await.status, 200);
    for index in (0..3).filter(|index| *index != visitor) {
        cluster.nodes[index].kill().await;
    }
    let alone = &cluster.nodes[visitor];
    alone.sees(0).await;
    cluster.settled().await;
    assert_eq!(browser.get(alone, "/session").await.status, 404);
}
