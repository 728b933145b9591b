//! The one outbound HTTP client: time-outs, no redirects, no proxies of the environment, no private addresses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode, Url};

use crate::{Options, SendError, shorten};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: usize = 4096;
/// The longest wait that an answer may ask of us.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Sends bodies to URLs that people typed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: reqwest::Client,
    options: Options,
}

/// Answers only with addresses that may be called.
struct CheckedResolver(Options);

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let options = self.0;
        Box::pin(async move {
            let addresses = options.resolve(name.as_str(), 0).await?;
            let addresses: Addrs = Box::new(
                addresses
                    .into_iter()
                    .map(|address| SocketAddr::new(address.ip(), 0)),
            );
            Ok(addresses)
        })
    }
}

impl HttpClient {
    pub(crate) fn new(options: Options, timeout: Duration) -> Result<Self, SendError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("ostiary/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            // A redirect could lead inward, and would carry the body to a stranger.
            .redirect(Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(CheckedResolver(options)))
            .build()
            .map_err(|error| SendError::refused(format!("the HTTP client cannot be set up: {error}")))?;
        Ok(Self { client, options })
    }

    /// Posts a JSON body. Returns status and answer.
    ///
    /// # Errors
    /// Anything but a 2xx answer: time-outs, connection errors, 408, 425, 429 and 5xx are worth another try, the rest is not.
    pub(crate) async fn post_json(
        &self,
        url: &Url,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<String, SendError> {
        self.check_literal(url)?;
        let mut request = self
            .client
            .post(url.clone())
            .header("Content-Type", "application/json")
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        // The URL of a webhook is a secret: it must not get into the text of an error.
        let response = request
            .send()
            .await
            .map_err(|error| explain(&error.without_url()))?;
        let status = response.status();
        let after = retry_after(&response);
        let text = format!("{status}: {}", read_some(response).await);
        let answer = shorten(text.trim_end_matches([' ', ':']));
        if status.is_success() {
            Ok(answer)
        } else if is_worth_another_try(status) {
            Err(SendError::Retry { answer, after })
        } else {
            Err(SendError::Refused { answer })
        }
    }

    /// A literal address never reaches the resolver.
    fn check_literal(&self, url: &Url) -> Result<(), SendError> {
        let host = url
            .host_str()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) if !self.options.allows(address) => Err(SendError::refused(format!(
                "{address} is a private address, which the settings do not allow ([outputs] allow_private_addresses)"
            ))),
            _ => Ok(()),
        }
    }
}

fn is_worth_another_try(status: StatusCode) -> bool {
    status.is_server_error()
        || [
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::TOO_EARLY,
            StatusCode::TOO_MANY_REQUESTS,
        ]
        .contains(&status)
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

/// `Retry-After` in seconds; the form with a date is rare and not read.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get("Retry-After")?.to_str().ok()?;
    Some(Duration::from_secs(text.trim().parse().ok()?).min(LONGEST_WAIT))
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
