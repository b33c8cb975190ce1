//! Seeds by name, from a real name server whose answers come, go, are late, wrong or missing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::{Browser, Lan, NodeProcess, Processes, Signal, eventually};
use rustix::process::{Pid, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::{Story, processes, stories};

pub(crate) fn stories() -> Vec<Story> {
    stories! {
        addresses_appear_and_vanish_behind_a_name on 4
        a_name_that_is_answered_late_is_waited_for on 2
        a_name_server_that_is_down_makes_no_second_cluster on 3
        of_wrong_addresses_behind_a_name_one_right_one_is_enough on 4
        a_name_with_ipv6_addresses_only on 2
    }
}

/// dnsmasq, on the switch.
struct NameServer {
    child: Child,
    hosts: PathBuf,
}

impl NameServer {
    /// Every host asks it from now on. It knows no name.
    async fn start(lan: &Lan, hosts: usize) -> Self {
        let file = lan.dir().join("hosts");
        std::fs::write(&file, "10.77.0.1 up.mesh\n").unwrap();
        let child = Self::launch(&file);
        for host in 0..hosts {
            lan.use_name_server(host, "10.77.0.1");
        }
        lan.run(0, "timeout", &["10", "sh", "-c", "until getent hosts up.mesh; do sleep 0.02; done"]);
        Self { child, hosts: file }
    }

    fn launch(hosts: &std::path::Path) -> Child {
        Command::new("dnsmasq")
            .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--local=/mesh/", "--local-ttl=0"])
            .args(["--conf-file=/dev/null", "--pid-file", "--user=root", "--bind-interfaces"])
            .arg("--listen-address=10.77.0.1")
            .arg(format!("--addn-hosts={}", hosts.display()))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// These names and addresses, from now on.
    fn knows(&self, names: &[(&str, &str)]) {
        let lines: String = names.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
        std::fs::write(&self.hosts, lines).unwrap();
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
}

const BY_NAME: [&str; 2] = ["--set=seeds=nodes.mesh:4000", "--set=multicast=false"];

async fn start(cluster: &mut Processes, name: &str, host: usize) {
    cluster.start_on(name, host, &BY_NAME).await;
}

async fn why_not_ready(node: &NodeProcess) -> String {
    let answer = Browser::new().get(node, "/readyz").await;
    if answer.status == 200 { "ready".into() } else { answer.body }
}

async fn addresses_appear_and_vanish_behind_a_name(lan: Lan) {
    let lan = Arc::new(lan);
    let names = NameServer::start(&lan, 4).await;
    // As a headless service without an endpoint: there is no such name yet.
    let mut cluster = processes(&lan);
    start(&mut cluster, "n1", 0).await;
    cluster.nodes[0].ready().await;
    // Its own address is the only one.
    names.knows(&[("nodes.mesh", "10.77.0.11")]);
    start(&mut cluster, "n2", 1).await;
    cluster.formed().await;
    // All move: the joiner knows nothing but the name.
    names.knows(&[("nodes.mesh", "10.77.0.12"), ("nodes.mesh", "10.77.0.13")]);
    start(&mut cluster, "n3", 2).await;
    cluster.formed().await;
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[2], "k", "v").await;
    cluster.nodes[0].signal(Signal::TERM);
    assert!(cluster.nodes[0].ended().await.success());
    // The name is gone, the members stay.
    names.knows(&[]);
    cluster.formed().await;
    names.knows(&[("nodes.mesh", "10.77.0.13"), ("nodes.mesh", "10.77.0.14")]);
    start(&mut cluster, "n4", 3).await;
    cluster.formed().await;
    assert_eq!(browser.value(&cluster.nodes[3], "k").await.as_deref(), Some("v"));
}

async fn a_name_that_is_answered_late_is_waited_for(lan: Lan) {
    let lan = Arc::new(lan);
    let names = NameServer::start(&lan, 2).await;
    // Not the joiner's: the other node would call it.
    names.knows(&[("nodes.mesh", "10.77.0.11")]);
    let mut cluster = processes(&lan);
    start(&mut cluster, "n1", 0).await;
    cluster.nodes[0].ready().await;
    // It hears the questions and does not answer. join_wait is 500 ms.
    names.signal(Signal::STOP);
    start(&mut cluster, "n2", 1).await;
    let reason = async || why_not_ready(&cluster.nodes[1]).await;
    eventually("it waits for the name", || async {
        reason().await.contains("nodes.mesh:4000").then_some(())
    })
    .await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        let reason = reason().await;
        assert!(reason.contains("nodes.mesh:4000"), "{reason}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    names.signal(Signal::CONT);
    cluster.formed().await;
    println!("a name server that stood still for 2.5 s: joined after {:?}", begun.elapsed());
}

async fn a_name_server_that_is_down_makes_no_second_cluster(lan: Lan) {
    let lan = Arc::new(lan);
    let mut names = NameServer::start(&lan, 3).await;
    names.knows(&[("nodes.mesh", "10.77.0.11"), ("nodes.mesh", "10.77.0.12")]);
    let mut cluster = processes(&lan);
    start(&mut cluster, "n1", 0).await;
    start(&mut cluster, "n2", 1).await;
    cluster.formed().await;
    let mut browser = Browser::new();
    browser.put(&cluster.nodes[0], "k", "v").await;
    names.child.kill().await.unwrap();

    start(&mut cluster, "n3", 2).await;
    let joiner = &cluster.nodes[2];
    let reason = eventually("it says what it waits for", || async {
        let reason = why_not_ready(joiner).await;
        reason.contains("name service").then_some(reason)
    })
    .await;
    println!("without a name server, a joiner: {}", reason.trim());
    assert!(reason.contains("nodes.mesh:4000") && reason.contains("found = true"), "{reason}");
    // Those that know each other do not care.
    assert_eq!(browser.value(&cluster.nodes[1], "k").await.as_deref(), Some("v"));
    cluster.nodes[0].sees(1).await;
    names.child = NameServer::launch(&names.hosts);
    cluster.formed().await;
    assert_eq!(browser.value(&cluster.nodes[2], "k").await.as_deref(), Some("v"));

    // Told to, it founds: the operator knows better.
    names.child.kill().await.unwrap();
    cluster.nodes[2].kill().await;
    let mut founder = processes(&lan).with("--set=found=true");
    start(&mut founder, "n3", 2).await;
    founder.nodes[0].ready().await;
}

async fn of_wrong_addresses_behind_a_name_one_right_one_is_enough(lan: Lan) {
    let lan = Arc::new(lan);
    let names = NameServer::start(&lan, 4).await;
    let mut cluster = processes(&lan);
    start(&mut cluster, "n1", 0).await;
    // A node of another cluster, one where nobody listens, one where nobody is, and the right one.
    let mut other = processes(&lan);
    start(&mut other, "n1", 1).await;
    let wrong = ["10.77.0.12", "10.77.0.13", "10.77.0.99", "10.77.0.11"];
    let entries: BTreeMap<&str, &str> = wrong.iter().map(|address| (*address, "nodes.mesh")).collect();
    let entries: Vec<(&str, &str)> = entries.into_iter().map(|(address, name)| (name, address)).collect();
    names.knows(&entries);
    let begun = Instant::now();
    start(&mut cluster, "n2", 3).await;
    cluster.formed().await;
    println!("three wrong addresses and a right one: joined after {:?}", begun.elapsed());
    other.nodes[0].sees(0).await;
}

async fn a_name_with_ipv6_addresses_only(lan: Lan) {
    let lan = Arc::new(lan);
    let names = NameServer::start(&lan, 2).await;
    names.knows(&[("nodes.mesh", "fd77::11"), ("nodes.mesh", "fd77::12")]);
    let v6 = ["--set=address=ff02::5e55", "--bind=[::]:4000"];
    let mut cluster = processes(&lan).with(v6[0]).with(v6[1]);
    start(&mut cluster, "n1", 0).await;
    start(&mut cluster, "n2", 1).await;
    cluster.formed().await;
    assert_eq!(cluster.nodes[1].address, "[fd77::12]:4000");
}
