//! The names of seeds, resolved again and again: addresses behind a name come and go.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::resolve::{ResolveError, resolve};
use crate::control::Input;
use crate::events::fault;
use crate::host;
use crate::mesh::Mesh;

/// While the node joins, and while a name can't be resolved.
const EAGER: Duration = Duration::from_secs(1);
const RELAXED: Duration = Duration::from_secs(10);

/// What is known of one seed.
#[derive(Debug, Default)]
struct Seed {
    addresses: BTreeSet<SocketAddr>,
    /// Whether anybody has ever said which they are, or that there is no such name.
    answered: bool,
}

pub(crate) async fn watch(mesh: Arc<Mesh>) {
    let mut seeds: Vec<Seed> = mesh.config.seeds.iter().map(|_| Seed::default()).collect();
    tell(&mesh, &seeds);
    // Each on its own: a name server that takes its time over one name holds up no other.
    let (answer, mut answers) = mpsc::channel(1);
    for index in 0..seeds.len() {
        host::spawn(ask_again_and_again(mesh.clone(), index, answer.clone()));
    }
    drop(answer);
    let mut stop = mesh.stop.subscribe();
    loop {
        let (index, resolved) = tokio::select! {
            Some(answer) = answers.recv() => answer,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let seed: &mut Seed = &mut seeds[index];
        match resolved {
            Ok(addresses) => *seed = Seed { addresses, answered: true },
            Err(ResolveError::NoSuchName) => *seed = Seed { addresses: BTreeSet::new(), answered: true },
            // Those known are the best guess while nobody says otherwise.
            Err(ResolveError::Unanswered(_)) => seed.answered = !seed.addresses.is_empty(),
        }
        tell(&mesh, &seeds);
    }
}

async fn ask_again_and_again(
    mesh: Arc<Mesh>,
    index: usize,
    answers: mpsc::Sender<(usize, Result<BTreeSet<SocketAddr>, ResolveError>)>,
) {
    let Some(name) = mesh.config.seeds.get(index) else { return };
    let mut stop = mesh.stop.subscribe();
    loop {
        let resolved = tokio::select! {
            resolved = resolve(name.clone()) => resolved,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if let Err(error) = &resolved {
            fault(&mesh, "seed not resolved", name, error);
        }
        let eager = resolved.is_err() || mesh.check_serving().is_err();
        if answers.send((index, resolved)).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(if eager { EAGER } else { RELAXED }) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn tell(mesh: &Mesh, seeds: &[Seed]) {
    let addresses: BTreeSet<SocketAddr> = seeds.iter().flat_map(|seed| seed.addresses.clone()).collect();
    let named = mesh.config.seeds.iter().zip(seeds);
    let unresolved = named.filter(|(_, seed)| !seed.answered).map(|(name, _)| name.clone()).collect();
    let addresses = addresses.into_iter().filter(|address| *address != mesh.me.address).collect();
    mesh.tell(Input::Seeds { addresses, unresolved });
}
