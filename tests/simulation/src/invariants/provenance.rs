//! A value that is read was written to that attribute of that session, whole.

use sessionmesh::SessionId;

use crate::cluster::Run;
use crate::history::{Outcome, op_of};

pub(crate) fn check(run: &Run, id: &SessionId, attribute: &str, value: &[u8]) {
    let wrong = run.history(|history| {
        let Some(op) = op_of(value) else { return Some("it is no value of anybody".to_owned()) };
        let write = history.session(id).writes.get(&op)?.clone();
        if write.attribute != attribute || write.removal {
            return Some(format!("{op} was written to {}", write.attribute));
        }
        (write.outcome == Outcome::Refused).then(|| format!("{op} was refused"))
    });
    if let Some(wrong) = wrong {
        run.history(|history| history.violated("provenance", format_args!("{id:?} {attribute}: {wrong}")));
    }
}
