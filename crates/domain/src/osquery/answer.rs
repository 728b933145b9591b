//! What a node is told. Which answer fits which trouble is decided by `api`, not here.
//!
//! **Invariant:** no answer to a success holds the key `error`: osqueryd takes its mere presence, even null, for a
//! failure. And no failure is an empty body: osqueryd would take it for a success.

use serde::Serialize;

/// `{"node_invalid":false}`: the request was taken; after a log post, the node forgets its lines.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Accepted {
    node_invalid: bool,
}

/// `{"node_invalid":true}`: the key is positively unknown or revoked; the node enrolls again.
///
/// It never carries `error`, which before osquery 2.1.0 would win, and the node would never enroll again.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NodeInvalid {
    node_invalid: bool,
}

impl Default for NodeInvalid {
    fn default() -> Self {
        Self { node_invalid: true }
    }
}

/// `{"error":"…"}`: the node keeps its key and its buffer, and tries again.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// The reason; it ends up in the node's own log.
    pub error: String,
}

/// The answer to an enrollment that was accepted.
#[derive(Debug, Clone, Serialize)]
pub struct EnrollAccepted {
    /// The node key: a non-empty string that also fits into an HTTP header.
    pub node_key: String,
    node_invalid: bool,
}

impl EnrollAccepted {
    /// Hands out this key.
    #[must_use]
    pub fn new(node_key: String) -> Self {
        Self {
            node_key,
            node_invalid: false,
        }
    }
}

/// The answer to an enrollment that was refused: osqueryd looks only for a key, and finds none.
#[derive(Debug, Clone, Serialize)]
pub struct EnrollRefused {
    node_invalid: bool,
    error: String,
}

impl EnrollRefused {
    /// Refuses for this reason, which a stranger may read.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            node_invalid: true,
            error: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_written_to_the_letter() {
        let json = |value: serde_json::Result<String>| value.unwrap();
        assert_eq!(
            json(serde_json::to_string(&Accepted::default())),
            r#"{"node_invalid":false}"#
        );
        assert_eq!(
            json(serde_json::to_string(&NodeInvalid::default())),
            r#"{"node_invalid":true}"#
        );
        assert_eq!(
            json(serde_json::to_string(&Refused {
                error: "busy".into()
            })),
            r#"{"error":"busy"}"#
        );
        assert_eq!(
            json(serde_json::to_string(&EnrollAccepted::new("k".into()))),
            r#"{"node_key":"k","node_invalid":false}"#
        );
        assert_eq!(
            json(serde_json::to_string(&EnrollRefused::new(
                "bad enroll secret"
            ))),
            r#"{"node_invalid":true,"error":"bad enroll secret"}"#
        );
    }
}
