//! How osqueryd judges an answer: by its body alone, never by the HTTP status. What it then does is
//! decided by whoever asked.

use serde_json::{Map, Value};

use crate::version::Version;

/// The client's verdict on one answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// An empty body counts as `{}`; an object without `error` and `node_invalid` is what it says.
    Success(Map<String, Value>),
    /// The body has an `error` or cannot be read; the node key stays.
    Failure(&'static str),
    /// `node_invalid` is true: a failure, and the node key is forgotten.
    NodeInvalid,
}

/// Judges the body of an answer. `node_invalid` wins over `error` (since 2.1.0) and must be a boolean,
/// but versions before 3.2.0 also take the texts `1`, `true` and `True`.
pub fn judge(body: &[u8], version: Version) -> Answer {
    if body.is_empty() {
        return Answer::Success(Map::new());
    }
    let object = match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Answer::Failure("the root of the answer is no object"),
        Err(_) => return Answer::Failure("the answer is no JSON"),
    };
    match object.get("node_invalid") {
        Some(Value::Bool(true)) => return Answer::NodeInvalid,
        Some(Value::String(text))
            if version.writes_property_tree() && matches!(text.as_str(), "1" | "true" | "True") =>
        {
            return Answer::NodeInvalid;
        }
        _ => {}
    }
    if object.contains_key("error") {
        return Answer::Failure("the answer has an error");
    }
    Answer::Success(object)
}

/// The key in an answer to an enrollment: `node_key`, or `id` when that is absent. Nothing else of the
/// answer is looked at there, neither `error` nor `node_invalid`.
pub fn enrolled_key(body: &[u8]) -> Option<String> {
    let object: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let key = object.get("node_key").or_else(|| object.get("id"))?;
    key.as_str()
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Version = Version(5, 23, 1);

    fn word(body: &[u8], version: Version) -> &'static str {
        match judge(body, version) {
            Answer::Success(_) => "success",
            Answer::Failure(_) => "failure",
            Answer::NodeInvalid => "invalid",
        }
    }

    #[test]
    fn the_body_alone_decides() {
        for (body, expected) in [
            (&b""[..], "success"),
            (b"{}", "success"),
            (b"{\"node_invalid\":false}", "success"),
            (b"{\"message\":\"Internal Server Error\"}", "success"),
            (b"{\"error\":null}", "failure"),
            (b"{\"error\":\"\"}", "failure"),
            (b"{\"error\":false,\"node_invalid\":false}", "failure"),
            (b"{\"node_invalid\":true}", "invalid"),
            (b"{\"node_invalid\":true,\"error\":\"x\"}", "invalid"),
            (b"OK", "failure"),
            (b"<html></html>", "failure"),
            (b"{\"a\":1", "failure"),
            (b"{} x", "failure"),
            (b"\xEF\xBB\xBF{}", "failure"),
            (b"[]", "failure"),
            (b"null", "failure"),
        ] {
            assert_eq!(
                word(body, NOW),
                expected,
                "{}",
                String::from_utf8_lossy(body)
            );
        }
    }

    #[test]
    fn only_old_versions_take_a_text_for_node_invalid() {
        let body = b"{\"node_invalid\":\"true\"}";
        assert_eq!(word(body, NOW), "success");
        assert_eq!(word(body, Version(2, 11, 2)), "invalid");
    }

    #[test]
    fn an_enrollment_needs_nothing_but_a_key() {
        assert_eq!(
            enrolled_key(b"{\"node_key\":\"k\",\"error\":\"x\",\"node_invalid\":true}"),
            Some("k".to_owned())
        );
        assert_eq!(enrolled_key(b"{\"id\":\"k\"}"), Some("k".to_owned()));
        assert_eq!(enrolled_key(b"{\"node_key\":\"\"}"), None);
        assert_eq!(enrolled_key(b"{\"node_key\":7}"), None);
        assert_eq!(enrolled_key(b""), None);
    }
}
