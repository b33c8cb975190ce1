//! P4: a write that waits for all, under light load, beside a bare round trip over TCP.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::Error;
use crate::load::{Load, histogram};
use crate::results::Results;
use crate::systems::{Bench, Mesh, System};

const ASYNC: System = System::Mesh(Mesh::DEFAULT);
const ONE: System = System::Mesh(Mesh { ack: "one", ..Mesh::DEFAULT });
const ALL: System = System::Mesh(Mesh { ack: "all", ..Mesh::DEFAULT });
const TCP: &str = "bare TCP, 100 bytes there and 8 back";
const TCP_TWO: &str = "bare TCP, to two others at once";

pub(super) async fn measure(bench: &Bench, results: &mut Results) -> Result<(), Error> {
    let light =
        Load { users: 4, rate: Some(200.0), time: Duration::from_secs_f64(bench.secs()), routed: None };
    bench
        .side_by_side(&[ASYNC, ONE, ALL], results, async |system, running, results| {
            let (done, _) = running.load(light).await?;
            results.add(&system.name(), "light p50", "us", done.quantile(0.5));
            results.add(&system.name(), "light p99", "us", done.quantile(0.99));
            if system == ALL {
                for (what, others) in [(TCP, 1), (TCP_TWO, 2)] {
                    let (p50, p99) = round_trip(bench.secs(), others).await?;
                    results.add(what, "light p50", "us", p50);
                    results.add(what, "light p99", "us", p99);
                }
            }
            Ok(())
        })
        .await?;
    let names = [ASYNC.name(), ONE.name(), ALL.name()];
    results.table(
        "Waiting for other nodes: 200 writes a second",
        &["light p50", "light p99"],
        &[TCP, TCP_TWO, &names[0], &names[1], &names[2]],
        "The round trips are between threads with a runtime each, at the same pace.",
    );
    for (quantile, what, bound) in [("light p50", "median", 2.0), ("light p99", "99th percentile", 3.0)] {
        let systems = [&*names[2], &names[0], TCP];
        let trips = results.by_round(quantile, systems, |[all, none, tcp]| (all - none) / tcp);
        let what = format!("{what} of a write that waits for all, less that of one that does not");
        results.at_most("P4", &what, trips, bound, "round trips");
    }
    let two = results.by_round("light p50", [TCP_TWO, TCP], |[two, one]| two / one);
    results.floor("P4", "median of a bare round trip to two others at once", two, "round trips to one");
    let systems = [&*names[2], &names[0], TCP_TWO];
    let beside = results.by_round("light p50", systems, |[all, none, two]| (all - none) / two);
    let what = "median of a write that waits for all, less that of one that does not, beside that";
    results.floor("P4", what, beside, "bare round trips to two others at once");
    Ok(())
}

/// Median and 99th percentile of asking so many others and waiting for all, in microseconds, at the pace of the load.
async fn round_trip(secs: f64, others: usize) -> Result<(f64, f64), Error> {
    let mut streams = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..others {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let at = listener.local_addr()?;
        threads.push(std::thread::spawn(move || answer(listener)));
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let mut latency = histogram();
    let begun = Instant::now();
    while begun.elapsed().as_secs_f64() < secs {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let sent = Instant::now();
        for stream in &mut streams {
            stream.write_all(&[7; 100]).await?;
        }
        for stream in &mut streams {
            stream.read_exact(&mut [0; 8]).await?;
        }
        latency.record(u64::try_from(sent.elapsed().as_micros())?.max(1))?;
    }
    drop(streams);
    for thread in threads {
        thread.join().map_err(|_| "the other end panicked")??;
    }
    Ok((latency.value_at_quantile(0.5) as f64, latency.value_at_quantile(0.99) as f64))
}

/// The other end, until the stream ends.
fn answer(listener: std::net::TcpListener) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut stream, _) = TcpListener::from_std(listener)?.accept().await?;
        stream.set_nodelay(true)?;
        let mut message = [0; 100];
        while stream.read_exact(&mut message).await.is_ok() {
            stream.write_all(&message[..8]).await?;
        }
        Ok(())
    })
}
