//! Elasticsearch and OpenSearch, by their bulk API.
//!
//! Source: Elasticsearch's REST API, "Bulk index or delete documents", and OpenSearch's "Bulk". `create` with our own `_id` makes a
//! repeated batch harmless (409 for what is there) and is what data streams take. Parts of a batch may fail: the answer has a status
//! per document.

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Check, Input, Kind, Limits, Record, SettingsError, Sink, Taken, Way, field, not_empty, wrong,
};
use crate::SendError;
use crate::sinks::record::rfc3339;
use crate::sinks::web::{basic, below, host_of, post_gzip, url_of};

pub(super) const KIND: Kind = Kind::of::<Elasticsearch>(
    "elasticsearch",
    "Elasticsearch / OpenSearch",
    "Documents in an index or data stream, by the bulk API.",
    &[
        field(
            "url",
            "URL",
            "Of the cluster, e.g. https://search.example.com:9200",
            Input::Text,
            true,
        ),
        field(
            "index",
            "Index or data stream",
            "e.g. logs-ostiary-default",
            Input::Text,
            true,
        ),
        field(
            "api_key",
            "API key",
            "In its encoded form; or a user name and a password.",
            Input::Secret,
            false,
        ),
        field("username", "User name", "", Input::Text, false),
        field("password", "Password", "", Input::Secret, false),
    ],
);

/// What is asked to be told back, so that the answer for all documents fits into what is read of it.
const FILTER: &str = "filter_path=errors,items.create.status,items.create.error.type";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Elasticsearch {
    url: String,
    index: String,
    api_key: Option<SecretString>,
    username: Option<String>,
    password: Option<SecretString>,
}

impl Check for Elasticsearch {
    fn check(&self) -> Result<(), SettingsError> {
        url_of(&self.url)?;
        not_empty("index", &self.index)?;
        if self.index.contains(['/', '?', '#', ' ', '*', ',']) {
            return Err(wrong("index", "this cannot be the name of an index"));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    errors: bool,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
    error: Option<Value>,
}

impl Elasticsearch {
    fn body(&self, records: &[Record]) -> String {
        let mut body = String::new();
        for record in records {
            let mut document = record.to_json();
            document.insert("@timestamp".to_owned(), rfc3339(record.occurred_at).into());
            let action = json!({"create": {"_index": self.index, "_id": record.id}});
            body.push_str(&format!("{action}\n{}\n", Value::Object(document)));
        }
        body
    }
}

/// Reads what became of each document.
fn judge(text: &str, sent: usize) -> Result<Taken, SendError> {
    let told: Told = serde_json::from_str(text)
        .map_err(|_| SendError::retry(format!("this is no answer to a bulk request: {text}")))?;
    if !told.errors {
        return Ok(Taken::all(format!("{sent} documents taken")));
    }
    if told.items.len() != sent {
        return Err(SendError::retry("the answer does not name all documents"));
    }
    let mut taken = Taken::default();
    for item in &told.items {
        let status = item.create.status;
        match status {
            // 409: it came before.
            200..=299 | 409 => {}
            429 | 500.. => {
                return Err(SendError::retry(format!(
                    "some documents were turned away for now ({status})"
                )));
            }
            _ => {
                taken.refused += 1;
                let kind = item.create.error.as_ref().map(|error| &error["type"]);
                let kind = kind.and_then(Value::as_str).unwrap_or("no reason given");
                taken.refusal = format!("{status}: {kind}");
            }
        }
    }
    if taken.refused == sent {
        // As one, so that nothing is given up for a mistake in the settings.
        return Err(SendError::refused(taken.refusal));
    }
    taken.answer = format!("{} of {sent} documents taken", sent - taken.refused);
    Ok(taken)
}

#[async_trait]
impl Sink for Elasticsearch {
    fn summary(&self) -> String {
        format!("{} at {}", self.index, host_of(&self.url))
    }

    fn limits(&self) -> Limits {
        Limits {
            lines: 500,
            ..Limits::default()
        }
    }

    async fn forward(&mut self, way: &Way, records: &[Record]) -> Result<Taken, SendError> {
        let mut url = below(&url_of(&self.url).map_err(SendError::rejected)?, "_bulk");
        url.set_query(Some(FILTER));
        let mut headers = vec![("Content-Type", "application/x-ndjson".to_owned())];
        if let Some(key) = &self.api_key {
            headers.push(("Authorization", format!("ApiKey {}", key.expose_secret())));
        } else if let Some(user) = &self.username {
            headers.push(("Authorization", basic(user, self.password.as_ref())));
        }
        let answer = post_gzip(way, &url, &headers, self.body(records).as_bytes()).await?;
        judge(&answer.body, records.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(items: &str) -> Result<Taken, SendError> {
        judge(&format!(r#"{{"errors":true,"items":[{items}]}}"#), 3)
    }

    #[test]
    fn parts_that_fail_are_read_from_the_answer() {
        let ok = r#"{"create":{"status":201}}"#;
        let again =
            r#"{"create":{"status":409,"error":{"type":"version_conflict_engine_exception"}}}"#;
        let bad = r#"{"create":{"status":400,"error":{"type":"document_parsing_exception"}}}"#;
        let busy =
            r#"{"create":{"status":429,"error":{"type":"es_rejected_execution_exception"}}}"#;
        let taken = told(&[ok, again, bad].join(",")).unwrap();
        assert_eq!(taken.refused, 1);
        assert_eq!(taken.refusal, "400: document_parsing_exception");
        assert_eq!(told(&[ok, again, ok].join(",")).unwrap().refused, 0);
        let later = told(&[ok, busy, bad].join(","));
        assert!(matches!(later, Err(SendError::Retry { .. })), "{later:?}");
        let all = told(&[bad, bad, bad].join(","));
        assert!(matches!(all, Err(SendError::Refused { .. })), "{all:?}");
        assert_eq!(judge(r#"{"errors":false}"#, 2).unwrap().refused, 0);
        for text in ["<html>", "", r#"{"errors":true,"items":[]}"#] {
            assert!(matches!(judge(text, 2), Err(SendError::Retry { .. })));
        }
    }
}
