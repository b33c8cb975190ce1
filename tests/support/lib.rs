//! What tests of whole clusters share: nodes in this process, nodes as processes, patience.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that can't go on says so and stops.

mod browser;
mod figures;
mod lan;
mod load;
mod net;
mod process;

pub use browser::{Answer, Browser};
pub use figures::{figure, figures};
pub use lan::{Lan, Traffic, has};
pub use load::{Load, Pace, Request, User, p99};
pub use net::{Net, eventually, within};
pub use process::{NodeProcess, Processes, Signal};

/// Each story as two tests, one in each mode; the story gets the mode as the configuration names it.
#[macro_export]
macro_rules! in_both_modes {
    ($($story:ident)*) => {
        mod all_peers {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() {
                    super::$story("all-peers").await;
                }
            )*
        }
        mod backup_only {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() {
                    super::$story("backup-only").await;
                }
            )*
        }
    };
}

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
