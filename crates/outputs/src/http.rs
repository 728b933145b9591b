//! The one outbound HTTP conversation: time-outs, no redirects, no proxies of the environment, no private addresses.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::HeaderMap;
use reqwest::{Method, Response, StatusCode, Url};

use crate::{Connector, SendError, Transcript, shorten};

/// An answer is read up to here; what is kept of it is shorter still.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// The longest wait that an answer may ask of us.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Sends bodies to URLs that people typed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: reqwest::Client,
    connector: Connector,
    /// Of the attempt that is under way.
    transcript: Option<Transcript>,
}

/// What is asked.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a [(&'static str, String)],
    pub(crate) body: Vec<u8>,
}

/// A 2xx answer.
pub(crate) struct Answer {
    status: StatusCode,
    /// Its beginning.
    pub(crate) body: String,
}

impl Answer {
    /// As the ledger keeps it.
    pub(crate) fn told(&self) -> String {
        told(self.status, &self.body)
    }
}

impl HttpClient {
    pub(crate) fn new(connector: &Connector, timeout: Duration) -> Result<Self, SendError> {
        let client = connector
            .http_builder()
            .timeout(timeout)
            .build()
            .map_err(|error| {
                SendError::refused(format!("the HTTP client cannot be set up: {error}"))
            })?;
        Ok(Self {
            client,
            connector: connector.clone(),
            transcript: None,
        })
    }

    pub(crate) fn with_transcript(&self, transcript: Transcript) -> Self {
        Self {
            transcript: Some(transcript),
            ..self.clone()
        }
    }

    /// Notes what is about to be said, if somebody records it.
    pub(crate) fn note(&self, text: &str) {
        if let Some(transcript) = &self.transcript {
            transcript.note(text);
        }
    }

    /// Posts a JSON body. Returns status and answer.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn post_json(
        &self,
        url: &Url,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<String, SendError> {
        let request = Request {
            method: Method::POST,
            url,
            headers,
            body,
        };
        Ok(self.send(request).await?.told())
    }

    /// Sends a request; its body is JSON unless a header says otherwise.
    ///
    /// # Errors
    /// Anything but a 2xx answer. Time-outs, connection errors, 408, 425, 429 and 5xx are worth another try soon. Redirects and
    /// refusals of us, of our key or of the place (401, 402, 403, 404, 405, 407, 451) somebody may mend; a refusal of what was said
    /// nobody will.
    pub(crate) async fn send(&self, request: Request<'_>) -> Result<Answer, SendError> {
        self.connector.check_url(request.url)?;
        if !request.body.is_empty() {
            self.note(&String::from_utf8_lossy(&request.body));
        }
        let mut headers = HeaderMap::new();
        let typed = request
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        for (name, value) in [("Content-Type", "application/json")]
            .into_iter()
            .chain(typed)
        {
            let mut value: reqwest::header::HeaderValue = value
                .parse()
                .map_err(|_| SendError::refused(format!("the header {name} cannot be sent")))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        // The URL of a webhook is a secret: it must not get into the text of an error.
        let response = self
            .client
            .request(request.method, request.url.clone())
            .headers(headers)
            .body(request.body)
            .send()
            .await
            .map_err(|error| explain(&error.without_url()))?;
        let status = response.status();
        let after = retry_after(response.headers());
        let body = read_some(response).await;
        if status.is_success() {
            return Ok(Answer { status, body });
        }
        let answer = told(status, &body);
        Err(match status.as_u16() {
            408 | 425 | 429 | 500.. => SendError::Retry { answer, after },
            300..=399 | 401..=405 | 407 | 451 => SendError::Rejected { answer },
            _ => SendError::Refused { answer },
        })
    }
}

fn told(status: StatusCode, body: &str) -> String {
    shorten(format!("{status}: {body}").trim_end_matches([' ', ':']))
}

/// The error with its causes; an address that may not be called is refused for good.
fn explain(error: &reqwest::Error) -> SendError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(SendError::Refused { answer }) = cause.downcast_ref::<SendError>() {
            return SendError::refused(answer);
        }
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if error.is_timeout() {
        SendError::retry(format!("no answer in time ({text})"))
    } else {
        SendError::retry(text)
    }
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds, or a date, which is taken against the answer's own `Date`, so that no clocks are
/// compared.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| Some(headers.get(name)?.to_str().ok()?.trim());
    let date =
        |text| -> Option<DateTime<Utc>> { Some(DateTime::parse_from_rfc2822(text).ok()?.to_utc()) };
    let wanted = text("Retry-After")?;
    let wait = match wanted.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => (date(wanted)? - date(text("Date")?)?).to_std().ok()?,
    };
    Some(wait.min(LONGEST_WAIT))
}

/// The beginning of the answer; whoever answers without end is not listened to.
async fn read_some(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_ANSWER_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER_BYTES - bytes.len())]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_seconds_and_as_a_date() {
        let wait = |after: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("Retry-After", after.parse().unwrap());
            if let Some(date) = date {
                headers.insert("Date", date.parse().unwrap());
            }
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        let now = Some("Sat, 21 Nov 2026 12:00:00 GMT");
        assert_eq!(wait("120", None), Some(120));
        assert_eq!(wait("99999999", None), Some(3600));
        assert_eq!(wait("Sat, 21 Nov 2026 12:01:30 GMT", now), Some(90));
        assert_eq!(
            wait("Sat, 21 Nov 2026 11:00:00 GMT", now),
            None,
            "it is past"
        );
        assert_eq!(wait("Sat, 21 Nov 2026 12:01:30 GMT", None), None);
        assert_eq!(wait("soon", now), None);
    }
}
