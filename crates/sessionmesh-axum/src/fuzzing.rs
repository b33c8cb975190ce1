//! What is private otherwise. For fuzzing alone (`--cfg fuzzing`).

use http::HeaderMap;
use tower_sessions::session::Id;

use crate::CookieConfig;

/// The session id that a request carries.
pub fn session_id(config: &CookieConfig, headers: &HeaderMap) -> Option<Id> {
    config.take(&mut headers.clone())?.id()
}
