//! The texts of alerts, from `templates/alerts`, embedded at build time.
//!
//! What nodes say goes through the filter `line`: a row must not be able to add lines to a mail that look like ours.

use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use crate::{Alert, Message};

const SOURCES: [(&str, &str); 3] = [
    (
        "email.subject.txt",
        include_str!("../../../templates/alerts/email.subject.txt"),
    ),
    (
        "email.txt",
        include_str!("../../../templates/alerts/email.txt"),
    ),
    (
        "email.html",
        include_str!("../../../templates/alerts/email.html"),
    ),
];

/// Characters of one value that are told; the finding's page shows all of it.
const MOST_OF_A_VALUE: usize = 1000;

/// Strict: a template that names something unknown is a defect and fails its test. HTML is escaped, text is not.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.expect("the usual delimiters do not collide"));
    environment.set_auto_escape_callback(|name| {
        if name.ends_with(".html") {
            AutoEscape::Html
        } else {
            AutoEscape::None
        }
    });
    environment.add_filter("line", |value: &minijinja::Value| {
        crate::one_line(&value.to_string(), MOST_OF_A_VALUE)
    });
    for (name, source) in SOURCES {
        environment
            .add_template(name, source)
            .expect("the templates are tested");
    }
    environment
});

pub(crate) struct EmailTexts {
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
}

#[derive(Serialize)]
struct Context<'a> {
    kind: &'static str,
    alert: &'a Alert,
}

pub(crate) fn email(message: &Message) -> Result<EmailTexts, minijinja::Error> {
    let context = Context {
        kind: message.kind.as_str(),
        alert: &message.alert,
    };
    let render = |name| {
        ENVIRONMENT
            .get_template(name)?
            .render(minijinja::Value::from(minijinja::value::Serde(&context)))
    };
    Ok(EmailTexts {
        subject: render("email.subject.txt")?,
        text: render("email.txt")?,
        html: render("email.html")?,
    })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::AlertKind;

    #[test]
    fn a_mail_tells_everything_and_escapes_what_nodes_say() {
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let alert = serde_json::from_value(json!({
            "finding_id": Uuid::nil(),
            "rule": {"name": "Firewall off", "severity": "high", "description": "Switch it on.", "runbook_url": "https://r"},
            "node": {"id": "1", "name": "mac-7", "host_identifier": "u", "platform": "darwin", "tags": ["eng"]},
            "entity": "global_state=0", "query_name": "pack/demo/firewall", "action": "added",
            "columns": {"global_state": "0", "name": "<script>alert(1)</script>"},
            "occurred_at": at, "opened_at": at, "url": "http://m/findings/1"
        }))
        .unwrap();
        let message = Message {
            alert_id: Uuid::nil().into(),
            delivery_id: Uuid::nil().into(),
            kind: AlertKind::Opened,
            alert,
            now: at,
        };
        let texts = email(&message).unwrap();
        assert_eq!(texts.subject.trim(), "[high] Firewall off on mac-7");
        for part in [
            "global_state: 0",
            "Switch it on.",
            "http://m/findings/1",
            "pack/demo/firewall",
        ] {
            assert!(
                texts.text.contains(part),
                "{part} is missing in {}",
                texts.text
            );
        }
        assert!(
            texts.html.contains("&lt;script&gt;") && !texts.html.contains("<script>"),
            "{}",
            texts.html
        );
    }
}
