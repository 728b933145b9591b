//! What Slack and Teams have in common: a channel that takes messages at a URL which is itself the secret.

use std::marker::PhantomData;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::{Check, Destination, SettingsError, web_url};
use crate::{Message, Outbound, SendError, Told};

/// How one of them wants to be told.
pub(super) trait Format: Send + Sync + 'static {
    /// What the vendor calls the URL.
    const WORD: &'static str;

    /// The message.
    fn body(told: &Told) -> Value;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
pub(super) struct Channel<F> {
    #[serde(default)]
    url: SecretString,
    #[serde(skip)]
    format: PhantomData<F>,
}

impl<F> Check for Channel<F> {
    fn check(&self) -> Result<(), SettingsError> {
        web_url("url", self.url.expose_secret()).map(drop)
    }
}

impl<F: Format> Channel<F> {
    async fn tell(&self, outbound: &Outbound, told: &Told) -> Result<String, SendError> {
        let url = web_url("url", self.url.expose_secret()).map_err(SendError::refused)?;
        let body = F::body(told).to_string().into_bytes();
        outbound.http.post_json(&url, &[], body).await
    }
}

#[async_trait]
impl<F: Format> Destination for Channel<F> {
    fn summary(&self) -> String {
        // Path and query of such URLs are secrets: the host tells enough.
        web_url("url", self.url.expose_secret())
            .map(|url| format!("{} at {}", F::WORD, url.host_str().unwrap_or_default()))
            .unwrap_or_default()
    }

    async fn send(&self, outbound: &Outbound, message: &Message) -> Result<String, SendError> {
        self.tell(outbound, &Told::of(message)).await
    }

    async fn send_digest(
        &self,
        outbound: &Outbound,
        messages: &[Message],
    ) -> Result<String, SendError> {
        self.tell(outbound, &Told::of_all(messages)).await
    }
}
