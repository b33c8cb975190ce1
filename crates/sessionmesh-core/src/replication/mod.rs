//! How changes travel between holders.
//!
//! | step | where |
//! |---|---|
//! | a request's change becomes a delta and enters the outboxes | [`commit`] |
//! | it waits for the socket; overflow cuts the stream, never the request | [`Outbox`] |
//! | it is applied and acknowledged | [`Inbox`], [`receive`] |
//! | what is missing is asked for | [`fetch`], [`LookUp`] |
//! | two holders compare all they hold | [`pass`] |
//! | a copy where it does not belong is kept until all holders have it | [`Strays`] |
//!
//! This module knows sessions, frames and where sessions belong; it does not know who is a member or
//! why.

pub mod commit;
pub mod fetch;
mod inbox;
mod lookup;
mod outbox;
pub mod pass;
mod receive;
mod strays;
mod table;
mod tally;

pub use inbox::{Inbox, Taken};
pub use lookup::{Here, LookUp, LookUpStep, LookUpTimes, Standpoint, Verdict};
pub use outbox::{Appended, Filled, Outbox, OutboxStats, rest};
pub use receive::{Arrival, Received, receive};
pub use strays::Strays;
pub use table::Table;
pub use tally::{AckLevel, AckTally, Outcome};

#[cfg(test)]
mod tests;
