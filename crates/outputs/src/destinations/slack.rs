//! Alerts to a Slack channel by an incoming webhook.
//!
//! Everything that nodes, rules and templates say stands in `plain_text`, with `&`, `<` and `>` as entities, so that nothing in it is
//! markup, a link or `<!channel>`. Only the link to the finding is markup, and ours.
//!
//! Source: docs.slack.dev, "Sending messages using incoming webhooks", "Formatting message text" (escaping) and "Text object".

use serde_json::{Value, json};

use super::channel::{Channel, Format};
use super::{Field, Kind};
use crate::Told;

pub(super) const KIND: Kind = Kind::of::<Channel<Slack>>(
    "slack",
    "Slack",
    "A channel of Slack, or of Mattermost, by an incoming webhook.",
    &[Field::secret(
        "url",
        "Webhook URL",
        "Of an incoming webhook: https://hooks.slack.com/services/…",
    )],
)
.with_digests();

/// Slack's limits: of a header, and of the text of a section.
const MOST_OF_A_HEADER: usize = 150;
const MOST_OF_A_SECTION: usize = 3000;

struct Slack;

impl Format for Slack {
    const WORD: &'static str = "incoming webhook";

    fn body(told: &Told) -> Value {
        let mut blocks = vec![
            json!({"type": "header", "text": plain(&told.title, MOST_OF_A_HEADER)}),
            json!({"type": "section", "text": plain(&told.text, MOST_OF_A_SECTION)}),
        ];
        if !told.url.is_empty() {
            let link = format!(
                "<{}|Open the finding>",
                escape(&told.url).replace('|', "%7C")
            );
            blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": link}]}));
        }
        // `text` is what notifications show; blocks are what the channel shows.
        json!({"text": escape(&told.title), "mrkdwn": false, "blocks": blocks, "unfurl_links": false, "unfurl_media": false})
    }
}

/// At most so many characters, counted with the entities.
fn plain(text: &str, most: usize) -> Value {
    let mut out = String::new();
    let mut left = most;
    for c in text.trim().chars() {
        let written = entity(c);
        let length = written.map_or(1, str::len);
        if length > left {
            break;
        }
        left -= length;
        match written {
            Some(entity) => out.push_str(entity),
            None => out.push(c),
        }
    }
    if out.is_empty() {
        out.push('-');
    }
    json!({"type": "plain_text", "text": out, "emoji": false})
}

fn entity(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    }
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match entity(c) {
            Some(entity) => out.push_str(entity),
            None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_told_is_markup_and_nothing_is_cut_inside_an_entity() {
        let text = plain("<!channel> *&* <http://x|y>", 26);
        assert_eq!(text["text"], "&lt;!channel&gt; *&amp;* ");
        assert_eq!(plain("", 5)["text"], "-");
        assert_eq!(
            plain(&"<".repeat(2000), 3000)["text"]
                .as_str()
                .unwrap()
                .len(),
            3000
        );
    }
}
