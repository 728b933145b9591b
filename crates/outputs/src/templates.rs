//! The texts of alerts, from `templates/alerts`, embedded at build time.
//!
//! What nodes say goes through the filter `line`: a row must not be able to add lines to a mail that look like ours.

use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use crate::own_templates::{self, Templates};
use crate::{Alert, AlertKind, Message};

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
/// Characters of a title.
const MOST_OF_A_TITLE: usize = 250;

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

/// The words of an alert, or of several at once; plain text, whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// One line.
    pub title: String,
    /// The rest.
    pub text: String,
    /// The rest as HTML, if it is Ostiary's own.
    pub(crate) html: Option<String>,
    /// Where to read more.
    pub(crate) url: String,
}

#[derive(Serialize)]
struct Context<'a> {
    kind: &'static str,
    alert: &'a Alert,
}

/// Alerts that one message tells of in full; of more the titles and links are told.
const MOST_IN_FULL: usize = 20;

impl Told {
    /// The words of an alert: the destination's own where it has some. One that fails now must not keep the alert from arriving, so
    /// Ostiary's stand in for it.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let templates = &message.templates;
        let own = |source: &str| {
            let is_own = !source.trim().is_empty();
            is_own.then(|| own_templates::render(source, message))?.ok()
        };
        let text = own(&templates.text);
        Self {
            title: crate::one_line(
                &own(&templates.title).unwrap_or_else(|| built_in("email.subject.txt", message)),
                MOST_OF_A_TITLE,
            ),
            html: text.is_none().then(|| built_in("email.html", message)),
            text: text.unwrap_or_else(|| built_in("email.txt", message)),
            url: message.alert.url.clone(),
        }
    }

    /// The words of several alerts.
    #[must_use]
    pub(crate) fn of_all(messages: &[Message]) -> Self {
        let told: Vec<Self> = messages.iter().map(Self::of).collect();
        if let [one] = told.as_slice() {
            return one.clone();
        }
        let count = |kind| {
            let number = messages.iter().filter(|each| each.kind == kind).count();
            (number > 0).then(|| format!("{number} {}", kind.as_str()))
        };
        let counts = [
            AlertKind::Opened,
            AlertKind::Acknowledged,
            AlertKind::Resolved,
        ];
        let counts: Vec<String> = counts.into_iter().filter_map(count).collect();
        let mut text: Vec<String> = told.iter().map(|each| each.title.clone()).collect();
        for (number, each) in told.iter().enumerate() {
            if number < MOST_IN_FULL {
                text.push(format!("\n{}\n{}", "-".repeat(40), each.text.trim()));
            }
        }
        Self {
            title: format!("{} alerts: {}", told.len(), counts.join(", ")),
            text: text.join("\n"),
            html: None,
            url: String::new(),
        }
    }
}

/// Says what is wrong with templates, by their field.
///
/// # Errors
/// The field (`title_template`, `text_template`) and what is wrong with it.
pub fn check_templates(
    templates: &Templates,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<(), (&'static str, own_templates::TemplateError)> {
    let message = Message::sample(templates.clone(), now);
    for (field, source) in [
        ("title_template", &templates.title),
        ("text_template", &templates.text),
    ] {
        own_templates::render(source, &message).map_err(|error| (field, error))?;
    }
    Ok(())
}

fn built_in(name: &str, message: &Message) -> String {
    let context = Context {
        kind: message.kind.as_str(),
        alert: &message.alert,
    };
    ENVIRONMENT
        .get_template(name)
        .and_then(|template| {
            template.render(minijinja::Value::from(minijinja::value::Serde(&context)))
        })
        .expect("the templates are tested, and every alert has the same fields")
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

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
            templates: Templates::default(),
            now: at,
        };
        let texts = Told::of(&message);
        assert_eq!(texts.title.trim(), "[high] Firewall off on mac-7");
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
        let html = texts.html.unwrap();
        assert!(
            html.contains("&lt;script&gt;") && !html.contains("<script>"),
            "{html}"
        );
    }

    #[test]
    fn texts_of_ones_own_stand_in_for_ours_and_ours_for_those_that_fail() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let told = |title: &str, text: &str| {
            let (title, text) = (title.to_owned(), text.to_owned());
            Told::of(&Message::sample(Templates { title, text }, now))
        };
        let own = told("$name on {{ node.name }}\nB", "Look at {{ url }}");
        assert_eq!(own.title, "Free Coupons on mac-7 B");
        assert_eq!(
            own.text,
            "Look at https://ostiary.example.com/findings/0198c0de"
        );
        assert!(own.html.is_none());
        let failing = told("{{ broken", "{% set x = 1 %}");
        assert_eq!(failing.title, "[high] New browser extension on mac-7");
        assert!(failing.text.contains("identifier: nkbih") && failing.html.is_some());
        let templates = Templates {
            title: "{{ broken".to_owned(),
            text: String::new(),
        };
        assert_eq!(
            check_templates(&templates, now).unwrap_err().0,
            "title_template"
        );
    }

    #[test]
    fn several_alerts_are_one_text_that_names_each() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let mut messages = vec![Message::sample(Templates::default(), now); 30];
        messages[29].kind = AlertKind::Resolved;
        let told = Told::of_all(&messages);
        assert_eq!(told.title, "30 alerts: 29 opened, 1 resolved");
        let titles = told
            .text
            .matches("[high] New browser extension on mac-7")
            .count();
        assert_eq!(titles, 30);
        assert_eq!(told.text.matches("nkbihfbe").count(), 2 * MOST_IN_FULL);
    }
}
