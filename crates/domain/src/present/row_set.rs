//! A multiset of rows, each in its canonical text.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

use crate::osquery::Columns;

/// Rows with their multiplicities, ordered by their canonical text ([`Columns::canonical`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowSet {
    counts: BTreeMap<String, usize>,
    len: usize,
}

/// The stored rows are not a JSON array.
#[derive(Debug, thiserror::Error)]
#[error("not an array of rows: {0}")]
pub struct RowSetError(#[from] serde_json::Error);

impl RowSet {
    /// How many rows there are, equal ones counted each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How often this row is there.
    #[must_use]
    pub fn count(&self, canonical: &str) -> usize {
        self.counts.get(canonical).copied().unwrap_or(0)
    }

    /// The canonical texts in their order, equal rows one after the other.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.counts
            .iter()
            .flat_map(|(row, count)| std::iter::repeat_n(row.as_str(), *count))
    }

    /// Puts one row in.
    pub fn insert(&mut self, canonical: String) {
        *self.counts.entry(canonical).or_default() += 1;
        self.len += 1;
    }

    /// Takes one such row out, and says whether there was one.
    pub fn remove(&mut self, canonical: &str) -> bool {
        let Some(count) = self.counts.get_mut(canonical) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(canonical);
        }
        self.len -= 1;
        true
    }

    /// The rows as a JSON array of objects: ordered, so that equal multisets have equal texts.
    #[must_use]
    pub fn to_json(&self) -> String {
        let size: usize = self
            .counts
            .iter()
            .map(|(row, count)| (row.len() + 1) * count)
            .sum();
        let mut json = String::with_capacity(size + 2);
        json.push('[');
        for row in self.iter() {
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(row);
        }
        json.push(']');
        json
    }

    /// Reads what [`RowSet::to_json`] wrote.
    ///
    /// # Errors
    /// The text is not a JSON array of rows.
    pub fn from_json(json: &str) -> Result<Self, RowSetError> {
        let rows: Vec<Columns<'_>> = serde_json::from_str(json)?;
        Ok(rows.iter().map(Columns::canonical).collect())
    }

    /// A hash of the content: equal for equal multisets, whatever the order in which the rows came.
    #[must_use]
    pub fn content_hash(&self) -> [u8; 16] {
        xxh3_128(self.to_json().as_bytes()).to_be_bytes()
    }
}

impl FromIterator<String> for RowSet {
    fn from_iter<I: IntoIterator<Item = String>>(rows: I) -> Self {
        let mut set = Self::default();
        rows.into_iter().for_each(|row| set.insert(row));
        set
    }
}

impl Serialize for RowSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(self.to_json()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RowSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_json(raw.get()).map_err(serde::de::Error::custom)
    }
}
