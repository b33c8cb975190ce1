//! Faults on real processes and hosts, and what each costs: every story prints what it measured.
//!
//! By default in a size that takes seconds. In full, as docs/guarantees.md shows it, with a report at the end:
//! `cargo faults`, or `cargo faults kills` for some. They measure, so they run one after the other, and figures are worth
//! something on an idle machine only.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // A test that can't go on says so and stops.

mod cuts;
mod encryption;
mod expiry;
mod floods;
mod joins;
mod kills;
mod logouts;
mod movement;
mod reads;
mod resources;
mod stops;
mod writers;

use std::future::Future;
use std::process::Command;
use std::sync::Arc;

use cluster_tests::{Lan, Processes, figures};
use libtest_mimic::{Arguments, Trial};

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Quick,
    Full,
}

impl Size {
    fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// A story, and why it can't be told here, if so.
struct Story {
    name: String,
    missing: Option<String>,
    tell: Box<dyn FnOnce() + Send>,
}

const MODES: [&str; 2] = ["all-peers", "backup-only"];

impl Story {
    fn new(name: String, tell: impl FnOnce() + Send + 'static) -> Self {
        Self { name, missing: None, tell: Box::new(tell) }
    }

    fn needs(mut self, missing: Option<String>) -> Self {
        self.missing = missing;
        self
    }

    /// Of processes on loopback.
    fn one<F: Future<Output = ()> + 'static>(name: &str, size: Size, story: fn(Size) -> F) -> Vec<Self> {
        vec![Self::new(name.into(), move || runtime().block_on(story(size)))]
    }

    /// The same, in each mode.
    fn both<F: Future<Output = ()> + 'static>(
        name: &str,
        size: Size,
        story: fn(&'static str, Size) -> F,
    ) -> Vec<Self> {
        let tell = |mode: &'static str| {
            Self::new(in_mode(name, mode), move || runtime().block_on(story(mode, size)))
        };
        MODES.map(tell).into()
    }

    /// Of hosts on a network of their own, in each mode.
    fn on_hosts<F: Future<Output = ()> + 'static>(
        name: &str,
        hosts: usize,
        size: Size,
        story: fn(Arc<Lan>, &'static str, Size) -> F,
    ) -> Vec<Self> {
        let tell = |mode: &'static str| {
            let told = move || Lan::story(hosts, |lan| story(Arc::new(lan), mode, size));
            Self::new(in_mode(name, mode), told).needs(Lan::missing())
        };
        MODES.map(tell).into()
    }
}

fn in_mode(name: &str, mode: &str) -> String {
    format!("{}::{name}", mode.replace('-', "_"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A cluster of the program that was built with these tests.
fn processes(mode: &str) -> Processes {
    Processes::new(env!("CARGO_BIN_EXE_session-node-under-test")).with(&format!("--mode={mode}"))
}

/// As it is when nothing is set: the tests' usual times are shorter.
fn usual_times(cluster: Processes) -> Processes {
    cluster
        .with("--frequency=500ms")
        .with("--drop-time=3s")
        .with("--set=join_wait=2s")
        .with("--set=fetch_timeout=50ms")
}

/// How many nodes hold each session, of so many.
fn holders(mode: &str, nodes: usize) -> usize {
    if mode == "all-peers" { nodes } else { nodes.min(2) }
}

/// Of at least one figure.
fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let (full, rest): (Vec<String>, Vec<String>) =
        std::env::args().partition(|argument| argument == "--full");
    let size = if full.is_empty() { Size::Quick } else { Size::Full };
    let mut arguments = Arguments::from_iter(rest);
    arguments.test_threads.get_or_insert(1);
    let stories: Vec<Story> = [
        kills::stories(size),
        stops::stories(size),
        cuts::stories(size),
        encryption::stories(size),
        logouts::stories(size),
        writers::stories(size),
        joins::stories(size),
        expiry::stories(size),
        reads::stories(size),
        resources::stories(size),
        floods::stories(size),
        movement::stories(size),
    ]
    .into_iter()
    .flatten()
    .collect();
    let missing: std::collections::BTreeSet<&String> =
        stories.iter().flat_map(|story| &story.missing).collect();
    for missing in missing {
        eprintln!("NOT TESTED in part: {missing}");
    }
    let trials = stories.into_iter().map(|Story { name, missing, tell }| {
        let told = move || {
            tell();
            Ok(())
        };
        Trial::test(name, told).with_ignored_flag(missing.is_some())
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if let (Size::Full, Some(table)) = (size, figures()) {
        println!("{}\n\n{table}", machine());
    }
    conclusion.exit();
}

/// Which code and which machine figures are of.
fn machine() -> String {
    let commit = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let commit = commit.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = cpus.lines().filter_map(|line| line.strip_prefix("model name")).collect();
    let model = models.first().map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':']));
    format!("Commit {}, {} cores of {model}.", commit.unwrap_or_else(|_| "unknown".into()), models.len())
}
