//! Decoders behind authentication, without it. For fuzzing alone (`--cfg fuzzing`).

use crate::wire::{Heartbeat, Hello};

/// The body of a heartbeat.
pub fn parse_heartbeat(body: &[u8]) -> Option<Heartbeat> {
    Heartbeat::parse(body)
}

/// The body of a Hello.
pub fn parse_hello(body: &[u8]) -> Option<Hello> {
    Hello::parse(body).ok()
}
