//! Sockets: everything that this node says to and hears from others.
//!
//! | file | what |
//! |---|---|
//! | `bind` | the sockets of a node and its address |
//! | `interface` | which network interface |
//! | `heartbeat` | the thread that sends and hears datagrams |
//! | `listener`, `dial`, `handshake` | how connections become links |
//! | `channel` | a connection's bytes, encrypted if there is a secret |
//! | `link` | a link's frames, both ways |
//! | `sync` | passes on a link |
//! | `seeds`, `resolve` | names of seeds, resolved again and again |

#[cfg(not(sessionmesh_simulation))]
pub(crate) mod bind;
pub(crate) mod channel;
pub(crate) mod dial;
pub(crate) mod handshake;
pub(crate) mod heartbeat;
#[cfg(not(sessionmesh_simulation))]
pub(crate) mod interface;
pub(crate) mod link;
pub(crate) mod listener;
pub(crate) mod resolve;
pub(crate) mod seeds;
pub(crate) mod sync;
