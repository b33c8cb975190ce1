//! What a record was when it was loaded: carried in the record itself, so that the server keeps
//! nothing per request.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::Value;
use sessionmesh::{Change, Name, SessionId, Snapshot};
use tower_sessions_core::session::Id;

use crate::hash::hash;

/// Under this key in `Record.data`. Handlers never see it unless they list all keys.
pub(crate) const KEY: &str = "\0sessionmesh";

pub(crate) type Data = HashMap<String, Value>;

/// Of a loaded record: its id, and a hash of each value.
///
/// One text, because every request makes one and most read it: `<id> `, and for each attribute, in the order of the names,
/// the hash as 16 letters, the length of the name in bytes, `:` and the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base(String);

pub(crate) fn to_session_id(id: &Id) -> SessionId {
    SessionId::from_bytes(id.0.to_le_bytes())
}

pub(crate) fn to_id(id: SessionId) -> Id {
    Id(i128::from_le_bytes(*id.as_bytes()))
}

impl Base {
    /// Of data that is in the cluster under this id.
    pub(crate) fn of(id: SessionId, data: &Data) -> Self {
        let mut hashes: Vec<(&str, u64)> = data
            .iter()
            .filter(|(key, _)| *key != KEY)
            .map(|(key, value)| (key.as_str(), hash(value)))
            .collect();
        hashes.sort_unstable();
        let mut text = to_id(id).to_string();
        text.reserve(1 + hashes.iter().map(|(name, _)| name.len() + 20).sum::<usize>());
        text.push(' ');
        for (name, hash) in hashes {
            text.extend((0..16).map(|place| char::from(b'a' + (hash >> (4 * place) & 15) as u8)));
            text.push_str(&name.len().to_string());
            text.push(':');
            text.push_str(name);
        }
        Self(text)
    }

    /// From a record's data; `None` if the handler cleared it, or it was never loaded.
    pub(crate) fn find(data: &Data) -> Option<Self> {
        let base = Self(data.get(KEY)?.as_str()?.to_owned());
        base.parts().is_some().then_some(base)
    }

    /// Into a record's data.
    pub(crate) fn insert(self, data: &mut Data) {
        data.insert(KEY.into(), Value::String(self.0));
    }

    pub(crate) fn id(&self) -> Option<SessionId> {
        let (id, _) = self.0.split_once(' ')?;
        id.parse::<Id>().ok().map(|id| to_session_id(&id))
    }

    /// The names, in order, and the hashes; `None` if a handler wrote something else here.
    fn parts(&self) -> Option<Vec<(&str, u64)>> {
        let (_, mut rest) = self.0.split_once(' ')?;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (letters, after) = rest.split_at_checked(16)?;
            let mut hash = 0;
            for (place, letter) in letters.bytes().enumerate() {
                let nibble = letter.checked_sub(b'a').filter(|nibble| *nibble < 16)?;
                hash |= u64::from(nibble) << (4 * place);
            }
            let (length, after) = after.split_once(':')?;
            let (name, after) = after.split_at_checked(length.parse().ok()?)?;
            parts.push((name, hash));
            rest = after;
        }
        Some(parts)
    }

    /// What a request changed since.
    pub(crate) fn changes(&self, data: &Data) -> Result<Change, serde_json::Error> {
        let parts = self.parts().unwrap_or_default();
        let before = |key: &str| {
            let index = parts.binary_search_by_key(&key, |(name, _)| *name).ok()?;
            parts.get(index).map(|(_, hash)| *hash)
        };
        let mut change = Change::default();
        for (key, value) in data.iter().filter(|(key, _)| *key != KEY) {
            if before(key) != Some(hash(value)) {
                change.attributes.push((key.as_str().into(), Some(serde_json::to_vec(value)?.into())));
            }
        }
        let removed = parts.iter().filter(|(key, _)| !data.contains_key(*key));
        change.attributes.extend(removed.map(|(key, _)| ((*key).into(), None)));
        Ok(change)
    }
}

/// A snapshot as a record's data.
pub(crate) fn data_of(snapshot: &Snapshot) -> Result<Data, serde_json::Error> {
    snapshot.iter().map(|(name, value)| Ok((name.to_owned(), serde_json::from_slice(value)?))).collect()
}

/// All of a record's data, as attributes.
pub(crate) fn attributes_of(data: &Data) -> Result<Vec<(Name, Option<Bytes>)>, serde_json::Error> {
    data.iter()
        .filter(|(key, _)| *key != KEY)
        .map(|(key, value)| Ok((key.as_str().into(), Some(serde_json::to_vec(value)?.into()))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_a_request_changed_is_committed() {
        let id = SessionId::from_bytes([7; 16]);
        let mut data: Data = [("kept", json!(1)), ("changed", json!([1])), ("removed", json!("x"))]
            .map(|(k, v)| (k.into(), v))
            .into();
        Base::of(id, &data).insert(&mut data);
        data.insert("changed".into(), json!([2]));
        data.insert("added".into(), json!(null));
        data.remove("removed");
        let base = Base::find(&data).unwrap();
        assert_eq!(base.id(), Some(id));
        let mut change = base.changes(&data).unwrap();
        change.attributes.sort();
        let expected: [(&str, Option<&str>); 3] =
            [("added", Some("null")), ("changed", Some("[2]")), ("removed", None)];
        let expected: Vec<(Name, Option<Bytes>)> = expected
            .map(|(key, value)| (key.into(), value.map(|value| Bytes::from(value.to_owned()))))
            .into();
        assert_eq!(change.attributes, expected);
    }
    #[test]
    fn whatever_a_handler_writes_in_its_place_is_no_base() {
        let id = SessionId::from_bytes([7; 16]);
        let data: Data = [("", json!(1)), ("a:b", json!([])), ("\u{e9} 7:", json!(null))]
            .map(|(k, v)| (k.into(), v))
            .into();
        let base = Base::of(id, &data);
        assert!(base.changes(&data).unwrap().is_empty());
        let read = |text: &str| Base::find(&[(KEY.to_owned(), text.into())].into());
        assert_eq!(read(&base.0), Some(base.clone()));
        for (end, _) in base.0.char_indices().skip(24) {
            if let Some(shorter) = read(&base.0[..end]) {
                assert!(base.0.starts_with(&shorter.0), "{end}");
            }
        }
        for text in ["", "x", "x aaaaaaaaaaaaaaaa1:", "x aaaaaaaaaaaaaaaa", "x aaaaaaaaaaaaaaaZ1:a"] {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert_eq!(Base::find(&[(KEY.to_owned(), json!(1))].into()), None);
    }
}
