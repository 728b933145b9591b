//! Alerts to PagerDuty by its Events API v2: trigger, acknowledge and resolve under one dedup key per finding; and back, what
//! PagerDuty's webhooks (v3) say of such an incident.
//!
//! Source: developer.pagerduty.com, "Events API v2" (send an alert event), "Webhooks" and "Verifying webhook signatures".

use async_trait::async_trait;
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Check, Destination, Field, Kind, SettingsError, web_url};
use crate::{AlertKind, Message, Outbound, SendError, Told};

pub(super) const KIND: Kind = Kind::of::<PagerDuty>(
    "pagerduty",
    "PagerDuty",
    "Triggers, acknowledges and resolves an incident per finding; an acknowledgement over there comes back.",
    &[
        Field::secret(
            "routing_key",
            "Integration key",
            "32 characters, of an integration \"Events API V2\" of the service.",
        ),
        Field::text(
            "url",
            "Events API",
            "https://events.eu.pagerduty.com/v2/enqueue for accounts in the EU.",
        )
        .or(EVENTS_URL),
        Field::secret(
            "webhook_secret",
            "Webhook secret",
            "If acknowledgements and resolutions over there shall count here: the secret of a webhook subscription (v3) whose URL is shown once this is saved.",
        )
        .optional(),
    ],
);

const EVENTS_URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// PagerDuty's limit of a summary, in characters.
const MOST_OF_A_SUMMARY: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PagerDuty {
    #[serde(default)]
    routing_key: SecretString,
    #[serde(default)]
    url: String,
    /// Read by [`hook`] only.
    #[serde(default)]
    webhook_secret: SecretString,
}

impl PagerDuty {
    fn url(&self) -> Result<Url, SettingsError> {
        web_url("url", &self.url)
    }

    async fn tell(&self, outbound: &Outbound, event: &Value) -> Result<String, SendError> {
        let url = self.url().map_err(SendError::refused)?;
        let body = event.to_string().into_bytes();
        outbound.http.post_json(&url, &[], body).await
    }
}

impl Check for PagerDuty {
    fn check(&self) -> Result<(), SettingsError> {
        let key = self.routing_key.expose_secret();
        if key.len() != 32 || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let problem = "an integration key has 32 letters and digits";
            return Err(SettingsError::of("routing_key", problem));
        }
        let secret = self.webhook_secret.expose_secret().len();
        if secret > 0 && secret < 16 {
            let problem = "this is shorter than any secret of PagerDuty";
            return Err(SettingsError::of("webhook_secret", problem));
        }
        self.url().map(drop)
    }
}

#[async_trait]
impl Destination for PagerDuty {
    fn summary(&self) -> String {
        let host = self
            .url()
            .map(|url| url.host_str().unwrap_or_default().to_owned());
        let back = if self.webhook_secret.expose_secret().is_empty() {
            ""
        } else {
            ", and back"
        };
        format!("Events API v2 at {}{back}", host.unwrap_or_default())
    }

    async fn send(&self, outbound: &Outbound, message: &Message) -> Result<String, SendError> {
        let key = self.routing_key.expose_secret();
        let answer = self.tell(outbound, &event(key, message)).await?;
        if message.kind != AlertKind::Test {
            return Ok(answer);
        }
        // Nobody shall be left with the incident of a test.
        let end = json!({"routing_key": key, "event_action": "resolve", "dedup_key": message.dedup_key()});
        self.tell(outbound, &end).await
    }
}

fn event(routing_key: &str, message: &Message) -> Value {
    let action = match message.kind {
        AlertKind::Opened | AlertKind::Test => "trigger",
        AlertKind::Acknowledged => "acknowledge",
        AlertKind::Resolved => "resolve",
    };
    let mut event = json!({
        "routing_key": routing_key, "event_action": action, "dedup_key": message.dedup_key(),
    });
    if action != "trigger" {
        return event;
    }
    let (alert, told) = (&message.alert, Told::of(message));
    let severity = match alert.rule.severity.as_str() {
        "critical" => "critical",
        "high" => "error",
        "medium" => "warning",
        _ => "info",
    };
    event["client"] = "Ostiary".into();
    let links: Vec<Value> = [
        (&alert.url, "Finding"),
        (&alert.rule.runbook_url, "What to do"),
    ]
    .into_iter()
    .filter(|(href, _)| !href.is_empty())
    .map(|(href, text)| json!({"href": href, "text": text}))
    .collect();
    if !alert.url.is_empty() {
        event["client_url"] = alert.url.clone().into();
    }
    if !links.is_empty() {
        event["links"] = links.into();
    }
    event["payload"] = json!({
        "summary": crate::one_line(&told.title, MOST_OF_A_SUMMARY),
        "source": if alert.node.name.is_empty() { "Ostiary" } else { &alert.node.name },
        "severity": severity,
        "timestamp": alert.occurred_at,
        "component": alert.query_name,
        "class": alert.rule.name,
        "custom_details": {
            "text": told.text, "entity": alert.entity, "action": alert.action, "columns": alert.columns,
            "host_identifier": alert.node.host_identifier, "platform": alert.node.platform, "tags": alert.node.tags,
            "delivery": message.delivery_id,
        },
    });
    event
}

