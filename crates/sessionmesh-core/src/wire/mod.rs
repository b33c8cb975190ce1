//! Bytes on the wire: frames, datagrams, the handshake, and their authentication.
//!
//! The generated message types stay in here; the rest of the crate sees parsed values only.
//! Whatever comes from a peer is parsed, never trusted: a fault in it is a [`PeerMisbehaved`].

mod auth;
mod contact;
mod convert;
mod delta;
mod error;
mod fields;
mod frame;
#[rustfmt::skip] // Byte for byte what the generator writes.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod generated;
mod handshake;
mod heartbeat;
pub(crate) mod member_state;
pub(crate) mod mode;
mod probe;
mod record;
mod token;

pub use auth::{ClusterKey, ClusterTag, KeyId};
pub use contact::{Contact, decode_address, encode_address};
pub use error::{HandshakeError, HeartbeatRejected, PeerMisbehaved};
pub use frame::{
    Ack, Fetch, FetchOutcome, Fetched, Frame, FrameDecoder, FrameLimit, PassReply, PassRequest, PassStep,
    PassWant, Prefix, PrefixSums, ReplyStep, Standing,
};
pub use handshake::{
    Absent, HEADER_BYTES, Handshake, Header, Hello, Refusal, RefusalReason, Role, SEAL_BYTES, Side,
};
pub use heartbeat::{Heartbeat, MAX_DATAGRAM_BYTES};
pub use probe::Probe;
pub use token::NoToken;

/// The protocol versions that this crate speaks, lowest and highest.
pub const PROTOCOL_VERSIONS: (u32, u32) = (1, 1);

#[cfg(test)]
mod tests;
