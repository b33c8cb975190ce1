//! A change's whole way through the core, so often: `hot_path STAGE TIMES`. What `.ci/instructions` counts.
//!
//! `commit` makes the change, encodes it and appends it to an outbox; `fill` also moves it into a link's buffer; `decode`
//! also takes it out on the other side; `apply` also applies it there.

#![allow(clippy::unwrap_used)] // It measures; what can't go on stops.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sessionmesh_core::replication::commit::{self, Origin, Streams};
use sessionmesh_core::replication::{Inbox, Outbox, Table, receive};
use sessionmesh_core::session::{Change, ChangeError, Record, SessionLimits};
use sessionmesh_core::wire::{FrameDecoder, FrameLimit};
use sessionmesh_core::{BootId, HybridClock, Instant, Now, SessionId};

#[derive(Default)]
struct Sessions(RefCell<HashMap<SessionId, Option<Record>>>);

impl Table for Sessions {
    fn with<R>(&self, id: &SessionId, f: impl FnOnce(&mut Option<Record>) -> R) -> R {
        f(self.0.borrow_mut().entry(*id).or_default())
    }

    fn read<R>(&self, id: &SessionId, f: impl FnOnce(Option<&Record>) -> R) -> R {
        f(self.0.borrow().get(id).and_then(Option::as_ref))
    }

    fn for_each(&self, mut f: impl FnMut(&SessionId, &Record)) {
        for (id, record) in self.0.borrow().iter() {
            record.iter().for_each(|record| f(id, record));
        }
    }
}

struct Stream(RefCell<Outbox<()>>);

impl Streams for Stream {
    fn is_awaited(&self, _: &SessionId) -> bool {
        false
    }

    fn send(&self, _: &SessionId, frame: &Bytes) {
        let _ = self.0.borrow_mut().append(frame, None, Instant::ZERO);
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (stage, times) = (args.next().unwrap(), args.next().unwrap().parse::<u64>().unwrap());
    let through = ["commit", "fill", "decode", "apply"].iter().position(|name| *name == stage).unwrap();

    let boot = BootId::new(7).unwrap();
    let (clock, other_clock, limits) = (HybridClock::new(), HybridClock::new(), SessionLimits::default());
    let (here, there) = (Sessions::default(), Sessions::default());
    let stream = Stream(RefCell::new(Outbox::new(1 << 30)));
    stream.0.borrow_mut().open(Instant::ZERO);
    let decoder = FrameDecoder::new(boot, FrameLimit(1 << 20));
    let (mut inbox, mut nothing, mut wire) = (Inbox::new(), Inbox::new(), BytesMut::with_capacity(1 << 16));
    let ids: Vec<SessionId> = (0..100).map(|n| SessionId::from_bytes([n; 16])).collect();

    for (n, id) in (0..times).zip(ids.iter().cycle()) {
        let now = Now { mono: Instant::ZERO, wall_ms: 1_000_000 + n };
        let origin = Origin { boot, clock: &clock, limits: &limits, now };
        let mut value = vec![b'x'; 100];
        value[..8].copy_from_slice(&n.to_be_bytes());
        let value = Bytes::from(value);
        let change = Change { attributes: vec![("k".into(), Some(value))], limits: None };
        if here.read(id, |record| record.is_none()) {
            commit::create(&here, &stream, origin, *id, change).unwrap();
        } else {
            let changed = commit::change::<ChangeError>(&here, &stream, origin, *id, |_| Ok(change));
            assert!(changed.unwrap().is_some());
        }
        if through == 0 {
            continue;
        }
        // As much as a link takes at once.
        if n % 32 == 31 {
            let _ =
                stream.0.borrow_mut().fill(&mut nothing, &mut wire, 1 << 16, Instant::ZERO, Duration::ZERO);
        }
        if through == 1 {
            wire.clear();
            continue;
        }
        while let Some(frame) = decoder.next(&mut wire).unwrap() {
            if through == 3 {
                let _ = receive(&there, &other_clock, &mut inbox, frame, Duration::ZERO, now.into(), |_| ());
            }
        }
    }
}
