//! Splunk's HTTP Event Collector.
//!
//! Source: docs.splunk.com, "Format events for HTTP Event Collector" and "HTTP Event Collector REST API endpoints"
//! (`/services/collector/event`): events one after the other, `Authorization: Splunk <token>`; the answer is `{"text":…,"code":…}`.

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Check, Input, Kind, Record, SettingsError, Sink, Taken, Way, field};
use crate::SendError;
use crate::sinks::web::{below, host_of, post_gzip, url_of};

pub(super) const KIND: Kind = Kind::of::<Splunk>(
    "splunk",
    "Splunk HEC",
    "Events for Splunk's HTTP Event Collector.",
    &[
        field(
            "url",
            "URL",
            "Of the collector, e.g. https://splunk.example.com:8088",
            Input::Text,
            true,
        ),
        field("token", "Token", "", Input::Secret, true),
        field(
            "index",
            "Index",
            "Empty: the token's own.",
            Input::Text,
            false,
        ),
    ],
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Splunk {
    url: String,
    token: SecretString,
    index: Option<String>,
}

impl Check for Splunk {
    fn check(&self) -> Result<(), SettingsError> {
        url_of(&self.url).map(drop)
    }
}

impl Splunk {
    fn event(&self, record: &Record) -> String {
        let millis = record.occurred_at.timestamp_millis();
        let mut event = json!({
            "time": format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000)),
            "host": record.host(),
            "source": "ostiary",
            "sourcetype": format!("osquery:{}", record.type_name()),
            "event": Value::Object(record.to_json()),
        });
        if let Some(index) = &self.index {
            event["index"] = index.as_str().into();
        }
        event.to_string()
    }
}

#[async_trait]
impl Sink for Splunk {
    fn summary(&self) -> String {
        format!("Splunk HEC at {}", host_of(&self.url))
    }

    async fn forward(&mut self, way: &Way, records: &[Record]) -> Result<Taken, SendError> {
        let base = url_of(&self.url).map_err(SendError::rejected)?;
        let url = if base.path() == "/" {
            below(&base, "services/collector/event")
        } else {
            base
        };
        let events: Vec<String> = records.iter().map(|record| self.event(record)).collect();
        let headers = [(
            "Authorization",
            format!("Splunk {}", self.token.expose_secret()),
        )];
        let answer = post_gzip(way, &url, &headers, events.join("\n").as_bytes()).await?;
        Ok(Taken::all(answer.told()))
    }
}
