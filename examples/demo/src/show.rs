//! The demo for a person: a page, and a running account of what happens to the nodes.

use std::time::Duration;

use crate::nodes::Nodes;
use crate::{Args, Error, front};

/// How long a node that was killed stays away.
const AWAY: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let mut nodes = Nodes::start(&args, 3).await?;
    let address = front::serve(args.port, nodes.targets.clone()).await?;
    println!("three nodes, mode {}, writes acknowledged by {}:", args.mode, args.ack);
    for index in 0..nodes.nodes.len() {
        tell(&nodes, index)?;
    }
    println!();
    println!("  open     http://{address}/     and reload: every request is served by another node");
    if let Some(pid) = nodes.pid(1) {
        println!("  then     kill -9 {pid}     and reload: nothing changes; the node is back after {AWAY:?}");
    }
    println!("  stop     Ctrl-C");
    println!();
    let mut waiting: Vec<(usize, tokio::time::Instant)> = Vec::new();
    let mut look = tokio::time::interval(Duration::from_millis(100));
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            _ = &mut interrupt => break,
            _ = look.tick() => {}
        }
        for (index, status) in nodes.reap() {
            println!("n{} is gone ({status})", index + 1);
            waiting.push((index, tokio::time::Instant::now() + AWAY));
        }
        let now = tokio::time::Instant::now();
        let due: Vec<usize> = waiting.iter().filter(|(_, at)| *at <= now).map(|(index, _)| *index).collect();
        waiting.retain(|(_, at)| *at > now);
        for index in due {
            nodes.spawn(index).await?;
            println!("n{} is back and catches up:", index + 1);
            tell(&nodes, index)?;
        }
    }
    println!();
    println!("stopping all nodes");
    // From a terminal they have got the interrupt too.
    nodes.stop().await?;
    println!("stopped");
    Ok(())
}

fn tell(nodes: &Nodes, index: usize) -> Result<(), Error> {
    let pid = nodes.pid(index).map_or_else(|| "?".into(), |pid| pid.to_string());
    println!("  n{}   pid {pid}   http://{}/", index + 1, nodes.http(index)?);
    Ok(())
}
