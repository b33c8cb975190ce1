//! Nodes on hosts of their own: real multicast, cables that are pulled, switches that drop.
//!
//! Needs root, for network namespaces; where that can't be had, every story shows as ignored.

#![allow(clippy::unwrap_used)] // A test that can't go on says so and stops.

mod cables;
mod diagnose;
mod names;

use std::sync::Arc;

use cluster_tests::{Lan, Processes};
use libtest_mimic::{Arguments, Trial};

#[allow(clippy::print_stderr)]
fn main() {
    let missing = Lan::missing();
    if let Some(missing) = &missing {
        eprintln!("NOT TESTED on hosts of their own: {missing}");
    }
    let stories = [cables::stories(), names::stories(), diagnose::stories()].concat();
    let trials = stories.into_iter().map(|(name, story)| {
        let told = move || {
            story();
            Ok(())
        };
        Trial::test(name, told).with_ignored_flag(missing.is_some())
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

/// A story's name, and how it is told.
type Story = (&'static str, fn());

/// Async functions that take a `Lan`, each with so many hosts.
#[macro_export]
macro_rules! stories {
    ($($story:ident on $hosts:literal)*) => {
        vec![$((stringify!($story), || cluster_tests::Lan::story($hosts, $story)),)*]
    };
}

/// A cluster on these hosts, of the program that was built with these tests.
fn processes(lan: &Arc<Lan>) -> Processes {
    Processes::new(env!("CARGO_BIN_EXE_session-node-under-test")).on(lan)
}
