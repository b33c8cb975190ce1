//! `session-node --diagnose` on hosts where something is wrong: it says what, and what would help.

use std::sync::Arc;

use cluster_tests::{Lan, Processes, Signal, Traffic};
use tokio::process::Command;

use crate::{Story, processes, stories};

pub(crate) fn stories() -> Vec<Story> {
    stories! {
        diagnose_finds_nothing_wrong_before_and_beside_nodes on 3
        diagnose_tells_a_network_without_multicast on 2
        diagnose_tells_one_way_multicast on 2
        diagnose_finds_nothing_wrong_behind_the_documented_firewall on 2
        diagnose_tells_members_that_multicast_does_not_reach on 3
        diagnose_tells_blocked_connections on 3
        diagnose_tells_names_that_do_not_resolve_and_addresses_where_nobody_is on 2
        diagnose_tells_another_secret_mode_name_and_cluster on 3
        diagnose_tells_a_process_that_stands_still on 2
        no_socket_of_any_port_takes_the_groups on 1
    }
}

/// What it says on a host, and whether it exits with 0.
async fn diagnose(cluster: &Processes, name: &str, host: usize, flags: &[&str]) -> (bool, String) {
    run(cluster.command(name, host), flags).await
}

async fn run(mut command: Command, flags: &[&str]) -> (bool, String) {
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
    says(&said, &["note", "no other node was heard"]);
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
    // Beside a node of the same name and port, and though there is no other port.
    for flags in [&[][..], &["--set=auto_bind=1"]] {
        let (fine, said) = diagnose(&cluster, "n1", 0, flags).await;
        assert!(fine, "{said}");
        says(&said, &["note", "port 4000 is taken"]);
        says(&said, &["note", "this host's own node n1 runs, is ready, and sees 1 other(s)"]);
        says(&said, &["ok", "would meet n2"]);
        assert!(!said.contains("meet n1"), "{said}");
    }
    // All hosts at once, each with the same seeds, its own address among them, and one that is not there yet.
    let seeds = "--set=seeds=10.77.0.11:4000,10.77.0.12:4000,10.77.0.13:4000";
    let flags = [seeds, "--set=multicast=true"];
    let (one, two, three) = tokio::join!(
        diagnose(&cluster, "n1", 0, &flags),
        diagnose(&cluster, "n2", 1, &flags),
        diagnose(&cluster, "n3", 2, &flags)
    );
    let (fine, said) = three;
    assert!(fine, "{said}");
    says(&said, &["ok", "would meet n1, n2"]);
    for (_, said) in [one, two] {
        says(&said, &["WRONG", "10.77.0.13:4000", "nothing listens"]);
        assert!(!said.contains("does not hear"), "{said}");
    }
    for node in &cluster.nodes {
        node.sees(1).await;
        assert_eq!(node.cause("member dropped").await, 0);
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
    says(&said, &["note", "no other node was heard by multicast"]);
    // Beside the node too: it is alone, and ready.
    let (_, said) = diagnose(&cluster, "n1", 0, &[]).await;
    says(&said, &["note", "this host's own node n1 runs, is ready, and sees 0 other(s)"]);
    says(&said, &["note", "would be alone, and ready"]);
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
    says(&said, &["WRONG", "10.77.0.11:4000 is heard by multicast and does not hear this host"]);
    says(&said, &["ok", "10.77.0.11:4000 (heard by multicast): n1, ready", "shares the secret"]);
}

/// As docs/deploy.md says.
async fn diagnose_finds_nothing_wrong_behind_the_documented_firewall(lan: Lan) {
    let lan = Arc::new(lan);
    for host in [0, 1] {
        lan.run(
            host,
            "nft",
            &["add table inet f; \
            add chain inet f i { type filter hook input priority 0; policy drop; }; \
            add rule inet f i ct state established,related accept; \
            add rule inet f i iifname lo accept; \
            add rule inet f i tcp dport { 4000, 8080 } accept; \
            add rule inet f i udp dport { 4000, 45564 } accept; \
            add rule inet f i ip protocol igmp accept"],
        );
    }
    let mut cluster = processes(&lan);
    cluster.start_one("n1").await;
    cluster.start_one("n2").await;
    cluster.formed().await;
    cluster.nodes[1].kill().await;
    cluster.nodes[0].sees(0).await;
    let (fine, said) = diagnose(&cluster, "n2", 1, &[]).await;
    assert!(fine, "{said}");
    says(&said, &["ok", "10.77.0.11:4000 is heard by multicast, and hears this host"]);
    says(&said, &["ok", "would meet n1"]);
}

async fn diagnose_tells_members_that_multicast_does_not_reach(lan: Lan) {
    let lan = Arc::new(lan);
    let mut cluster = processes(&lan);
    for name in ["n1", "n2", "n3"] {
        cluster.start_one(name).await;
    }
    cluster.formed().await;
    // The group is cut off where this host is; the links hold.
    lan.block(1, 0, Traffic::Udp);
    lan.block(2, 0, Traffic::Udp);
    let (fine, said) = diagnose(&cluster, "n1", 0, &[]).await;
    assert!(!fine);
    says(&said, &["note", "this host's own node n1 runs, is ready, and sees 2 other(s)"]);
    says(&said, &["WRONG", "10.77.0.12:4000 (a member that n1 knows)", "not heard by multicast"]);
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

    let mut stranger = cluster.command("n3", 2);
    stranger.env("SESSIONMESH_SECRET", "another secret, as long");
    let (_, said) = run(stranger, &flags).await;
    says(&said, &["WRONG", "10.77.0.11", "have this cluster's name and another secret"]);
    says(&said, &["WRONG", "10.77.0.11:4000 (seed", "another secret: compare the fingerprints"]);
    let (_, said) = diagnose(&cluster, "n3", 2, &with("--mode=backup-only")).await;
    says(&said, &["WRONG", "10.77.0.12:4000", "n2 is in mode all-peers", "this one in backup-only"]);
    let (_, said) = diagnose(&cluster, "n1", 2, &flags).await;
    says(&said, &["WRONG", "10.77.0.11:4000", "a node named n1", "give this one another"]);
    let (_, said) = diagnose(&cluster, "n3", 2, &with("--set=cluster=elsewhere")).await;
    says(&said, &["note", "10.77.0.11", "a cluster with another name"]);
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

/// The group's port is one that the system may give to whoever asks for any.
async fn no_socket_of_any_port_takes_the_groups(lan: Lan) {
    let lan = Arc::new(lan);
    lan.run(0, "sh", &["-c", "echo 45564 45565 > /proc/sys/net/ipv4/ip_local_port_range"]);
    let mut cluster = processes(&lan);
    // By chance it might be the other one.
    for _ in 0..5 {
        let (fine, said) = diagnose(&cluster, "n1", 0, &[]).await;
        assert!(fine, "{said}");
        let node = cluster.start_on("n1", 0, &["--bind=0.0.0.0:0"]).await;
        cluster.nodes[node].kill().await;
        cluster.nodes.clear();
    }
}
