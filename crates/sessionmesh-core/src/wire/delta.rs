//! The one frame that every request makes, written and read without the generated types in between.
//!
//! Byte for byte what they would write: `proto/sessionmesh/v1/link.proto` says what that is. Whatever is not of that form
//! is left to them.

use alloc::vec::Vec;

use bytes::{BufMut, Bytes};
use bytestring::ByteString;
use prost::Message;

use super::convert::{
    check_delta, id_from_wire, limits_from_wire, limits_to_wire, name_from_wire, value_from_wire,
};
use super::error::PeerMisbehaved;
use super::fields::{
    Field, block_len, bool_len, fixed_len, next, open_block, put_block, put_bool, put_fixed,
};
use super::generated as pb;
use crate::session::{Delta, Name, Value};
use crate::{BootId, Hlc, Stamp};

/// Of `Frame`.
const DELTA: u32 = 1;

/// Of `Delta`.
const ID: u32 = 1;
const PREVIOUS: u32 = 2;
const STAMP: u32 = 3;
const CHANGES: u32 = 4;
const LIMITS: u32 = 5;
const CREATE: u32 = 6;
const ACK_LATER: u32 = 7;

/// Of `Change`.
const NAME: u32 = 1;
const VALUE: u32 = 2;

/// A frame that is a delta, length first.
pub(super) fn encode(delta: &Delta) -> Bytes {
    let limits = delta.limits.map(limits_to_wire);
    let body_len = block_len(ID, delta.id.as_bytes().len())
        + fixed_len(PREVIOUS, delta.previous.get())
        + fixed_len(STAMP, delta.stamp.hlc.get())
        + delta.changes.iter().map(|change| block_len(CHANGES, change_len(change))).sum::<usize>()
        + limits.as_ref().map_or(0, |limits| block_len(LIMITS, limits.encoded_len()))
        + bool_len(CREATE, delta.create)
        + bool_len(ACK_LATER, delta.ack_later);
    let frame_len = block_len(DELTA, body_len);

    let mut bytes = Vec::with_capacity(4 + frame_len);
    bytes.put_u32(u32::try_from(frame_len).unwrap_or(u32::MAX));
    open_block(DELTA, body_len, &mut bytes);
    put_block(ID, delta.id.as_bytes(), &mut bytes);
    put_fixed(PREVIOUS, delta.previous.get(), &mut bytes);
    put_fixed(STAMP, delta.stamp.hlc.get(), &mut bytes);
    for change in &delta.changes {
        open_block(CHANGES, change_len(change), &mut bytes);
        let (name, value) = change;
        if !name.is_empty() {
            put_block(NAME, name.as_bytes(), &mut bytes);
        }
        if let Some(value) = value {
            put_block(VALUE, value, &mut bytes);
        }
    }
    if let Some(limits) = limits {
        open_block(LIMITS, limits.encoded_len(), &mut bytes);
        limits.encode_raw(&mut bytes);
    }
    put_bool(CREATE, delta.create, &mut bytes);
    put_bool(ACK_LATER, delta.ack_later, &mut bytes);
    bytes.into()
}

fn change_len((name, value): &(Name, Option<Value>)) -> usize {
    let name_len = if name.is_empty() { 0 } else { block_len(NAME, name.len()) };
    name_len + value.as_ref().map_or(0, |value| block_len(VALUE, value.len()))
}

/// A frame's delta; `None` if it is another kind of frame, or not of the form that [`encode`] gives it.
pub(super) fn decode(frame: &Bytes, peer: BootId) -> Option<Result<Delta, PeerMisbehaved>> {
    let mut rest = &**frame;
    let (DELTA, Field::Block(mut body)) = next(&mut rest)? else { return None };
    if !rest.is_empty() {
        return None;
    }
    let (mut id, mut previous, mut stamp, mut limits) = (&[][..], 0, 0, None);
    let (mut create, mut ack_later) = (false, false);
    let mut changes = Vec::new();
    while !body.is_empty() {
        match next(&mut body)? {
            (ID, Field::Block(block)) => id = block,
            (PREVIOUS, Field::Fixed(number)) => previous = number,
            (STAMP, Field::Fixed(number)) => stamp = number,
            (CHANGES, Field::Block(block)) => changes.push(change(frame, block)?),
            (LIMITS, Field::Block(block)) if limits.is_none() => {
                limits = Some(pb::Limits::decode(block).ok()?)
            }
            (CREATE, Field::Varint(number)) => create = number != 0,
            (ACK_LATER, Field::Varint(number)) => ack_later = number != 0,
            _ => return None,
        }
    }
    Some(id_from_wire(id).and_then(|id| {
        check_delta(Delta {
            id,
            previous: Hlc::from_raw(previous),
            stamp: Stamp { hlc: Hlc::from_raw(stamp), origin: peer },
            changes,
            limits: limits.map(limits_from_wire),
            create,
            ack_later,
        })
    }))
}

