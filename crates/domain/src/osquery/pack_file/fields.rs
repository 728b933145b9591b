//! The fields of entries, with the coercions of osqueryd.

use serde_json::{Map, Value};

use super::import::Problem;

/// One entry of a file: its fields are taken out one by one, and what is left is kept.
pub(super) struct Entry<'p> {
    pub(super) path: String,
    pub(super) fields: Map<String, Value>,
    pub(super) problems: &'p mut Vec<Problem>,
}

impl Entry<'_> {
    pub(super) fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(Problem {
            entry: self.path.clone(),
            what: what.into(),
        });
    }

    /// A text; a number is taken for its text. `""` when it is absent or null.
    pub(super) fn text(&mut self, key: &str) -> String {
        match self.fields.remove(key) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(Value::Number(number)) => number.to_string(),
            Some(other) => {
                self.keep_odd(key, other, "a text");
                String::new()
            }
        }
    }

    /// A flag: true, `"true"` and `"t"`, and numbers but 0. The text `"1"` is false to osqueryd, and so it is to us.
    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.fields.remove(key) {
            None | Some(Value::Null) => default,
            Some(Value::Bool(flag)) => flag,
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::String(text)) => matches!(text.to_ascii_lowercase().as_str(), "true" | "t"),
            Some(other) => {
                self.keep_odd(key, other, "true or false");
                default
            }
        }
    }

    /// A whole number, sent as a number or as a text; `None` when it is absent.
    ///
    /// # Errors
    /// It is there and no whole number.
    pub(super) fn whole(&mut self, key: &str) -> Result<Option<i64>, ()> {
        match self.fields.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => number.as_i64().map(Some).ok_or(()),
            Some(Value::String(text)) => text.trim().parse().map(Some).map_err(|_| ()),
            Some(_) => Err(()),
        }
    }

    /// The share of nodes that gets this, 1 to 100; `None` for all.
    pub(super) fn shard(&mut self) -> Option<u8> {
        match self.whole("shard") {
            Ok(None | Some(0)) => None,
            Ok(Some(shard @ 1..=100)) => u8::try_from(shard).ok(),
            _ => {
                self.problem("shard is not a number from 1 to 100; it is ignored");
                None
            }
        }
    }

    /// The order among queries that run at the start; `None` for those that do not.
    pub(super) fn startup_priority(&mut self) -> Option<i32> {
        match self.whole("startup_priority") {
            Ok(None) => None,
            Ok(Some(priority)) if (0..=i64::from(i32::MAX)).contains(&priority) => {
                i32::try_from(priority).ok()
            }
            _ => {
                self.problem("startup_priority is not a whole number from 0 on; it is ignored");
                None
            }
        }
    }

    /// The texts of a list; what is no text is skipped, as osqueryd does.
    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        match self.fields.remove(key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => list
                .iter()
                .filter_map(Value::as_str)
                .map(ToOwned::to_owned)
                .collect(),
            Some(other) => {
                self.keep_odd(key, other, "a list");
                Vec::new()
            }
        }
    }

    /// The members of an object, in the order of the file.
    pub(super) fn object(&mut self, key: &str) -> Map<String, Value> {
        match self.fields.remove(key) {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(members)) => members,
            Some(other) => {
                self.keep_odd(key, other, "an object");
                Map::new()
            }
        }
    }

    fn keep_odd(&mut self, key: &str, value: Value, expected: &str) {
        self.problem(format!("{key} is not {expected}; it is kept but not used"));
        self.fields.insert(key.to_owned(), value);
    }
}
