//! Alerts to a channel of Microsoft Teams, by a workflow that takes webhook requests: one Adaptive Card.
//!
//! Everything that nodes, rules and templates say stands in text runs of rich text blocks, which know no Markdown; a mention would need
//! an entity of the card, and there is none.
//!
//! Source: learn.microsoft.com, "Create incoming webhooks with Workflows for Microsoft Teams" and the Adaptive Card schema 1.4.

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Check, Destination, Field, Kind, SettingsError, web_url};
use crate::{Message, Outbound, SendError, Told};

pub(super) const KIND: Kind = Kind::of::<Teams>(
    "teams",
    "Microsoft Teams",
    "A channel or chat of Microsoft Teams, by a workflow.",
    &[Field::secret(
        "url",
        "Workflow URL",
        "Of a workflow \"When a Teams webhook request is received\".",
    )],
)
.with_digests();

/// Teams takes messages of up to 28 KiB; every line costs some 60 bytes besides its text.
const MOST_LINES: usize = 80;
const MOST_BYTES: usize = 14_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Teams {
    #[serde(default)]
    url: SecretString,
}

impl Check for Teams {
    fn check(&self) -> Result<(), SettingsError> {
        web_url("url", self.url.expose_secret()).map(drop)
    }
}

impl Teams {
    async fn tell(&self, outbound: &Outbound, told: &Told) -> Result<String, SendError> {
        let url = web_url("url", self.url.expose_secret()).map_err(SendError::refused)?;
        let body = body(told).to_string().into_bytes();
        outbound.http.post_json(&url, &[], body).await
    }
}

#[async_trait]
impl Destination for Teams {
    fn summary(&self) -> String {
        web_url("url", self.url.expose_secret())
            .map(|url| format!("workflow at {}", url.host_str().unwrap_or_default()))
            .unwrap_or_default()
    }

    async fn send(&self, outbound: &Outbound, message: &Message) -> Result<String, SendError> {
        self.tell(outbound, &Told::of(message)).await
    }

    async fn send_digest(
        &self,
        outbound: &Outbound,
        messages: &[Message],
    ) -> Result<String, SendError> {
        self.tell(outbound, &Told::of_all(messages)).await
    }
}

fn body(told: &Told) -> Value {
    let title =
        json!({"type": "TextRun", "text": told.title, "weight": "Bolder", "size": "Medium"});
    let mut blocks = vec![json!({"type": "RichTextBlock", "inlines": [title]})];
    let mut left = MOST_BYTES;
    for line in told.text.trim().lines().take(MOST_LINES) {
        let Some(rest) = left.checked_sub(line.len()) else {
            break;
        };
        left = rest;
        let run = json!({"type": "TextRun", "text": if line.is_empty() { " " } else { line }});
        blocks.push(json!({"type": "RichTextBlock", "spacing": "None", "inlines": [run]}));
    }
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
        "msteams": {"width": "Full"}, "body": blocks,
    });
    if !told.url.is_empty() {
        card["actions"] =
            json!([{"type": "Action.OpenUrl", "title": "Open the finding", "url": told.url}]);
    }
    json!({
        "type": "message",
        "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": card}],
    })
}
