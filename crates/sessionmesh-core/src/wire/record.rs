//! The two frames that move records by the thousand, written and read without the generated types in between.
//!
//! Byte for byte what they would write, as with a [delta](super::delta). Whatever is not of that form is left to them.

use alloc::vec::Vec;

use bytes::{BufMut, Bytes};
use prost::Message;
use smallvec::SmallVec;

use super::convert::{
    Boots, end_from_wire, end_to_wire, id_from_wire, stamped_limits_from_wire, stamped_limits_to_wire,
    touch_from_wire, touch_to_wire,
};
use super::fields::{
    Field, block_len, fixed_len, next, open_block, put_block, put_bool, put_fixed, put_varint, varint_len,
};
use super::frame::{Frame, PassReply, PassRequest, PassStep, ReplyStep};
use super::generated as pb;
use crate::SessionId;
use crate::session::{
    Attribute, Attributes, Difference, INLINE_BYTES, MAX_NAME_BYTES, RecordUpdate, StateUpdate, Value,
};

/// Of `Frame`.
const PASS_REQUEST: u32 = 16;
const PASS_REPLY: u32 = 17;

/// Of `PassRequest` and `PassReply`.
const PASS: u32 = 1;
const RECORDS: u32 = 3;
const PUSH: u32 = 6;
const VIEW: u32 = 16;

/// Of `PassRecords` and `PassPush`.
const RECORD: u32 = 1;
const NEXT: u32 = 2;

/// Of `Record`.
const ID: u32 = 1;
const BOOTS: u32 = 2;
const VERSION: u32 = 3;
const BASE: u32 = 4;
const IS_DIFFERENCE: u32 = 5;
const ATTRIBUTES: u32 = 6;
const LIMITS: u32 = 7;
const TOUCH: u32 = 8;
const END: u32 = 9;

/// Of `Attribute`.
const NAME: u32 = 1;
const VALUE: u32 = 2;
const HLC: u32 = 3;
const ORIGIN: u32 = 4;

pub(super) fn encode_reply(pass: u64, view: u64, records: &[RecordUpdate], next: Option<SessionId>) -> Bytes {
    encode(PASS_REPLY, RECORDS, pass, view, records, next)
}

pub(super) fn encode_push(pass: u64, view: u64, records: &[RecordUpdate]) -> Bytes {
    encode(PASS_REQUEST, PUSH, pass, view, records, None)
}

fn encode(
    kind: u32,
    step: u32,
    pass: u64,
    view: u64,
    records: &[RecordUpdate],
    next: Option<SessionId>,
) -> Bytes {
    // What is in a block is written before its length is known, and copied once.
    let (mut body, mut block) = (Vec::new(), Vec::new());
    for record in records {
        block.clear();
        put_record(record, &mut block);
        put_block(RECORD, &block, &mut body);
    }
    if let Some(next) = next {
        put_block(NEXT, next.as_bytes(), &mut body);
    }
    let message_len = varint_len(PASS, pass) + block_len(step, body.len()) + fixed_len(VIEW, view);
    let frame_len = block_len(kind, message_len);
    let mut bytes = Vec::with_capacity(4 + frame_len);
    bytes.put_u32(u32::try_from(frame_len).unwrap_or(u32::MAX));
    open_block(kind, message_len, &mut bytes);
    put_varint(PASS, pass, &mut bytes);
    put_block(step, &body, &mut bytes);
    put_fixed(VIEW, view, &mut bytes);
    bytes.into()
}

fn put_record(record: &RecordUpdate, bytes: &mut Vec<u8>) {
    put_block(ID, record.id.as_bytes(), bytes);
    match &record.difference {
        Difference::Ended(end) => put_message(END, &end_to_wire(*end), bytes),
        Difference::State(state) => put_state(state, bytes),
    }
}

