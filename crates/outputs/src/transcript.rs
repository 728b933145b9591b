//! What is said to the other side, for the ledger: bodies of requests, texts of mails, lines of syslog; never a URL, a header or a
//! password.

use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are kept of one attempt.
const MOST_BYTES: usize = 16 * 1024;
/// Shorter secrets are not looked for: they would be found everywhere. What a body may hold (a key of PagerDuty) is longer.
const SHORTEST_SECRET: usize = 8;

/// What was said in one attempt. Clones write into the same one.
#[derive(Debug, Clone, Default)]
pub struct Transcript(Arc<Mutex<String>>);

impl Transcript {
    /// Adds what is about to be said.
    pub(crate) fn note(&self, text: &str) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.is_empty() {
            said.push_str("\n\n");
        }
        let left = MOST_BYTES.saturating_sub(said.len());
        said.push_str(&text[..text.floor_char_boundary(left)]);
    }

    /// All of it, up to 16 KiB, with dots in place of these secrets.
    #[must_use]
    pub fn said(&self, secrets: &[String]) -> String {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hide(secrets, &said.replace('\0', " "))
    }
}

/// The text with dots in place of these secrets: what is said to others, or by them, may hold one.
#[must_use]
pub fn hide(secrets: &[String], text: &str) -> String {
    let long = secrets
        .iter()
        .filter(|secret| secret.len() >= SHORTEST_SECRET);
    long.fold(text.to_owned(), |text, secret| text.replace(secret, "•••"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_kept_up_to_a_bound_and_without_secrets() {
        let transcript = Transcript::default();
        transcript.note("{\"key\":\"0123456789abcdef\"}");
        transcript.note("second\0");
        let secrets = ["0123456789abcdef".to_owned(), "e".to_owned()];
        assert_eq!(transcript.said(&secrets), "{\"key\":\"•••\"}\n\nsecond ");
        transcript.note(&"é".repeat(MOST_BYTES));
        let said = transcript.said(&secrets);
        assert!(
            said.len() <= MOST_BYTES && said.ends_with('é'),
            "{}",
            said.len()
        );
        transcript.note("more");
        assert!(!transcript.said(&[]).contains("more"));
    }
}
