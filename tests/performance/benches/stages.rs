//! Each stage of a change's way beside the least that any program would do there: `cargo bench --manifest-path
//! tests/performance/Cargo.toml`. With `-- --test` once: shows that it works.

#![allow(clippy::disallowed_methods)] // It measures real time.
#![allow(clippy::unwrap_used)] // It measures; what can't go on stops.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use performance::{BATCH, Stage, Way, changes};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sessionmesh_core::SessionId;

/// A delta of 100 bytes as a frame, about.
const FRAME_BYTES: usize = 150;
/// TLS has it so.
const RECORD_BYTES: usize = 16 << 10;

/// `of` prepares untimed and gives back how long the rest took, for one batch.
fn bench(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut of: impl FnMut() -> Duration) {
    group.bench_function(name, |bencher| bencher.iter_custom(|times| (0..times).map(|_| of()).sum()));
}

fn timed<R>(f: impl FnOnce() -> R) -> Duration {
    let begun = Instant::now();
    black_box(f());
    begun.elapsed()
}

fn stages(criterion: &mut Criterion) {
    let mut way = Way::new().unwrap();
    for stage in Stage::ALL {
        let mut group = criterion.benchmark_group(stage.name());
        group.throughput(Throughput::Elements(BATCH as u64));
        bench(&mut group, "sessionmesh", || way.carry().unwrap()[stage as usize]);
        baseline(&mut group, stage);
        group.finish();
    }
    let mut group = criterion.benchmark_group("digest");
    group.throughput(Throughput::Elements(BATCH as u64));
    bench(&mut group, "sessionmesh", || timed(|| way.digest()));
    let values: Vec<Bytes> = (0..BATCH).map(|n| Bytes::from(vec![n as u8; 100])).collect();
    bench(&mut group, "xxh3 of the values", || {
        timed(|| values.iter().fold(0, |all, value| all ^ xxhash_rust::xxh3::xxh3_64(value)))
    });
    group.finish();
}

fn baseline(group: &mut BenchmarkGroup<'_, WallTime>, stage: Stage) {
    let frames: Vec<Bytes> = (0..BATCH).map(|n| Bytes::from(vec![n as u8; FRAME_BYTES])).collect();
    let joined: BytesMut = frames.iter().flatten().copied().collect();
    match stage {
        Stage::Commit | Stage::Apply => {
            let map: DashMap<SessionId, Bytes, foldhash::fast::RandomState> = DashMap::default();
            let mut batch = 0;
            bench(group, "dashmap, a value of 100 bytes replaced", || {
                let values = changes(batch).into_iter();
                let values: Vec<_> = values
                    .map(|(id, change)| (id, change.attributes.into_iter().next().unwrap().1.unwrap()))
                    .collect();
                batch += 1;
                timed(|| values.into_iter().for_each(|(id, value)| drop(map.insert(id, value))))
            });
        }
        Stage::Encode => bench(group, "memcpy into a block for each", || {
            timed(|| frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect::<Vec<_>>())
        }),
        Stage::Queue => bench(group, "VecDeque, then memcpy", || {
            timed(|| {
                let mut queue: VecDeque<Bytes> = frames.iter().cloned().collect();
                let mut buffer = BytesMut::with_capacity(joined.len());
                while let Some(frame) = queue.pop_front() {
                    buffer.extend_from_slice(&frame);
                }
                buffer
            })
        }),
        Stage::Encrypt | Stage::Decrypt => {
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
            bench(group, "AES-256-GCM in place", || {
                let mut bytes = joined.clone();
                timed(|| {
                    for record in bytes.chunks_mut(RECORD_BYTES) {
                        let nonce = Nonce::assume_unique_for_key([7; 12]);
                        let _ =
                            black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), record).unwrap());
                    }
                })
            });
        }
        // Nothing less than the system call can be done.
        Stage::Write | Stage::Read => {}
        Stage::Decode => bench(group, "memcpy", || timed(|| joined.clone())),
    }
}

criterion_group!(benches, stages);
criterion_main!(benches);
