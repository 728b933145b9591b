//! Queries (reports) and policies.

use serde_json::{Map, Value};

use super::super::fields::Entry;
use super::super::{ImportedQuery, MAX_INTERVAL};
use super::documents::{Reading, Scheduled};
use super::targets::{any_of, both, labels, quoted, tag_of};

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
        let Some(mut query) = query_of(&mut entry) else {
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
        query.snapshot = logging == "snapshot";
        query.removed = logging != "differential_ignore_removals";
        query.interval = seconds(interval);
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
        let Some(mut query) = query_of(&mut entry) else {
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
fn query_of(entry: &mut Entry<'_>) -> Option<ImportedQuery> {
    let name = entry.text("name");
    entry.path = format!("{} {name}", entry.path);
    let sql = entry.text("query");
    if name.trim().is_empty() || sql.trim().is_empty() {
        entry.problem("it has no name or no SQL; it is left out");
        return None;
    }
    let team = entry.text("team");
    let (include_any, include_all, exclude_any) = (
        labels(entry.fields.remove("labels_include_any").as_ref()),
        labels(entry.fields.remove("labels_include_all").as_ref()),
        labels(entry.fields.remove("labels_exclude_any").as_ref()),
    );
    let mut target = if team.trim().is_empty() {
        String::new()
    } else {
        quoted(&tag_of(&team))
    };
    target = both(&target, &any_of(&include_any));
    for tag in include_all {
        target = both(&target, &quoted(&tag));
    }
    for tag in exclude_any {
        target = both(&target, &format!("not {}", quoted(&tag)));
    }
    Some(ImportedQuery {
        name,
        sql: sql.trim().to_owned(),
        removed: true,
        denylist: true,
        target,
        platform: entry.text("platform"),
        version: entry.text("min_osquery_version"),
        description: entry.text("description"),
        ..ImportedQuery::default()
    })
}

/// What Fleet's server does by itself is dropped; what nobody knows is kept.
fn keep_rest(query: &mut ImportedQuery, mut entry: Entry<'_>) {
    entry
        .fields
        .retain(|key, value| !OF_FLEET.contains(&key.as_str()) && !value.is_null());
    query.extra = entry.fields;
}

pub(super) fn seconds(interval: i64) -> u32 {
    u32::try_from(interval.clamp(1, i64::from(MAX_INTERVAL))).unwrap_or(MAX_INTERVAL)
}
