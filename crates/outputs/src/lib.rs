//! Everything that leaves the house: alerts to destinations.
//!
//! An outbound call is never made inside a database transaction nor inside a node's request (invariant I7); the worker makes them,
//! from rows of `deliveries`. Nothing here stores anything.

mod addresses;
mod alert;
mod connect;
pub mod destinations;
mod http;
mod own_templates;
mod sign_of_life;
pub mod sinks;
mod smtp;
mod syslog;
mod templates;
mod transcript;

pub use addresses::Options;
pub use alert::{
    Alert, AlertChange, AlertKind, Message, NodeOfAlert, RuleOfAlert, TestAlert, finding_of_key,
};
pub use connect::{Connector, Lookup, Trust};
pub use http::HttpClient;
pub use own_templates::{TemplateError, Templates};
pub use templates::{Told, check_templates};
pub use transcript::{Transcript, hide};

use std::time::Duration;

/// How long an attempt may take, from the connection to the answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What destinations need from the process that sends: made once, cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// The one way to an address.
    pub connector: Connector,
    /// The one HTTP client.
    pub http: HttpClient,
    timeout: Duration,
}

impl Outbound {
    /// Prepares to send.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new(options: Options) -> Result<Self, SendError> {
        Self::with_timeout(options, TIMEOUT)
    }

    /// Prepares to send, with another patience than 20 seconds for an attempt.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn with_timeout(options: Options, timeout: Duration) -> Result<Self, SendError> {
        let connector = Connector::new(options);
        Ok(Self {
            http: HttpClient::new(&connector, timeout)?,
            connector,
            timeout,
        })
    }

    /// The same, and what is said by it to destinations.
    #[must_use]
    pub fn recording(&self) -> (Self, Transcript) {
        let transcript = Transcript::default();
        let recording = Self {
            http: self.http.with_transcript(transcript.clone()),
            ..self.clone()
        };
        (recording, transcript)
    }

    /// Notes what is about to be said, if somebody records it.
    pub(crate) fn note(&self, text: &str) {
        self.http.note(text);
    }

    /// The longest that [`Destination::send`](destinations::Destination::send) takes, with all that surrounds the conversation
    /// itself: the look-up of a name before, the good-bye after it.
    #[must_use]
    pub fn longest_attempt(&self) -> Duration {
        self.timeout + connect::LOOKUP_TIMEOUT + smtp::QUIT_TIMEOUT
    }
}

/// Why a delivery attempt brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It may work later: the other side is down, busy or slow.
    #[error("{answer}")]
    Retry {
        /// What was answered, or what went wrong.
        answer: String,
        /// How long the other side asks us to wait.
        after: Option<Duration>,
    },
    /// It is refused as things stand over there, which somebody may mend: a password that was changed, a channel that is missing.
    #[error("{answer}")]
    Rejected {
        /// What was answered.
        answer: String,
    },
    /// It will never work like this: wrong settings, a refusal for good.
    #[error("{answer}")]
    Refused {
        /// What was answered, or what is wrong.
        answer: String,
    },
}

impl SendError {
    pub(crate) fn retry(answer: impl std::fmt::Display) -> Self {
        Self::Retry {
            answer: shorten(&answer.to_string()),
            after: None,
        }
    }

    pub(crate) fn rejected(answer: impl std::fmt::Display) -> Self {
        Self::Rejected {
            answer: shorten(&answer.to_string()),
        }
    }

    /// What was answered, or what went wrong.
    #[must_use]
    pub fn answer(&self) -> &str {
        match self {
            Self::Retry { answer, .. } | Self::Rejected { answer } | Self::Refused { answer } => {
                answer
            }
        }
    }

    /// The same with dots in place of these secrets, which an answer may quote.
    #[must_use]
    pub fn hiding(self, secrets: &[String]) -> Self {
        let hide = |answer: String| transcript::hide(secrets, &answer);
        match self {
            Self::Retry { answer, after } => Self::Retry {
                answer: hide(answer),
                after,
            },
            Self::Rejected { answer } => Self::Rejected {
                answer: hide(answer),
            },
            Self::Refused { answer } => Self::Refused {
                answer: hide(answer),
            },
        }
    }

    pub(crate) fn refused(answer: impl std::fmt::Display) -> Self {
        Self::Refused {
            answer: shorten(&answer.to_string()),
        }
    }
}

/// Answers are kept with each attempt: a few lines tell enough.
pub(crate) fn shorten(text: &str) -> String {
    one_line(text, 1000)
}

/// At most `most` characters of a stranger's text, on one line: nothing in it can begin a line of its own, steer a terminal or turn
/// the direction of what follows.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let is_steering = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let clean: String = text
        .chars()
        .map(|c| if is_steering(c) { ' ' } else { c })
        .take(most)
        .collect();
    clean.trim().to_owned()
}
