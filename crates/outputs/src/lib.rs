//! Everything that leaves the house: alerts to destinations.
//!
//! An outbound call is never made inside a database transaction nor inside a node's request (invariant I7); the worker makes them,
//! from rows of `deliveries`. Nothing here stores anything.

mod addresses;
mod alert;
pub mod destinations;
mod http;
mod templates;

pub use addresses::Options;
pub use alert::{Alert, AlertKind, Message, NodeOfAlert, RuleOfAlert};
pub use http::HttpClient;

use std::time::Duration;

/// What destinations need from the process that sends: made once, cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Which addresses may be called.
    pub options: Options,
    /// The one HTTP client.
    pub http: HttpClient,
}

impl Outbound {
    /// Prepares to send.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new(options: Options) -> Result<Self, SendError> {
        Ok(Self {
            options,
            http: HttpClient::new(options)?,
        })
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

    pub(crate) fn refused(answer: impl std::fmt::Display) -> Self {
        Self::Refused {
            answer: shorten(&answer.to_string()),
        }
    }
}

/// Answers are kept with each attempt: a few lines tell enough. Control characters of a stranger stay out of our logs and pages.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 500;
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MOST)
        .collect();
    clean.trim().to_owned()
}
