//! What travels on a link: a big-endian u32 length, then one frame.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::contact::Contact;
use super::convert;
use super::delta;
use super::error::PeerMisbehaved;
use super::generated as pb;
use super::handshake::Refusal;
use super::record;
use crate::membership::MemberState;
use crate::session::{Delta, End, RecordUpdate, Version};
use crate::{BootId, SessionId};

/// The longest frame accepted, in bytes. Default 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimit(pub usize);

impl Default for FrameLimit {
    fn default() -> Self {
        Self(16 << 20)
    }
}

/// One message on a link.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Data: what a request changed.
    Delta(Delta),
    /// Data: a session has ended, or its end was announced.
    Ended(SessionId, End),
    /// Data: a session's state.
    Record(RecordUpdate),
    /// The data frames that follow count from 1 in this epoch.
    Epoch(u64),
    /// Which data frames are applied.
    Ack(Ack),
    /// Asks for a session.
    Fetch(Fetch),
    /// Answers that.
    Fetched(Fetched),
    /// Asks the process for a sign of life.
    Ping(u64),
    /// Gives it.
    Pong(u64),
    /// Members told on.
    Members(Vec<Contact>),
    /// How the sender stands.
    Standing(Standing),
    /// The sender leaves for good.
    Leave,
    /// Whether the sender admits the receiver.
    Verdict(Option<Refusal>),
    /// A step of a pass that the sender drives.
    PassRequest(PassRequest),
    /// The answer to one that the receiver drives.
    PassReply(PassReply),
}

/// What a heartbeat says of its sender, and whom it misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its state.
    pub state: MemberState,
    /// The hash of the ready members that it sees.
    pub view: u64,
    /// It knows of a node that may live beyond a cut.
    pub misses: bool,
    /// It has not compared with all whom it knows of: old ends must be kept.
    pub incomplete: bool,
}

/// Which data frames of an epoch are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Of the sender of the data.
    pub epoch: u64,
    /// All up to this one, less `except`.
    pub upto: u64,
    /// Came, but to a session of which the rest is missing: not yet held.
    pub except: Vec<u64>,
    /// Once excepted, held by now.
    pub also: Vec<u64>,
}

/// Asks for a session's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Chosen by the asker; the answer repeats it.
    pub request: u64,
    /// Which session.
    pub id: SessionId,
    /// What the asker holds of it; `None`: nothing whole.
    pub version: Option<Version>,
    /// The asker's view.
    pub view: u64,
    /// A request reads the session: an access.
    pub access: bool,
    /// Any copy will do, also one of a node that does not hold the session.
    pub any_copy: bool,
}

/// What became of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// The state, or what the asker lacks of it, or the end.
    Record(Box<RecordUpdate>),
    /// No such session, says a holder that would know.
    Absent,
    /// The one asked does not hold it and can't deny it either.
    Undecided,
    /// The one asked has it, and doubts it: it was paused, and has not compared with all since. Ask again.
    Doubted,
}

/// Answers a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Of the fetch.
    pub request: u64,
    /// The answer.
    pub outcome: FetchOutcome,
}

/// The first hex digits of session ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The digits, left-aligned; the rest is zero.
    pub bits: u64,
    /// How many digits, 0 to 16.
    pub depth: u8,
}

/// The sums below one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixSums {
    /// Whose children they are.
    pub prefix: Prefix,
    /// Per child, the wrapping sum of its records' digests.
    pub sums: [u64; 16],
    /// Per child, how many records it has.
    pub counts: [u64; 16],
}

/// A session that a pass wants, on condition of what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassWant {
    /// Which session.
    pub id: SessionId,
    /// What the asker holds of it; `None`: nothing whole.
    pub version: Option<Version>,
}

/// A step of a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassRequest {
    /// Which pass of the driver's.
    pub pass: u64,
    /// The driver's view.
    pub view: u64,
    /// What to do.
    pub step: PassStep,
}

