//! Revisions of everything that configs are made of: the objects as rows, and what differs between two sets of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A row: its columns without times.
pub type Object = Map<String, Value>;

/// Every config object, disabled ones included and built-in ones not: table → id → row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Objects(pub BTreeMap<String, BTreeMap<Uuid, Object>>);

/// What happened to an object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Difference {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Fields of it differ.
    Changed {
        /// Which.
        fields: Vec<FieldChange>,
    },
}

/// A field of an object that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Its column.
    pub field: String,
    /// As text; JSON for what is no text.
    pub before: String,
    /// The same.
    pub after: String,
}

/// An object that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObjectChange {
    /// Its table.
    pub table: String,
    /// Which.
    pub id: Uuid,
    /// What people call it; of a query in a pack `pack/query`.
    pub name: String,
    /// What happened to it.
    #[serde(flatten)]
    pub difference: Difference,
}

impl Objects {
    /// The SHA-256 of the content, whatever the order of columns.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut value = serde_json::to_value(self).expect("rows are JSON");
        value.sort_all_objects();
        Sha256::digest(value.to_string()).into()
    }

    /// How many objects there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    fn name_of(&self, table: &str, row: &Object) -> String {
        let text = |row: &Object, column: &str| {
            row.get(column)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        match table {
            "file_paths" => text(row, "category"),
            "config_sections" => format!("{}/{}", text(row, "key"), text(row, "name")),
            "queries" => {
                let pack = row
                    .get("pack_id")
                    .and_then(Value::as_str)
                    .and_then(|id| id.parse().ok())
                    .and_then(|id: Uuid| self.0.get("packs")?.get(&id));
                match pack {
                    Some(pack) => format!("{}/{}", text(pack, "name"), text(row, "name")),
                    None => text(row, "name"),
                }
            }
            _ => text(row, "name"),
        }
    }
}

/// What differs, by table and then by name. A column that one of them lacks (an older release wrote it) is no difference.
#[must_use]
pub fn diff(before: &Objects, after: &Objects) -> Vec<ObjectChange> {
    let none = BTreeMap::new();
    let tables: std::collections::BTreeSet<&String> =
        before.0.keys().chain(after.0.keys()).collect();
    let mut changes = Vec::new();
    for table in tables {
        let (old, new) = (
            before.0.get(table).unwrap_or(&none),
            after.0.get(table).unwrap_or(&none),
        );
        let mut of_table = Vec::new();
        let mut add = |id: &Uuid, name: String, difference| {
            of_table.push(ObjectChange {
                table: table.clone(),
                id: *id,
                name,
                difference,
            });
        };
        for (id, row) in new {
            match old.get(id) {
                None => add(id, after.name_of(table, row), Difference::Added),
                Some(was) => {
                    let fields = changed_fields(was, row);
                    if !fields.is_empty() {
                        add(
                            id,
                            after.name_of(table, row),
                            Difference::Changed { fields },
                        );
                    }
                }
            }
        }
        for (id, row) in old {
            if !new.contains_key(id) {
                add(id, before.name_of(table, row), Difference::Removed);
            }
        }
        of_table.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        changes.extend(of_table);
    }
    changes
}

fn changed_fields(before: &Object, after: &Object) -> Vec<FieldChange> {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        // One a line, as people type them.
        Value::Array(items) if items.iter().all(Value::is_string) => items
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join("\n"),
        other => other.to_string(),
    };
    after
        .iter()
        .filter_map(|(field, value)| {
            let was = before.get(field)?;
            (was != value).then(|| FieldChange {
                field: field.clone(),
                before: text(was),
                after: text(value),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objects(value: Value) -> Objects {
        serde_json::from_value(value).unwrap()
    }

    const A: &str = "00000000-0000-0000-0000-00000000000a";
    const B: &str = "00000000-0000-0000-0000-00000000000b";
    const C: &str = "00000000-0000-0000-0000-00000000000c";

    #[test]
    fn objects_are_compared_one_by_one_and_field_by_field() {
        let before = objects(json!({
            "packs": {A: {"name": "it", "discovery": ["a"], "old": 1}},
            "queries": {B: {"name": "users", "pack_id": A, "interval_seconds": 60}, C: {"name": "gone", "pack_id": null}},
        }));
        let after = objects(json!({
            "packs": {A: {"name": "it", "discovery": ["a", "b"], "new": 1}},
            "queries": {B: {"name": "users", "pack_id": A, "interval_seconds": 30}},
            "file_paths": {C: {"category": "etc"}},
        }));
        let said: Vec<(String, Value)> = diff(&before, &after)
            .into_iter()
            .map(|change| (change.name, json!(change.difference)))
            .collect();
        assert_eq!(
            said,
            [
                ("etc".to_owned(), json!({"change": "added"})),
                (
                    "it".to_owned(),
                    json!({"change": "changed", "fields": [{"field": "discovery", "before": "a", "after": "a\nb"}]})
                ),
                ("gone".to_owned(), json!({"change": "removed"})),
                (
                    "it/users".to_owned(),
                    json!({"change": "changed", "fields": [{"field": "interval_seconds", "before": "60", "after": "30"}]})
                ),
            ]
        );
        assert_eq!(diff(&after, &after), []);
    }

    #[test]
    fn the_hash_does_not_depend_on_the_order_of_columns() {
        let one = objects(json!({"packs": {A: {"name": "x", "extra": {"a": 1, "b": 2}}}}));
        let other = objects(json!({"packs": {A: {"extra": {"b": 2, "a": 1}, "name": "x"}}}));
        assert_eq!(one.hash(), other.hash());
        let changed = objects(json!({"packs": {A: {"extra": {"b": 2, "a": 1}, "name": "y"}}}));
        assert_ne!(one.hash(), changed.hash());
        assert_eq!(one.count(), 1);
    }
}
