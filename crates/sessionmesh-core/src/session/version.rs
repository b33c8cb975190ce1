//! Which writes of which boots a state contains.

use smallvec::SmallVec;

use crate::{BootId, Hlc, Stamp, mutated};

/// Per boot, the newest of its stamps in a session.
///
/// A state with this version contains the effect of every write of each boot up to that stamp. One
/// largest stamp would not do: `x@10` from one node and `y@11` from another are two facts.
///
/// One entry, as of a session whose client comes to one node, is kept in place.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Version(SmallVec<[(BootId, Hlc); 1]>);

impl Clone for Version {
    fn clone(&self) -> Self {
        // Every load makes one: copied as a whole, not entry by entry.
        Self(SmallVec::from_slice(&self.0))
    }
}

impl Version {
    /// Contains nothing.
    pub const fn new() -> Self {
        Self(SmallVec::new_const())
    }

    /// The newest stamp of a boot, zero if there is none.
    pub fn get(&self, boot: BootId) -> Hlc {
        match self.0.binary_search_by_key(&boot, |entry| entry.0) {
            Ok(index) => self.0.get(index).map_or(Hlc::ZERO, |entry| entry.1),
            Err(_) => Hlc::ZERO,
        }
    }

    /// Whether this contains a write.
    pub fn contains(&self, stamp: Stamp) -> bool {
        stamp.hlc <= self.get(stamp.origin)
    }

    /// Whether this contains all that `other` does.
    pub fn covers(&self, other: &Self) -> bool {
        if mutated!(TokenByLargestStamp) {
            return self.newest() >= other.newest();
        }
        other.0.iter().all(|(boot, hlc)| self.get(*boot) >= *hlc)
    }

    /// Takes a boot's stamp up if it is newer.
    pub fn advance(&mut self, boot: BootId, hlc: Hlc) {
        if hlc == Hlc::ZERO {
            return;
        }
        match self.0.binary_search_by_key(&boot, |entry| entry.0) {
            Ok(index) => {
                if let Some(entry) = self.0.get_mut(index) {
                    entry.1 = entry.1.max(hlc);
                }
            }
            Err(index) => self.0.insert(index, (boot, hlc)),
        }
    }

    /// The least version that covers both.
    pub fn merge(&mut self, other: &Self) {
        for (boot, hlc) in &other.0 {
            self.advance(*boot, *hlc);
        }
    }

    /// Forgets boots that are gone for good: nobody asks for their writes any more.
    pub fn prune(&mut self, gone: impl Fn(BootId, Hlc) -> bool) {
        self.0.retain(|(boot, hlc)| !gone(*boot, *hlc));
        self.0.shrink_to_fit();
    }

    /// The entries, by boot.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (BootId, Hlc)> {
        self.0.iter().copied()
    }

    /// The newest stamp of all.
    pub fn newest(&self) -> Hlc {
        self.0.iter().map(|entry| entry.1).max().unwrap_or_default()
    }

    /// Whether this contains nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(BootId, Hlc)> for Version {
    fn from_iter<I: IntoIterator<Item = (BootId, Hlc)>>(entries: I) -> Self {
        let mut version = Self::new();
        for (boot, hlc) in entries {
            version.advance(boot, hlc);
        }
        version
    }
}
