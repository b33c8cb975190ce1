//! What a record was when it was loaded: carried in the record itself, so that the server keeps
//! nothing per request.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::Value;
use sessionmesh::{Change, Name, SessionId, Snapshot};
use smallvec::SmallVec;
use tower_sessions_core::session::Id;

use crate::hash::hash;

/// Under this key in `Record.data`. Handlers never see it unless they list all keys.
pub(crate) const KEY: &str = "\0sessionmesh";

pub(crate) type Data = HashMap<String, Value>;

/// An attribute as it was saved; `None`: removed.
pub(crate) type Saved = (Name, Option<Bytes>);

/// What a session's data and its base begin with, so that few of them grow.
const USUAL_ENTRIES: usize = 7;
const USUAL_BYTES: usize = 160;

/// Of a record that is in the cluster: its id, and a hash of each value.
///
/// One text, because every request makes one and most read it: the id as two numbers, and for each attribute, in the order
/// of the names, the hash, the length of the name in bytes, and the name. Each number is of ten letters of seven bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base(String);

/// The same, read where it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Before<'a> {
    id: SessionId,
    /// In the order of the names.
    hashes: Hashes<'a>,
}

/// More attributes than this are rare.
type Hashes<'a> = SmallVec<[(&'a str, u64); 8]>;

const LETTERS: usize = 10;
const LETTER_BITS: usize = 7;
/// Of what is left of a number for its last letter.
const LAST_LETTER: u8 = 1;

// Both without a branch for each letter: a load writes four numbers or more, a save reads them.

fn push_number(text: &mut Vec<u8>, number: u64) {
    let letters: [u8; LETTERS] = std::array::from_fn(|place| (number >> (LETTER_BITS * place)) as u8 & 0x7f);
    text.extend_from_slice(&letters);
}

fn take_number(text: &mut &str) -> Option<u64> {
    let (letters, rest) = text.split_at_checked(LETTERS)?;
    *text = rest;
    let letters: &[u8; LETTERS] = letters.as_bytes().try_into().ok()?;
    let (mut number, mut all) = (0, 0);
    for (place, letter) in letters.iter().enumerate() {
        all |= letter;
        number |= u64::from(letter & 0x7f) << (LETTER_BITS * place);
    }
    (all < 0x80 && letters[LETTERS - 1] <= LAST_LETTER).then_some(number)
}

pub(crate) fn to_session_id(id: &Id) -> SessionId {
    SessionId::from_bytes(id.0.to_le_bytes())
}

pub(crate) fn to_id(id: SessionId) -> Id {
    Id(i128::from_le_bytes(*id.as_bytes()))
}

/// The base of a record whose values come one by one.
struct Writer(Vec<u8>);

impl Writer {
    fn new(id: SessionId) -> Self {
        let mut text = Vec::with_capacity(USUAL_BYTES);
        let id = u128::from_be_bytes(*id.as_bytes());
        push_number(&mut text, (id >> 64) as u64);
        push_number(&mut text, id as u64);
        Self(text)
    }

    /// In the order of the names.
    fn push(&mut self, name: &str, hash: u64) {
        push_number(&mut self.0, hash);
        push_number(&mut self.0, name.len() as u64);
        self.0.extend_from_slice(name.as_bytes());
    }

    fn finish(self) -> Base {
        // Text and letters only; an empty one would be none, and a save then looks up what is there.
        Base(String::from_utf8(self.0).unwrap_or_default())
    }
}

impl Base {
    /// Of data that is in the cluster under this id.
    pub(crate) fn of(id: SessionId, data: &Data) -> Self {
        let attributes = data.iter().filter(|(key, _)| *key != KEY);
        let mut hashes: Hashes<'_> = attributes.map(|(key, value)| (key.as_str(), hash(value))).collect();
        hashes.sort_unstable();
        let mut writer = Writer::new(id);
        for (name, hash) in hashes {
            writer.push(name, hash);
        }
        writer.finish()
    }

    /// Into a record's data.
    pub(crate) fn insert(self, data: &mut Data) {
        data.insert(KEY.into(), Value::String(self.0));
    }
}

impl<'a> Before<'a> {
    /// From a record's data; `None` if the handler cleared it, or it was never loaded.
    pub(crate) fn find(data: &'a Data) -> Option<Self> {
        Self::parse(data.get(KEY)?.as_str()?)
    }

