//! What operators and browsers write.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use sessionmesh::Config;
use sessionmesh_axum::CookieConfig;

/// A TOML file; the same bytes as one option and its value.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A fuzzer opens no files.
    if text.contains("secret_file") {
        return;
    }
    let mut config = Config::new();
    match config.load_toml(text) {
        Ok(config) => drop(config.validate()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Some((key, value)) = text.split_once('=') {
        let mut config = Config::new();
        match config.set(key, value) {
            Ok(config) => drop(config.validate()),
            // An operator must see what to mend.
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains(key) || error.contains(&format!("{key:?}")), "{key:?}: {error}");
            }
        }
    }
}

/// Cookie headers, one a line.
pub fn cookie(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(16) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(COOKIE, value);
        }
    }
    let Some(carried) = sessionmesh_axum::fuzzing::take(&CookieConfig::default(), &mut headers) else {
        return;
    };
    let sent = String::from_utf8_lossy(data);
    if let Some(id) = carried.id {
        assert!(sent.contains(&id.to_string()));
    }
    // What was taken off comes back as it was when it is put on again.
    if let Some(suffix) = carried.suffix {
        assert_eq!(sessionmesh_axum::fuzzing::parse(&suffix), suffix);
    }
}
