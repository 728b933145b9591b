//! One line of a sink, before anybody has decided how it is written.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use ostiary_domain::sink::LineType;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Who reported it, as it is known when the line is sent.
#[derive(Debug, Clone)]
pub struct NodeOfRecord {
    /// Our id of it.
    pub id: Uuid,
    /// What people call it; empty when it is gone.
    pub name: String,
    /// Its host name.
    pub hostname: String,
    /// As it named itself.
    pub host_identifier: String,
    /// `linux`, `darwin`, …
    pub platform: String,
    /// Names of its tags.
    pub tags: Vec<String>,
}

/// What is forwarded.
#[derive(Debug, Clone)]
pub struct Record {
    /// The same each time that it is sent, so that a receiver can drop what it has: `r-12-0`, `s-7`, `f-3`, `a-9`.
    pub id: String,
    /// When we received it, or when it happened here.
    pub received_at: DateTime<Utc>,
    /// By the node's clock, clamped to `received_at`.
    pub occurred_at: DateTime<Utc>,
    /// Of whom; `None` for what happened in Ostiary itself.
    pub node: Option<Arc<NodeOfRecord>>,
    /// What.
    pub body: Body,
}

/// What a line says.
#[derive(Debug, Clone)]
pub enum Body {
    /// A row of a query.
    Result {
        /// The query, as the node names it.
        query: Arc<str>,
        /// `added`, `removed`, `snapshot`, or what the node said.
        action: String,
        /// The row.
        columns: Value,
        /// Decorations of its execution; null when there are none.
        decorations: Value,
        /// As sent.
        epoch: Arc<str>,
        /// As sent.
        counter: i64,
        /// As sent, in seconds since 1970.
        unix_time: i64,
        /// It is part of a full set: no change.
        baseline: bool,
        /// It was old on arrival.
        late: bool,
    },
    /// A line of osqueryd's own log.
    Status {
        /// 0 info, 1 warning, 2 error, 3 fatal.
        severity: i16,
        /// What it says.
        message: String,
        /// Source file of osquery.
        filename: String,
        /// Its line.
        line: i32,
        /// Of the osqueryd.
        version: String,
    },
    /// Something happened to a finding.
    Finding {
        /// `opened`, or the state it came into.
        change: String,
        /// The finding as it was then.
        finding: Value,
        /// The row that opened it, with its query and action; null when it is not kept.
        first_match: Value,
    },
    /// Somebody did something.
    Audit(Value),
    /// A person tries the sink out.
    Test(String),
}

impl Record {
    /// A line that says that it is a test.
    #[must_use]
    pub fn test(sink: &str, now: DateTime<Utc>) -> Self {
        Self {
            id: format!("t-{}", now.timestamp_millis()),
            received_at: now,
            occurred_at: now,
            node: None,
            body: Body::Test(format!("A test of the sink {sink}, sent by Ostiary.")),
        }
    }

    /// `result`, `status`, `finding`, `audit` or `test`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self.body {
            Body::Result { .. } => LineType::Result.as_str(),
            Body::Status { .. } => LineType::Status.as_str(),
            Body::Finding { .. } => LineType::Finding.as_str(),
            Body::Audit(_) => LineType::Audit.as_str(),
            Body::Test(_) => "test",
        }
    }

    /// The host that it is about, for receivers that have a place for that.
    #[must_use]
    pub fn host(&self) -> &str {
        match &self.node {
            Some(node) if !node.hostname.is_empty() => &node.hostname,
            Some(node) if !node.name.is_empty() => &node.name,
            _ => "ostiary",
        }
    }

    /// As a JSON object.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let mut line = Map::new();
        let mut put = |name: &str, value: Value| {
            line.insert(name.to_owned(), value);
        };
        put("id", self.id.clone().into());
        put("type", self.type_name().into());
        put("time", rfc3339(self.occurred_at).into());
        put("received_at", rfc3339(self.received_at).into());
        if let Some(node) = &self.node {
            put(
                "node",
                json!({"id": node.id, "name": node.name, "host_identifier": node.host_identifier, "platform": node.platform,
                    "tags": node.tags}),
            );
        }
        match &self.body {
            Body::Result {
                query,
                action,
                columns,
                decorations,
                epoch,
                counter,
                unix_time,
                baseline,
                late,
            } => {
                put("query", query.as_ref().into());
                put("action", action.as_str().into());
                put("columns", columns.clone());
                if !decorations.is_null() {
                    put("decorations", decorations.clone());
                }
                // Beyond what receivers take for a whole number.
                put("epoch", epoch.as_ref().into());
                put("counter", (*counter).into());
                put("unix_time", (*unix_time).into());
                put("baseline", (*baseline).into());
                put("late", (*late).into());
            }
            Body::Status {
                severity,
                message,
                filename,
                line: number,
                version,
            } => {
                put("severity", severity_name(*severity).into());
                put("message", message.as_str().into());
                put("filename", filename.as_str().into());
                put("line", (*number).into());
                put("version", version.as_str().into());
            }
            Body::Finding {
                change,
                finding,
                first_match,
            } => {
                put("change", change.as_str().into());
                put("finding", finding.clone());
                if !first_match.is_null() {
                    put("first_match", first_match.clone());
                }
            }
            Body::Audit(entry) => put("entry", entry.clone()),
            Body::Test(text) => put("message", text.as_str().into()),
        }
        line
    }

    /// As a line of JSON, without the end of the line.
    #[must_use]
    pub fn to_json_line(&self) -> String {
        Value::Object(self.to_json()).to_string()
    }
}

/// Words for osquery's severities.
fn severity_name(severity: i16) -> &'static str {
    match severity {
        0 => "info",
        1 => "warning",
        2 => "error",
        _ => "fatal",
    }
}

/// To the millisecond, with `Z`.
pub(crate) fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