fn change(frame: &Bytes, mut block: &[u8]) -> Option<(Name, Option<Value>)> {
    let (mut name, mut value) = (Name::new(), None);
    while !block.is_empty() {
        match next(&mut block)? {
            (NAME, Field::Block(block)) => name = ByteString::try_from(frame.slice_ref(block)).ok()?,
            (VALUE, Field::Block(block)) => value = Some(frame.slice_ref(block)),
            _ => return None,
        }
    }
    Some((name_from_wire(name).ok()?, value_from_wire(value)))
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::SessionId;
    use crate::session::{INLINE_BYTES, Limits};
    use crate::wire::convert::{frame_from_wire, frame_to_wire};
    use crate::wire::frame::Frame;

    fn peer() -> BootId {
        BootId::new(7).unwrap()
    }

    fn deltas() -> impl Strategy<Value = Delta> {
        let bytes = prop_oneof![0..4usize, 120..130usize, INLINE_BYTES - 1..INLINE_BYTES + 2];
        let value = (any::<u8>(), bytes).prop_map(|(byte, bytes)| Value::from(std::vec![byte; bytes]));
        let changes = prop::collection::vec(("[a-z\u{e9}]{0,4}", prop::option::of(value)), 0..4);
        let millis = || prop::option::of((0..u64::MAX / 2).prop_map(Duration::from_millis));
        let limits = (millis(), millis(), millis());
        let limits = limits.prop_map(|(idle, remaining, absolute)| Limits { idle, remaining, absolute });
        let (id, times) = (any::<[u8; 16]>(), (0..1_000u64, 1..1_000u64));
        (id, times, changes, prop::option::of(limits), any::<[bool; 2]>()).prop_map(
            |(id, (previous, more), changes, limits, [create, ack_later])| Delta {
                id: SessionId::from_bytes(id),
                previous: Hlc::from_raw(previous),
                stamp: Stamp { hlc: Hlc::from_raw(previous + more), origin: peer() },
                changes: changes.into_iter().map(|(name, value)| (name.into(), value)).collect(),
                limits,
                create,
                ack_later,
            },
        )
    }

    /// As the generated types write it, without its length.
    fn generated(delta: &Delta) -> Vec<u8> {
        frame_to_wire(Frame::Delta(delta.clone())).encode_to_vec()
    }

    proptest! {
        #[test]
        fn it_is_written_and_read_as_the_generated_types_would(delta in deltas()) {
            let bytes = encode(&delta);
            prop_assert_eq!(&bytes[..4], (bytes.len() as u32 - 4).to_be_bytes());
            prop_assert_eq!(&bytes[4..], generated(&delta));
            prop_assert_eq!(decode(&bytes.slice(4..), peer()), Some(Ok(delta)));
        }

        /// What a peer that lies sends means the same to both.
        #[test]
        fn what_is_of_another_form_is_not_read_differently(
            delta in deltas(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
        ) {
            let mut bytes = generated(&delta);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if cut { bytes.truncate(at); }
            let bytes = Bytes::from(bytes);
            if let Some(read) = decode(&bytes, peer()) {
                let generated = pb::Frame::decode(bytes).map_err(|_| PeerMisbehaved::Undecodable);
                let generated = generated.and_then(|frame| frame_from_wire(frame, peer()));
                prop_assert_eq!(read.map(Frame::Delta), generated);
            }
        }
    }
}