fn put_state(state: &StateUpdate, bytes: &mut Vec<u8>) {
    let mut boots = Boots::of(state);
    for attribute in state.attributes.iter() {
        boots.index(attribute.stamp.origin);
    }
    let limits = stamped_limits_to_wire(&state.limits, &mut boots);
    let touch = touch_to_wire(&state.touch, &mut boots);

    put_row(BOOTS, boots.0.iter().copied(), bytes);
    put_row(VERSION, boots.row(&state.version), bytes);
    if let Some(base) = &state.base {
        put_row(BASE, boots.row(base), bytes);
    }
    put_bool(IS_DIFFERENCE, state.base.is_some(), bytes);
    for attribute in state.attributes.iter() {
        put_attribute(&attribute, &mut boots, bytes);
    }
    if let Some(limits) = limits {
        put_message(LIMITS, &limits, bytes);
    }
    put_message(TOUCH, &touch, bytes);
    if let Some(end) = state.expired {
        put_message(END, &end_to_wire(end), bytes);
    }
}

fn put_attribute(attribute: &Attribute<'_>, boots: &mut Boots, bytes: &mut Vec<u8>) {
    let (name, value) = (attribute.name(), attribute.value());
    let (hlc, origin) = (attribute.stamp.hlc.get(), u64::from(boots.index(attribute.stamp.origin)));
    let name_len = if name.is_empty() { 0 } else { block_len(NAME, name.len()) };
    let value_len = value.map_or(0, |value| block_len(VALUE, value.len()));
    open_block(ATTRIBUTES, name_len + value_len + fixed_len(HLC, hlc) + varint_len(ORIGIN, origin), bytes);
    if !name.is_empty() {
        put_block(NAME, name.as_bytes(), bytes);
    }
    if let Some(value) = value {
        put_block(VALUE, value, bytes);
    }
    put_fixed(HLC, hlc, bytes);
    put_varint(ORIGIN, origin, bytes);
}

fn put_row(tag: u32, row: impl ExactSizeIterator<Item = u64>, bytes: &mut Vec<u8>) {
    if row.len() > 0 {
        open_block(tag, 8 * row.len(), bytes);
        row.for_each(|number| bytes.put_u64_le(number));
    }
}

/// One of the small ones, which hold no allocation.
fn put_message(tag: u32, message: &impl Message, bytes: &mut Vec<u8>) {
    open_block(tag, message.encoded_len(), bytes);
    message.encode_raw(bytes);
}

/// A frame of records; `None` if it is another kind of frame, or not of the form that is written here.
pub(super) fn decode(frame: &[u8]) -> Option<Frame> {
    let mut rest = frame;
    let (kind @ (PASS_REQUEST | PASS_REPLY), Field::Block(mut message)) = next(&mut rest)? else {
        return None;
    };
    let wanted = if kind == PASS_REPLY { RECORDS } else { PUSH };
    let (mut pass, mut view, mut step) = (0, 0, None);
    while !message.is_empty() {
        match next(&mut message)? {
            (PASS, Field::Varint(number)) => pass = number,
            (VIEW, Field::Fixed(number)) => view = number,
            (tag, Field::Block(block)) if tag == wanted && step.is_none() => step = Some(block),
            _ => return None,
        }
    }
    let mut step = step.filter(|_| rest.is_empty())?;
    let (mut records, mut after) = (Vec::new(), None);
    while !step.is_empty() {
        match next(&mut step)? {
            (RECORD, Field::Block(block)) => records.push(record(block)?),
            (NEXT, Field::Block(id)) if kind == PASS_REPLY => after = Some(id_from_wire(id).ok()?),
            _ => return None,
        }
    }
    Some(match kind {
        PASS_REPLY => Frame::PassReply(PassReply { pass, view, step: ReplyStep::Records(records, after) }),
        _ => Frame::PassRequest(PassRequest { pass, view, step: PassStep::Push(records) }),
    })
}

/// Where it came: what it names by position may come later.
struct Write<'a> {
    name: &'a str,
    value: Option<&'a [u8]>,
    hlc: u64,
    origin: u32,
}

type Row = SmallVec<[u64; 8]>;

