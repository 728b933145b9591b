//! Alerts as JSON, posted to a URL and signed.
//!
//! `Ostiary-Signature: t=<unix time>,id=<delivery>,v1=<hex>` where the hex digits are the HMAC-SHA256, with the shared secret, of the
//! time, a dot, the id, a dot and the body. A receiver checks it, refuses times that are long past and ids that it has seen, and so a
//! copy is worthless; the id (also in `Ostiary-Delivery`) is the same for each attempt, so a repetition is dropped by it, too.

use async_trait::async_trait;
use hmac::{Hmac, Mac as _};
use ostiary_domain::ids::DeliveryId;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Check, Destination, Field, Kind, SettingsError, web_url};
use crate::{Message, Outbound, SendError};

pub(super) const KIND: Kind = Kind::of::<Webhook>(
    "webhook",
    "Webhook",
    "A signed HTTP request to a program of yours.",
    &[
        Field::secret(
            "url",
            "URL",
            "Alerts are posted here as JSON. https, unless it is in your own network.",
        ),
        Field::secret(
            "secret",
            "Signing secret",
            "At least 16 characters; signs each request (header Ostiary-Signature).",
        ),
    ],
)
.with_digests();

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Webhook {
    #[serde(default)]
    url: SecretString,
    #[serde(default)]
    secret: SecretString,
}

impl Webhook {
    async fn post(
        &self,
        outbound: &Outbound,
        id: DeliveryId,
        time: i64,
        body: &Value,
    ) -> Result<String, SendError> {
        let url = web_url("url", self.url.expose_secret()).map_err(SendError::refused)?;
        let body = body.to_string().into_bytes();
        let headers = [
            (
                "Ostiary-Signature",
                sign(self.secret.expose_secret(), time, id, &body),
            ),
            ("Ostiary-Delivery", id.to_string()),
        ];
        outbound.http.post_json(&url, &headers, body).await
    }
}

impl Check for Webhook {
    fn check(&self) -> Result<(), SettingsError> {
        web_url("url", self.url.expose_secret())?;
        match self.secret.expose_secret().len() {
            16.. => Ok(()),
            _ => Err(SettingsError::of(
                "secret",
                "the signing secret needs at least 16 characters",
            )),
        }
    }
}

#[async_trait]
impl Destination for Webhook {
    fn summary(&self) -> String {
        // Path and query of such URLs are secrets: the host tells enough.
        web_url("url", self.url.expose_secret())
            .map(|url| format!("webhook at {}", url.host_str().unwrap_or_default()))
            .unwrap_or_default()
    }

    async fn send(&self, outbound: &Outbound, message: &Message) -> Result<String, SendError> {
        let mut body = json!({"type": message.event()});
        for (name, value) in [
            ("alert_id", json!(message.alert_id)),
            ("delivery_id", json!(message.delivery_id)),
            ("sent_at", json!(message.now)),
            ("alert", json!(message.alert)),
        ] {
            body[name] = value;
        }
        let time = message.now.timestamp();
        self.post(outbound, message.delivery_id, time, &body).await
    }

    async fn send_digest(
        &self,
        outbound: &Outbound,
        messages: &[Message],
    ) -> Result<String, SendError> {
        let [first, ..] = messages else {
            return Err(SendError::refused("there is nothing to be told"));
        };
        let items: Vec<Value> = messages
            .iter()
            .map(|each| {
                json!({"type": each.event(), "alert_id": each.alert_id, "delivery_id": each.delivery_id, "alert": each.alert})
            })
            .collect();
        let body = json!({"type": "digest", "delivery_id": first.delivery_id, "sent_at": first.now, "items": items});
        let time = first.now.timestamp();
        self.post(outbound, first.delivery_id, time, &body).await
    }
}

fn sign(secret: &str, time: i64, id: DeliveryId, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length will do");
    mac.update(format!("{time}.{id}.").as_bytes());
    mac.update(body);
    let digits = hex::encode(mac.finalize().into_bytes());
    format!("t={time},id={id},v1={digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_any_other_hmac() {
        // printf '1700000000.00000000-0000-0000-0000-000000000006.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let digits = "8eeda35d5eb0e593198fae463b5ede08b6d763a2e0a583d2c1d76c1521b11633";
        let id = DeliveryId(uuid::Uuid::from_u128(6));
        let signed = sign("0123456789abcdef", 1_700_000_000, id, b"{}");
        assert_eq!(signed, format!("t=1700000000,id={id},v1={digits}"));
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
