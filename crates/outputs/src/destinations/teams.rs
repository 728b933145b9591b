//! Alerts to a channel of Microsoft Teams, by a workflow that takes webhook requests: one Adaptive Card.
//!
//! Everything that nodes, rules and templates say stands in text runs of rich text blocks, which know no Markdown; a mention would need
//! an entity of the card, and there is none.
//!
//! Source: learn.microsoft.com, "Create incoming webhooks with Workflows for Microsoft Teams" and the Adaptive Card schema 1.4.

use serde_json::{Value, json};

use super::channel::{Channel, Format};
use super::{Field, Kind};
use crate::Told;

pub(super) const KIND: Kind = Kind::of::<Channel<Teams>>(
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

struct Teams;

impl Format for Teams {
    const WORD: &'static str = "workflow";

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
}