fn record(mut bytes: &[u8]) -> Option<RecordUpdate> {
    let (mut id, mut is_difference) = (&[][..], false);
    let (mut boots, mut version, mut base) = (None, None, None);
    let (mut limits, mut touch, mut end) = (None, None, None);
    let mut writes: SmallVec<[Write<'_>; 8]> = SmallVec::new();
    while !bytes.is_empty() {
        match next(&mut bytes)? {
            (ID, Field::Block(block)) => id = block,
            (BOOTS, Field::Block(block)) if boots.is_none() => boots = Some(row(block)?),
            (VERSION, Field::Block(block)) if version.is_none() => version = Some(row(block)?),
            (BASE, Field::Block(block)) if base.is_none() => base = Some(row(block)?),
            (IS_DIFFERENCE, Field::Varint(number)) => is_difference = number != 0,
            (ATTRIBUTES, Field::Block(block)) => writes.push(write(block)?),
            (LIMITS, Field::Block(block)) if limits.is_none() => {
                limits = Some(pb::StampedLimits::decode(block).ok()?);
            }
            (TOUCH, Field::Block(block)) if touch.is_none() => touch = Some(pb::Touch::decode(block).ok()?),
            (END, Field::Block(block)) if end.is_none() => end = Some(pb::End::decode(block).ok()?),
            _ => return None,
        }
    }
    let id = id_from_wire(id).ok()?;
    let end = end.map(end_from_wire).transpose().ok()?;
    let Some(touch) = touch else {
        return Some(RecordUpdate { id, difference: Difference::Ended(end?) });
    };
    let boots = Boots(boots.unwrap_or_default());
    let limits = limits.map(|limits| stamped_limits_from_wire(limits, &boots)).transpose().ok()?;
    let state = StateUpdate {
        attributes: attributes(&writes, &boots)?,
        version: boots.version(version.unwrap_or_default()).ok()?,
        base: is_difference.then(|| boots.version(base.unwrap_or_default())).transpose().ok()?,
        limits: limits.unwrap_or_default(),
        touch: touch_from_wire(touch, &boots).ok()?,
        expired: end,
    };
    Some(RecordUpdate { id, difference: Difference::State(state) })
}

fn row(block: &[u8]) -> Option<Row> {
    let (numbers, rest) = block.as_chunks::<8>();
    rest.is_empty().then(|| numbers.iter().map(|number| u64::from_le_bytes(*number)).collect())
}

fn write(mut block: &[u8]) -> Option<Write<'_>> {
    let mut write = Write { name: "", value: None, hlc: 0, origin: 0 };
    while !block.is_empty() {
        match next(&mut block)? {
            (NAME, Field::Block(block)) => write.name = str::from_utf8(block).ok()?,
            (VALUE, Field::Block(block)) => write.value = Some(block),
            (HLC, Field::Fixed(number)) => write.hlc = number,
            (ORIGIN, Field::Varint(number)) => write.origin = u32::try_from(number).ok()?,
            _ => return None,
        }
    }
    Some(write)
}

