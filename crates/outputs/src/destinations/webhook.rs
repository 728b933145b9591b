//! Alerts as JSON, posted to a URL and signed.
//!
//! `Ostiary-Signature: t=<unix time>,v1=<hex>` where the hex digits are the HMAC-SHA256, with the shared secret, of the time, a dot
//! and the body. A receiver checks it and refuses old times, which makes a copy worthless; `Ostiary-Delivery` is the same for each
//! attempt, which lets it drop what it has seen.

use async_trait::async_trait;
use hmac::{Hmac, Mac as _};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;

use super::{Check, Destination, Field, Input, Kind, SettingsError};
use crate::{AlertKind, Message, Outbound, SendError};

pub(super) const KIND: Kind = Kind::of::<Webhook>(
    "webhook",
    "Webhook",
    &[
        Field {
            name: "url",
            label: "URL",
            help: "Alerts are posted here as JSON. https, unless it is in your own network.",
            input: Input::Secret,
            required: true,
        },
        Field {
            name: "secret",
            label: "Signing secret",
            help: "At least 16 characters; signs each request (header Ostiary-Signature).",
            input: Input::Secret,
            required: true,
        },
    ],
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Webhook {
    url: SecretString,
    secret: SecretString,
}

impl Webhook {
    fn url(&self) -> Result<Url, SettingsError> {
        let url: Url = self
            .url
            .expose_secret()
            .trim()
            .parse()
            .map_err(|_| SettingsError("this is no URL".into()))?;
        match url.scheme() {
            "https" | "http" if url.host_str().is_some() => Ok(url),
            _ => Err(SettingsError(
                "the URL must begin with https:// or http://".into(),
            )),
        }
    }
}

impl Check for Webhook {
    fn check(&self) -> Result<(), SettingsError> {
        self.url()?;
        match self.secret.expose_secret().len() {
            16.. => Ok(()),
            _ => Err(SettingsError(
                "the signing secret needs at least 16 characters".into(),
            )),
        }
    }
}

#[async_trait]
impl Destination for Webhook {
    fn summary(&self) -> String {
        // Path and query of such URLs are secrets: the host tells enough.
        self.url()
            .map(|url| format!("webhook at {}", url.host_str().unwrap_or_default()))
            .unwrap_or_default()
    }

    async fn send(&self, outbound: &Outbound, message: &Message) -> Result<String, SendError> {
        let url = self.url().map_err(SendError::refused)?;
        let about = match message.kind {
            AlertKind::Test => "test".to_owned(),
            kind => format!("finding.{}", kind.as_str()),
        };
        let body = json!({
            "type": about,
            "alert_id": message.alert_id,
            "delivery_id": message.delivery_id,
            "sent_at": message.now,
            "alert": message.alert,
        });
        let body = body.to_string().into_bytes();
        let signature = sign(self.secret.expose_secret(), message.now.timestamp(), &body);
        let headers = [
            ("Ostiary-Signature", signature),
            ("Ostiary-Delivery", message.delivery_id.to_string()),
        ];
        outbound.http.post_json(&url, &headers, body).await
    }
}

fn sign(secret: &str, time: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length will do");
    mac.update(format!("{time}.").as_bytes());
    mac.update(body);
    format!("t={time},v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_any_other_hmac() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected =
            "t=1700000000,v1=e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e";
        assert_eq!(sign("0123456789abcdef", 1_700_000_000, b"{}"), expected);
    }

    #[test]
    fn settings_are_checked_and_the_summary_hides_the_secret_part() {
        let read = |url: &str, secret: &str| KIND.read(&json!({"url": url, "secret": secret}));
        assert!(read("ftp://x", "0123456789abcdef").is_err());
        assert!(read("https://hooks.example.com/T0/B0/xyz", "short").is_err());
        let webhook = read("https://hooks.example.com/T0/B0/xyz", "0123456789abcdef")
            .ok()
            .unwrap();
        assert_eq!(webhook.summary(), "webhook at hooks.example.com");
    }
}
