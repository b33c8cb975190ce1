//! What to simulate, from the command line.

use std::ops::Range;
use std::process::ExitCode;

use clap::Parser;

use crate::band::{self, Band};
use crate::run::{note_panics, play};
use crate::scenario::Kind;
use crate::{mutants, scale};

#[derive(Debug, Parser)]
#[command(name = "cargo simulate", about = "Whole clusters, on virtual time, from one seed each")]
struct Args {
    /// From this seed up to, not including, that one.
    #[arg(long, default_value = "0..1000", value_parser = seeds)]
    seeds: Range<u64>,
    /// One seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// What a seed stands for.
    #[arg(long, value_enum, default_value_t)]
    kind: Kind,
    /// Of that seed, only so many faults.
    #[arg(long, requires = "seed")]
    faults: Option<usize>,
    /// Print everything that happens; for one seed.
    #[arg(long, requires = "seed")]
    log: bool,
    /// Print what the nodes log too, as it happens; for one seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Threads; all cores by default.
    #[arg(long)]
    jobs: Option<usize>,
    /// Go on after a violation.
    #[arg(long)]
    keep_going: bool,
    /// Deliberate defects instead: how many seeds it takes to find each.
    #[arg(long)]
    mutants: bool,
    /// Only the mutant of this name.
    #[arg(long, requires = "mutants")]
    only: Option<String>,
    /// Clusters of 8, 50, 100 and 200 nodes instead: that they settle, and what they send.
    #[arg(long)]
    scale: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{text:?} is no band of seeds: use FROM..TO, like 0..1000");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    Ok(from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?)
}

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    note_panics();
    if args.mutants {
        return mutants::report(jobs, args.only.as_deref());
    }
    if args.scale {
        return scale::report();
    }
    let Some(seed) = args.seed else {
        return band::report(&Band {
            seeds: args.seeds,
            kind: args.kind,
            and_kept: true,
            jobs,
            keep_going: args.keep_going,
            progress: true,
        });
    };
    if args.trace {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
            .without_time()
            .with_ansi(false)
            .init();
    }
    let verdict = play(args.kind.of(seed), args.faults.unwrap_or(usize::MAX));
    if args.log {
        println!("{}", verdict.log);
    }
    for (what, times) in &verdict.counts {
        println!("{times:>12} {what}");
    }
    for violation in &verdict.violations {
        println!("FAILED: {violation}");
    }
    if verdict.violations.is_empty() {
        println!("every invariant held");
        return ExitCode::SUCCESS;
    }
    if args.faults.is_none() {
        band::explain(args.kind, seed, &verdict);
    }
    ExitCode::FAILURE
}
