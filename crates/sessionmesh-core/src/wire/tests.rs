//! Whatever a peer sends: a frame, or a fault with a name. Never a panic.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::membership::MemberState;
use crate::session::{
    Attribute, Delta, Difference, End, Limits, LimitsUpdate, RecordUpdate, StateUpdate, TouchUpdate, Version,
};
use crate::{BootId, Hlc, NodeName, SessionId, Stamp};

fn boot(number: u64) -> BootId {
    BootId::new(number).unwrap()
}

fn stamp(hlc: u64, origin: u64) -> Stamp {
    Stamp { hlc: Hlc::from_raw(hlc), origin: boot(origin) }
}

fn id(number: u8) -> SessionId {
    SessionId::from_bytes([number; 16])
}

fn limits() -> Limits {
    let seconds = |n| Some(Duration::from_secs(n));
    Limits { idle: seconds(1), remaining: seconds(2), absolute: seconds(3) }
}

fn record() -> RecordUpdate {
    let version: Version = [(boot(7), Hlc::from_raw(9)), (boot(8), Hlc::from_raw(4))].into_iter().collect();
    let tea = Bytes::from_static(b"tea");
    let attributes =
        [Attribute::new("cart", stamp(9, 7), Some(&tea)), Attribute::new("gone", stamp(3, 5), None)];
    let state = StateUpdate {
        attributes: attributes.into_iter().collect(),
        base: Some([(boot(7), Hlc::from_raw(2))].into_iter().collect()),
        version,
        limits: LimitsUpdate { stamp: stamp(4, 8), limits: limits() },
        touch: TouchUpdate { stamp: stamp(9, 7), age: Duration::from_millis(5) },
        expired: Some(End { announced: true, ..End::expired(stamp(4, 8)) }),
    };
    RecordUpdate { id: id(1), difference: Difference::State(state) }
}

/// One frame of every kind, from boot 7.
fn frames() -> Vec<Frame> {
    let end = End { after_expiry: true, ..End::destroyed(stamp(9, 7)) };
    let delta = Delta {
        id: id(1),
        previous: Hlc::from_raw(4),
        stamp: stamp(9, 7),
        changes: Vec::from([("a".into(), Some(Bytes::from_static(b"1"))), ("b".into(), None)]),
        limits: Some(limits()),
        create: true,
        ack_later: true,
    };
    let contact = Contact {
        boot: boot(3),
        incarnation: 1,
        name: NodeName::new("n3").unwrap(),
        address: "[::1]:4003".parse().unwrap(),
    };
    let version: Version = [(boot(7), Hlc::from_raw(9))].into_iter().collect();
    let ended = RecordUpdate { id: id(2), difference: Difference::Ended(end) };
    let refusal = Refusal { reason: RefusalReason::NameTaken, detail: "taken".into() };
    let prefix = Prefix::new(0xab00_0000_0000_0000, 2);
    let sums = PrefixSums { prefix, sums: [7; 16], counts: [1; 16] };
    let want = PassWant { id: id(4), version: Some(version.clone()) };
    let step = |step| Frame::PassRequest(PassRequest { pass: 3, view: 77, step });
    let reply = |step| Frame::PassReply(PassReply { pass: 3, view: 78, step });
    let fetched = |outcome| Frame::Fetched(Fetched { request: 5, outcome });
    Vec::from([
        Frame::Delta(delta),
        Frame::Ended(id(1), end),
        Frame::Record(record()),
        Frame::Epoch(2),
        Frame::Ack(Ack { epoch: 2, upto: 9, except: Vec::from([4]), also: Vec::from([3]) }),
        Frame::Fetch(Fetch {
            request: 5,
            id: id(1),
            version: Some(version),
            view: 77,
            access: true,
            any_copy: true,
        }),
        fetched(FetchOutcome::Record(Box::new(ended.clone()))),
        fetched(FetchOutcome::Absent),
        fetched(FetchOutcome::Undecided),
        fetched(FetchOutcome::Doubted),
        Frame::Ping(1),
        Frame::Pong(1),
        Frame::Members(Vec::from([contact])),
        Frame::Standing(Standing { state: MemberState::Ready, view: 7, misses: true, incomplete: true }),
        Frame::Leave,
        Frame::Verdict(None),
        Frame::Verdict(Some(refusal)),
        step(PassStep::Open { empty: true }),
        step(PassStep::Expand(Vec::from([prefix]))),
        step(PassStep::List(Vec::from([prefix]))),
        step(PassStep::Pull(Vec::from([want.clone()]))),
        step(PassStep::Range(prefix, Some(id(9)))),
        step(PassStep::Push(Vec::from([record(), ended]))),
        step(PassStep::Offer(Vec::from([(id(2), 6)]))),
        step(PassStep::Strays(Some(id(2)))),
        step(PassStep::Close),
        reply(ReplyStep::Sums(Vec::from([sums]))),
        reply(ReplyStep::Listing(Vec::from([(id(1), 5)]))),
        reply(ReplyStep::Records(Vec::from([record()]), Some(id(1)))),
        reply(ReplyStep::Wants(Vec::from([want]))),
        reply(ReplyStep::Strays(Vec::from([(id(1), 5)]), Some(id(1)))),
        reply(ReplyStep::Done),
        reply(ReplyStep::Unknown),
    ])
}

