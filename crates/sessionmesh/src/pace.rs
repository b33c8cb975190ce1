//! Work in the background rests in between: moving sessions must not cost the users who wait.

use std::time::Duration;

use crate::mesh::{Mesh, Phase};

/// For each moment of work, so many of rest.
const REST: u32 = 2;
/// Below it, a timer costs more than it gives.
const LEAST_REST: Duration = Duration::from_millis(2);

/// The pace of one piece of work.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Time worked and not yet rested for.
    debt: Duration,
}

impl Pace {
    /// Rests after work, unless all that this node has to do is to join. One that leaves serves nobody
    /// either, but those that it hands over to do.
    pub(crate) async fn rest(&mut self, mesh: &Mesh, worked: Duration) {
        if matches!(*mesh.phase.borrow(), Phase::Joining(_)) {
            self.debt = Duration::ZERO;
            return;
        }
        self.debt += worked * REST;
        if self.debt >= LEAST_REST {
            tokio::time::sleep(std::mem::take(&mut self.debt)).await;
        }
    }
}
