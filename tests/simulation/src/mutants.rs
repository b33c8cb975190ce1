//! Deliberate defects: each must be found.

use std::process::ExitCode;

use sessionmesh::simulation::{Mutant, choose};

use crate::band::Band;
use crate::scenario::Kind;

/// Each is found within so many seeds.
const MOST_SEEDS: u64 = 4_000;

/// What the seeds stand for: the same as in a band, but for defects that only show in a moment that few of those have.
fn kind(mutant: Mutant) -> Kind {
    match mutant {
        Mutant::DenialUnsettled => Kind::Merging,
        Mutant::HelloOutlived => Kind::Distant,
        _ => Kind::Any,
    }
}

/// Plays each mutant until an invariant is violated, and prints how long that took.
pub(crate) fn report(jobs: usize, only: Option<&str>) -> ExitCode {
    println!("| mutant | what is wrong with it | found by seed | invariant |");
    println!("|---|---|---|---|");
    let (mut tried, mut missed) = (0, Vec::new());
    let wanted = |mutant: &&Mutant| only.is_none_or(|only| format!("{mutant:?}") == only);
    for mutant in Mutant::ALL.iter().filter(wanted) {
        tried += 1;
        choose(Some(*mutant));
        let band = Band {
            seeds: 0..MOST_SEEDS,
            kind: kind(*mutant),
            and_kept: false,
            jobs,
            keep_going: false,
            progress: false,
        };
        let outcome = band.play();
        let found = outcome.failed.first_key_value();
        let (seed, invariant) = found.map_or_else(
            || ("-".to_owned(), "-".to_owned()),
            |(seed, verdict)| (seed.to_string(), verdict.invariant().unwrap_or("-").to_owned()),
        );
        println!("| {mutant:?} | {} | {seed} | {invariant} |", mutant.what());
        if found.is_none() {
            missed.push(format!("{mutant:?}"));
        }
    }
    choose(None);
    if tried == 0 {
        println!("FAILED: there is no mutant {}", only.unwrap_or_default());
        return ExitCode::FAILURE;
    }
    if missed.is_empty() {
        println!("all {tried} found");
        return ExitCode::SUCCESS;
    }
    println!("FAILED: not found in {MOST_SEEDS} seeds: {}", missed.join(", "));
    ExitCode::FAILURE
}