pub mod hook {
    //! What PagerDuty's webhooks say.

    use chrono::{DateTime, Utc};
    use hmac::{Hmac, Mac as _};
    use ostiary_domain::ids::FindingId;
    use serde::Deserialize;
    use serde_json::{Map, Value};
    use sha2::Sha256;

    use crate::alert::finding_of_key;

    /// The header with the signatures of a webhook.
    pub const SIGNATURE: &str = "x-pagerduty-signature";

    /// What somebody did over there.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Deed {
        /// They look after it.
        Acknowledged,
        /// It is over.
        Resolved,
        /// It is not: it was acknowledged or resolved before.
        Reopened,
    }

    /// An event about an incident of ours.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Event {
        /// Its id over there.
        pub id: String,
        /// When.
        pub occurred_at: DateTime<Utc>,
        /// What.
        pub deed: Deed,
        /// Of which finding.
        pub finding: FindingId,
        /// Who, as PagerDuty calls them.
        pub by: String,
    }

    /// Is the body signed with the secret that these settings of a destination hold? `signatures` is the header's value: several with
    /// commas between, while a secret is changed. Without a secret nothing is.
    #[must_use]
    pub fn is_signed(settings: &Map<String, Value>, signatures: &str, body: &[u8]) -> bool {
        let secret = settings.get("webhook_secret").and_then(Value::as_str);
        let Some(secret) = secret.filter(|secret| !secret.is_empty()) else {
            return false;
        };
        signatures.split(',').any(|signature| {
            let digits = signature.trim().strip_prefix("v1=").unwrap_or_default();
            let Ok(bytes) = hex::decode(digits) else {
                return false;
            };
            let mut mac =
                Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length will do");
            mac.update(body);
            mac.verify_slice(&bytes).is_ok()
        })
    }

    #[derive(Deserialize)]
    struct Hook {
        event: HookEvent,
    }

    #[derive(Deserialize)]
    struct HookEvent {
        id: String,
        event_type: String,
        occurred_at: DateTime<Utc>,
        #[serde(default)]
        agent: Option<Agent>,
        #[serde(default)]
        data: Value,
    }

    #[derive(Deserialize)]
    struct Agent {
        #[serde(default)]
        summary: Option<String>,
    }

    /// The event of a webhook's body; `None` is one that is none of our business.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(body: &[u8]) -> Result<Option<Event>, serde_json::Error> {
        let event = serde_json::from_slice::<Hook>(body)?.event;
        let deed = match event.event_type.as_str() {
            "incident.acknowledged" => Deed::Acknowledged,
            "incident.resolved" => Deed::Resolved,
            "incident.unacknowledged" | "incident.reopened" => Deed::Reopened,
            _ => return Ok(None),
        };
        let key = event.data.get("incident_key").and_then(Value::as_str);
        let Some(finding) = key.and_then(finding_of_key) else {
            return Ok(None);
        };
        let by = event.agent.and_then(|agent| agent.summary);
        Ok(Some(Event {
            id: crate::one_line(&event.id, 100),
            occurred_at: event.occurred_at,
            deed,
            finding,
            by: crate::one_line(&by.unwrap_or_default(), 100),
        }))
    }

    #[cfg(test)]
    mod tests {
        use serde_json::json;

        use super::*;

        #[test]
        fn a_signature_is_checked_with_every_secret_that_signs_and_without_one_nothing_passes() {
            let body = b"{\"event\":{}}";
            let settings = |secret: &str| {
                json!({"webhook_secret": secret})
                    .as_object()
                    .unwrap()
                    .clone()
            };
            // printf '{"event":{}}' | openssl dgst -sha256 -hmac 0123456789abcdef
            let good = "v1=7fa61f5b45e6a2433a5af6e6807ba3c001e78dbd62b70df85b67e685c4cac749";
            let two = format!("v1=00ff, {good}");
            assert!(is_signed(&settings("0123456789abcdef"), &two, body));
            assert!(!is_signed(&settings("0123456789abcdef"), &two, b"{}"));
            assert!(!is_signed(&settings("another secret.."), &two, body));
            let mut mac = Hmac::<Sha256>::new_from_slice(b"").unwrap();
            mac.update(body);
            let by_nothing = format!("v1={}", hex::encode(mac.finalize().into_bytes()));
            assert!(!is_signed(&settings(""), &by_nothing, body));
            assert!(!is_signed(&Map::new(), &by_nothing, body));
        }
    }
}
