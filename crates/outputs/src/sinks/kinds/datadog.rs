//! Datadog's log intake.
//!
//! Source: Datadog's API reference, "Send logs" (`POST /api/v2/logs`): an array of at most 1,000 entries and 5 MB, an entry at most
//! 1 MB, `DD-API-KEY`, answered by 202.

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Check, Input, Kind, Record, SettingsError, Sink, Taken, Way, field};
use crate::SendError;
use crate::sinks::web::{below, host_of, post_gzip, url_of};

pub(super) const KIND: Kind = Kind::of::<Datadog>(
    "datadog",
    "Datadog",
    "Logs for Datadog's intake.",
    &[
        field(
            "url",
            "Intake",
            "Of your site, e.g. https://http-intake.logs.datadoghq.eu",
            Input::Text,
            true,
        ),
        field("api_key", "API key", "", Input::Secret, true),
        field(
            "tags",
            "Tags",
            "For ddtags, e.g. env:prod,team:security",
            Input::Text,
            false,
        ),
    ],
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Datadog {
    url: String,
    api_key: SecretString,
    tags: Option<String>,
}

impl Check for Datadog {
    fn check(&self) -> Result<(), SettingsError> {
        url_of(&self.url).map(drop)
    }
}

impl Datadog {
    fn entry(&self, record: &Record) -> Value {
        let mut entry = json!({
            "ddsource": "osquery",
            "ddtags": self.tags.as_deref().unwrap_or_default(),
            "hostname": record.host(),
            "service": "ostiary",
            "message": record.to_json_line(),
        });
        if self.tags.is_none() {
            entry.as_object_mut().map(|entry| entry.remove("ddtags"));
        }
        entry
    }
}

#[async_trait]
impl Sink for Datadog {
    fn summary(&self) -> String {
        format!("Datadog at {}", host_of(&self.url))
    }

    async fn forward(&mut self, way: &Way, records: &[Record]) -> Result<Taken, SendError> {
        let base = url_of(&self.url).map_err(SendError::rejected)?;
        let url = below(&base, "api/v2/logs");
        let entries: Vec<Value> = records.iter().map(|record| self.entry(record)).collect();
        let headers = [("DD-API-KEY", self.api_key.expose_secret().to_owned())];
        let body = Value::Array(entries).to_string();
        let answer = post_gzip(way, &url, &headers, body.as_bytes()).await?;
        Ok(Taken::all(answer.told()))
    }
}
