//! An alert as destinations see it: the body that was fixed when it happened (`alerts.body`).

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{AlertId, DeliveryId, FindingId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
}

impl AlertKind {
    /// The word itself.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
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
