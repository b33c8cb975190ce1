//! Which members hold a session: one function of its id and the members' names.
//!
//! Rendezvous hashing (Thaler and Ravishankar 1996): every node finds the same holders without
//! asking, and a member that comes or goes moves only the sessions that it holds.
//!
//! This module knows members by their seats; it does not know who is one, or what a session is.

mod mode;
mod seat;
mod view;

pub use mode::Mode;
pub use seat::Seat;
pub use view::{Share, View};
