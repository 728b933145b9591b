//! Sumo Logic's HTTP Logs source.
//!
//! Source: Sumo Logic's "Upload Logs to an HTTP Source": a line is a message, `Content-Encoding: gzip`, headers `X-Sumo-Category` and
//! `X-Sumo-Name`. The URL is the secret.

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{Check, Input, Kind, Record, SettingsError, Sink, Taken, Way, field};
use crate::SendError;
use crate::sinks::Format;
use crate::sinks::web::{host_of, post_gzip, url_of};

pub(super) const KIND: Kind = Kind::of::<SumoLogic>(
    "sumo_logic",
    "Sumo Logic",
    "Messages for an HTTP Logs source of Sumo Logic.",
    &[
        field("url", "URL of the source", "", Input::Secret, true),
        field(
            "category",
            "Category",
            "Empty: the source's own.",
            Input::Text,
            false,
        ),
    ],
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SumoLogic {
    url: SecretString,
    category: Option<String>,
}

impl Check for SumoLogic {
    fn check(&self) -> Result<(), SettingsError> {
        url_of(self.url.expose_secret()).map(drop)
    }
}

#[async_trait]
impl Sink for SumoLogic {
    fn summary(&self) -> String {
        format!("Sumo Logic at {}", host_of(self.url.expose_secret()))
    }

    async fn forward(&mut self, way: &Way, records: &[Record]) -> Result<Taken, SendError> {
        let url = url_of(self.url.expose_secret()).map_err(SendError::rejected)?;
        let mut headers = vec![
            ("Content-Type", "application/x-ndjson".to_owned()),
            ("X-Sumo-Name", "ostiary".to_owned()),
        ];
        if let Some(category) = &self.category {
            headers.push(("X-Sumo-Category", category.clone()));
        }
        let answer = post_gzip(way, &url, &headers, &Format::Json.lines(records)).await?;
        Ok(Taken::all(answer.told()))
    }
}
