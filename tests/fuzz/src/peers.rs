//! What a member says that lies.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use sessionmesh_core::placement::Share;
use sessionmesh_core::replication::pass::{PassDriver, PassResponder, Summary};
use sessionmesh_core::replication::{Inbox, Table, fetch, receive};
use sessionmesh_core::session::Record;
use sessionmesh_core::wire::{Frame, FrameDecoder, FrameLimit, PassReply, PassRequest, PassStep, ReplyStep};
use sessionmesh_core::{HybridClock, SessionId};

use crate::doors::peer;
use crate::table::{Sessions, now};

/// The field numbers of a frame's kinds.
const KINDS: [u8; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17];
const LIMIT_BYTES: usize = 64 << 10;

/// The messages that bytes are: kind, length in 16 bits, body, and so on.
fn frames(mut data: &[u8]) -> Vec<Frame> {
    let decoder = FrameDecoder::new(peer(), FrameLimit(LIMIT_BYTES));
    let mut frames = Vec::new();
    while let Some(([kind, high, low], rest)) = data.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (body, rest) = rest.split_at(length);
        data = rest;
        let mut frame = BytesMut::new();
        put_varint(&mut frame, usize::from(KINDS[usize::from(*kind) % KINDS.len()]) << 3 | 2);
        put_varint(&mut frame, body.len());
        frame.put_slice(body);
        let mut stream = BytesMut::new();
        stream.put_u32(frame.len() as u32);
        stream.put_slice(&frame);
        frames.extend(decoder.next(&mut stream).ok().flatten());
    }
    frames
}

fn put_varint(bytes: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        bytes.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

/// Each message of a link, and what it does to the sessions here.
pub fn messages(data: &[u8]) {
    let (table, other) = (Sessions::default(), Sessions::default());
    let (clock, mut inbox) = (HybridClock::new(), Inbox::new());
    let mut responder = PassResponder::new(Summary::collect(&table, |_, _| Share::Both));
    for frame in frames(data) {
        match frame {
            Frame::Fetch(fetch) => {
                let answer = fetch::answer(&table, &fetch, fetch::Standing::Settled, now());
                fetch::apply(&other, &clock, fetch.id, answer, now());
            }
            Frame::Fetched(fetched) => {
                let id = SessionId::from_bytes([1; 16]);
                fetch::apply(&table, &clock, id, fetched.outcome, now());
            }
            Frame::Epoch(epoch) => inbox.begin_epoch(epoch),
            Frame::PassRequest(PassRequest { step, .. }) => {
                if matches!(step, PassStep::Open { .. }) {
                    responder = PassResponder::new(Summary::collect(&table, |_, _| Share::Both));
                }
                let _ = responder.handle(step, &table, &clock, now(), |_, _| ());
            }
            frame if frame.is_data() => {
                let received = receive(&table, &clock, &mut inbox, frame, Duration::ZERO, now().into(), |_| ());
                if let Some(id) = received.id.filter(|_| received.pull.is_none()) {
                    inbox.completed(&id);
                }
            }
            _ => {}
        }
        if let Some(ack) = inbox.take_ack(true) {
            assert!(ack.except.iter().all(|except| *except <= ack.upto));
        }
    }
    agree(&table, &other, &clock);
}

/// Whatever was said, two nodes that tell each other all they have hold the same.
fn agree(one: &Sessions, two: &Sessions, clock: &HybridClock) {
    for (from, to) in [(one, two), (two, one), (one, two)] {
        let mut updates = Vec::new();
        from.for_each(|id, record| updates.extend(record.update(*id, None, now().mono)));
        for update in updates {
            receive(to, clock, &mut Inbox::new(), Frame::Record(update), Duration::ZERO, now().into(), |_| ());
        }
    }
    one.for_each(|id, record| {
        let theirs = two.read(id, |record| record.filter(|record| !record.is_partial()).map(Record::digest));
        if let Some(theirs) = theirs.filter(|_| !record.is_partial()) {
            assert_eq!(record.digest(), theirs, "{id:?}");
        }
    });
}

/// A pass that this node drives, answered by a member that lies.
pub fn replies(data: &[u8]) {
    let table = Sessions::default();
    let clock = HybridClock::new();
    let mut driver = PassDriver::new(Summary::collect(&table, |_, _| Share::Both));
    for frame in frames(data) {
        // What it would ask; there is a bound on what is open at once.
        let mut asked = 0;
        while let Some(step) = driver.poll_request(&table, now()) {
            asked += 1;
            assert!(asked <= 64, "asks for ever: {step:?}");
        }
        if driver.is_done() {
            return;
        }
        let step = match frame {
            Frame::PassReply(PassReply { step, .. }) => step,
            Frame::Record(record) => ReplyStep::Records(vec![record], None),
            _ => ReplyStep::Done,
        };
        if driver.handle_reply(step, &table, &clock, now(), |_, _| ()).is_err() {
            return;
        }
    }
}
