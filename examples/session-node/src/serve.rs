//! A node's life: start, serve, drain, leave.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sessionmesh::{Cluster, ClusterError};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::app;
use crate::args::Args;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What the routes share.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    /// Set first when the node stops, so that balancers send no more requests.
    draining: Arc<AtomicBool>,
}

impl Node {
    /// Why this node should get no requests, if so.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Acquire) {
            return Err("draining".into());
        }
        self.cluster.is_ready()
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let mut stop = std::pin::pin!(signal());
    #[cfg(unix)]
    let hangups = hangups()?;
    // HTTP first: whoever can't serve must not disturb the cluster by coming and going.
    let listener = TcpListener::bind(args.http).await.map_err(|error| {
        format!("can't serve HTTP on {}: {error} (choose another with --http)", args.http)
    })?;
    let cluster = Cluster::start(args.config()?).await?;
    let http = listener.local_addr()?;
    tracing::info!(%http, node = %cluster.name(), "serving HTTP");
    announce(&cluster, http);

    let node = Node { cluster: cluster.clone(), draining: Arc::default() };
    #[cfg(unix)]
    tokio::spawn(reload_on(hangups, cluster.clone(), args.clone()));
    let app = app::router(node.clone(), args.cookie());
    let (close, mut closing) = watch::channel(false);
    let mut server = tokio::spawn(
        axum::serve(listener, app)
            .with_graceful_shutdown(async move {
                let _ = closing.wait_for(|closing| *closing).await;
            })
            .into_future(),
    );

    tokio::select! {
        () = &mut stop => tracing::info!("told to stop: draining"),
        error = cluster.stopped() => {
            // Left by request, or refused by the cluster.
            if let ClusterError::Refused(_) = &error {
                return Err(error.into());
            }
            stop.await;
            return Ok(());
        }
        ended = &mut server => return Ok(ended??),
    }
    node.draining.store(true, Ordering::Release);
    // Balancers notice that the node is not ready; it serves what they still send.
    tokio::time::sleep(args.drain).await;
    // No new connections; requests that run are finished, then the sessions handed over.
    close.send_replace(true);
    if tokio::time::timeout(args.drain, &mut server).await.is_err() {
        tracing::warn!("requests still ran after the drain time; they are cut");
    }
    if let Err(error) = cluster.leave().await {
        tracing::warn!(%error, "stopping all the same");
    }
    Ok(())
}

/// One line for whoever started this node: where it is, now that the ports are known.
fn announce(cluster: &Cluster, http: SocketAddr) {
    let address = cluster.address().to_string();
    let line =
        serde_json::json!({ "name": cluster.name().as_str(), "http": http.to_string(), "address": address });
    // A full disk behind it is no reason not to serve.
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        tracing::warn!(%error, "nobody could be told where this node is");
    }
}

/// SIGHUP, caught from now on: before anybody knows that this node runs, it would end it.
#[cfg(unix)]
fn hangups() -> std::io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
}

/// Each of them loads secrets and certificates anew.
#[cfg(unix)]
async fn reload_on(mut hangups: tokio::signal::unix::Signal, cluster: Cluster, args: Args) {
    while hangups.recv().await.is_some() {
        let config = args.config().map_err(sessionmesh::ReloadError::from);
        if let Err(error) = config.and_then(|config| cluster.reload_secrets(&config)) {
            tracing::error!("{error}");
        }
    }
}

/// SIGINT or SIGTERM.
async fn signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = interrupt => {}
                    _ = terminate.recv() => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM can't be caught");
                let _ = interrupt.await;
            }
        }
    }
    #[cfg(not(unix))]
    let _ = interrupt.await;
}
