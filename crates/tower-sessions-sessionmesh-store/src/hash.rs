//! A hash of a JSON value, without writing the value out.

use serde_json::Value;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// Equal for equal values. Keys of objects count in the order in which the value shows them, which
/// is the same for what was loaded and what is saved.
pub(crate) fn hash(value: &Value) -> u64 {
    // Most values are one string: in one go that takes a fraction of what the state does to set up.
    if let Value::String(string) = value {
        return xxh3_64_with_seed(string.as_bytes(), u64::from(b'"'));
    }
    let mut state = Xxh3::new();
    feed(&mut state, value);
    state.digest()
}

fn feed(state: &mut Xxh3, value: &Value) {
    // A tag and a length before each part: no two values give the same sequence of bytes.
    let mut text = |tag: u8, text: &str| {
        state.update(&[tag]);
        state.update(&(text.len() as u64).to_le_bytes());
        state.update(text.as_bytes());
    };
    match value {
        Value::Null => state.update(b"n"),
        Value::Bool(flag) => state.update(if *flag { b"t" } else { b"f" }),
        Value::Number(number) => text(b'#', &number.to_string()),
        Value::String(string) => text(b'"', string),
        Value::Array(items) => {
            text(b'[', &items.len().to_string());
            for item in items {
                feed(state, item);
            }
        }
        Value::Object(fields) => {
            text(b'{', &fields.len().to_string());
            for (name, field) in fields {
                state.update(&(name.len() as u64).to_le_bytes());
                state.update(name.as_bytes());
                feed(state, field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::hash;
    use serde_json::json;

    #[test]
    fn different_values_of_like_bytes_differ() {
        let values = [
            json!(null),
            json!(true),
            json!(1),
            json!("1"),
            json!(1.5),
            json!([]),
            json!({}),
            json!([[], 1]),
            json!([[1]]),
            json!({"a": "b"}),
            json!({"ab": ""}),
            json!(["a", "b"]),
            json!(["ab"]),
        ];
        for (i, a) in values.iter().enumerate() {
            for (j, b) in values.iter().enumerate() {
                assert_eq!(hash(a) == hash(b), i == j, "{a} {b}");
            }
        }
    }
}
