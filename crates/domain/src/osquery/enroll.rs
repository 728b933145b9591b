//! `/enroll`: what a node says about itself before it has a key. Who it is, is decided in `enrollment`.

use std::borrow::Cow;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{RequestError, object_members, text_of};

/// The key of the secret in the body, unless nodes run with `--tls_enroll_override`.
pub const DEFAULT_SECRET_KEY: &str = "enroll_secret";

/// The body of `/enroll`. Everything but the secret may be missing: osquery 1.x sends only the first two fields.
#[derive(Clone, Default)]
pub struct EnrollRequest {
    /// The enroll secret, `""` when the node has none. Never write it to a log.
    pub enroll_secret: String,
    /// What `--host_identifier` names: a host name, hardware UUID, instance id or free text of any length.
    /// `""` when it was not sent.
    pub host_identifier: String,
    /// A decimal bit mask (POSIX 1, Windows 2, BSD 4, Linux 8, macOS 16, FreeBSD 32); from osquery 2.4.7 on, `""` before.
    pub platform_type: String,
    /// First rows of `os_version`, `osquery_info`, `system_info` and `platform_info` by table (from 2.8.0 on), kept
    /// whole, with tables and columns we do not know.
    pub host_details: Map<String, Value>,
}

// By hand, so that a secret cannot slip into a log.
impl std::fmt::Debug for EnrollRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrollRequest")
            .field("host_identifier", &self.host_identifier)
            .field("platform_type", &self.platform_type)
            .finish_non_exhaustive()
    }
}

impl EnrollRequest {
    /// Reads a sanitised body; `secret_key` is the name of the secret's key, usually [`DEFAULT_SECRET_KEY`].
    ///
    /// # Errors
    /// Only when the body is not a JSON object. A field of an odd type is taken for its text, or left out.
    pub fn parse(body: &str, secret_key: &str) -> Result<Self, RequestError> {
        let members = object_members(body)?;
        let text = |key| members.text(key).map(Cow::into_owned).unwrap_or_default();
        Ok(Self {
            enroll_secret: text(secret_key),
            host_identifier: text("host_identifier"),
            platform_type: text("platform_type"),
            host_details: members.get("host_details").map(tables).unwrap_or_default(),
        })
    }

    /// A column of the host details as text; `None` when the table or column was not sent.
    #[must_use]
    pub fn detail(&self, table: &str, column: &str) -> Option<Cow<'_, str>> {
        match self.host_details.get(table)?.get(column)? {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Null => Some(Cow::Borrowed("")),
            other => Some(Cow::Owned(other.to_string())),
        }
    }
}

/// What is not an object of tables is no detail. Numbers that a `Value` would round or refuse are kept as text.
fn tables(details: &RawValue) -> Map<String, Value> {
    let Ok(members) = object_members(details.get()) else {
        return Map::new();
    };
    let columns = |table: &RawValue| match object_members(table.get()) {
        Ok(columns) => Value::Object(
            columns
                .into_pairs()
                .into_iter()
                .map(|(name, value)| (name.into_owned(), exact(value)))
                .collect(),
        ),
        Err(_) => exact(table),
    };
    members
        .into_pairs()
        .into_iter()
        .map(|(name, table)| (name.into_owned(), columns(table)))
        .collect()
}

fn exact(value: &RawValue) -> Value {
    match serde_json::from_str(value.get()) {
        Ok(Value::Number(number)) if number.to_string() != value.get() => {
            Value::String(value.get().to_owned())
        }
        Ok(value) => value,
        Err(_) => Value::String(text_of(value).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::osquery::sanitise;

    fn parse(body: &str) -> EnrollRequest {
        EnrollRequest::parse(&sanitise(body.as_bytes()).text, DEFAULT_SECRET_KEY).unwrap()
    }

    #[test]
    fn e1_to_e3_each_version_adds_a_field() {
        let e1 = parse(r#"{"enroll_secret":"s","host_identifier":"h"}"#);
        assert_eq!(
            (e1.enroll_secret.as_str(), e1.host_identifier.as_str()),
            ("s", "h")
        );
        assert_eq!((e1.platform_type.as_str(), e1.host_details.len()), ("", 0));

        let e2 = parse(r#"{"enroll_secret":"s","host_identifier":"h","platform_type":"9"}"#);
        assert_eq!(e2.platform_type, "9");

        let e3 = parse(
            r#"{"host_details":{"osquery_info":{"version":"5.23.1","pid":"7"},"system_info":{"uuid":"U"}},"enroll_secret":"s"}"#,
        );
        assert_eq!(
            e3.detail("osquery_info", "version").as_deref(),
            Some("5.23.1")
        );
        assert_eq!(e3.detail("system_info", "uuid").as_deref(), Some("U"));
        assert_eq!(
            e3.detail("platform_info", "vendor"),
            None,
            "E4: the table is often missing"
        );
        assert_eq!(e3.host_identifier, "");
    }

    #[test]
    fn e5_e8_the_secret_may_be_empty_missing_or_renamed() {
        assert_eq!(parse(r#"{"enroll_secret":""}"#).enroll_secret, "");
        assert_eq!(parse("{}").enroll_secret, "");
        let renamed = EnrollRequest::parse(r#"{"my_secret":"s"}"#, "my_secret").unwrap();
        assert_eq!(renamed.enroll_secret, "s");
    }

    #[test]
    fn e6_e7_e9_odd_values_are_kept() {
        let odd = parse(
            r#"{"host_identifier":"🦀","host_details":{"system_info":{"hardware_serial":"A\u0000","new":18446744073709551615,"x":1e999},"future":{"a":{"b":1}},"list":[1]}}"#,
        );
        assert_eq!(odd.host_identifier, "🦀");
        assert_eq!(
            odd.detail("system_info", "hardware_serial").as_deref(),
            Some("A\u{FFFD}")
        );
        assert_eq!(
            odd.detail("system_info", "new").as_deref(),
            Some("18446744073709551615")
        );
        assert_eq!(odd.detail("system_info", "x").as_deref(), Some("1e999"));
        assert_eq!(odd.detail("future", "a").as_deref(), Some(r#"{"b":1}"#));
        assert!(odd.host_details.contains_key("list"));
        assert_eq!(
            parse(r#"{"host_details":"","platform_type":21}"#).platform_type,
            "21"
        );
    }

    #[test]
    fn what_is_no_object_is_refused_and_the_secret_is_never_printed() {
        for body in [
            "",
            "[]",
            "\"x\"",
            "{\"enroll_secret\":\"s\"",
            "null",
            "{} x",
        ] {
            assert!(
                EnrollRequest::parse(body, DEFAULT_SECRET_KEY).is_err(),
                "{body}"
            );
        }
        assert!(!format!("{:?}", parse(r#"{"enroll_secret":"hush"}"#)).contains("hush"));
    }
}
