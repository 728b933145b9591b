//! A config document as it goes over the wire: its bytes, its form with an etag, and the hash that a node reports of it.

use serde_json::{Map, Value};
use sha1::{Digest as _, Sha1};

/// The largest document that every osquery takes: 1 MiB, compact (4 MiB only after 5.23.1).
pub const MAX_BYTES: usize = 1024 * 1024;

/// The deepest nesting that every osquery takes (refused from 4.3 on, `osquery/config/config.cpp::updateSource`); the document itself
/// is the first level.
pub const MAX_DEPTH: usize = 32;

/// The document of one node, before it is written out.
pub type Document = Map<String, Value>;

/// A document as it goes over the wire: compact, raw UTF-8. osqueryd writes what it reads in the same form before it hashes it, so
/// these are the bytes that its `config_hash` is made of.
#[must_use]
pub fn to_bytes(document: &Document) -> Vec<u8> {
    serde_json::to_vec(document).expect("a map of JSON values can be written")
}

/// What `osquery_info.config_hash` of a node will be that runs these bytes: the SHA-1 of the lower-case hex of their SHA-1
/// (`osquery/config/config.cpp`, one source).
#[must_use]
pub fn config_hash(bytes: &[u8]) -> String {
    hex::encode(Sha1::digest(sha1_hex(bytes)))
}

fn sha1_hex(bytes: &[u8]) -> String {
    hex::encode(Sha1::digest(bytes))
}

/// How deep a value is nested: 0 for a text, 1 for `[]`, 2 for `{"a":[]}`.
#[must_use]
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A document in both forms that nodes may be sent, byte by byte.
///
/// Clients after 5.23.1 send the etag of the document that they hold in memory (osquery #9033) and may be told that it still holds.
/// For them the document begins with a member `etag`; all others get it without. Both forms name the same content, so a node is
/// recorded with the plain one, and runs it if it reports the hash of either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// For clients that send no etag.
    pub plain: Vec<u8>,
    /// For clients that send one.
    pub with_etag: Vec<u8>,
    /// Changes whenever a byte of the document does.
    pub etag: String,
}

impl Written {
    /// Writes a document.
    #[must_use]
    pub fn of(document: &Document) -> Self {
        Self::of_bytes(to_bytes(document))
    }

    /// The forms of a document that was written before.
    fn of_bytes(plain: Vec<u8>) -> Self {
        let etag = sha1_hex(&plain);
        let with_etag = with_etag(&plain, &etag);
        Self {
            plain,
            with_etag,
            etag,
        }
    }

    /// The larger of the two forms, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.with_etag.len().max(self.plain.len())
    }
}

/// Puts the etag in front, by text: whatever the document holds is left as it was written.
fn with_etag(plain: &[u8], etag: &str) -> Vec<u8> {
    let rest = plain.strip_prefix(b"{").unwrap_or(plain);
    let comma = if rest.starts_with(b"}") { "" } else { "," };
    let mut bytes = format!("{{\"etag\":\"{etag}\"{comma}").into_bytes();
    bytes.extend_from_slice(rest);
    bytes
}

/// Does a node that reports this `config_hash` run the document, in whichever form it got it?
#[must_use]
pub fn is_run_by(plain: &[u8], reported_hash: &str) -> bool {
    config_hash(plain).eq_ignore_ascii_case(reported_hash)
        || config_hash(&Written::of_bytes(plain.to_vec()).with_etag)
            .eq_ignore_ascii_case(reported_hash)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(document: &Value) -> Written {
        Written::of(document.as_object().unwrap())
    }

    #[test]
    fn the_etag_stands_in_front_of_the_same_document() {
        for document in [json!({}), json!({"options": {"a": "é\u{1}/"}, "views": {}})] {
            let written = written(&document);
            let mut parsed: Value = serde_json::from_slice(&written.with_etag).unwrap();
            assert_eq!(
                serde_json::to_vec(&parsed).unwrap(),
                written.with_etag,
                "compact as it is"
            );
            let etag = parsed.as_object_mut().unwrap().shift_remove("etag");
            assert_eq!((etag, parsed), (Some(json!(written.etag)), document));
            assert!(
                written.size() == written.with_etag.len() && written.size() > written.plain.len()
            );
        }
        assert_ne!(
            written(&json!({"a": 1})).etag,
            written(&json!({"a": 2})).etag
        );
    }

    #[test]
    fn either_form_is_recognised_by_the_hash_that_a_node_reports() {
        let written = written(&json!({"schedule": {}}));
        for bytes in [&written.plain, &written.with_etag] {
            assert!(is_run_by(&written.plain, &config_hash(bytes)));
        }
        assert!(!is_run_by(&written.plain, &config_hash(b"{}")) && !is_run_by(&written.plain, ""));
    }

    #[test]
    fn depth_counts_brackets() {
        for (value, expected) in [
            (json!(1), 0),
            (json!([]), 1),
            (json!({"a": [1, {"b": 2}]}), 3),
        ] {
            assert_eq!(depth(&value), expected, "{value}");
        }
    }
}
