//! An alert as destinations see it: the body that was fixed when it happened (`alerts.body`).

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{AlertId, DeliveryId, FindingId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::Templates;

/// What happened to the finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertKind {
    /// It was opened.
    Opened,
    /// Somebody has seen it.
    Acknowledged,
    /// It is over.
    Resolved,
    /// Nothing: somebody tries out a destination.
    Test,
}

impl AlertKind {
    /// The kind that a word of `alerts.kind` names.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Opened, Self::Acknowledged, Self::Resolved]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }

    /// The word itself.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }
}

/// The rule, as it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RuleOfAlert {
    /// Its name.
    pub name: String,
    /// Its description.
    #[serde(default)]
    pub description: String,
    /// `info` to `critical`.
    pub severity: String,
    /// Where to read what to do.
    #[serde(default)]
    pub runbook_url: String,
}

/// The node, as it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeOfAlert {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it calls itself.
    pub host_identifier: String,
    /// `linux`, `darwin`, …
    #[serde(default)]
    pub platform: String,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// Everything that is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Alert {
    /// Which finding; also what keeps repetitions together at the other side.
    pub finding_id: FindingId,
    /// The rule.
    pub rule: RuleOfAlert,
    /// The node.
    pub node: NodeOfAlert,
    /// What on the node the finding is about.
    pub entity: String,
    /// The query whose row matched, as the node names it.
    pub query_name: String,
    /// `added`, `removed`, `snapshot` or `triggered`.
    pub action: String,
    /// The row that matched.
    pub columns: Map<String, Value>,
    /// When it happened on the node.
    pub occurred_at: DateTime<Utc>,
    /// When the finding was opened.
    pub opened_at: DateTime<Utc>,
    /// The finding's page.
    #[serde(default)]
    pub url: String,
    /// Who acknowledged, resolved or reopened it; nobody when it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<AlertChange>,
}

/// What somebody decided about a finding.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AlertChange {
    /// Their name, or what decided in their place.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Why, in words.
    #[serde(default)]
    pub reason: String,
}

/// An alert on its way.
#[derive(Debug, Clone)]
pub struct Message {
    /// The alert's id.
    pub alert_id: AlertId,
    /// The delivery's id: the same for each attempt, so that the other side can tell a repetition.
    pub delivery_id: DeliveryId,
    /// What happened.
    pub kind: AlertKind,
    /// What is told.
    pub alert: Alert,
    /// The texts of the destination's own.
    pub templates: Templates,
    /// The time of this attempt.
    pub now: DateTime<Utc>,
}

impl Message {
    /// `finding.opened`, …, or `test`.
    pub(crate) fn event(&self) -> String {
        match self.kind {
            AlertKind::Test => "test".to_owned(),
            kind => format!("finding.{}", kind.as_str()),
        }
    }

    /// What keeps all that is told of one finding together at the other side; a test never touches a finding.
    pub(crate) fn dedup_key(&self) -> String {
        match self.kind {
            AlertKind::Test => format!("ostiary-test-{}", self.delivery_id),
            _ => dedup_key(self.alert.finding_id),
        }
    }

    /// A finding as any fleet may have it, for the preview of templates.
    #[must_use]
    pub fn sample(templates: Templates, now: DateTime<Utc>) -> Self {
        let columns = [
            ("name", "Free Coupons"),
            ("identifier", "nkbihfbeogaeaoehlefnkodbefgpgknn"),
            ("version", "1.4.2"),
        ];
        let columns = columns.map(|(name, value)| (name.to_owned(), Value::from(value)));
        let alert = Alert {
            finding_id: FindingId(Uuid::nil()),
            rule: RuleOfAlert {
                name: "New browser extension".to_owned(),
                description: "An extension was installed that nobody has vetted.".to_owned(),
                severity: "high".to_owned(),
                runbook_url: "https://wiki.example.com/extensions".to_owned(),
            },
            node: NodeOfAlert {
                id: "0198c0de-0000-7000-8000-000000000001".to_owned(),
                name: "mac-7".to_owned(),
                host_identifier: "564D4A2E-7C1B-4A6F-9E0D-3B1C5A7F2E90".to_owned(),
                platform: "darwin".to_owned(),
                tags: vec!["laptop".to_owned(), "engineering".to_owned()],
            },
            entity: "identifier=nkbihfbeogaeaoehlefnkodbefgpgknn".to_owned(),
            query_name: "pack/browsers/chrome_extensions".to_owned(),
            action: "added".to_owned(),
            columns: columns.into_iter().collect(),
            occurred_at: now,
            opened_at: now,
            url: "https://ostiary.example.com/findings/0198c0de".to_owned(),
            change: None,
        };
        Self {
            alert_id: AlertId(Uuid::nil()),
            delivery_id: DeliveryId(Uuid::nil()),
            kind: AlertKind::Opened,
            alert,
            templates,
            now,
        }
    }
}

/// The key under which a finding is known elsewhere.
pub(crate) fn dedup_key(finding: FindingId) -> String {
    format!("ostiary-{finding}")
}

/// The finding that a key of ours names.
#[must_use]
pub fn finding_of_key(key: &str) -> Option<FindingId> {
    key.strip_prefix("ostiary-")?.parse().ok()
}

/// What a test alert is made of.
#[derive(Debug, Clone, Copy)]
pub struct TestAlert<'a> {
    /// A new id.
    pub id: DeliveryId,
    /// The destination's name.
    pub destination: &'a str,
    /// The destination's page.
    pub url: &'a str,
    /// The destination's own texts.
    pub templates: &'a Templates,
    /// The present.
    pub now: DateTime<Utc>,
}

impl TestAlert<'_> {
    /// An alert that nobody can take for a real one: its kind is `test`, it is about no node, and its text says so.
    pub(crate) fn message(&self) -> Message {
        let alert = Alert {
            finding_id: FindingId(Uuid::nil()),
            rule: RuleOfAlert {
                name: "Test alert".to_owned(),
                description: format!(
                    "Somebody tries out the destination \"{}\". Nothing has happened.",
                    self.destination
                ),
                severity: "info".to_owned(),
                runbook_url: String::new(),
            },
            node: NodeOfAlert {
                id: String::new(),
                name: "no node".to_owned(),
                host_identifier: String::new(),
                platform: String::new(),
                tags: Vec::new(),
            },
            entity: "nothing".to_owned(),
            query_name: "no query".to_owned(),
            action: "triggered".to_owned(),
            columns: Map::new(),
            occurred_at: self.now,
            opened_at: self.now,
            url: self.url.to_owned(),
            change: None,
        };
        Message {
            alert_id: AlertId(Uuid::nil()),
            delivery_id: self.id,
            kind: AlertKind::Test,
            alert,
            templates: self.templates.clone(),
            now: self.now,
        }
    }
}
