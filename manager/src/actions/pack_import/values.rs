//! From what a file says to what is stored. Nothing is stored here.

use ostiary_domain::osquery::pack_file::{ImportedFile, ImportedQuery};
use ostiary_store::queries::{QueryRecord, QueryValues};
use serde_json::{Value, json};

/// A query as it is stored; what the file does not say stays as it is.
pub(super) fn query_values(
    query: &ImportedQuery,
    name: String,
    known: Option<&QueryRecord>,
    target: &str,
) -> QueryValues {
    let or_known = |text: &str, known: Option<&String>| match known {
        Some(known) if text.is_empty() => known.clone(),
        _ => text.to_owned(),
    };
    QueryValues {
        name,
        sql: query.sql.clone(),
        interval_seconds: i32::try_from(query.interval)
            .unwrap_or(604_800)
            .clamp(1, 604_800),
        snapshot: query.snapshot,
        removed: query.removed,
        denylist: query.denylist,
        startup_priority: known.and_then(|known| known.startup_priority),
        platform: query.platform.clone(),
        version: query.version.clone(),
        shard: query.shard.map(i16::from),
        description: or_known(&query.description, known.map(|known| &known.description)),
        value: or_known(&query.value, known.map(|known| &known.value)),
        target: or_known(target, known.map(|known| &known.target)),
        extra: Value::Object(query.extra.clone()),
        enabled: known.is_none_or(|known| known.enabled),
    }
}

/// Would storing the values change nothing?
pub(super) fn is_same(known: &QueryRecord, values: &QueryValues) -> bool {
    let mut known = json!(known);
    if let Some(known) = known.as_object_mut() {
        known.remove("id");
        known.remove("pack_id");
    }
    known == json!(values)
}

/// Moment, seconds and SQL of each decorator that can be used.
pub(super) fn statements(file: &ImportedFile) -> Vec<(&'static str, Option<i32>, String)> {
    let sql_of = |value: &Value| -> Vec<String> {
        match value {
            Value::Array(all) => all
                .iter()
                .filter_map(|sql| sql.as_str().map(ToOwned::to_owned))
                .collect(),
            Value::String(sql) => vec![sql.clone()],
            _ => Vec::new(),
        }
    };
    let mut statements = Vec::new();
    for moment in ["load", "always"] {
        let all = file.decorators.get(moment).map(sql_of).unwrap_or_default();
        statements.extend(all.into_iter().map(|sql| (moment, None, sql)));
    }
    if let Some(Value::Object(by_seconds)) = file.decorators.get("interval") {
        for (seconds, all) in by_seconds {
            // osquery ignores an interval that is no multiple of 60.
            let usable = seconds
                .parse::<i32>()
                .ok()
                .filter(|seconds| *seconds > 0 && seconds % 60 == 0);
            if let Some(seconds) = usable {
                statements.extend(
                    sql_of(all)
                        .into_iter()
                        .map(|sql| ("interval", Some(seconds), sql)),
                );
            }
        }
    }
    statements
}
