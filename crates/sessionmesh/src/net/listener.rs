//! Connections that others make.

use std::sync::Arc;
use std::time::Duration;

use crate::host::TcpListener;
use tokio::sync::Semaphore;

use super::handshake::{Failed, greet};
use super::link;
use crate::control::Input;
use crate::events::fault;
use crate::host;
use crate::mesh::Mesh;
use crate::stats::count;

pub(crate) async fn listen(mesh: Arc<Mesh>, listener: TcpListener) {
    let strangers = Arc::new(Semaphore::new(mesh.config.handshakes));
    let mut stop = mesh.stop.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, say: the connection waits in the backlog, so does this loop.
                count(&mesh.counters.accepts_failed);
                fault(&mesh, "accept failed", &error.kind().to_string(), &error);
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = strangers.clone().try_acquire_owned() else {
            count(&mesh.counters.handshakes_over_limit);
            continue;
        };
        let mesh = mesh.clone();
        host::spawn(async move {
            let mut link = None;
            let greeted = greet(&mesh, stream, None, &mut link).await;
            drop(permit);
            let refusal = match greeted {
                Ok(greeted) => {
                    link::run(&mesh, greeted).await;
                    None
                }
                Err(Failed::Stranger | Failed::Probe) => None,
                Err(Failed::Refused(refusal)) => refusal,
            };
            if let Some(link) = link {
                mesh.tell(Input::LinkClosed { link, dialed: None, refusal });
            }
        });
    }
}