fn decode(bytes: &[u8]) -> Result<Option<Frame>, PeerMisbehaved> {
    FrameDecoder::new(boot(7), FrameLimit::default()).next(&mut BytesMut::from(bytes))
}

#[test]
fn every_frame_comes_out_as_it_went_in() {
    for frame in frames() {
        assert_eq!(decode(&frame.clone().encode()), Ok(Some(frame)));
    }
}

#[test]
fn only_the_records_of_a_pass_grow_old_on_their_way() {
    let are_aged = |frame: &Frame| {
        let mut aged = frame.clone();
        aged.age(Duration::from_secs(1));
        aged != *frame
    };
    let aged: Vec<Frame> = frames().into_iter().filter(are_aged).collect();
    let [Frame::PassRequest(request), Frame::PassReply(reply)] = &aged[..] else { panic!("{aged:?}") };
    assert!(matches!(request.step, PassStep::Push(_)) && matches!(reply.step, ReplyStep::Records(..)));
}

#[test]
fn a_frame_cut_short_anywhere_waits_for_the_rest() {
    for frame in frames() {
        let bytes = frame.encode();
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), Ok(None));
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_a_frame_or_a_fault() {
    for frame in frames() {
        let bytes = frame.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = decode(&flipped);
        }
    }
}

#[test]
fn a_stamp_beyond_any_clock_is_a_fault() {
    let end = |hlc| Frame::Ended(id(1), End::destroyed(stamp(hlc, 7)));
    assert!(decode(&end((1 << 63) - 1).encode()).is_ok());
    assert_eq!(decode(&end(1 << 63).encode()), Err(PeerMisbehaved::Invalid("stamp")));
}

#[test]
fn a_frame_at_the_limit_passes_and_one_past_it_does_not() {
    let bytes = Frame::Ping(u64::MAX).encode();
    let length = bytes.len() - 4;
    let at = |limit| FrameDecoder::new(boot(7), FrameLimit(limit)).next(&mut BytesMut::from(&bytes[..]));
    assert_eq!(at(length), Ok(Some(Frame::Ping(u64::MAX))));
    assert_eq!(at(length - 1), Err(PeerMisbehaved::FrameTooLong { bytes: length, limit: length - 1 }));
}

proptest! {
    #[test]
    fn any_bytes_are_a_frame_a_wait_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let mut framed = Vec::from(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(&bytes);
        prop_assert_ne!(decode(&framed), Ok(None));
    }
}
