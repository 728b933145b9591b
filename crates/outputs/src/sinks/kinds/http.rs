//! JSON lines, posted to a URL.

use async_trait::async_trait;
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{Check, Input, Kind, Record, SettingsError, Sink, Taken, Way, field};
use crate::SendError;
use crate::http::Request;
use crate::sinks::Format;
use crate::sinks::web::{host_of, post_gzip, url_of};

pub(super) const KIND: Kind = Kind::of::<Http>(
    "http",
    "HTTP",
    "JSON lines, posted to a URL of yours in batches.",
    &[
        field(
            "url",
            "URL",
            "Gets a POST per batch: a JSON object a line (application/x-ndjson).",
            Input::Secret,
            true,
        ),
        field(
            "authorization",
            "Header Authorization",
            "Sent as it is, e.g. \"Bearer …\". Empty: none.",
            Input::Secret,
            false,
        ),
        field(
            "compression",
            "Compression",
            "",
            Input::Choice(&[("gzip", "gzip"), ("none", "none")]),
            true,
        ),
    ],
);

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Compression {
    Gzip,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    url: SecretString,
    authorization: Option<SecretString>,
    compression: Compression,
}

impl Check for Http {
    fn check(&self) -> Result<(), SettingsError> {
        url_of(self.url.expose_secret()).map(drop)
    }
}

#[async_trait]
impl Sink for Http {
    fn summary(&self) -> String {
        format!("HTTP to {}", host_of(self.url.expose_secret()))
    }

    async fn forward(&mut self, way: &Way, records: &[Record]) -> Result<Taken, SendError> {
        let url = url_of(self.url.expose_secret()).map_err(SendError::rejected)?;
        let mut headers = vec![("Content-Type", "application/x-ndjson".to_owned())];
        if let Some(value) = &self.authorization {
            headers.push(("Authorization", value.expose_secret().to_owned()));
        }
        let body = Format::Json.lines(records);
        let answer = match self.compression {
            Compression::Gzip => post_gzip(way, &url, &headers, &body).await?,
            Compression::None => {
                let request = Request {
                    method: Method::POST,
                    url: &url,
                    headers: &headers,
                    body,
                };
                way.outbound.http.send(request).await?
            }
        };
        Ok(Taken::all(answer.told()))
    }
}
