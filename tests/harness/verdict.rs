//! What a client makes of an answer, by the simulator's own code, which was written from the protocol and knows nothing of ours.

use ostiary_simulator::answer::{self, enrolled_key};
use ostiary_simulator::version::Version;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Answer;

/// What a client does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It believes that all is well, and forgets what it sent.
    Success,
    /// It keeps its key and what it has, and comes again.
    Failure,
    /// It forgets its key and enrolls again.
    EnrollAgain,
}

impl Verdict {
    /// The verdict of this version on what came back to an endpoint; a connection that was closed is a failure.
    #[must_use]
    pub fn of(client: &str, endpoint: &str, answer: Option<&Answer>) -> Self {
        let Some(answer) = answer else {
            return Self::Failure;
        };
        let path = endpoint.split('?').next().unwrap_or_default();
        let by = |good: bool| if good { Self::Success } else { Self::Failure };
        if path.ends_with("/enroll") {
            return by(enrolled_key(&answer.body).is_some());
        }
        // The carver looks neither at `error` nor at `node_invalid`: a start wants a session, a block any JSON.
        if path.ends_with("/carve/start") {
            let object: Map<String, Value> =
                serde_json::from_slice(&answer.body).unwrap_or_default();
            let session = object.get("session_id").and_then(Value::as_str);
            return by(session.is_some_and(|session| !session.is_empty()));
        }
        if path.ends_with("/carve/continue") {
            let json = serde_json::from_slice::<Map<String, Value>>(&answer.body);
            return by(answer.body.is_empty() || json.is_ok());
        }
        match answer::judge(&answer.body, version(client)) {
            answer::Answer::Success(_) => Self::Success,
            answer::Answer::Failure(_) => Self::Failure,
            answer::Answer::NodeInvalid => Self::EnrollAgain,
        }
    }
}

fn version(text: &str) -> Version {
    let mut numbers = text.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    Version(next(), next(), next())
}
