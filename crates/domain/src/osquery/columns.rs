//! One row as osqueryd sends it: column names and values, all of them text.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::{Text, text_of};

/// The columns of one row, in the order sent (alphabetical in scheduled results, that of the SELECT in live ones).
///
/// Values are text, as osqueryd means them: SQL NULL is `""`; numbers (with `logger_numerics`) keep their JSON text, so
/// that integers beyond 2^53 survive; nested values (extensions) are kept as JSON text. Names are unique.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Columns<'a> {
    /// Makes a row of names and values; of a name given twice the last value stays.
    pub fn new<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<Cow<'a, str>>,
        V: Into<Cow<'a, str>>,
    {
        Self::from_pairs(
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    fn from_pairs(mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>) -> Self {
        // Scheduled results come sorted, so this is nearly always true and nothing has to be hashed.
        if !pairs.is_sorted_by(|(a, _), (b, _)| a < b) {
            let mut seen = HashSet::with_capacity(pairs.len());
            let mut last_of_its_name: Vec<bool> = pairs
                .iter()
                .rev()
                .map(|(name, _)| seen.insert(name.as_ref()))
                .collect();
            pairs.retain(|_| {
                last_of_its_name
                    .pop()
                    .expect("one flag was made for each pair")
            });
        }
        Self(pairs)
    }

    /// The value of a column, or `None` when the row has no such column.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(column, _)| column == name)
            .map(|(_, value)| value.as_ref())
    }

    /// Names and values in the order sent.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// How many columns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no columns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The row as a compact JSON object in the order sent.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a map of strings is always JSON")
    }

    /// The row as a compact JSON object with its columns sorted by name: equal rows have equal canonical texts. It
    /// holds no raw line break.
    #[must_use]
    pub fn canonical(&self) -> String {
        if self.0.is_sorted_by(|(a, _), (b, _)| a < b) {
            return self.to_json();
        }
        let mut sorted = self.clone();
        sorted.0.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        sorted.to_json()
    }

    /// The same row with nothing borrowed.
    #[must_use]
    pub fn into_owned(self) -> Columns<'static> {
        let own = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        Columns(
            self.0
                .into_iter()
                .map(|(name, value)| (own(name), own(value)))
                .collect(),
        )
    }

    /// Rewrites names and values where `repair` gives a better text.
    pub(crate) fn repair(&mut self, repair: impl Fn(&str) -> Option<String>) {
        for text in self.0.iter_mut().flat_map(|(name, value)| [name, value]) {
            if let Some(better) = repair(text) {
                *text = Cow::Owned(better);
            }
        }
    }
}

impl<'a> IntoIterator for Columns<'a> {
    type Item = (Cow<'a, str>, Cow<'a, str>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de> Deserialize<'de> for Columns<'de> {
    /// Reads an object; `""` (how osquery before 3.2 wrote an empty one) and null are a row without columns.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ColumnsVisitor;
        impl<'de> Visitor<'de> for ColumnsVisitor {
            type Value = Columns<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of columns")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns<'de>, A::Error> {
                let mut pairs = Vec::with_capacity(8);
                while let Some(Text(name)) = map.next_key()? {
                    let value: &'de RawValue = map.next_value()?;
                    pairs.push((name, text_of(value)));
                }
                Ok(Columns::from_pairs(pairs))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Columns<'de>, E> {
                if text.is_empty() {
                    return Ok(Columns::default());
                }
                Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
            fn visit_unit<E>(self) -> Result<Columns<'de>, E> {
                Ok(Columns::default())
            }
        }
        deserializer.deserialize_any(ColumnsVisitor)
    }
}

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Columns<'_> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn values_become_text_and_integers_keep_their_digits() {
        let row = read(
            r#"{"big":9223372036854775807,"neg":-1,"none":"","real":1.50,"sub":{"a":[1,"x"]},"umax":18446744073709551615,"yes":true}"#,
        );
        let values: Vec<&str> = row.iter().map(|(_, value)| value).collect();
        assert_eq!(
            values,
            [
                "9223372036854775807",
                "-1",
                "",
                "1.50",
                r#"{"a":[1,"x"]}"#,
                "18446744073709551615",
                "true"
            ]
        );
        assert_eq!(row.get("none"), Some(""));
        assert_eq!(row.get("missing"), None);
    }

    #[test]
    fn a_name_sent_twice_keeps_its_last_value() {
        let row = read(r#"{"b":"1","a":"2","b":"3"}"#);
        assert_eq!(row.to_json(), r#"{"a":"2","b":"3"}"#);
    }

    #[test]
    fn equal_rows_have_equal_canonical_texts_whatever_the_order() {
        let (one, other) = (
            read(r#"{"b":"1","a":"\n"}"#),
            read(r#"{"a":"\u000a","b":1}"#),
        );
        assert_eq!(one.canonical(), "{\"a\":\"\\n\",\"b\":\"1\"}");
        assert_eq!(one.canonical(), other.canonical());
    }

    #[test]
    fn an_empty_row_may_be_written_as_a_string_and_nothing_else_may() {
        assert!(read("\"\"").is_empty());
        assert!(read("null").is_empty());
        assert!(serde_json::from_str::<Columns<'_>>("\"x\"").is_err());
        assert!(serde_json::from_str::<Columns<'_>>("[]").is_err());
    }
}
