//! Objects in an S3-compatible storage: gzipped JSON lines, `<prefix>/<yyyy>/<mm>/<dd>/<sink>/<time>-<first line>-<lines>.ndjson.gz`,
//! by the day on which the first of them was received.
//!
//! The library connects by our own client, and so only to addresses that may be called. A batch that comes again unchanged has the
//! same name and replaces itself.

use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStoreExt as _, PutPayload, RetryConfig};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    Check, Input, Kind, Limits, Record, SettingsError, Sink, Taken, Way, begun, field, not_empty,
};
use crate::sinks::Format;
use crate::sinks::gzip::gzip;
use crate::sinks::web::{host_of, url_of};
use crate::{Connector, SendError};

pub(super) const KIND: Kind = Kind::of::<S3>(
    "s3",
    "S3",
    "Gzipped JSON lines as objects of an S3-compatible storage.",
    &[
        field(
            "endpoint",
            "Endpoint",
            "e.g. https://minio.example.com:9000; empty: that of AWS.",
            Input::Text,
            false,
        ),
        begun(
            field("region", "Region", "", Input::Text, true),
            "us-east-1",
        ),
        field("bucket", "Bucket", "It must be there.", Input::Text, true),
        field(
            "prefix",
            "Prefix",
            "What the names of objects begin with.",
            Input::Text,
            false,
        ),
        field("access_key_id", "Access key", "", Input::Text, true),
        field("secret_access_key", "Secret key", "", Input::Secret, true),
        field(
            "addressing",
            "Bucket's name",
            "",
            Input::Choice(&[("path", "in the path"), ("host", "in the host name")]),
            true,
        ),
        begun(
            field(
                "seconds",
                "Seconds from one object to the next",
                "Unless there is enough for a full one.",
                Input::Number,
                true,
            ),
            "60",
        ),
    ],
);

/// One request, and all its attempts; the worker comes again later.
const REQUEST: Duration = Duration::from_secs(60);
const ATTEMPTS_TOGETHER: Duration = Duration::from_secs(90);

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Addressing {
    Path,
    Host,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct S3 {
    #[serde(default)]
    endpoint: String,
    region: String,
    bucket: String,
    #[serde(default)]
    prefix: String,
    access_key_id: String,
    secret_access_key: SecretString,
    addressing: Addressing,
    seconds: u16,
}

/// Gives the library our client.
#[derive(Debug)]
struct Ours(Connector);

impl HttpConnector for Ours {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = self.0.http_builder().timeout(REQUEST).build();
        let client = client.map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: Box::new(error),
        })?;
        Ok(HttpClient::new(client))
    }
}

impl S3 {
    fn store(&self, connector: &Connector) -> Result<AmazonS3, SendError> {
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 2,
            retry_timeout: ATTEMPTS_TOGETHER,
        };
        let mut builder = AmazonS3Builder::new()
            .with_http_connector(Ours(connector.clone()))
            .with_retry(retry)
            .with_region(&self.region)
            .with_bucket_name(&self.bucket)
            .with_access_key_id(&self.access_key_id)
            .with_secret_access_key(self.secret_access_key.expose_secret())
            .with_virtual_hosted_style_request(matches!(self.addressing, Addressing::Host));
        if !self.endpoint.is_empty() {
            let url = url_of(&self.endpoint).map_err(SendError::rejected)?;
            // A literal address is not looked up by anybody.
            connector.check_url(&url)?;
            builder = builder
                .with_endpoint(self.endpoint.trim().trim_end_matches('/'))
                .with_allow_http(url.scheme() == "http");
        }
        builder.build().map_err(SendError::rejected)
    }

    fn name(&self, sink: &str, records: &[Record]) -> Path {
        let first = &records[0];
        let day = first.received_at.format("%Y/%m/%d");
        let time = first.received_at.format("%H%M%S");
        let name = format!("{time}-{}-{}.ndjson.gz", first.id, records.len());
        let prefix = self.prefix.trim_matches('/');
        let days = day.to_string();
        let parts = prefix.split('/').chain(days.split('/'));
        Path::from_iter(parts.filter(|part| !part.is_empty()).chain([sink, &name]))
    }
}

impl Check for S3 {
    fn check(&self) -> Result<(), SettingsError> {
        not_empty("region", &self.region)?;
        not_empty("bucket", &self.bucket)?;
        not_empty("access_key_id", &self.access_key_id)?;
        if !self.endpoint.is_empty() {
            url_of(&self.endpoint).map_err(|error| SettingsError {
                field: "endpoint",
                ..error
            })?;
        }
        Ok(())
    }
}

/// An error with its causes; what our own connector says stands for all of it.
fn told(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(ours) = inner.downcast_ref::<SendError>() {
            return ours.to_string();
        }
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

#[async_trait]
impl Sink for S3 {
    fn summary(&self) -> String {
        let host = if self.endpoint.is_empty() {
            "AWS".to_owned()
        } else {
            host_of(&self.endpoint)
        };
        format!("bucket {} at {host}", self.bucket)
    }

    fn limits(&self) -> Limits {
        Limits {
            lines: 20_000,
            bytes: 16 << 20,
            pause: Duration::from_secs(self.seconds.into()),
        }
    }

    async fn forward(&mut self, way: &Way, records: &[Record]) -> Result<Taken, SendError> {
        let store = self.store(&way.outbound.connector)?;
        let name = self.name(&way.name, records);
        let body = gzip(&Format::Json.lines(records));
        let put = store.put(&name, PutPayload::from(body)).await;
        match put {
            Ok(_) => Ok(Taken::all(format!("object {name}"))),
            Err(
                error @ (object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. }
                | object_store::Error::NotFound { .. }),
            ) => Err(SendError::rejected(told(&error))),
            Err(error) => Err(SendError::retry(told(&error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_by_day_and_sink_and_what_is_in_them() {
        let sink = S3 {
            endpoint: String::new(),
            region: "us-east-1".into(),
            bucket: "logs".into(),
            prefix: "/osquery/".into(),
            access_key_id: "id".into(),
            secret_access_key: "key".into(),
            addressing: Addressing::Path,
            seconds: 60,
        };
        let at = "2026-11-21T09:30:05Z".parse().unwrap();
        let record = Record::test("lake", at);
        assert_eq!(
            sink.name("data lake/1", &[record]).as_ref(),
            "osquery/2026/11/21/data lake%2F1/093005-t-1795253405000-1.ndjson.gz"
        );
    }
}
