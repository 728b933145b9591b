//! Grafana Loki.
//!
//! Source: Loki's HTTP API, "Ingest logs" (`POST /loki/api/v1/push`). Labels are few on purpose; the rest is in the line. The time of
//! an entry is that of its receipt, since Loki refuses entries that are much older than the latest of their stream.

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Check, Input, Kind, Record, SettingsError, Sink, Taken, Way, field};
use crate::SendError;
use crate::sinks::web::{basic, below, host_of, post_gzip, url_of};

pub(super) const KIND: Kind = Kind::of::<Loki>(
    "loki",
    "Loki",
    "Entries for Grafana Loki, with the labels job and type.",
    &[
        field(
            "url",
            "URL",
            "Of Loki, e.g. https://loki.example.com:3100",
            Input::Text,
            true,
        ),
        field("job", "Label job", "Empty: ostiary.", Input::Text, false),
        field(
            "tenant",
            "Tenant",
            "For X-Scope-OrgID; empty: none.",
            Input::Text,
            false,
        ),
        field("username", "User name", "", Input::Text, false),
        field("password", "Password", "", Input::Secret, false),
    ],
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Loki {
    url: String,
    job: Option<String>,
    tenant: Option<String>,
    username: Option<String>,
    password: Option<SecretString>,
}

impl Check for Loki {
    fn check(&self) -> Result<(), SettingsError> {
        url_of(&self.url).map(drop)
    }
}

impl Loki {
    /// One stream per type, entries in their order.
    fn body(&self, records: &[Record]) -> Value {
        let mut streams: Vec<(&str, Vec<Value>)> = Vec::new();
        for record in records {
            let nanos = record.received_at.timestamp_micros().saturating_mul(1000);
            let entry = json!([nanos.to_string(), record.to_json_line()]);
            let name = record.type_name();
            match streams.iter_mut().find(|(known, _)| *known == name) {
                Some((_, entries)) => entries.push(entry),
                None => streams.push((name, vec![entry])),
            }
        }
        let job = self.job.as_deref().unwrap_or("ostiary");
        let streams: Vec<Value> = streams
            .into_iter()
            .map(|(name, values)| json!({"stream": {"job": job, "type": name}, "values": values}))
            .collect();
        json!({"streams": streams})
    }
}

#[async_trait]
impl Sink for Loki {
    fn summary(&self) -> String {
        format!("Loki at {}", host_of(&self.url))
    }

    async fn forward(&mut self, way: &Way, records: &[Record]) -> Result<Taken, SendError> {
        let base = url_of(&self.url).map_err(SendError::rejected)?;
        let url = below(&base, "loki/api/v1/push");
        let mut headers = Vec::new();
        if let Some(tenant) = &self.tenant {
            headers.push(("X-Scope-OrgID", tenant.clone()));
        }
        if let Some(user) = &self.username {
            headers.push(("Authorization", basic(user, self.password.as_ref())));
        }
        let body = self.body(records).to_string();
        let answer = post_gzip(way, &url, &headers, body.as_bytes()).await?;
        Ok(Taken::all(answer.told()))
    }
}
