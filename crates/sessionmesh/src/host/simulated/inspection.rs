//! What a simulator sees of a node that no application does.

use std::collections::BTreeMap;

use sessionmesh_core::replication::Table;
use sessionmesh_core::session::{EndCause, Record, Version};
use sessionmesh_core::{BootId, SessionId};

use crate::mesh::Mesh;

/// One node at one moment.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Which start of it.
    pub boot: BootId,
    /// Whether it serves.
    pub serving: bool,
    /// Whether it doubts what it holds.
    pub doubting: bool,
    /// Whether it has compared with all since its view changed.
    pub settled: bool,
    /// The ready members that it sees, itself included.
    pub view: Vec<BootId>,
    /// The most bytes that wait for one member.
    pub outbox_bytes: usize,
    /// What it has of each session.
    pub copies: BTreeMap<SessionId, Copy>,
}

/// What a node has of one session.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The values.
    pub values: BTreeMap<String, Vec<u8>>,
    /// Of which writes it knows.
    pub version: Version,
    /// Whether it is over, and how.
    pub end: Option<EndCause>,
    /// Only part of it is here.
    pub partial: bool,
    /// Whether it belongs here.
    pub belongs: bool,
    /// Over what holders must agree on.
    pub digest: u64,
}

pub(crate) fn inspect(mesh: &Mesh) -> Inspection {
    let routes = mesh.routes.current();
    let mut copies = BTreeMap::new();
    mesh.table.for_each(|id, record| {
        let state = match record {
            Record::Held(state) => Some(state),
            Record::Ended(_) => None,
        };
        let values = state.into_iter().flat_map(|state| state.attributes().present());
        let copy = Copy {
            values: values.map(|(name, value)| (name.to_string(), value.to_vec())).collect(),
            version: state.map(|state| state.version().clone()).unwrap_or_default(),
            end: record.end().map(|end| end.cause),
            partial: record.is_partial(),
            belongs: routes.view.i_hold(id),
            digest: record.digest(),
        };
        copies.insert(*id, copy);
    });
    let waiting = routes.peers.iter().map(|peer| peer.outbox(|outbox| outbox.stats().queued_bytes));
    Inspection {
        boot: mesh.me.boot,
        serving: mesh.check_serving().is_ok(),
        doubting: mesh.is_doubting(),
        settled: mesh.is_settled_in(&routes.view),
        view: routes.view.members().collect(),
        outbox_bytes: waiting.max().unwrap_or_default() as usize,
        copies,
    }
}