fn attributes(writes: &[Write<'_>], boots: &Boots) -> Option<Attributes> {
    // What is kept as it comes is copied out of the receive buffer: one value must not keep all of it alive.
    let long = writes.iter().filter_map(|write| write.value).filter(|value| value.len() > INLINE_BYTES);
    let long: Vec<Value> = long.map(Value::copy_from_slice).collect();
    let mut long = long.iter();
    let mut made: SmallVec<[Attribute<'_>; 8]> = SmallVec::with_capacity(writes.len());
    for Write { name, value, hlc, origin } in writes {
        let name = Some(*name).filter(|name| name.len() <= MAX_NAME_BYTES)?;
        let stamp = boots.stamp(*hlc, *origin).ok()?;
        made.push(match value {
            None => Attribute::new(name, stamp, None),
            Some(value) => match Attribute::inline(name, stamp, value) {
                Some(attribute) => attribute,
                None => Attribute::new(name, stamp, Some(long.next()?)),
            },
        });
    }
    Some(made.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::session::{End, EndCause, Limits, LimitsUpdate, TouchUpdate, Version};
    use crate::wire::convert::{frame_from_wire, frame_to_wire};
    use crate::wire::error::PeerMisbehaved;
    use crate::{BootId, Hlc, Stamp};

    fn boot(number: u64) -> BootId {
        BootId::new(number).unwrap()
    }

    fn stamps() -> impl Strategy<Value = Stamp> {
        let stamp = |(hlc, origin)| Stamp { hlc: Hlc::from_raw(hlc), origin: boot(origin) };
        prop_oneof![4 => (1..300u64, 1..4u64).prop_map(stamp), 1 => Just(Stamp::default())]
    }

    fn ends() -> impl Strategy<Value = End> {
        let cause = prop_oneof![Just(EndCause::Destroyed), Just(EndCause::Expired)];
        (cause, 1..300u64, 1..4u64, any::<(bool, bool)>()).prop_map(|(cause, hlc, origin, flags)| {
            let (announced, after_expiry) = flags;
            let stamp = Stamp { hlc: Hlc::from_raw(hlc), origin: boot(origin) };
            End { cause, stamp, announced, after_expiry }
        })
    }

    fn versions() -> impl Strategy<Value = Version> {
        let entries = prop::collection::vec((1..5u64, 1..300u64), 0..4);
        entries.prop_map(|entries| {
            entries.into_iter().map(|(origin, hlc)| (boot(origin), Hlc::from_raw(hlc))).collect()
        })
    }

    fn states() -> impl Strategy<Value = StateUpdate> {
        let bytes = prop_oneof![0..4usize, 120..130usize, INLINE_BYTES - 1..INLINE_BYTES + 2];
        let value = (any::<u8>(), bytes).prop_map(|(byte, bytes)| Value::from(std::vec![byte; bytes]));
        let write = ("[a-z\u{e9}]{0,4}", stamps(), prop::option::of(value));
        let millis = || prop::option::of((0..u64::MAX / 2).prop_map(Duration::from_millis));
        let limits = (stamps(), (millis(), millis(), millis()));
        let limits = limits.prop_map(|(stamp, (idle, remaining, absolute))| LimitsUpdate {
            stamp,
            limits: Limits { idle, remaining, absolute },
        });
        let touch = (stamps(), 0..1_000_000u64);
        let touch = touch.prop_map(|(stamp, age)| TouchUpdate { stamp, age: Duration::from_millis(age) });
        let writes = prop::collection::vec(write, 0..4);
        let expired = prop::option::of(ends());
        (writes, versions(), prop::option::of(versions()), limits, touch, expired).prop_map(
            |(writes, version, base, limits, touch, expired)| {
                let writes =
                    writes.iter().map(|(name, stamp, value)| Attribute::new(name, *stamp, value.as_ref()));
                StateUpdate { attributes: writes.collect(), version, base, limits, touch, expired }
            },
        )
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let difference =
            prop_oneof![1 => ends().prop_map(Difference::Ended), 4 => states().prop_map(Difference::State)];
        let record = (any::<[u8; 16]>(), difference)
            .prop_map(|(id, difference)| RecordUpdate { id: SessionId::from_bytes(id), difference });
        let id = any::<[u8; 16]>().prop_map(SessionId::from_bytes);
        let step = (prop::collection::vec(record, 0..4), prop::option::of(id), any::<bool>());
        (0..300u64, any::<u64>(), step).prop_map(|(pass, view, (records, after, push))| match push {
            true => Frame::PassRequest(PassRequest { pass, view, step: PassStep::Push(records) }),
            false => Frame::PassReply(PassReply { pass, view, step: ReplyStep::Records(records, after) }),
        })
    }

    /// As the generated types write it, without its length.
    fn generated(frame: &Frame) -> Vec<u8> {
        frame_to_wire(frame.clone()).encode_to_vec()
    }

    proptest! {
        #[test]
        fn it_is_written_and_read_as_the_generated_types_would(frame in frames()) {
            let bytes = frame.clone().encode();
            prop_assert_eq!(&bytes[..4], (bytes.len() as u32 - 4).to_be_bytes());
            prop_assert_eq!(&bytes[4..], generated(&frame));
            prop_assert_eq!(decode(&bytes[4..]), Some(frame));
        }

        /// What a peer that lies sends means the same to both.
        #[test]
        fn what_is_of_another_form_is_not_read_differently(
            frame in frames(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
        ) {
            let mut bytes = generated(&frame);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if cut { bytes.truncate(at); }
            if let Some(read) = decode(&bytes) {
                let generated = pb::Frame::decode(&*bytes).map_err(|_| PeerMisbehaved::Undecodable);
                let generated = generated.and_then(|frame| frame_from_wire(frame, boot(7)));
                prop_assert_eq!(Ok(read), generated);
            }
        }
    }
}
