//! A session's way to a node that joins, a step at a time: both sides of a pass in one thread, over the core that ships.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use sessionmesh_core::replication::Table as _;
use sessionmesh_core::replication::pass::{PartSum, PassDriver, PassResponder, Summary};
use sessionmesh_core::session::{Change, Record, SessionLimits};
use sessionmesh_core::wire::{Frame, FrameDecoder, FrameLimit, PassReply};
use sessionmesh_core::{BootId, Hlc, HybridClock, Now, Stamp};

use crate::Error;
use crate::tables::{PARTS, Parts, id};
use crate::tls::Encrypted;

/// What is done with a session, in this order; the last two by the joiner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Found in the donor's table, and shared.
    Read,
    /// As bytes.
    Encode,
    /// TLS, on both sides.
    Encrypt,
    /// Bytes as a session.
    Decode,
    /// Into the joiner's table.
    Apply,
}

/// How long each step took for all sessions.
pub type StepTimes = [Duration; Step::ALL.len()];

impl Step {
    /// All, in order.
    pub const ALL: [Self; 5] = [Self::Read, Self::Encode, Self::Encrypt, Self::Decode, Self::Apply];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read from the donor's table",
            Self::Encode => "encode a session",
            Self::Encrypt => "encrypt and decrypt",
            Self::Decode => "decode a session",
            Self::Apply => "apply to the joiner's table",
        }
    }
}

/// A donor with sessions of four attributes of 100 bytes.
pub struct Transfer {
    boot: BootId,
    clock: HybridClock,
    donor: Arc<Parts>,
    tls: Encrypted,
    now: Now,
}

impl Transfer {
    /// With so many sessions.
    ///
    /// # Errors
    /// No TLS.
    pub fn new(sessions: usize) -> Result<Self, Error> {
        let boot = BootId::new(7).ok_or("no boot")?;
        let now = Now { mono: sessionmesh_core::Instant::ZERO, wall_ms: 1_000_000 };
        let (donor, limits) = (Parts::new(), SessionLimits::default());
        for n in 0..sessions {
            let attribute = |name: &'static str| (name.into(), Some(Bytes::from(vec![b'x'; 100])));
            let change = Change { attributes: ["a", "b", "c", "d"].map(attribute).into(), limits: None };
            let stamp = Stamp { hlc: Hlc::from_raw((now.wall_ms << 16) + n as u64), origin: boot };
            let (record, _) = Record::create(id(n), stamp, now.mono, change, &limits)?;
            donor.with(&id(n), |slot| *slot = Some(record));
        }
        Ok(Self { boot, clock: HybridClock::new(), donor: Arc::new(donor), tls: Encrypted::new()?, now })
    }

    /// All of them to a joiner that has none.
    ///
    /// # Errors
    /// TLS's, or not all have come.
    pub fn carry(&mut self) -> Result<StepTimes, Error> {
        let mut times = StepTimes::default();
        let mut timed = |step: Step, begun: Instant| times[step as usize] += begun.elapsed();
        let (joiner, clock) = (Parts::new(), HybridClock::new());
        let (donor, parts) = (self.donor.clone(), self.donor.clone());
        let sums = (0..PARTS).map(|part| PartSum::uncompared(donor.ids(part).len() as u64));
        let list = move |part: usize, _| parts.ids(part).into_iter().map(|id| (id, 0)).collect();
        let mut responder = PassResponder::new(Summary::new(sums.collect(), list));
        let nothing = Summary::new(vec![PartSum::default(); PARTS], |_, _| Vec::new());
        let mut driver = PassDriver::new(nothing);
        let decoder = FrameDecoder::new(self.boot, FrameLimit(1 << 20));
        let (mut cipher, mut plain) = (Vec::new(), BytesMut::new());
        let mut asked = VecDeque::new();
        while !driver.is_done() {
            asked.extend(std::iter::from_fn(|| driver.poll_request(&joiner, self.now)));
            let begun = Instant::now();
            let request = asked.pop_front().ok_or("the pass stands still")?;
            let reply = responder.handle(request, &*donor, &self.clock, self.now, |_, _| ())?;
            timed(Step::Read, begun);

            let begun = Instant::now();
            let bytes = Frame::PassReply(PassReply { pass: 1, view: 1, step: reply }).encode();
            timed(Step::Encode, begun);

            cipher.clear();
            let begun = Instant::now();
            self.tls.encrypt(&bytes, &mut cipher)?;
            self.tls.decrypt(&cipher, &mut plain)?;
            timed(Step::Encrypt, begun);

            let begun = Instant::now();
            let Some(Frame::PassReply(reply)) = decoder.next(&mut plain)? else {
                return Err("what arrived is no reply".into());
            };
            timed(Step::Decode, begun);

            let begun = Instant::now();
            driver.handle_reply(reply.step, &joiner, &clock, self.now, |_, _| ())?;
            timed(Step::Apply, begun);
        }
        if joiner.len() != self.donor.len() {
            return Err(format!("{} of {} sessions have come", joiner.len(), self.donor.len()).into());
        }
        Ok(times)
    }
}
