//! Values and rows of simulated tables, and the bytes they become in JSON, with the oddities of each
//! family: escaped bytes, raw bytes that are no UTF-8, property-tree texts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::version::Version;

/// A column's value. NULL is the empty text on the wire, whatever the type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// An INTEGER.
    Int(i64),
    /// A TEXT.
    Text(String),
}

impl Value {
    /// The value as text, as osquery writes it unless numbers stay numbers.
    pub fn text(&self) -> String {
        match self {
            Value::Int(number) => number.to_string(),
            Value::Text(text) => text.clone(),
        }
    }

    /// The value in JSON: always a text, unless `numerics` asks for real numbers.
    pub fn json(&self, numerics: bool) -> Json {
        match self {
            Value::Int(number) if numerics => Json::from(*number),
            other => Json::String(other.text()),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Value::Text(text.clone())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Int(number.cast_signed())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A row in the order of its SELECT.
pub type Row = Vec<(String, Value)>;

/// A row of a scheduled query: columns by name, the last of equal names.
pub type Columns = BTreeMap<String, Value>;

/// Makes a row of `name => value` pairs.
macro_rules! row {
    ($($name:literal => $value:expr),* $(,)?) => {
        vec![$(($name.to_owned(), $crate::value::Value::from($value))),*]
    };
}
pub(crate) use row;

/// First of the 256 private code points that stand for one raw byte until a body is written.
const RAW: u32 = 0x10_FF00;

/// A character that becomes this single byte on the wire, valid UTF-8 or not.
pub fn raw_byte(byte: u8) -> char {
    char::from_u32(RAW + u32::from(byte)).expect("the private plane has these code points")
}

fn as_raw(character: char) -> Option<u8> {
    u32::from(character)
        .checked_sub(RAW)
        .and_then(|byte| u8::try_from(byte).ok())
}

/// Escapes a differential value as osquery does: control bytes become the text `\x0A`, and so do bytes
/// from 0x80 on before 5.22; later only those that are no UTF-8.
pub fn escape_differential(text: &str, version: Version) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if let Some(byte) = as_raw(character) {
            escaped.push_str(&format!("\\x{byte:02X}"));
        } else if u32::from(character) < 0x20 {
            escaped.push_str(&format!("\\x{:02X}", u32::from(character)));
        } else if character.is_ascii() || version.keeps_utf8() {
            escaped.push(character);
        } else {
            let mut buffer = [0; 4];
            for byte in character.encode_utf8(&mut buffer).bytes() {
                escaped.push_str(&format!("\\x{byte:02X}"));
            }
        }
    }
    escaped
}

/// Writes JSON and then turns stand-ins into the raw bytes they stand for.
pub fn to_bytes(json: &Json) -> Vec<u8> {
    let text = json.to_string();
    if !text.contains(|character| as_raw(character).is_some()) {
        return text.into_bytes();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut buffer = [0; 4];
    for character in text.chars() {
        match as_raw(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes()),
        }
    }
    bytes
}

/// Rewrites JSON as the property tree of old versions writes it: `/` as `\/` and each byte from 0x80 on
/// as a `\u00..` of its own.
pub fn as_property_tree(json: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(json.len());
    for &byte in json {
        match byte {
            b'/' => bytes.extend_from_slice(b"\\/"),
            0x80.. => bytes.extend_from_slice(format!("\\u00{byte:02X}").as_bytes()),
            _ => bytes.push(byte),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differential_bytes_are_escaped_by_version() {
        let text = format!("é\n{}A", raw_byte(0xFF));
        assert_eq!(
            escape_differential(&text, Version(5, 23, 1)),
            "é\\x0A\\xFFA"
        );
        assert_eq!(
            escape_differential(&text, Version(5, 9, 1)),
            "\\xC3\\xA9\\x0A\\xFFA"
        );
    }

    #[test]
    fn a_stand_in_becomes_one_raw_byte() {
        let json = Json::String(format!("{}A{}", raw_byte(0xFF), raw_byte(0xC3)));
        assert_eq!(to_bytes(&json), b"\"\xFFA\xC3\"");
    }

    #[test]
    fn the_property_tree_escapes_slashes_and_bytes() {
        assert_eq!(
            as_property_tree("\"/é\"".as_bytes()),
            b"\"\\/\\u00C3\\u00A9\""
        );
    }

    #[test]
    fn numbers_stay_numbers_only_when_asked() {
        assert_eq!(Value::Int(7).json(false), Json::from("7"));
        assert_eq!(Value::Int(7).json(true), Json::from(7));
    }
}
