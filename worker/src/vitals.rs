//! From rows of the built-in pack to the vitals of a node.

use std::collections::{BTreeSet, HashMap};

use ostiary_domain::fact;
use ostiary_domain::ids::NodeId;
use ostiary_domain::log::{Execution, Kind};
use ostiary_domain::node::platform_of;
use ostiary_domain::osquery::Columns;
use ostiary_store::reporting_nodes::ReportingNode;
use ostiary_store::vitals::Vitals;
use serde_json::{Value, json};

use crate::facts::Fact;
use crate::schedule::BUILT_IN;

/// Vitals that a group of posts brought.
#[derive(Debug, Default)]
pub(crate) struct Brought(HashMap<NodeId, Vitals>);

impl Brought {
    /// Takes what an execution says, if it is one of the built-in queries. Gives the facts that follow.
    pub(crate) fn take(&mut self, node: &ReportingNode, execution: &Execution<'_>) -> Vec<Fact> {
        let Some(query) = execution.query_name.strip_prefix(BUILT_IN) else {
            return Vec::new();
        };
        let (Kind::Snapshot, Some(row)) = (execution.kind, execution.rows.first()) else {
            return Vec::new();
        };
        let vitals = self.0.entry(node.id).or_insert_with(|| Vitals {
            rows: node.vitals.clone(),
            ..Vitals::default()
        });
        let row = &row.columns;
        match query {
            "osquery_info" => {
                vitals.osquery_version = text(row, "version");
                vitals.config_hash = text(row, "config_hash");
                vitals.instance_id = text(row, "instance_id");
                vitals.platform = text(row, "build_platform")
                    .map(|platform| platform_of("", &platform, &platform))
                    .or(vitals.platform.take());
            }
            "system_info" => {
                vitals.hostname = text(row, "hostname");
                vitals.hardware_serial = text(row, "hardware_serial");
                vitals.hardware_model = text(row, "hardware_model");
            }
            "os_version" => {
                vitals.os_name = text(row, "name");
                vitals.os_version = text(row, "version");
                vitals.platform = (vitals.platform.take()).or_else(|| {
                    text(row, "platform").map(|platform| platform_of("", "", &platform))
                });
            }
            "uptime" => {}
            "osquery_schedule" => {
                let now = summary_of_schedule(execution);
                let facts = denylisting(vitals.rows.get(query), &now);
                vitals.rows.insert(query.to_owned(), now);
                return facts;
            }
            _ => return Vec::new(),
        }
        vitals.rows.insert(query.to_owned(), object(row));
        Vec::new()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Vitals)> {
        self.0.iter()
    }
}

/// A value that is there; `""` is how osquery says NULL, and tells nothing.
fn text(row: &Columns<'_>, column: &str) -> Option<String> {
    row.get(column)
        .filter(|value| !value.is_empty())
        .map(ToOwned::to_owned)
}

pub(crate) fn object(row: &Columns<'_>) -> Value {
    row.iter()
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect()
}

/// Which queries are denylisted that were not before, and the other way round.
fn denylisting(before: Option<&Value>, now: &Value) -> Vec<Fact> {
    let denylisted = |summary: &Value| -> BTreeSet<String> {
        let names = summary["denylisted"].as_array().into_iter().flatten();
        names
            .filter_map(|name| Some(name.as_str()?.to_owned()))
            .collect()
    };
    let (before, now) = (before.map(denylisted).unwrap_or_default(), denylisted(now));
    let kind = &fact::QUERY_DENYLISTED;
    let fact = |query: &String| Fact::of(kind, Columns::new([("query", query.clone())]));
    let begun = now.difference(&before).map(fact);
    let ended = before.difference(&now).map(|query| Fact {
        ended: Some(kind.until.to_owned()),
        ..fact(query)
    });
    begun.chain(ended).collect()
}

/// A node may have hundreds of queries; the rows themselves are present rows. `denylisted` was called `blacklisted` before 5.0.
fn summary_of_schedule(execution: &Execution<'_>) -> Value {
    let rows = execution.rows.iter().map(|row| &row.columns);
    let denylisted: Vec<&str> = rows
        .clone()
        .filter(|row| {
            ["denylisted", "blacklisted"]
                .iter()
                .any(|column| row.get(column) == Some("1"))
        })
        .filter_map(|row| row.get("name"))
        .collect();
    let last_executed = rows
        .clone()
        .filter_map(|row| row.get("last_executed")?.parse::<i64>().ok())
        .max();
    json!({"queries": rows.count(), "denylisted": denylisted, "last_executed": last_executed})
}