    /// `None` if a handler wrote something else there.
    fn parse(mut text: &'a str) -> Option<Self> {
        let (high, low) = (take_number(&mut text)?, take_number(&mut text)?);
        let id = SessionId::from_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes());
        let mut hashes = Hashes::new();
        while !text.is_empty() {
            let (hash, length) = (take_number(&mut text)?, take_number(&mut text)?);
            let (name, rest) = text.split_at_checked(usize::try_from(length).ok()?)?;
            hashes.push((name, hash));
            text = rest;
        }
        Some(Self { id, hashes })
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// What a request changed since, less what it has saved since: of each name the last one counts.
    pub(crate) fn changes(&self, data: &Data, saved: &[Saved]) -> Result<Change, serde_json::Error> {
        let before = |key: &str| {
            let index = self.hashes.binary_search_by_key(&key, |(name, _)| *name).ok()?;
            self.hashes.get(index).map(|(_, hash)| *hash)
        };
        let last = |key: &str| saved.iter().rev().find(|(name, _)| **name == *key).map(|(_, value)| value);
        let mut change = Change::default();
        for (key, value) in data.iter().filter(|(key, _)| *key != KEY) {
            let last = last(key);
            if last.is_none() && before(key) == Some(hash(value)) {
                continue;
            }
            let value = Some(Bytes::from(serde_json::to_vec(value)?));
            if last != Some(&value) {
                change.attributes.push((key.as_str().into(), value));
            }
        }
        let loaded = self.hashes.iter().map(|(key, _)| *key).filter(|key| last(key).is_none());
        let removed = loaded.filter(|key| !data.contains_key(*key));
        change.attributes.extend(removed.map(|key| (key.into(), None)));
        for (index, (name, value)) in saved.iter().enumerate() {
            let is_last = !saved.iter().skip(index + 1).any(|(later, _)| later == name);
            if is_last && value.is_some() && !data.contains_key(&**name) {
                change.attributes.push((name.clone(), None));
            }
        }
        Ok(change)
    }
}

/// A snapshot as a record's data, with what it was.
pub(crate) fn data_of(snapshot: &Snapshot) -> Result<Data, serde_json::Error> {
    let mut data = Data::with_capacity(USUAL_ENTRIES);
    let mut base = Writer::new(snapshot.id());
    for (name, value) in snapshot.iter() {
        let value = serde_json::from_slice(value)?;
        base.push(name, hash(&value));
        data.insert(name.to_owned(), value);
    }
    base.finish().insert(&mut data);
    Ok(data)
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
        let before = Before::find(&data).unwrap();
        assert_eq!(before.id(), id);
        let mut change = before.changes(&data, &[]).unwrap();
        change.attributes.sort();
        let expected: [(&str, Option<&str>); 3] =
            [("added", Some("null")), ("changed", Some("[2]")), ("removed", None)];
        let expected: Vec<(Name, Option<Bytes>)> = expected
            .map(|(key, value)| (key.into(), value.map(|value| Bytes::from(value.to_owned()))))
            .into();
        assert_eq!(change.attributes, expected);
    }

    #[test]
    fn what_a_request_has_saved_is_not_saved_again_and_may_be_taken_back() {
        let id = SessionId::from_bytes([7; 16]);
        let mut data: Data =
            [("again", json!(1)), ("back", json!(1)), ("gone", json!(1))].map(|(k, v)| (k.into(), v)).into();
        Base::of(id, &data).insert(&mut data);
        data.insert("again".into(), json!(2));
        data.insert("back".into(), json!(2));
        data.insert("new".into(), json!(2));
        data.remove("gone");
        let mut saved = Before::find(&data).unwrap().changes(&data, &[]).unwrap().attributes;
        assert_eq!(saved.len(), 4);
        assert!(Before::find(&data).unwrap().changes(&data, &saved).unwrap().is_empty());
        data.insert("back".into(), json!(1));
        data.insert("gone".into(), json!(1));
        data.remove("new");
        let mut second = Before::find(&data).unwrap().changes(&data, &saved).unwrap().attributes;
        second.sort();
        let one = || Some(Bytes::from_static(b"1"));
        assert_eq!(second, [("back".into(), one()), ("gone".into(), one()), ("new".into(), None)]);
        saved.extend(second);
        assert!(Before::find(&data).unwrap().changes(&data, &saved).unwrap().is_empty());
    }

    #[test]
    fn whatever_a_handler_writes_in_its_place_is_no_base() {
        let id = SessionId::from_bytes([7; 16]);
        let data: Data = [("", json!(1)), ("a:b", json!([])), ("\u{e9} 7:", json!(null))]
            .map(|(k, v)| (k.into(), v))
            .into();
        let base = Base::of(id, &data);
        assert!(Before::parse(&base.0).unwrap().changes(&data, &[]).unwrap().is_empty());
        let found = |text: &str| Before::find(&[(KEY.to_owned(), text.into())].into()).is_some();
        assert!(found(&base.0));
        // Cut off between two attributes it is one of fewer.
        let ends = base.0.char_indices().filter(|(end, _)| found(&base.0[..*end])).count();
        assert_eq!(ends, data.len());
        let number = "\0".repeat(LETTERS);
        let (greatest, too_great) = ("\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x01", "\0\0\0\0\0\0\0\0\0\x02");
        assert!(
            found(&format!("{number}{greatest}"))
                && take_number(&mut &*greatest.to_owned()) == Some(u64::MAX)
        );
        for tail in ["", "x", "\0\0\0\0\0\0\0\0\u{e9}", too_great] {
            assert!(!found(&format!("{number}{tail}")), "{tail:?}");
        }
        assert!(
            !found(&format!("{number}{number}{number}\x01{}", &number[1..])),
            "a name of one letter lacks"
        );
        assert_eq!(Before::find(&[(KEY.to_owned(), json!(1))].into()), None);
    }
}
