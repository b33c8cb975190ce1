//! Everything that decodes what others wrote, as functions of bytes. Each is a target of its own:
//!
//! ```text
//! cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none heartbeat tests/fuzz/corpus/heartbeat
//! ```
//!
//! | target | door | what must hold besides not panicking |
//! |---|---|---|
//! | [`heartbeat`] | the UDP port | nothing unauthenticated is taken; what is taken means the same when sent again |
//! | [`hello`] | the TCP port, before a member is admitted | the same |
//! | [`frames`] | a link, cut into reads | the same; a stream means the same however it is cut |
//! | [`messages`] | each message of a link, from a member that lies | sessions stay mergeable; answers stay bounded |
//! | [`replies`] | what answers a pass, from a member that lies | a pass ends, or the member is dropped |
//! | [`config`] | TOML, environment | errors name the option |
//! | [`cookie`] | a browser's Cookie header | only a whole id is an id |

mod doors;
mod pages;
mod peers;
mod table;

pub use doors::{frames, heartbeat, hello};
pub use pages::{config, cookie};
pub use peers::{messages, replies};
