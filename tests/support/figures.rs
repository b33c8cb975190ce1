//! What stories measured.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

static FIGURES: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Says what a story measured, and keeps it for the report.
#[allow(clippy::print_stdout)]
pub fn figure(story: &str, measured: impl Display) {
    println!("FIGURE {story}: {measured}");
    let mut figures = FIGURES.lock().unwrap_or_else(PoisonError::into_inner);
    figures.push((story.into(), measured.to_string()));
}

/// All that was measured, as a table in Markdown; nothing if there was nothing.
pub fn figures() -> Option<String> {
    let figures = FIGURES.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = figures.iter().map(|(story, measured)| format!("| {story} | {measured} |\n"));
    (!figures.is_empty()).then(|| format!("| story | measured |\n|---|---|\n{}", lines.collect::<String>()))
}
