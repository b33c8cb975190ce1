//! Many seeds, on all cores.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;

use crate::run::{Verdict, note_panics, play};

#[derive(Debug, Parser)]
#[command(name = "cargo simulate", about = "Whole clusters, on virtual time, from one seed each")]
struct Args {
    /// From this seed up to, not including, that one.
    #[arg(long, default_value = "0..1000", value_parser = band)]
    seeds: (u64, u64),
    /// One seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens.
    #[arg(long)]
    log: bool,
    /// Print what the nodes log too, as it happens; for one seed.
    #[arg(long)]
    trace: bool,
    /// Threads; all cores by default.
    #[arg(long)]
    jobs: Option<usize>,
    /// Go on after a violation.
    #[arg(long)]
    keep_going: bool,
}

fn band(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("{text:?} is no band of seeds: use FROM..TO, like 0..1000");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    Ok((from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?))
}

/// What every band of so many seeds must have had.
const ENOUGH_SEEDS: u64 = 200;
const MUST_HAPPEN: [&str; 36] = [
    "clock steps",
    "conflicting writes",
    "cuts",
    "cuts longer than the horizon",
    "donors lost",
    "ends aged out",
    "flapping links",
    "gaps pulled",
    "join storms",
    "kills",
    "leaves",
    "logins",
    "logouts",
    "look-ups undecided",
    "members dropped",
    "nodes that doubted",
    "nodes that started empty",
    "outboxes overflowed",
    "parts dropped",
    "pauses",
    "power failures",
    "reads",
    "reads marked stale",
    "reads with a token",
    "records brought by passes",
    "requests without an answer",
    "sessions denied",
    "sessions expired",
    "slow receivers",
    "starts of another protocol version",
    "strays moved",
    "swizzles",
    "writes",
    "writes after the end",
    "writes lost with all their holders",
    "writes that missed their level",
];

/// What all threads add to.
#[derive(Default)]
struct Sum {
    counts: BTreeMap<&'static str, u64>,
    simulated: Duration,
    failed: Vec<Verdict>,
}

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    let (from, to) = args.seed.map_or(args.seeds, |seed| (seed, seed + 1));
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    if args.trace {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
            .without_time()
            .with_ansi(false)
            .init();
    }
    note_panics();
    let (next, stop) = (AtomicU64::new(from), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        break;
                    }
                    let verdict = play(seed);
                    if args.log {
                        println!("{}", verdict.log);
                    }
                    let mut sum = sum.lock().unwrap();
                    for (what, times) in &verdict.counts {
                        *sum.counts.entry(what).or_default() += times;
                    }
                    sum.simulated += verdict.simulated;
                    if !verdict.violations.is_empty() {
                        stop.store(!args.keep_going, Ordering::Relaxed);
                        sum.failed.push(verdict);
                    }
                    progress(seed - from + 1, to - from, begun, sum.failed.len());
                }
            });
        }
    });
    report(sum.into_inner().unwrap(), next.into_inner().min(to) - from, begun)
}

fn progress(done: u64, all: u64, begun: Instant, failed: usize) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        let rate = done as f64 / begun.elapsed().as_secs_f64();
        let _ = write!(out, "\r{done} of {all} seeds, {rate:.0} a second, {failed} failed   ");
    }
}

fn report(sum: Sum, seeds: u64, begun: Instant) -> ExitCode {
    let took = begun.elapsed();
    println!(
        "{seeds} seeds, {:.1} simulated hours in {:.1} s: {:.0} seeds and {:.2} hours a second",
        sum.simulated.as_secs_f64() / 3_600.0,
        took.as_secs_f64(),
        seeds as f64 / took.as_secs_f64(),
        sum.simulated.as_secs_f64() / 3_600.0 / took.as_secs_f64()
    );
    for (what, times) in &sum.counts {
        println!("{times:>12} {what}");
    }
    // A band in which nothing happened proves nothing.
    let idle: Vec<&str> = MUST_HAPPEN.into_iter().filter(|what| !sum.counts.contains_key(what)).collect();
    if seeds >= ENOUGH_SEEDS && !idle.is_empty() {
        println!("FAILED: in {seeds} seeds there was none of: {}", idle.join(", "));
    }
    for verdict in &sum.failed {
        println!("FAILED: seed {}", verdict.scenario.seed);
        for violation in verdict.violations.iter().take(5) {
            println!("    {violation}");
        }
    }
    if let Some(verdict) = sum.failed.first() {
        println!("see it: cargo simulate --seed {} --log", verdict.scenario.seed);
        return ExitCode::FAILURE;
    }
    if seeds >= ENOUGH_SEEDS && !idle.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("every invariant held");
    ExitCode::SUCCESS
}
