//! `/log`: the envelope of a post. Its lines are decoded in [`crate::log`], later and elsewhere.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{RequestError, object_members};

/// The two logs of osqueryd, and whatever a foreign forwarder may invent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogType {
    /// Results of scheduled queries.
    Result,
    /// What osqueryd says about itself.
    Status,
    /// Something else; it is kept as unreadable.
    Unknown,
}

impl LogType {
    /// Reads the wire's name.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        match name {
            "result" => Self::Result,
            "status" => Self::Status,
            _ => Self::Unknown,
        }
    }

    /// The wire's name; `unknown` for whatever is neither.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Status => "status",
            Self::Unknown => "unknown",
        }
    }

    /// By which a stored post tells of which log it is.
    #[must_use]
    pub fn letter(self) -> u8 {
        match self {
            Self::Result => b'r',
            Self::Status => b's',
            Self::Unknown => b'x',
        }
    }

    /// Of which log a post with this letter is.
    #[must_use]
    pub fn of_letter(letter: u8) -> Self {
        match letter {
            b'r' => Self::Result,
            b's' => Self::Status,
            _ => Self::Unknown,
        }
    }
}

/// One post, split but not decoded; everything is borrowed from the body.
pub struct LogEnvelope<'a> {
    /// The node key, `""` when the node is not enrolled.
    pub node_key: Cow<'a, str>,
    /// The wire's name of the log, `""` when it was not sent.
    pub log_type: Cow<'a, str>,
    /// The JSON text of `data`: an array of lines in all but odd cases; `None` when it was not sent.
    pub data: Option<&'a str>,
}

impl<'a> LogEnvelope<'a> {
    /// Splits a sanitised body; `header_key` is the key of the `Authorization` header, used when the body has none.
    ///
    /// # Errors
    /// When the body is not a JSON object (a post that was cut off is none) or no node key is to be found.
    pub fn split(text: &'a str, header_key: Option<&str>) -> Result<Self, RequestError> {
        let members = object_members(text)?;
        Ok(Self {
            node_key: members.node_key(header_key)?,
            log_type: members.text("log_type").unwrap_or_default(),
            data: members.get("data").map(RawValue::get),
        })
    }

    /// Which log this is.
    #[must_use]
    pub fn kind(&self) -> LogType {
        LogType::parse(&self.log_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_order_of_keys_is_split_without_touching_the_lines() {
        for body in [
            r#"{"node_key":"K","log_type":"result","data":[{"a":18446744073709551615}, 1]}"#,
            "{ \"data\" : [{\"a\":18446744073709551615}, 1] , \"x\":{\"data\":3},\"log_type\":\"result\",\"node_key\":\"K\"}\n",
        ] {
            let envelope = LogEnvelope::split(body, None).unwrap();
            assert_eq!(envelope.node_key, "K");
            assert_eq!(envelope.kind(), LogType::Result);
            assert_eq!(envelope.data, Some(r#"[{"a":18446744073709551615}, 1]"#));
        }
    }

    #[test]
    fn r21_r22_odd_envelopes_are_split_too() {
        let split = |body| LogEnvelope::split(body, None).unwrap();
        assert_eq!(split(r#"{"node_key":"K","log_type":"status"}"#).data, None);
        assert_eq!(
            split(r#"{"node_key":"K","log_type":"status","data":""}"#).data,
            Some("\"\"")
        );
        assert_eq!(
            split(r#"{"node_key":"K","log_type":"carrot","data":{}}"#).kind(),
            LogType::Unknown
        );
        assert_eq!(split(r#"{"node_key":"K"}"#).kind(), LogType::Unknown);
    }

    #[test]
    fn a_missing_or_odd_key_has_an_error_of_its_own() {
        let fail = |body| LogEnvelope::split(body, None).err().unwrap();
        assert!(matches!(
            fail(r#"{"data":[]}"#),
            RequestError::NodeKeyMissing
        ));
        assert!(matches!(
            fail(r#"{"node_key":1,"data":[]}"#),
            RequestError::NodeKeyNotText
        ));
        assert!(matches!(
            fail(r#"{"node_key":"K","data":[{"#),
            RequestError::NotAnObject(_)
        ));
        assert_eq!(LogEnvelope::split("{}", Some("H")).unwrap().node_key, "H");
    }
}
