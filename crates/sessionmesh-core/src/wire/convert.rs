//! Between the generated message types and the values that the rest of the crate sees.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::contact::Contact;
use super::error::PeerMisbehaved;
use super::frame::{
    Ack, Fetch, FetchOutcome, Fetched, Frame, PassReply, PassRequest, PassStep, PassWant, Prefix, PrefixSums,
    ReplyStep, Standing,
};
use super::generated::{self as pb, frame::Kind, pass_reply, pass_request};
use super::handshake::Refusal;
use crate::membership::MemberState;
use crate::session::{
    Attribute, Delta, Difference, End, EndCause, INLINE_BYTES, Limits, LimitsUpdate, MAX_NAME_BYTES, Name,
    RecordUpdate, StateUpdate, TouchUpdate, Version,
};
use crate::{BootId, Hlc, SessionId, Stamp};

type Parsed<T> = Result<T, PeerMisbehaved>;

fn missing(what: &'static str) -> PeerMisbehaved {
    PeerMisbehaved::Invalid(what)
}

pub(super) fn frame_to_wire(frame: Frame) -> pb::Frame {
    let kind = match frame {
        Frame::Delta(delta) => Kind::Delta(delta_to_wire(delta)),
        Frame::Ended(id, end) => Kind::Ended(pb::Ended { id: id_to_wire(id), end: Some(end_to_wire(end)) }),
        Frame::Record(record) => Kind::Record(record_to_wire(record)),
        Frame::Epoch(epoch) => Kind::Epoch(pb::Epoch { epoch }),
        Frame::Ack(Ack { epoch, upto, except, also }) => Kind::Ack(pb::Ack { epoch, upto, except, also }),
        Frame::Fetch(fetch) => Kind::Fetch(pb::Fetch {
            request: fetch.request,
            id: id_to_wire(fetch.id),
            conditional: fetch.version.is_some(),
            version: fetch.version.as_ref().map(entries_to_wire).unwrap_or_default(),
            view: fetch.view,
            access: fetch.access,
            any_copy: fetch.any_copy,
        }),
        Frame::Fetched(Fetched { request, outcome }) => Kind::Fetched(fetched_to_wire(request, outcome)),
        Frame::Ping(nonce) => Kind::Ping(pb::Ping { nonce }),
        Frame::Pong(nonce) => Kind::Pong(pb::Pong { nonce }),
        Frame::Members(members) => {
            Kind::Members(pb::Members { members: members.iter().map(Contact::to_wire).collect() })
        }
        Frame::Standing(Standing { state, view, misses, incomplete }) => {
            Kind::Standing(pb::Standing { state: state.to_wire().into(), view, misses, incomplete })
        }
        Frame::Leave => Kind::Leave(pb::Leave {}),
        Frame::Verdict(refusal) => Kind::Verdict(Refusal::to_wire(refusal.as_ref())),
        Frame::PassRequest(PassRequest { pass, view, step }) => {
            Kind::PassRequest(pb::PassRequest { pass, view, step: Some(step_to_wire(step)) })
        }
        Frame::PassReply(PassReply { pass, view, step }) => {
            Kind::PassReply(pb::PassReply { pass, view, step: Some(reply_to_wire(step)) })
        }
    };
    pb::Frame { kind: Some(kind) }
}

