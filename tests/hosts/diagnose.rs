//! `session-node --diagnose` on hosts where something is wrong: it says what, and what would help.

use std::sync::Arc;

use cluster_tests::{Lan, Processes, Signal, Traffic};

use crate::{Story, processes, stories};

pub(crate) fn stories() -> Vec<Story> {
    stories! {
        diagnose_finds_nothing_wrong_before_and_beside_nodes on 3
        diagnose_tells_a_network_without_multicast on 2
        diagnose_tells_one_way_multicast on 2
        diagnose_tells_blocked_connections on 3
        diagnose_tells_names_that_do_not_resolve_and_addresses_where_nobody_is on 2
        diagnose_tells_another_secret_mode_name_and_cluster on 3
        diagnose_tells_a_process_that_stands_still on 2
    }
}

/// What it says on a host, and whether it exits with 0.
async fn diagnose(cluster: &Processes, name: &str, host: usize, flags: &[&str]) -> (bool, String) {
    let mut command = cluster.command(name, host);
    let output = command.args(flags).arg("--diagnose").output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

fn says(said: &str, words: &[&str]) {
    let line = said.lines().find(|line| words.iter().all(|word| line.contains(word)));
    assert!(line.is_some(), "no line has {words:?}:\n{said}");
    println!("{}", line.unwrap());
}

async fn diagnose_finds_nothing_wrong_before_and_beside_nodes(lan: Lan) {
    let lan = Arc::new(lan);
    let mut cluster = processes(&lan);
    let (fine, said) = diagnose(&cluster, "n1", 0, &[]).await;
    assert!(fine, "{said}");
    says(&said, &["ok", "228.0.0.4:45564 on eth0 (10.77.0.11)", "comes back to this host"]);
    says(&said, &["note", "nobody was heard"]);
    says(&said, &["note", "would be alone", "most clouds"]);

    cluster.start_one("n1").await;
    cluster.start_one("n2").await;
    cluster.formed().await;
    let (fine, said) = diagnose(&cluster, "n3", 2, &[]).await;
    assert!(fine, "{said}");
    says(&said, &["ok", "10.77.0.11:4000 is heard by multicast, and hears this host"]);
    says(
        &said,
        &["ok", "10.77.0.12:4000", "n2, ready, sees 1 other(s), shares the secret, clocks differ by"],
    );
    says(&said, &["ok", "would meet n1, n2"]);
    // Beside a node of the same name and port.
    let (fine, said) = diagnose(&cluster, "n1", 0, &[]).await;
    assert!(fine, "{said}");
    says(&said, &["note", "port 4000 is taken"]);
    says(&said, &["note", "a node named n1", "if it is this host's own, all is well"]);
    for node in &cluster.nodes {
        node.sees(1).await;
        assert_eq!(node.counter("members_dropped").await, 0);
        assert_eq!(node.cause("handshake failed").await + node.cause("heartbeat rejected").await, 0);
        assert!(node.counter("probes_answered").await > 0);
    }
}

async fn diagnose_tells_a_network_without_multicast(lan: Lan) {
    let lan = Arc::new(lan);
    lan.drop_multicast();
    let mut cluster = processes(&lan);
    cluster.start_one("n1").await;
    let (_, said) = diagnose(&cluster, "n2", 1, &[]).await;
    says(&said, &["note", "nobody was heard by multicast"]);
    says(&said, &["note", "would be alone", "name seeds"]);
    let (fine, said) = diagnose(&cluster, "n2", 1, &["--seed=10.77.0.11:4000"]).await;
    assert!(fine, "{said}");
    says(&said, &["ok", "would meet n1"]);
    // On the host itself.
    lan.run(
        1,
        "nft",
        &["add table inet t; add chain inet t o { type filter hook output priority 0; }; \
                         add rule inet t o ip daddr 224.0.0.0/4 drop"],
    );
    let (fine, said) = diagnose(&cluster, "n2", 1, &[]).await;
    assert!(!fine);
    says(&said, &["WRONG", "228.0.0.4:45564 on eth0", "firewall"]);
}

async fn diagnose_tells_one_way_multicast(lan: Lan) {
    let lan = Arc::new(lan);
    let mut cluster = processes(&lan);
    cluster.start_one("n1").await;
    lan.block(1, 0, Traffic::Udp);
    let (fine, said) = diagnose(&cluster, "n2", 1, &[]).await;
    assert!(!fine);
    says(&said, &["WRONG", "10.77.0.11:4000 is heard by multicast and does not answer"]);
    says(&said, &["ok", "10.77.0.11:4000 (heard by multicast): n1, ready", "shares the secret"]);
}

async fn diagnose_tells_blocked_connections(lan: Lan) {
    let lan = Arc::new(lan);
    let mut cluster = processes(&lan);
    cluster.start_one("n1").await;
    cluster.start_one("n2").await;
    cluster.formed().await;
    lan.block(2, 1, Traffic::Tcp);
    lan.drop_multicast();
    let (fine, said) = diagnose(&cluster, "n3", 2, &["--seed=10.77.0.11:4000"]).await;
    assert!(!fine);
    says(&said, &["ok", "10.77.0.11:4000 (seed 10.77.0.11:4000): n1, ready"]);
    says(&said, &["WRONG", "10.77.0.12:4000 (a member that n1 knows)", "firewall drops TCP"]);
}

async fn diagnose_tells_names_that_do_not_resolve_and_addresses_where_nobody_is(lan: Lan) {
    let lan = Arc::new(lan);
    lan.use_name_server(0, "10.77.0.99");
    let cluster = processes(&lan);
    let seeds = "--set=seeds=nodes.mesh:4000,10.77.0.12:4000,10.77.0.98:4000";
    let (fine, said) = diagnose(&cluster, "n1", 0, &[seeds, "--set=multicast=false"]).await;
    assert!(!fine);
    says(&said, &["WRONG", "seed nodes.mesh:4000", "no answer from the name service"]);
    says(&said, &["WRONG", "10.77.0.12:4000", "nothing listens on this port"]);
    says(&said, &["WRONG", "10.77.0.98:4000", "the host is down"]);
    let (_, said) =
        diagnose(&cluster, "n1", 0, &["--seed=localhost.invalid:4000", "--bind=10.99.0.1:4000"]).await;
    says(&said, &["WRONG", "10.99.0.1:4000"]);
    let (_, said) = diagnose(&cluster, "n1", 0, &["--interface=eth7"]).await;
    says(&said, &["WRONG", "eth7", "there are: ", "eth0 (10.77.0.11)"]);
}

async fn diagnose_tells_another_secret_mode_name_and_cluster(lan: Lan) {
    let lan = Arc::new(lan);
    let mut cluster = processes(&lan);
    cluster.start_one("n1").await;
    cluster.start_one("n2").await;
    cluster.formed().await;
    let flags = ["--seed=10.77.0.11:4000", "--set=multicast=true"];
    let with = |flag: &'static str| [flags[0], flags[1], flag];

    let (_, said) = diagnose(&cluster, "n3", 2, &with("--set=secret=another secret, as long")).await;
    says(&said, &["WRONG", "10.77.0.11", "has this cluster's name and another secret"]);
    says(&said, &["WRONG", "10.77.0.11:4000 (seed", "another secret: compare the fingerprints"]);
    let (_, said) = diagnose(&cluster, "n3", 2, &with("--mode=backup-only")).await;
    says(&said, &["WRONG", "10.77.0.12:4000", "n2 is in mode all-peers", "this one in backup-only"]);
    let (_, said) = diagnose(&cluster, "n1", 2, &flags).await;
    says(&said, &["WRONG", "10.77.0.11:4000", "a node named n1", "give this one another"]);
    let (_, said) = diagnose(&cluster, "n3", 2, &with("--set=cluster=elsewhere")).await;
    says(&said, &["note", "10.77.0.11", "another cluster on the same group"]);
    says(&said, &["WRONG", "10.77.0.11:4000", "a cluster with another name"]);
    for node in &cluster.nodes {
        node.sees(1).await;
    }
}

async fn diagnose_tells_a_process_that_stands_still(lan: Lan) {
    let lan = Arc::new(lan);
    let mut cluster = processes(&lan);
    cluster.start_one("n1").await;
    cluster.nodes[0].stop().await;
    let (fine, said) = diagnose(&cluster, "n2", 1, &["--seed=10.77.0.11:4000"]).await;
    assert!(!fine);
    says(&said, &["WRONG", "10.77.0.11:4000", "says nothing", "stands still"]);
    cluster.nodes[0].signal(Signal::CONT);
}
