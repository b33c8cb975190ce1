//! The pass: two nodes compare all records that both should hold, and each gets what it lacks.
//!
//! One side drives: it asks for sums of digests by prefix of the session id, descends where they
//! differ from its own, pulls what is newer there and pushes what is newer here. The other only
//! answers. The streams between the two must be open before either side sums up, so that what
//! changes meanwhile travels as deltas.
//!
//! What only one of them should hold is not compared. But a record that one has without holding it, a
//! stray, is offered to the other if that holds it; after the pass it has it.

mod driver;
mod prefix;
mod responder;
mod summary;

pub use driver::{PassDriver, PassStats};
pub use responder::PassResponder;
pub use summary::{Entry, Listed, PartSum, Summary};

/// Requests on their way at once. A range is asked for by one of them at a time, and there are sixteen ranges.
pub(super) const WINDOW: usize = 16;
/// About how many bytes of records travel in one message.
const BATCH_BYTES: usize = 64 << 10;
/// Sessions fetched from memory together: about as many as a core waits for at once.
const PREFETCHED: usize = 16;
/// Sums or lists asked for in one request.
const PREFIXES_PER_REQUEST: usize = 64;
/// Sums asked for in one request by this version: to each the other side may have to list a part of its records first.
const EXPANDED_PER_REQUEST: usize = 16;
/// Strays named in one message.
const STRAYS_PER_STEP: usize = 1_024;
/// A prefix with at most so many records is listed, not summed further.
const LISTED: u64 = 12;
