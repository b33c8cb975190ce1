//! What passes have summed up: parts of the table that did not change since are not looked at again.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use sessionmesh_core::BootId;
use sessionmesh_core::placement::Mode;
use sessionmesh_core::replication::pass::PartSum;

use crate::routes::RouteTable;
use crate::table::{LAST_PART, Look};

type Parts = Vec<Option<(Look, PartSum)>>;

/// Of one moment's routes: other routes begin with nothing.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    routes: Weak<RouteTable>,
    /// For a pass with this member; in all-peers, where a node compares the same with all, with any.
    by: BTreeMap<Option<BootId>, Parts>,
}

impl Sums {
    fn parts(&mut self, routes: &Arc<RouteTable>, other: BootId) -> &mut Parts {
        if !std::ptr::eq(self.routes.as_ptr(), Arc::as_ptr(routes)) {
            self.routes = Arc::downgrade(routes);
            self.by.clear();
        }
        let by = Some(other).filter(|_| routes.view.mode() != Mode::AllPeers);
        self.by.entry(by).or_insert_with(|| vec![None; usize::from(LAST_PART) + 1])
    }

    /// What the last look at a part found.
    pub(crate) fn get(
        &mut self,
        routes: &Arc<RouteTable>,
        other: BootId,
        part: u8,
    ) -> Option<(Look, PartSum)> {
        self.parts(routes, other).get(usize::from(part))?.clone()
    }

    /// A look at a part found this.
    pub(crate) fn put(
        &mut self,
        routes: &Arc<RouteTable>,
        other: BootId,
        part: u8,
        look: Look,
        sum: PartSum,
    ) {
        if let Some(kept) = self.parts(routes, other).get_mut(usize::from(part)) {
            *kept = Some((look, sum));
        }
    }
}
