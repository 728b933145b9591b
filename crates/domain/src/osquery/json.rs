//! Lenient reading of JSON whose types changed over a decade of osquery versions.
//!
//! Values are kept as raw JSON text until somebody says what they should be. So no number passes through a float:
//! 9223372036854775807 and 18446744073709551615 survive to the digit, `1e999` is no error, and depth is no danger.
//! Of a key that occurs twice the last value wins, as in osqueryd's own parser.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why the body of a request could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The body is not JSON, is cut off, or is not an object.
    #[error("the body is not a JSON object: {0}")]
    NotAnObject(#[from] serde_json::Error),
    /// Neither the body nor the `Authorization` header holds a node key.
    #[error("node_key is missing")]
    NodeKeyMissing,
    /// `node_key` is there, but is not a string.
    #[error("node_key is not a string")]
    NodeKeyNotText,
    /// It carries what another endpoint takes: a flag of the node holds the wrong path.
    #[error("\"{0}\" is not taken here: the node's flags name the wrong endpoint")]
    ForAnother(&'static str),
}

/// A JSON string, borrowed from the input when it holds no escapes.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// The members of one JSON object, in the order sent, values untouched.
pub(crate) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The last value sent under this key.
    pub(crate) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| *value)
    }

    /// The text under this key, see [`text_of`].
    pub(crate) fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key).map(text_of)
    }

    pub(crate) fn into_pairs(self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        self.0
    }

    /// Refuses what an endpoint that only asks must not acknowledge: a node that posts its log or its results here would take any
    /// answer without `error` for "stored", and delete them.
    pub(crate) fn ask_only(&self) -> Result<(), RequestError> {
        self.without(&["data", "log_type", "queries"])
    }

    /// The same where answers to live queries are taken, and a log is not.
    pub(crate) fn no_log(&self) -> Result<(), RequestError> {
        self.without(&["data", "log_type"])
    }

    fn without(&self, foreign: &[&'static str]) -> Result<(), RequestError> {
        match foreign.iter().find(|name| self.get(name).is_some()) {
            Some(name) => Err(RequestError::ForAnother(name)),
            None => Ok(()),
        }
    }

    /// The node key of a request. The body has the word; `header_key`, from `Authorization: NodeKey …` (osquery from
    /// 5.23.0 on), is taken only when the body has none. `""` is a key too: that of a node that is not enrolled.
    pub(crate) fn node_key(&self, header_key: Option<&str>) -> Result<Cow<'a, str>, RequestError> {
        match self.get("node_key") {
            Some(value) if value.get().starts_with('"') => Ok(text_of(value)),
            Some(value) if value.get() != "null" => Err(RequestError::NodeKeyNotText),
            _ => header_key
                .map(|key| Cow::Owned(key.to_owned()))
                .ok_or(RequestError::NodeKeyMissing),
        }
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(Text(key)) = map.next_key()? {
                    members.push((key, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Reads the members of an object; whatever follows the object but white space is an error.
pub(crate) fn object_members(json: &str) -> Result<Members<'_>, serde_json::Error> {
    serde_json::from_str(json)
}

/// A value as text: a string's content, `""` for null, and for anything else its JSON text as sent.
pub(crate) fn text_of(value: &RawValue) -> Cow<'_, str> {
    let json = value.get();
    if json == "null" {
        return Cow::Borrowed("");
    }
    let Some(inner) = json
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return Cow::Borrowed(json);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    // A raw value may hold a lone surrogate escape when nobody sanitised it: then its JSON text has to do.
    serde_json::from_str(json).map_or(Cow::Borrowed(json), Cow::Owned)
}

/// An integer sent as a number or as a string. Fractions and anything outside of `i64` are none.
pub(crate) fn integer_of(value: &RawValue) -> Option<i64> {
    text_of(value).trim().parse().ok()
}

/// As [`integer_of`], over the whole range of `u64`.
pub(crate) fn unsigned_of(value: &RawValue) -> Option<u64> {
    text_of(value).trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_text() {
        let members = object_members(
            r#"{"max":9223372036854775807,"umax":18446744073709551615,"huge":1e999,"real":1.50,"s":"x","n":null,"o":{"a":[1]}}"#,
        )
        .unwrap();
        let text = |key| members.text(key).unwrap().into_owned();
        assert_eq!(text("max"), "9223372036854775807");
        assert_eq!(text("umax"), "18446744073709551615");
        assert_eq!(text("huge"), "1e999");
        assert_eq!(text("real"), "1.50");
        assert_eq!(text("s"), "x");
        assert_eq!(text("n"), "");
        assert_eq!(text("o"), r#"{"a":[1]}"#);
        assert_eq!(unsigned_of(members.get("umax").unwrap()), Some(u64::MAX));
        assert_eq!(integer_of(members.get("umax").unwrap()), None);
        assert_eq!(integer_of(members.get("real").unwrap()), None);
    }

    #[test]
    fn the_last_of_equal_keys_wins_and_escaped_keys_are_understood() {
        let members = object_members(r#"{"a":1,"\u0061":"2"}"#).unwrap();
        assert_eq!(members.text("a").unwrap(), "2");
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(
            object_members(&deep).unwrap().text("a").unwrap().len(),
            200_000
        );
    }
}
