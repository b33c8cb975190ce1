//! Whole clusters of the code that ships, in one thread, on virtual time; one seed decides everything.
//!
//! ```text
//! cargo simulate --seeds 0..10000       # a band, on all cores
//! cargo simulate --seed 4711 --log      # one, and everything that happened in it
//! cargo simulate --mutants              # deliberate defects, and the seed that finds each
//! cargo simulate --scale                # 8 to 200 nodes, and what each sends
//! ```
//!
//! | file | what |
//! |---|---|
//! | `scenario` | what a seed decides before anything happens |
//! | `cluster` | nodes that start, stop, and are looked into |
//! | `faults` | what is done to them |
//! | `users` | what is asked of them |
//! | `history` | what was asked, answered and promised: what the oracle knows |
//! | `invariants` | what must hold, one a file |
//! | `run` | one seed, from its beginning to its verdict |
//! | `band` | many seeds |
//! | `kept` | those that once failed |
//! | `mutants` | deliberate defects, which must be found |
//! | `scale` | large clusters |
//! | `args` | the command line |

#![allow(clippy::unwrap_used, clippy::print_stdout)] // A simulator that can't go on says so and stops.

#[cfg(sessionmesh_simulation)]
mod args;
#[cfg(sessionmesh_simulation)]
mod band;
#[cfg(sessionmesh_simulation)]
mod cluster;
#[cfg(sessionmesh_simulation)]
mod faults;
#[cfg(sessionmesh_simulation)]
mod history;
#[cfg(sessionmesh_simulation)]
mod invariants;
#[cfg(sessionmesh_simulation)]
mod kept;
#[cfg(sessionmesh_simulation)]
mod mutants;
#[cfg(sessionmesh_simulation)]
mod run;
#[cfg(sessionmesh_simulation)]
mod scale;
#[cfg(sessionmesh_simulation)]
mod scenario;
#[cfg(sessionmesh_simulation)]
mod users;

#[cfg(sessionmesh_simulation)]
fn main() -> std::process::ExitCode {
    args::main()
}

#[cfg(not(sessionmesh_simulation))]
fn main() {
    println!("run it as `cargo simulate`: it needs the crate built for simulated hosts");
}
