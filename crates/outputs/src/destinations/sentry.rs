//! Alerts as events of a Sentry project: one envelope each.
//!
//! The delivery's id is the event's, so a repetition is dropped over there; the finding is the fingerprint, so that all of it is one
//! issue. Sentry is told only that a finding was opened: any further event would open a resolved issue again.
//!
//! Source: develop.sentry.dev, "Envelopes", "Event Payloads" and "Authentication".

use async_trait::async_trait;
use reqwest::{Method, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Check, Destination, Field, Kind, SettingsError, only_opened, web_url};
use crate::http::Request;
use crate::{Message, Outbound, SendError, Told};

pub(super) const KIND: Kind = Kind::of::<Sentry>(
    "sentry",
    "Sentry",
    "Events of a Sentry project.",
    &[Field::secret(
        "dsn",
        "DSN",
        "Of the project: https://<key>@<host>/<project>",
    )],
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sentry {
    #[serde(default)]
    dsn: SecretString,
}

/// What a DSN says.
struct Dsn {
    key: String,
    envelope: Url,
}

impl Sentry {
    fn dsn(&self) -> Result<Dsn, SettingsError> {
        let wrong = |problem| SettingsError::of("dsn", problem);
        let mut url = web_url("dsn", self.dsn.expose_secret())?;
        let key = url.username().to_owned();
        let path = url.path().trim_matches('/').to_owned();
        let (prefix, project) = path.rsplit_once('/').unwrap_or(("", &path));
        if key.is_empty() {
            return Err(wrong("the key before the @ is missing"));
        }
        if project.is_empty() || !project.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong("the number of the project at the end is missing"));
        }
        let prefix = if prefix.is_empty() {
            String::new()
        } else {
            format!("/{prefix}")
        };
        url.set_path(&format!("{prefix}/api/{project}/envelope/"));
        url.set_username("").map_err(|()| wrong("this is no DSN"))?;
        url.set_password(None)
            .map_err(|()| wrong("this is no DSN"))?;
        url.set_query(None);
        Ok(Dsn { key, envelope: url })
    }
}

impl Check for Sentry {
    fn check(&self) -> Result<(), SettingsError> {
        self.dsn().map(drop)
    }
}

#[async_trait]
impl Destination for Sentry {
    fn summary(&self) -> String {
        self.dsn()
            .map(|dsn| {
                let project = dsn.envelope.path().trim_end_matches("/envelope/");
                let project = project.rsplit('/').next().unwrap_or_default();
                let host = dsn.envelope.host_str().unwrap_or_default();
                format!("project {project} at {host}")
            })
            .unwrap_or_default()
    }

    async fn send(&self, outbound: &Outbound, message: &Message) -> Result<String, SendError> {
        if let Some(told) = only_opened(message.kind, "Sentry") {
            return Ok(told);
        }
        let dsn = self.dsn().map_err(SendError::refused)?;
        let client = concat!("ostiary/", env!("CARGO_PKG_VERSION"));
        let auth = format!(
            "Sentry sentry_version=7, sentry_client={client}, sentry_key={}",
            dsn.key
        );
        let request = Request {
            method: Method::POST,
            url: &dsn.envelope,
            headers: &[
                ("Content-Type", "application/x-sentry-envelope".to_owned()),
                ("X-Sentry-Auth", auth),
            ],
            body: envelope(message).into_bytes(),
        };
        Ok(outbound.http.send(request).await?.told())
    }
}

/// Three lines: head of the envelope, head of its item, the item.
fn envelope(message: &Message) -> String {
    let event = event(message).to_string();
    let id = message.delivery_id.0.simple();
    let head = json!({"event_id": id.to_string(), "sent_at": message.now});
    let item = json!({"type": "event", "content_type": "application/json", "length": event.len()});
    format!("{head}\n{item}\n{event}\n")
}

fn event(message: &Message) -> Value {
    let (alert, told) = (&message.alert, Told::of(message));
    let level = match alert.rule.severity.as_str() {
        "critical" => "fatal",
        "high" => "error",
        "medium" => "warning",
        _ => "info",
    };
    json!({
        "event_id": message.delivery_id.0.simple().to_string(),
        "timestamp": alert.occurred_at,
        "platform": "other",
        "logger": "ostiary",
        "level": level,
        "server_name": alert.node.name,
        "message": {"formatted": told.title},
        "fingerprint": [message.dedup_key()],
        "tags": {
            "rule": alert.rule.name, "severity": alert.rule.severity, "node": alert.node.name,
            "host_identifier": alert.node.host_identifier, "platform": alert.node.platform, "query": alert.query_name,
        },
        "extra": {
            "text": told.text, "entity": alert.entity, "action": alert.action, "columns": alert.columns,
            "node_tags": alert.node.tags, "finding": alert.url, "runbook": alert.rule.runbook_url,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dsn_is_taken_apart_or_refused() {
        let read = |dsn: &str| KIND.read(&json!({"dsn": dsn}));
        let sentry = read("https://abc123@sentry.example.com:9000/prefix/42")
            .ok()
            .unwrap();
        assert_eq!(sentry.summary(), "project 42 at sentry.example.com");
        let dsn = Sentry {
            dsn: "https://abc123@sentry.example.com:9000/prefix/42".into(),
        };
        let parts = dsn.dsn().unwrap();
        assert_eq!(parts.key, "abc123");
        let envelope = "https://sentry.example.com:9000/prefix/api/42/envelope/";
        assert_eq!(parts.envelope.as_str(), envelope);
        for wrong in [
            "",
            "https://sentry.io/42",
            "https://abc@sentry.io/",
            "ftp://abc@x/1",
        ] {
            assert_eq!(read(wrong).err().unwrap().field, "dsn", "{wrong}");
        }
    }
}
