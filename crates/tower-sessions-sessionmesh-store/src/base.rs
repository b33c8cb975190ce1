//! What a record was when it was loaded: carried in the record itself, so that the server keeps
//! nothing per request.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sessionmesh::{Change, Name, SessionId, Snapshot, Version};
use tower_sessions_core::session::Id;

use crate::hash::hash;

/// Under this key in `Record.data`. Handlers never see it unless they list all keys.
pub(crate) const KEY: &str = "\0sessionmesh";

pub(crate) type Data = HashMap<String, Value>;

/// Of a loaded record: its id, its version, and a hash of each value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    #[serde(rename = "i")]
    id: String,
    #[serde(rename = "v")]
    version: Vec<(u64, u64)>,
    #[serde(rename = "h")]
    hashes: BTreeMap<String, u64>,
}

pub(crate) fn to_session_id(id: &Id) -> SessionId {
    SessionId::from_bytes(id.0.to_le_bytes())
}

pub(crate) fn to_id(id: SessionId) -> Id {
    Id(i128::from_le_bytes(*id.as_bytes()))
}

impl Base {
    /// Of data that is in the cluster under this id and version.
    pub(crate) fn of(id: SessionId, version: Option<&Version>, data: &Data) -> Self {
        Self {
            id: to_id(id).to_string(),
            version: version
                .into_iter()
                .flat_map(Version::entries)
                .map(|(boot, hlc)| (boot.get(), hlc.get()))
                .collect(),
            hashes: data
                .iter()
                .filter(|(key, _)| *key != KEY)
                .map(|(key, value)| (key.clone(), hash(value)))
                .collect(),
        }
    }

    /// From a record's data; `None` if the handler cleared it, or it was never loaded.
    pub(crate) fn find(data: &Data) -> Option<Self> {
        Self::deserialize(data.get(KEY)?).ok()
    }

    /// Into a record's data.
    pub(crate) fn insert(&self, data: &mut Data) {
        if let Ok(value) = serde_json::to_value(self) {
            data.insert(KEY.into(), value);
        }
    }

    pub(crate) fn id(&self) -> Option<SessionId> {
        self.id.parse::<Id>().ok().map(|id| to_session_id(&id))
    }

    /// What a request changed since.
    pub(crate) fn changes(&self, data: &Data) -> Result<Change, serde_json::Error> {
        let mut change = Change::default();
        for (key, value) in data.iter().filter(|(key, _)| *key != KEY) {
            if self.hashes.get(key) != Some(&hash(value)) {
                change.attributes.push((key.as_str().into(), Some(serde_json::to_vec(value)?.into())));
            }
        }
        let removed = self.hashes.keys().filter(|key| !data.contains_key(*key));
        change.attributes.extend(removed.map(|key| (key.as_str().into(), None)));
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
        Base::of(id, None, &data).insert(&mut data);
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
}
