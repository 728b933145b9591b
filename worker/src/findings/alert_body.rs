//! What an alert says, fixed when it is recorded; read by `ostiary_outputs::Alert`.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::FindingId;
use ostiary_store::findings::storm_samples::Sample;
use ostiary_store::reporting_nodes::ReportingNode;
use ostiary_store::rules::StoredRule;
use serde_json::{Map, Value, json};

/// What an alert is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) finding: FindingId,
    pub(super) rule: &'a StoredRule,
    pub(super) node: &'a ReportingNode,
    pub(super) entity: &'a str,
    pub(super) first: FirstMatch<'a>,
    pub(super) opened_at: DateTime<Utc>,
    pub(super) manager_url: &'a str,
}

/// The row that opened a finding.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstMatch<'a> {
    pub(super) query_name: &'a str,
    pub(super) action: &'a str,
    pub(super) columns: &'a Value,
    pub(super) occurred_at: DateTime<Utc>,
}

/// All that destinations need.
pub(super) fn alert_body(subject: Subject<'_>) -> Value {
    let Subject { rule, node, .. } = subject;
    json!({
        "finding_id": subject.finding,
        "rule": {
            "name": rule.name,
            "description": rule.description,
            "severity": rule.severity,
            "runbook_url": rule.runbook_url,
        },
        "node": {
            "id": node.id,
            "name": node.facts.name,
            "host_identifier": node.facts.host_identifier,
            "platform": node.facts.platform,
            "tags": node.facts.tags,
        },
        "entity": subject.entity,
        "query_name": subject.first.query_name,
        "action": subject.first.action,
        "columns": subject.first.columns,
        "occurred_at": subject.first.occurred_at,
        "opened_at": subject.opened_at,
        "url": format!("{}/findings/{}", subject.manager_url.trim_end_matches('/'), subject.finding),
    })
}

/// The same about a finding of the fleet. `subject` is the finding with which the storm began: its node's tags stand for those of all,
/// its row is the sample.
pub(super) fn fleet_body(fleet: FindingId, subject: Subject<'_>, sample: &Sample) -> Value {
    let mut columns = Map::new();
    let named = sample.nodes.len();
    let more = usize::try_from(sample.node_count)
        .unwrap_or(named)
        .saturating_sub(named);
    let mut nodes = sample.nodes.join(", ");
    if more > 0 {
        nodes.push_str(&format!(" and {more} more"));
    }
    columns.insert("nodes".to_owned(), json!(nodes));
    let entities: Vec<String> = sample
        .entities
        .iter()
        .map(|(entity, count)| format!("{entity} ({count})"))
        .collect();
    columns.insert("found".to_owned(), json!(entities.join("; ")));
    if let Some(row) = subject.first.columns.as_object() {
        let of_sample = row
            .iter()
            .map(|(name, value)| (format!("sample.{name}"), value.clone()));
        columns.extend(of_sample);
    }
    let mut body = alert_body(Subject {
        finding: fleet,
        ..subject
    });
    body["node"]["id"] = json!("");
    body["node"]["name"] = json!(format!("{} nodes", sample.node_count));
    body["node"]["host_identifier"] = json!("");
    body["node"]["platform"] = json!("");
    body["entity"] = json!(format!("{} nodes at once", sample.node_count));
    body["columns"] = Value::Object(columns);
    body
}
