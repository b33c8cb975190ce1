//! Many seeds, on all cores.

#![allow(clippy::disallowed_methods)] // How long it takes here is told by the clock here.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::kept;
use crate::run::{Verdict, play, play_twice};
use crate::scenario::Kind;

/// Each seed that this divides is played again, to see that it decides everything.
const PLAYED_TWICE: u64 = 50;
/// Where no progress bar can be drawn, a line says after so many how far it is.
const SEEDS_PER_LINE: u64 = 10_000;
/// What every band of so many seeds must have had.
const ENOUGH_SEEDS: u64 = 1_000;
const MUST_HAPPEN: [&str; 38] = [
    "clock steps",
    "conflicting writes",
    "cuts",
    "cuts longer than the horizon",
    "donors lost",
    "ends aged out",
    "flapping links",
    "gaps pulled",
    "heals whose bytes were counted",
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
    "seeds played twice",
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

/// How a band is played.
pub(crate) struct Band {
    pub(crate) seeds: Range<u64>,
    /// What a seed stands for.
    pub(crate) kind: Kind,
    /// Those that once failed before them.
    pub(crate) and_kept: bool,
    pub(crate) jobs: usize,
    /// Past a violation too.
    pub(crate) keep_going: bool,
    /// Say how far it is.
    pub(crate) progress: bool,
}

/// What came of one.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) played: u64,
    counts: BTreeMap<&'static str, u64>,
    simulated: Duration,
    /// By seed.
    pub(crate) failed: BTreeMap<u64, Verdict>,
}

impl Band {
    /// Plays it.
    pub(crate) fn play(&self) -> Outcome {
        let kept = kept::of(self.kind).iter().map(|(seed, _)| *seed);
        let kept = kept.filter(|seed| self.and_kept && !self.seeds.contains(seed));
        let seeds: Vec<u64> = kept.chain(self.seeds.clone()).collect();
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let outcome = Mutex::new(Outcome::default());
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(&seed) = seeds.get(number) else { break };
                        let scenario = self.kind.of(seed);
                        let verdict = match seed % PLAYED_TWICE {
                            0 => play_twice(scenario),
                            _ => play(scenario, usize::MAX),
                        };
                        let mut outcome = outcome.lock().unwrap();
                        if self.keep_going {
                            say_failed(seed, &verdict);
                        }
                        outcome.add(seed, verdict);
                        if !outcome.failed.is_empty() {
                            stop.store(!self.keep_going, Ordering::Relaxed);
                        }
                        self.say_progress(&outcome, seeds.len() as u64, begun);
                    }
                });
            }
        });
        outcome.into_inner().unwrap()
    }

    fn say_progress(&self, outcome: &Outcome, all: u64, begun: Instant) {
        let mut out = std::io::stderr();
        if self.progress && !out.is_terminal() && outcome.played.is_multiple_of(SEEDS_PER_LINE) {
            let _ = writeln!(
                out,
                "{} of {all} seeds, {:.1} simulated hours in {:.0} s, {} failed",
                outcome.played,
                outcome.simulated.as_secs_f64() / 3_600.0,
                begun.elapsed().as_secs_f64(),
                outcome.failed.len(),
            );
        }
        if self.progress && out.is_terminal() {
            let rate = outcome.played as f64 / begun.elapsed().as_secs_f64();
            let done = (outcome.played * 30 / all.max(1)) as usize;
            let left = Duration::from_secs_f64((all - outcome.played) as f64 / rate.max(0.001));
            let _ = write!(
                out,
                "\r[{}{}] {} of {all} seeds, {rate:.0} a second, {} failed, {} s left   ",
                "#".repeat(done),
                ".".repeat(30 - done),
                outcome.played,
                outcome.failed.len(),
                left.as_secs()
            );
        }
    }
}

/// At once: who breaks off a long band has seen what it found.
fn say_failed(seed: u64, verdict: &Verdict) {
    if let Some(violation) = verdict.violations.first() {
        eprintln!("\nseed {seed} fails: {violation}");
    }
}

impl Outcome {
    fn add(&mut self, seed: u64, verdict: Verdict) {
        self.played += 1;
        for (what, times) in &verdict.counts {
            *self.counts.entry(what).or_default() += times;
        }
        self.simulated += verdict.simulated;
        if !verdict.violations.is_empty() {
            self.failed.insert(seed, verdict);
        }
    }
}

/// Plays a band and says what came of it.
pub(crate) fn report(band: &Band) -> ExitCode {
    let (begun, commit) = (Instant::now(), commit());
    let outcome = band.play();
    let took = begun.elapsed().as_secs_f64();
    let hours = outcome.simulated.as_secs_f64() / 3_600.0;
    println!(
        "commit {commit}: {} seeds of kind {} from {} and those kept, {hours:.1} simulated hours in {took:.1} s: {:.0} seeds and {:.2} hours a second",
        outcome.played,
        band.kind.name(),
        band.seeds.start,
        outcome.played as f64 / took,
        hours / took
    );
    for (what, times) in &outcome.counts {
        println!("{times:>12} {what}");
    }
    // A band in which nothing happened proves nothing.
    let idle: Vec<&str> = MUST_HAPPEN.into_iter().filter(|what| !outcome.counts.contains_key(what)).collect();
    let vacuous = band.kind == Kind::Any && outcome.played >= ENOUGH_SEEDS && !idle.is_empty();
    if vacuous {
        println!("FAILED: in {} seeds there was none of: {}", outcome.played, idle.join(", "));
    }
    for (seed, verdict) in &outcome.failed {
        println!("FAILED: seed {seed}");
        for violation in verdict.violations.iter().take(5) {
            println!("    {violation}");
        }
    }
    if let Some((seed, verdict)) = outcome.failed.first_key_value() {
        explain(band.kind, *seed, verdict);
    }
    if vacuous || !outcome.failed.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("every invariant held");
    ExitCode::SUCCESS
}

/// The fewest faults with which a seed still fails, and where its log is.
pub(crate) fn explain(kind: Kind, seed: u64, verdict: &Verdict) {
    let all = verdict.counts.get("faults").copied().unwrap_or_default() as usize;
    let failing = (0..all).map(|faults| (faults, play(kind.of(seed), faults)));
    let least = failing.into_iter().find(|(_, verdict)| !verdict.violations.is_empty());
    let (faults, log) = least.as_ref().map_or((all, &verdict.log), |(faults, least)| (*faults, &least.log));
    let path = std::env::temp_dir().join(format!("sessionmesh-seed-{seed}.log"));
    let kept = match std::fs::write(&path, log) {
        Ok(()) => format!("its log is {}", path.display()),
        Err(error) => format!("its log could not be written to {}: {error}", path.display()),
    };
    println!(
        "commit {}: seed {seed} fails with the first {faults} of its {all} faults; {kept}; again: cargo simulate \
         --kind {} --seed {seed} --faults {faults} --log",
        commit(),
        kind.name()
    );
}

/// Which code this is.
pub(crate) fn commit() -> String {
    let git =
        std::process::Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let said = git.ok().filter(|git| git.status.success());
    said.map_or_else(|| "unknown".into(), |git| String::from_utf8_lossy(&git.stdout).trim().to_owned())
}
