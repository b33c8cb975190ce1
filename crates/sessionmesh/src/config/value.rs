//! Values of options, from text.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::error::ConfigError;

pub(super) fn bad(key: &'static str, value: &str, expected: impl Into<String>) -> ConfigError {
    ConfigError::BadValue { key, value: value.into(), expected: expected.into() }
}

pub(super) fn parse<T: FromStr>(key: &'static str, value: &str, expected: &str) -> Result<T, ConfigError> {
    value.trim().parse().map_err(|_| bad(key, value, expected))
}

pub(super) fn in_range<T: FromStr + PartialOrd + Display>(
    key: &'static str,
    value: &str,
    low: T,
    high: T,
) -> Result<T, ConfigError> {
    let expected = format!("use a whole number from {low} to {high}");
    let number: T = parse(key, value, &expected)?;
    if number < low || number > high { Err(bad(key, value, expected)) } else { Ok(number) }
}

const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

pub(super) fn duration(key: &'static str, value: &str) -> Result<Duration, ConfigError> {
    let parsed = humantime::parse_duration(value.trim()).map_err(|error| {
        bad(key, value, format!("use a number with a unit, like 500ms, 3s or 30m ({error})"))
    })?;
    match parsed {
        Duration::ZERO => Err(bad(key, value, "it must be longer than zero")),
        // Sums of several must not overflow.
        parsed if parsed > LONGEST => Err(bad(key, value, "it must be ten years at most")),
        parsed => Ok(parsed),
    }
}

/// Bytes: a number, or one with `KiB`, `MiB` or `GiB`.
pub(super) fn bytes(key: &'static str, value: &str) -> Result<usize, ConfigError> {
    let text = value.trim();
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let (digits, shift) = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), *shift)))
        .unwrap_or((text, 0));
    let number: Option<usize> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(1usize << shift))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| bad(key, value, "use a number of bytes, like 65536, 64KiB or 32MiB"))
}

/// One of some words.
pub(super) fn word<T: Copy>(key: &'static str, value: &str, words: &[(&str, T)]) -> Result<T, ConfigError> {
    words.iter().find(|(word, _)| *word == value.trim()).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        bad(key, value, format!("use {}", known.join(" or ")))
    })
}

/// A TOML value as the text that `set` takes.
pub(super) fn from_toml(key: &str, value: &toml::Value) -> Result<String, ConfigError> {
    Ok(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Array(items) => {
            let items: Result<Vec<String>, _> = items.iter().map(|item| from_toml(key, item)).collect();
            items?.join(",")
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => {
            return Err(ConfigError::Syntax {
                detail: format!(
                    "{key}: options are top-level texts, whole numbers, true/false, or lists of texts"
                ),
            });
        }
    })
}
