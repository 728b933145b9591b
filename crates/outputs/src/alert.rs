//! An alert as destinations see it: the body that was fixed when it happened (`alerts.body`).

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{AlertId, DeliveryId, FindingId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

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
    /// The time of this attempt.
    pub now: DateTime<Utc>,
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
        };
        Message {
            alert_id: AlertId(Uuid::nil()),
            delivery_id: self.id,
            kind: AlertKind::Test,
            alert,
            now: self.now,
        }
    }
}
