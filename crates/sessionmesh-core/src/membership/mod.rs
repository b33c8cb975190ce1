//! Who is in the cluster.
//!
//! [`Node`] is one node's view of it and decides everything: whom to dial, whom to admit, whom to
//! drop, when to compare sessions, when it is ready. It knows nothing of sessions.
//!
//! Drive it like this: after any `handle_*` call, take [`Node::poll_action`] and
//! [`Node::poll_event`] until both are empty; call [`Node::handle_timeout`] at
//! [`Node::poll_timeout`] at the latest.

mod action;
mod admission;
mod config;
mod detector;
mod dials;
mod forgotten;
mod member;
mod node;
mod passes;
mod readiness;
mod said;

pub use action::{Action, Beacon, DialFailure, Fatal, Identity, LinkId, PassDone, PassRole};
pub use config::{MembershipConfig, MembershipConfigError};
pub use member::{MemberInfo, MemberState};
pub use node::Node;
pub use said::Said;

#[cfg(test)]
mod tests;
