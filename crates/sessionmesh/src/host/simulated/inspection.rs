//! What a simulator sees of a node that no application does.

use std::collections::BTreeMap;
use std::time::Duration;

use sessionmesh_core::replication::Table;
use sessionmesh_core::session::{EndCause, Record, Version};
use sessionmesh_core::wire::Frame;
use sessionmesh_core::{BootId, SessionId};

use crate::cluster::Cluster;
use crate::host;

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
    /// Greater whenever others are ready.
    pub view_serial: u64,
    /// The most bytes that wait for one member.
    pub outbox_bytes: usize,
}

/// What a node has of one session.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Of which writes it knows.
    pub version: Version,
    /// Whether it is over, and how.
    pub end: Option<EndCause>,
    /// Only part of it is here.
    pub partial: bool,
    /// Whether it belongs here.
    pub belongs: bool,
    /// How long it lives on by what is known here.
    pub remaining: Duration,
    /// A visitor's, with nothing in it that its holders did not have: it may go at any time.
    pub idle_visit: bool,
}

impl Cluster {
    /// What it is like now.
    pub fn inspect(&self) -> Inspection {
        let mesh = self.mesh();
        let routes = mesh.routes.current();
        let waiting = routes.peers.iter().map(|peer| peer.outbox(|outbox| outbox.stats().queued_bytes));
        Inspection {
            boot: mesh.me.boot,
            serving: mesh.check_serving().is_ok(),
            doubting: mesh.is_doubting(),
            settled: mesh.is_settled_in(&routes.view),
            view: routes.view.members().collect(),
            view_serial: routes.view.serial(),
            outbox_bytes: waiting.max().unwrap_or_default(),
        }
    }

    /// What it has of one session.
    pub fn copy_of(&self, id: &SessionId) -> Option<Copy> {
        self.mesh().table.read(id, |record| record.map(|record| self.copy(id, record)))
    }

    /// Over what holders must agree on.
    pub fn digest_of(&self, id: &SessionId) -> Option<u64> {
        self.mesh().table.read(id, |record| record.map(Record::digest))
    }

    /// How long the record of each is when it is sent whole, and over what holders must agree.
    pub fn for_each_encoded(&self, mut f: impl FnMut(&SessionId, usize, u64)) {
        let now = host::mono();
        self.mesh().table.for_each(|id, record| {
            let update = record.update(*id, None, now);
            let bytes = update.map_or(0, |update| Frame::Record(update).encode().len());
            f(id, bytes, record.digest());
        });
    }

    /// What it has of each.
    pub fn for_each_copy(&self, mut f: impl FnMut(&SessionId, Copy)) {
        self.mesh().table.for_each(|id, record| f(id, self.copy(id, record)));
    }

    /// The ends that it has, and the sessions that it could serve: cheaper than copies.
    pub fn for_each_end(&self, mut f: impl FnMut(&SessionId, Option<EndCause>)) {
        self.mesh().table.for_each(|id, record| {
            if !record.is_partial() {
                f(id, record.end().map(|end| end.cause));
            }
        });
    }

    /// Whether the end of a session is one of an id that nobody here knew.
    pub fn is_unknown_end(&self, id: &SessionId) -> bool {
        self.mesh().unknown_ends().contains_key(id) || self.mesh().doubtful_ends().contains_key(id)
    }

    /// What is in a session, if anything can be.
    pub fn values_of(&self, id: &SessionId) -> BTreeMap<String, Vec<u8>> {
        self.mesh().table.read(id, |record| match record {
            Some(Record::Held(state)) => {
                let values = state.attributes().present();
                values.map(|(name, value)| (name.to_string(), value.to_vec())).collect()
            }
            Some(Record::Ended(_)) | None => BTreeMap::new(),
        })
    }

    fn copy(&self, id: &SessionId, record: &Record) -> Copy {
        let routes = &self.mesh().routes;
        let (version, remaining) = match record {
            Record::Held(state) => {
                let ends_at = state.ends_at(self.mesh().config.idle);
                (state.version().clone(), ends_at - host::mono())
            }
            Record::Ended(_) => (Version::default(), Duration::ZERO),
        };
        Copy {
            version,
            remaining,
            end: record.end().map(|end| end.cause),
            partial: record.is_partial(),
            belongs: routes.current().view.i_hold(id),
            idle_visit: routes.strays(|strays| strays.is_clean(id, |wait| wait.is_everywhere())),
        }
    }
}