pub(super) fn frame_from_wire(frame: pb::Frame, peer: BootId) -> Parsed<Frame> {
    Ok(match frame.kind.ok_or_else(|| missing("frame kind"))? {
        Kind::Delta(delta) => Frame::Delta(delta_from_wire(delta, peer)?),
        Kind::Ended(ended) => {
            Frame::Ended(id_from_wire(&ended.id)?, end_from_wire(ended.end.ok_or_else(|| missing("end"))?)?)
        }
        Kind::Record(record) => Frame::Record(record_from_wire(record)?),
        Kind::Epoch(epoch) => Frame::Epoch(epoch.epoch),
        Kind::Ack(pb::Ack { epoch, upto, except, also }) => Frame::Ack(Ack { epoch, upto, except, also }),
        Kind::Fetch(fetch) => Frame::Fetch(Fetch {
            request: fetch.request,
            id: id_from_wire(&fetch.id)?,
            version: condition_from_wire(fetch.conditional, &fetch.version)?,
            view: fetch.view,
            access: fetch.access,
            any_copy: fetch.any_copy,
        }),
        Kind::Fetched(fetched) => Frame::Fetched(fetched_from_wire(fetched)?),
        Kind::Ping(ping) => Frame::Ping(ping.nonce),
        Kind::Pong(pong) => Frame::Pong(pong.nonce),
        Kind::Members(members) => {
            Frame::Members(members.members.into_iter().map(Contact::from_wire).collect::<Parsed<_>>()?)
        }
        Kind::Standing(standing) => {
            let state = MemberState::from_wire(standing.state()).ok_or(PeerMisbehaved::Invalid("state"))?;
            Frame::Standing(Standing {
                state,
                view: standing.view,
                misses: standing.misses,
                incomplete: standing.incomplete,
            })
        }
        Kind::Leave(pb::Leave {}) => Frame::Leave,
        Kind::Verdict(verdict) => Frame::Verdict(Refusal::from_wire(verdict)?),
        Kind::PassRequest(request) => Frame::PassRequest(PassRequest {
            pass: request.pass,
            view: request.view,
            step: step_from_wire(request.step.ok_or_else(|| missing("pass step"))?)?,
        }),
        Kind::PassReply(reply) => Frame::PassReply(PassReply {
            pass: reply.pass,
            view: reply.view,
            step: reply_from_wire(reply.step.ok_or_else(|| missing("pass step"))?)?,
        }),
    })
}

