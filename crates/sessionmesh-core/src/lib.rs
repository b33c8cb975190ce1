//! The sessionmesh protocol: a deterministic library that decides and never does IO.
//!
//! There is no socket, thread, task, clock or random number in this crate. Time and randomness
//! come in as arguments, frames and decisions go out as values. The `sessionmesh` crate drives it
//! with tokio; tests drive whole clusters of it in one thread on virtual time.
//!
//! | module | owns |
//! |---|---|
//! | [`session`] | what a session is: attributes, version, end; how changes merge |
//! | [`membership`] | who is in the cluster: heartbeats, admission, drops, doubt |
//! | [`placement`] | which members hold a session |
//! | [`replication`] | how changes travel: outbox, acks, fetches, the pass |
//! | [`wire`] | frames, datagrams, their authentication and parsing |
//!
//! A change's way: [`replication::commit`] → [`replication::Outbox`] → the driver's socket →
//! [`replication::Inbox`] → [`session::Record::apply`].
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[doc(hidden)]
pub mod mutants;

mod clock;
mod event;
#[cfg(fuzzing)]
pub mod fuzzing;
mod ids;
pub mod membership;
pub mod placement;
pub mod replication;
pub mod session;
mod time;
pub mod wire;

pub use clock::{Hlc, HybridClock, Stamp};
pub use event::{DropCause, Event};
pub use ids::{BootId, InvalidName, NodeName, SessionId};
pub use time::{Instant, Now};