/// What the driver of a pass asks of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassStep {
    /// Sum up your records; `empty`: the driver has none, and their number is enough.
    Open {
        /// Nothing is here that the responder might lack.
        empty: bool,
    },
    /// The sums below these prefixes.
    Expand(Vec<Prefix>),
    /// The ids and digests below these prefixes.
    List(Vec<Prefix>),
    /// These records.
    Pull(Vec<PassWant>),
    /// The records below a prefix, after an id.
    Range(Prefix, Option<SessionId>),
    /// Take these records.
    Push(Vec<RecordUpdate>),
    /// The driver has these, by id and digest, and does not hold them: which of them do you lack?
    Offer(Vec<(SessionId, u64)>),
    /// What do you have, after an id, that the driver holds and you do not?
    Strays(Option<SessionId>),
    /// Done.
    Close,
}

/// The answer to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassReply {
    /// Which pass.
    pub pass: u64,
    /// The responder's view.
    pub view: u64,
    /// The answer.
    pub step: ReplyStep,
}

/// What the other of a pass answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyStep {
    /// To open and expand.
    Sums(Vec<PrefixSums>),
    /// To list.
    Listing(Vec<(SessionId, u64)>),
    /// To pull and range; a range goes on after the id.
    Records(Vec<RecordUpdate>, Option<SessionId>),
    /// To offer.
    Wants(Vec<PassWant>),
    /// To strays; goes on after the id.
    Strays(Vec<(SessionId, u64)>, Option<SessionId>),
    /// To push and close.
    Done,
    /// There is no such pass (any more).
    Unknown,
}

impl Frame {
    /// As bytes, length first. Data frames are encoded once and shared by all peers.
    pub fn encode(self) -> Bytes {
        match &self {
            Self::Delta(delta) => return delta::encode(delta),
            Self::PassReply(PassReply { pass, view, step: ReplyStep::Records(records, next) }) => {
                return record::encode_reply(*pass, *view, records, *next);
            }
            Self::PassRequest(PassRequest { pass, view, step: PassStep::Push(records) }) => {
                return record::encode_push(*pass, *view, records);
            }
            _ => {}
        }
        let message = convert::frame_to_wire(self);
        let length = message.encoded_len();
        let mut bytes = BytesMut::with_capacity(4 + length);
        bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        // Fails only for want of room, and a BytesMut grows.
        let _ = message.encode(&mut bytes);
        bytes.freeze()
    }

    /// Makes a step of a pass what it is after so long: the records that it brings. Others are left alone: data is aged as
    /// it is applied, and what a fetch brings was asked for by one who waits.
    pub fn age(&mut self, by: Duration) {
        if let Self::PassRequest(PassRequest { step: PassStep::Push(records), .. })
        | Self::PassReply(PassReply { step: ReplyStep::Records(records, _), .. }) = self
        {
            for record in records {
                record.difference.age(by);
            }
        }
    }

    /// Whether it counts as data: carried in order, counted and acknowledged.
    pub fn is_data(&self) -> bool {
        matches!(self, Self::Delta(_) | Self::Ended(..) | Self::Record(_))
    }
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub struct FrameDecoder {
    limit: FrameLimit,
    peer: BootId,
}

impl FrameDecoder {
    /// For the frames of one peer: what it changes carries its boot.
    pub fn new(peer: BootId, limit: FrameLimit) -> Self {
        Self { limit, peer }
    }

    /// The next whole frame, if the buffer holds one.
    ///
    /// # Errors
    /// The stream is not what a correct peer sends; close the link.
    pub fn next(&self, buffer: &mut BytesMut) -> Result<Option<Frame>, PeerMisbehaved> {
        let Some(header) = buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*header) as usize;
        if length > self.limit.0 {
            return Err(PeerMisbehaved::FrameTooLong { bytes: length, limit: self.limit.0 });
        }
        if buffer.len() < 4 + length {
            buffer.reserve(4 + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(4);
        let body = buffer.split_to(length).freeze();
        if let Some(delta) = delta::decode(&body, self.peer) {
            return Ok(Some(Frame::Delta(delta?)));
        }
        if let Some(records) = record::decode(&body) {
            return Ok(Some(records));
        }
        let frame = pb::Frame::decode(body).map_err(|_| PeerMisbehaved::Undecodable)?;
        convert::frame_from_wire(frame, self.peer).map(Some)
    }
}
