//! Why nodes do not find each other, in plain words.

use std::process::ExitCode;

use sessionmesh::{Finding, Verdict};

use crate::args::Args;

#[allow(clippy::print_stdout)]
pub(crate) fn run(args: &Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return crate::failed(&error),
    };
    let findings = match args.config() {
        Ok(config) => runtime.block_on(sessionmesh::diagnose(&config)),
        Err(error) => vec![Finding { verdict: Verdict::Wrong, text: error.to_string() }],
    };
    for finding in &findings {
        println!("{finding}");
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    match (count(Verdict::Wrong), count(Verdict::Note)) {
        (0, 0) => println!("nothing is wrong"),
        (0, notes) => println!("nothing is wrong; {notes} to note"),
        (wrong, _) => {
            println!("wrong: {wrong}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