fn id_to_wire(id: SessionId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(super) fn id_from_wire(bytes: &[u8]) -> Parsed<SessionId> {
    Ok(SessionId::from_bytes(bytes.try_into().map_err(|_| missing("session id"))?))
}

fn boot_from_wire(boot: u64) -> Parsed<BootId> {
    BootId::new(boot).ok_or_else(|| missing("boot"))
}

fn hlc_from_wire(raw: u64) -> Parsed<Hlc> {
    let hlc = Hlc::from_raw(raw);
    if hlc < Hlc::ABSURD { Ok(hlc) } else { Err(missing("stamp")) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn name_from_wire(name: impl Into<Name>) -> Parsed<Name> {
    let name = name.into();
    if name.len() <= MAX_NAME_BYTES { Ok(name) } else { Err(missing("attribute name")) }
}

/// What is kept as it comes is copied out of the receive buffer: one value must not keep all of it alive.
pub(super) fn value_from_wire(value: Option<Bytes>) -> Option<Bytes> {
    let kept = |value: Bytes| if value.len() > INLINE_BYTES { Bytes::copy_from_slice(&value) } else { value };
    value.map(kept)
}

pub(super) fn limits_to_wire(limits: Limits) -> pb::Limits {
    pb::Limits {
        idle_ms: limits.idle.map(millis),
        remaining_ms: limits.remaining.map(millis),
        absolute_ms: limits.absolute.map(millis),
    }
}

pub(super) fn limits_from_wire(limits: pb::Limits) -> Limits {
    Limits {
        idle: limits.idle_ms.map(Duration::from_millis),
        remaining: limits.remaining_ms.map(Duration::from_millis),
        absolute: limits.absolute_ms.map(Duration::from_millis),
    }
}

fn delta_to_wire(delta: Delta) -> pb::Delta {
    pb::Delta {
        id: id_to_wire(delta.id),
        previous: delta.previous.get(),
        stamp: delta.stamp.hlc.get(),
        changes: delta
            .changes
            .into_iter()
            .map(|(name, value)| pb::Change { name: (&*name).into(), value })
            .collect(),
        limits: delta.limits.map(limits_to_wire),
        create: delta.create,
        ack_later: delta.ack_later,
    }
}

fn delta_from_wire(delta: pb::Delta, peer: BootId) -> Parsed<Delta> {
    let changes = delta
        .changes
        .into_iter()
        .map(|change| Ok((name_from_wire(change.name)?, value_from_wire(change.value))))
        .collect::<Parsed<_>>()?;
    check_delta(Delta {
        id: id_from_wire(&delta.id)?,
        previous: Hlc::from_raw(delta.previous),
        stamp: Stamp { hlc: Hlc::from_raw(delta.stamp), origin: peer },
        changes,
        limits: delta.limits.map(limits_from_wire),
        create: delta.create,
        ack_later: delta.ack_later,
    })
}

pub(super) fn check_delta(delta: Delta) -> Parsed<Delta> {
    let hlc = hlc_from_wire(delta.stamp.hlc.get())?;
    if hlc > delta.previous { Ok(delta) } else { Err(missing("delta stamp")) }
}

pub(super) fn end_to_wire(end: End) -> pb::End {
    let cause = match end.cause {
        EndCause::Destroyed => pb::EndCause::Destroyed,
        EndCause::Expired => pb::EndCause::Expired,
    };
    pb::End {
        cause: cause.into(),
        hlc: end.stamp.hlc.get(),
        origin: end.stamp.origin.get(),
        announced: end.announced,
        after_expiry: end.after_expiry,
    }
}

pub(super) fn end_from_wire(end: pb::End) -> Parsed<End> {
    let cause = match end.cause() {
        pb::EndCause::Unspecified => return Err(missing("end cause")),
        pb::EndCause::Destroyed => EndCause::Destroyed,
        pb::EndCause::Expired => EndCause::Expired,
    };
    let stamp = Stamp { hlc: hlc_from_wire(end.hlc)?, origin: boot_from_wire(end.origin)? };
    Ok(End { cause, stamp, announced: end.announced, after_expiry: end.after_expiry })
}

fn entries_to_wire(version: &Version) -> Vec<pb::VersionEntry> {
    version.entries().map(|(boot, hlc)| pb::VersionEntry { boot: boot.get(), hlc: hlc.get() }).collect()
}

fn entries_from_wire(entries: &[pb::VersionEntry]) -> Parsed<Version> {
    entries.iter().map(|entry| Ok((boot_from_wire(entry.boot)?, hlc_from_wire(entry.hlc)?))).collect()
}

fn condition_from_wire(conditional: bool, entries: &[pb::VersionEntry]) -> Parsed<Option<Version>> {
    conditional.then(|| entries_from_wire(entries)).transpose()
}

/// The boots of a record, each named once and then by position.
#[derive(Default)]
pub(super) struct Boots(pub(super) SmallVec<[u64; 8]>);

impl Boots {
    /// Of a state, without those that only its stamps name.
    pub(super) fn of(state: &StateUpdate) -> Self {
        let mut boots = Self::default();
        for (boot, _) in state.version.entries().chain(state.base.iter().flat_map(Version::entries)) {
            boots.index(boot);
        }
        boots
    }

    pub(super) fn index(&mut self, boot: BootId) -> u32 {
        let index = self.0.iter().position(|known| *known == boot.get()).unwrap_or_else(|| {
            self.0.push(boot.get());
            self.0.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    fn get(&self, index: u32) -> Parsed<BootId> {
        self.0.get(index as usize).copied().and_then(BootId::new).ok_or_else(|| missing("origin"))
    }

    pub(super) fn stamp(&self, hlc: u64, origin: u32) -> Parsed<Stamp> {
        // A stamp of zero is "never": of no boot.
        if hlc == 0 {
            return Ok(Stamp::default());
        }
        Ok(Stamp { hlc: hlc_from_wire(hlc)?, origin: self.get(origin)? })
    }

    pub(super) fn row(&self, version: &Version) -> impl ExactSizeIterator<Item = u64> {
        self.0.iter().map(|boot| BootId::new(*boot).map_or(0, |boot| version.get(boot).get()))
    }

    pub(super) fn version(&self, row: impl IntoIterator<Item = u64>) -> Parsed<Version> {
        let entries = row.into_iter().enumerate().filter(|(_, hlc)| *hlc != 0);
        entries.map(|(index, hlc)| Ok((self.get(index as u32)?, hlc_from_wire(hlc)?))).collect()
    }
}

pub(super) fn stamped_limits_to_wire(update: &LimitsUpdate, boots: &mut Boots) -> Option<pb::StampedLimits> {
    (*update != LimitsUpdate::default()).then(|| pb::StampedLimits {
        limits: Some(limits_to_wire(update.limits)),
        hlc: update.stamp.hlc.get(),
        origin: boots.index(update.stamp.origin),
    })
}

pub(super) fn stamped_limits_from_wire(limits: pb::StampedLimits, boots: &Boots) -> Parsed<LimitsUpdate> {
    Ok(LimitsUpdate {
        stamp: boots.stamp(limits.hlc, limits.origin)?,
        limits: limits.limits.map(limits_from_wire).unwrap_or_default(),
    })
}

pub(super) fn touch_to_wire(update: &TouchUpdate, boots: &mut Boots) -> pb::Touch {
    pb::Touch {
        hlc: update.stamp.hlc.get(),
        origin: boots.index(update.stamp.origin),
        age_ms: millis(update.age),
    }
}

pub(super) fn touch_from_wire(touch: pb::Touch, boots: &Boots) -> Parsed<TouchUpdate> {
    Ok(TouchUpdate { stamp: boots.stamp(touch.hlc, touch.origin)?, age: Duration::from_millis(touch.age_ms) })
}

fn record_to_wire(record: RecordUpdate) -> pb::Record {
    let id = id_to_wire(record.id);
    let state = match record.difference {
        Difference::Ended(end) => {
            return pb::Record { id, end: Some(end_to_wire(end)), ..pb::Record::default() };
        }
        Difference::State(state) => state,
    };
    let mut boots = Boots::of(&state);
    let attributes = state
        .attributes
        .iter()
        .map(|attribute| pb::Attribute {
            name: attribute.name().into(),
            value: attribute.value().map(Bytes::copy_from_slice),
            hlc: attribute.stamp.hlc.get(),
            origin: boots.index(attribute.stamp.origin),
        })
        .collect();
    let limits = stamped_limits_to_wire(&state.limits, &mut boots);
    let touch = Some(touch_to_wire(&state.touch, &mut boots));
    pb::Record {
        id,
        version: boots.row(&state.version).collect(),
        is_difference: state.base.is_some(),
        base: state.base.map(|base| boots.row(&base).collect()).unwrap_or_default(),
        boots: boots.0.into_vec(),
        attributes,
        limits,
        touch,
        end: state.expired.map(end_to_wire),
    }
}

fn record_from_wire(record: pb::Record) -> Parsed<RecordUpdate> {
    let id = id_from_wire(&record.id)?;
    let end = record.end.map(end_from_wire).transpose()?;
    let Some(touch) = record.touch else {
        let difference = Difference::Ended(end.ok_or_else(|| missing("record"))?);
        return Ok(RecordUpdate { id, difference });
    };
    let boots = Boots(record.boots.into());
    let mut attributes = Vec::with_capacity(record.attributes.len());
    for attribute in record.attributes {
        let stamp = boots.stamp(attribute.hlc, attribute.origin)?;
        attributes.push((name_from_wire(attribute.name)?, stamp, value_from_wire(attribute.value)));
    }
    let writes = attributes.iter().map(|(name, stamp, value)| Attribute::new(name, *stamp, value.as_ref()));
    let attributes = writes.collect();
    let limits = record.limits.map(|limits| stamped_limits_from_wire(limits, &boots)).transpose()?;
    let (limits, touch) = (limits.unwrap_or_default(), touch_from_wire(touch, &boots)?);
    let state = StateUpdate {
        attributes,
        version: boots.version(record.version)?,
        base: record.is_difference.then(|| boots.version(record.base)).transpose()?,
        limits,
        touch,
        expired: end,
    };
    Ok(RecordUpdate { id, difference: Difference::State(state) })
}

fn records_to_wire(records: Vec<RecordUpdate>) -> Vec<pb::Record> {
    records.into_iter().map(record_to_wire).collect()
}

fn records_from_wire(records: Vec<pb::Record>) -> Parsed<Vec<RecordUpdate>> {
    records.into_iter().map(record_from_wire).collect()
}

fn fetched_to_wire(request: u64, outcome: FetchOutcome) -> pb::Fetched {
    let doubted = outcome == FetchOutcome::Doubted;
    let (outcome, record) = match outcome {
        FetchOutcome::Record(record) => (pb::FetchOutcome::Record, Some(record_to_wire(*record))),
        FetchOutcome::Absent => (pb::FetchOutcome::Absent, None),
        FetchOutcome::Undecided | FetchOutcome::Doubted => (pb::FetchOutcome::Undecided, None),
    };
    pb::Fetched { request, outcome: outcome.into(), record, doubted }
}

fn fetched_from_wire(fetched: pb::Fetched) -> Parsed<Fetched> {
    let outcome = match fetched.outcome() {
        pb::FetchOutcome::Unspecified => return Err(missing("fetch outcome")),
        pb::FetchOutcome::Record => {
            let record = fetched.record.ok_or_else(|| missing("record"))?;
            FetchOutcome::Record(Box::new(record_from_wire(record)?))
        }
        pb::FetchOutcome::Absent => FetchOutcome::Absent,
        pb::FetchOutcome::Undecided if fetched.doubted => FetchOutcome::Doubted,
        pb::FetchOutcome::Undecided => FetchOutcome::Undecided,
    };
    Ok(Fetched { request: fetched.request, outcome })
}

fn prefix_to_wire(prefix: Prefix) -> pb::Prefix {
    pb::Prefix { bits: prefix.bits, depth: u32::from(prefix.depth) }
}

fn prefix_from_wire(prefix: pb::Prefix) -> Parsed<Prefix> {
    let depth = u8::try_from(prefix.depth).ok().filter(|depth| *depth <= Prefix::MAX_DEPTH);
    let depth = depth.ok_or_else(|| missing("prefix"))?;
    Ok(Prefix::new(prefix.bits, depth))
}

fn wants_to_wire(wants: Vec<PassWant>) -> pb::PassPull {
    let want = |want: PassWant| pb::PassWant {
        id: id_to_wire(want.id),
        conditional: want.version.is_some(),
        version: want.version.as_ref().map(entries_to_wire).unwrap_or_default(),
    };
    pb::PassPull { wants: wants.into_iter().map(want).collect() }
}

fn wants_from_wire(wants: &[pb::PassWant]) -> Parsed<Vec<PassWant>> {
    let want = |want: &pb::PassWant| {
        let version = condition_from_wire(want.conditional, &want.version)?;
        Ok(PassWant { id: id_from_wire(&want.id)?, version })
    };
    wants.iter().map(want).collect()
}

fn listing_to_wire(entries: &[(SessionId, u64)]) -> pb::PassListing {
    pb::PassListing {
        ids: entries.iter().flat_map(|(id, _)| *id.as_bytes()).collect::<Vec<u8>>().into(),
        digests: entries.iter().map(|(_, digest)| *digest).collect(),
    }
}

fn listing_from_wire(listing: pb::PassListing) -> Parsed<Vec<(SessionId, u64)>> {
    let (ids, rest) = listing.ids.as_chunks::<16>();
    if !rest.is_empty() || ids.len() != listing.digests.len() {
        return Err(missing("listing"));
    }
    let ids = ids.iter().map(|id| SessionId::from_bytes(*id));
    Ok(ids.zip(listing.digests).collect())
}

fn step_to_wire(step: PassStep) -> pass_request::Step {
    use pass_request::Step;
    let expand = |prefixes: Vec<Prefix>, list| {
        Step::Expand(pb::PassExpand { prefixes: prefixes.into_iter().map(prefix_to_wire).collect(), list })
    };
    match step {
        PassStep::Open { empty } => Step::Open(pb::PassOpen { empty }),
        PassStep::Expand(prefixes) => expand(prefixes, false),
        PassStep::List(prefixes) => expand(prefixes, true),
        PassStep::Pull(wants) => Step::Pull(wants_to_wire(wants)),
        PassStep::Range(prefix, after) => Step::Range(pb::PassRange {
            prefix: Some(prefix_to_wire(prefix)),
            after: after.map(id_to_wire).unwrap_or_default(),
        }),
        PassStep::Push(records) => Step::Push(pb::PassPush { records: records_to_wire(records) }),
        PassStep::Offer(entries) => Step::Offer(listing_to_wire(&entries)),
        PassStep::Strays(after) => {
            Step::Strays(pb::PassStrays { after: after.map(id_to_wire).unwrap_or_default() })
        }
        PassStep::Close => Step::Close(pb::PassClose {}),
    }
}

fn optional_id_from_wire(bytes: &Bytes) -> Parsed<Option<SessionId>> {
    if bytes.is_empty() { Ok(None) } else { id_from_wire(bytes).map(Some) }
}

fn step_from_wire(step: pass_request::Step) -> Parsed<PassStep> {
    use pass_request::Step;
    Ok(match step {
        Step::Open(pb::PassOpen { empty }) => PassStep::Open { empty },
        Step::Expand(expand) => {
            let prefixes = expand.prefixes.into_iter().map(prefix_from_wire).collect::<Parsed<_>>()?;
            if expand.list { PassStep::List(prefixes) } else { PassStep::Expand(prefixes) }
        }
        Step::Pull(pull) => PassStep::Pull(wants_from_wire(&pull.wants)?),
        Step::Range(range) => PassStep::Range(
            prefix_from_wire(range.prefix.ok_or_else(|| missing("prefix"))?)?,
            optional_id_from_wire(&range.after)?,
        ),
        Step::Push(push) => PassStep::Push(records_from_wire(push.records)?),
        Step::Offer(listing) => PassStep::Offer(listing_from_wire(listing)?),
        Step::Strays(strays) => PassStep::Strays(optional_id_from_wire(&strays.after)?),
        Step::Close(pb::PassClose {}) => PassStep::Close,
    })
}

fn reply_to_wire(step: ReplyStep) -> pass_reply::Step {
    use pass_reply::Step;
    match step {
        ReplyStep::Sums(nodes) => Step::Sums(pb::PassSums {
            nodes: nodes
                .into_iter()
                .map(|node| pb::PassNode {
                    prefix: Some(prefix_to_wire(node.prefix)),
                    sums: node.sums.to_vec(),
                    counts: node.counts.to_vec(),
                })
                .collect(),
        }),
        ReplyStep::Listing(entries) => Step::Listing(listing_to_wire(&entries)),
        ReplyStep::Wants(wants) => Step::Wants(wants_to_wire(wants)),
        ReplyStep::Strays(entries, next) => Step::Strays(pb::PassStrayListing {
            listing: Some(listing_to_wire(&entries)),
            next: next.map(id_to_wire).unwrap_or_default(),
        }),
        ReplyStep::Records(records, next) => Step::Records(pb::PassRecords {
            records: records_to_wire(records),
            next: next.map(id_to_wire).unwrap_or_default(),
        }),
        ReplyStep::Done => Step::Done(pb::PassDone {}),
        ReplyStep::Unknown => Step::Unknown(pb::PassUnknown {}),
    }
}

fn reply_from_wire(step: pass_reply::Step) -> Parsed<ReplyStep> {
    use pass_reply::Step;
    let array = |row: Vec<u64>| -> Parsed<[u64; 16]> {
        let row: Box<[u64; 16]> = row.into_boxed_slice().try_into().map_err(|_| missing("sums"))?;
        Ok(*row)
    };
    Ok(match step {
        Step::Sums(sums) => ReplyStep::Sums(
            sums.nodes
                .into_iter()
                .map(|node| {
                    Ok(PrefixSums {
                        prefix: prefix_from_wire(node.prefix.ok_or_else(|| missing("prefix"))?)?,
                        sums: array(node.sums)?,
                        counts: array(node.counts)?,
                    })
                })
                .collect::<Parsed<_>>()?,
        ),
        Step::Listing(listing) => ReplyStep::Listing(listing_from_wire(listing)?),
        Step::Wants(pull) => ReplyStep::Wants(wants_from_wire(&pull.wants)?),
        Step::Strays(strays) => ReplyStep::Strays(
            listing_from_wire(strays.listing.unwrap_or_default())?,
            optional_id_from_wire(&strays.next)?,
        ),
        Step::Records(records) => {
            ReplyStep::Records(records_from_wire(records.records)?, optional_id_from_wire(&records.next)?)
        }
        Step::Done(pb::PassDone {}) => ReplyStep::Done,
        Step::Unknown(pb::PassUnknown {}) => ReplyStep::Unknown,
    })
}
