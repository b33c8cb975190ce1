//! A new secret by file and signal, as an operator does it, while users go on.

use std::path::PathBuf;
use std::time::Duration;

use cluster_tests::{Load, NodeProcess, Signal, eventually};

use crate::processes;

const OLD: &str = "0123456789abcdef0123456789abcdef";
const NEW: &str = "fedcba9876543210fedcba9876543210";

struct SecretFile(PathBuf);

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

cluster_tests::in_both_modes! {
    a_secret_is_rotated_under_load
}

async fn a_secret_is_rotated_under_load(mode: &str) {
    let path = std::env::temp_dir().join(format!("sessionmesh-rotation-{mode}-{}", std::process::id()));
    let file = SecretFile(path);
    std::fs::write(&file.0, OLD).unwrap();
    let flag = format!("--secret-file={}", file.0.display());
    let mut cluster = processes(mode).with(&flag).start(3).await;
    let nodes: Vec<&NodeProcess> = cluster.running().collect();
    let load = Load::start(4, &nodes);

    for step in [format!("{OLD}\n{NEW}\n"), format!("{NEW}\n{OLD}\n"), format!("{NEW}\n")] {
        std::fs::write(&file.0, step).unwrap();
        for node in &nodes {
            let before = node.counter("secrets_reloaded").await;
            node.signal(Signal::HUP);
            eventually("it has taken the secrets", || async {
                (node.counter("secrets_reloaded").await > before).then_some(())
            })
            .await;
        }
    }
    // What the old secret had opened is open again, and nobody was missed meanwhile.
    for node in &nodes {
        node.sees(2).await;
    }
    assert_eq!(cluster.drops().await, 0);
    let mut users = load.stop().await;
    for user in &mut users {
        assert!(user.refusals().is_empty(), "{:?}", user.refusals());
        assert!(user.check(nodes[0]).await.is_empty());
    }

    // The old secret opens nothing any more; the new one does.
    std::fs::write(&file.0, OLD).unwrap();
    let mut old = cluster.command("old", 0).stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("it is refused", || async {
        (nodes[0].cause("not made with this cluster's secret").await > 0).then_some(())
    })
    .await;
    old.kill().await.unwrap();
    nodes[0].sees(2).await;
    std::fs::write(&file.0, NEW).unwrap();
    tokio::time::timeout(Duration::from_secs(10), cluster.start_one("n4")).await.unwrap();
    cluster.nodes[3].sees(3).await;
}
