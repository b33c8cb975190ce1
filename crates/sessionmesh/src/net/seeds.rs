//! The names of seeds, resolved again and again: addresses behind a name come and go.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::control::Input;
use crate::events::fault;
use crate::mesh::Mesh;

/// While the node joins, and while a name can't be resolved.
const EAGER: Duration = Duration::from_secs(1);
const RELAXED: Duration = Duration::from_secs(10);

pub(crate) async fn watch(mesh: Arc<Mesh>) {
    let mut stop = mesh.stop.subscribe();
    loop {
        let mut addresses = BTreeSet::new();
        let mut unresolved = false;
        for seed in &mesh.config.seeds {
            match tokio::net::lookup_host(seed).await {
                Ok(found) => addresses.extend(found),
                Err(error) => {
                    unresolved = true;
                    fault(&mesh, "seed not resolved", seed, &error);
                }
            }
        }
        let addresses: Vec<SocketAddr> =
            addresses.into_iter().filter(|address| *address != mesh.me.address).collect();
        mesh.tell(Input::Seeds(addresses));
        let eager = unresolved || mesh.check_serving().is_err();
        tokio::select! {
            () = tokio::time::sleep(if eager { EAGER } else { RELAXED }) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
