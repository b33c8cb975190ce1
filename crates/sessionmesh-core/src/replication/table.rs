//! What replication needs of whoever keeps the sessions.

use crate::SessionId;
use crate::session::Record;

/// The sessions of one node.
///
/// Closures only: no lock and no reference leaves a call, and a closure must not call the table.
pub trait Table {
    /// Reads and changes one record; `None` is "nothing known", and stays so if the closure leaves
    /// it. Calls for one session exclude each other.
    fn with<R>(&self, id: &SessionId, f: impl FnOnce(&mut Option<Record>) -> R) -> R;

    /// Reads one record.
    fn read<R>(&self, id: &SessionId, f: impl FnOnce(Option<&Record>) -> R) -> R;

    /// These are read next, one by one: a table may fetch them from memory together. Does nothing by itself.
    fn prefetch<'a>(&self, ids: impl Iterator<Item = &'a SessionId>) {
        let _ = ids;
    }

    /// Shows every record that is there during the whole call, in no particular order.
    fn for_each(&self, f: impl FnMut(&SessionId, &Record));
}
