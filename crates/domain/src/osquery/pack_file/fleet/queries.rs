//! Queries (reports) and policies.

use serde_json::{Map, Value};

use super::super::fields::Entry;
use super::super::{DEFAULT_INTERVAL, ImportedQuery, MAX_INTERVAL};
use super::documents::{Reading, Scheduled};
use super::targets::{Labels, Meaning};
use crate::target::Target;

/// Seconds between two looks at a policy (`osquery_policy_update_interval` of Fleet's server).
const POLICY_INTERVAL: u32 = 3600;

/// What Fleet's own server makes of a query; osqueryd is not told.
const OF_FLEET: [&str; 22] = [
    "apiVersion",
    "author_email",
    "author_id",
    "author_name",
    "automations_enabled",
    "calendar_event_enabled",
    "calendar_events_enabled",
    "conditional_access_enabled",
    "created_at",
    "discard_data",
    "id",
    "install_software",
    "logging",
    "observer_can_run",
    "purpose",
    "run_script",
    "saved",
    "support",
    "tags",
    "team_id",
    "type",
    "updated_at",
];

impl Reading {
    pub(super) fn query(&mut self, path: &str, spec: Map<String, Value>) {
        let logging = spec
            .get("logging")
            .and_then(Value::as_str)
            .unwrap_or("snapshot")
            .to_owned();
        let mut entry = Self::entry(&mut self.problems, path, spec);
        let Some(mut query) = query_of(&mut entry, &mut self.labels) else {
            return;
        };
        let interval = match entry.whole("interval") {
            Ok(interval) => interval.unwrap_or(0),
            Err(()) => {
                entry.problem(
                    "interval is no whole number; the query is taken for one without schedule",
                );
                0
            }
        };
        if interval < 0 {
            entry.problem("interval is below 0; the query is taken for one without schedule");
        }
        query.snapshot = logging == "snapshot";
        query.removed = logging != "differential_ignore_removals";
        query.interval = seconds(&mut entry, interval);
        keep_rest(&mut query, entry);
        let name = query.name.clone();
        self.queries.push(Scheduled {
            query,
            runs: interval > 0,
            path: format!("{path} {name}"),
        });
    }

    pub(super) fn policy(&mut self, path: &str, spec: Map<String, Value>) {
        let mut entry = Self::entry(&mut self.problems, path, spec);
        let Some(mut query) = query_of(&mut entry, &mut self.labels) else {
            return;
        };
        let resolution = entry.text("resolution");
        if !resolution.trim().is_empty() {
            query.description = format!(
                "{}\n\nResolution: {}",
                query.description.trim(),
                resolution.trim()
            );
        }
        let critical = entry.flag("critical", false);
        query.value = format!(
            "Fleet policy{}: a row means that the node passes, none that it fails.",
            if critical { " (critical)" } else { "" }
        );
        query.snapshot = true;
        query.interval = POLICY_INTERVAL;
        keep_rest(&mut query, entry);
        self.policies.push(query);
    }
}

/// What queries and policies have in common.
fn query_of(entry: &mut Entry<'_>, labels: &mut Labels) -> Option<ImportedQuery> {
    let name = entry.text("name");
    entry.path = format!("{} {name}", entry.path);
    let sql = entry.text("query");
    if name.trim().is_empty() || sql.trim().is_empty() {
        entry.problem("it has no name or no SQL; it is left out");
        return None;
    }
    Some(ImportedQuery {
        name,
        sql: sql.trim().to_owned(),
        removed: true,
        denylist: true,
        target: target_of(entry, labels).to_text(),
        platform: entry.text("platform"),
        version: entry.text("min_osquery_version"),
        description: entry.text("description"),
        ..ImportedQuery::default()
    })
}

/// Whom a query is for: its team's nodes, as its labels choose among them.
fn target_of(entry: &mut Entry<'_>, labels: &mut Labels) -> Target {
    let mut target = Target::All;
    match entry.fields.remove("team") {
        None | Some(Value::Null) => {}
        Some(Value::String(team)) if team.trim().is_empty() => {}
        Some(Value::String(team)) => target = labels.nodes(&team),
        Some(_) => {
            entry.problem("team is no name; the query reaches no node");
            target = Target::None;
        }
    }
    for (key, meaning) in [
        ("labels_include_any", Meaning::Any),
        ("labels_include_all", Meaning::All),
        ("labels_exclude_any", Meaning::Except),
    ] {
        match labels.list(entry.fields.remove(key).as_ref(), meaning) {
            Ok(chosen) => target = target.and(chosen.unwrap_or(Target::All)),
            Err(()) => {
                entry.problem(format!(
                    "{key} is no list of names; the query reaches no node"
                ));
                target = Target::None;
            }
        }
    }
    target
}

/// What Fleet's server does by itself is dropped; what nobody knows is kept.
fn keep_rest(query: &mut ImportedQuery, mut entry: Entry<'_>) {
    entry
        .fields
        .retain(|key, value| !OF_FLEET.contains(&key.as_str()) && !value.is_null());
    query.extra = entry.fields;
}

/// An interval that osqueryd takes; 0, which Fleet has for "never by itself", becomes the default.
pub(super) fn seconds(entry: &mut Entry<'_>, interval: i64) -> u32 {
    match u32::try_from(interval) {
        Ok(seconds @ 1..=MAX_INTERVAL) => seconds,
        Ok(0) | Err(_) if interval <= 0 => DEFAULT_INTERVAL,
        _ => {
            entry.problem(format!("interval is {interval}, at which osqueryd skips the query; it is {MAX_INTERVAL} here"));
            MAX_INTERVAL
        }
    }
}
