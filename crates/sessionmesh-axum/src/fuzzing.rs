//! What is private otherwise. For fuzzing alone (`--cfg fuzzing`).

use http::HeaderMap;
use tower_sessions::session::Id;

use crate::CookieConfig;
use crate::suffix::Suffix;

/// What a session cookie said.
#[derive(Debug)]
pub struct Carried {
    /// The id, if it is a plain one.
    pub id: Option<Id>,
    /// The end of its value, as this crate writes it.
    pub suffix: Option<String>,
}

/// Takes the end of the session cookie off a request's headers.
pub fn take(config: &CookieConfig, headers: &mut HeaderMap) -> Option<Carried> {
    let carried = config.take(headers)?;
    Some(Carried { id: carried.id(), suffix: carried.suffix().map(ToString::to_string) })
}

/// Reads the end of a value, and writes it again.
pub fn parse(suffix: &str) -> String {
    Suffix::parse(suffix).to_string()
}
