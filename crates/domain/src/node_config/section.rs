//! Pieces of top-level keys that have no table of their own: how the pieces of one node are merged.

use serde_json::{Map, Value};

/// Keys that a piece may never have: they are assembled from other parts, or mean something else in an answer of ours.
pub const RESERVED: [&str; 11] = [
    "options",
    "schedule",
    "packs",
    "decorators",
    "file_paths",
    "file_paths_query",
    "file_accesses",
    "exclude_paths",
    "etag",
    "error",
    "node_invalid",
];

/// Joins a piece into what earlier ones made of the key; the later one wins where they contradict each other.
///
/// Objects are merged member by member, arrays united. Where an entry is one thing (`views`, `auto_table_construction`,
/// `feature_vectors`) it is replaced as a whole.
pub fn merge(key: &str, into: &mut Value, piece: &Value) {
    match key {
        "views" | "auto_table_construction" | "feature_vectors" => merge_entries(into, piece),
        _ => merge_deep(into, piece),
    }
}

fn merge_entries(into: &mut Value, piece: &Value) {
    match (into, piece) {
        (Value::Object(entries), Value::Object(news)) => {
            for (name, entry) in news {
                entries.insert(name.clone(), entry.clone());
            }
        }
        (into, piece) => *into = piece.clone(),
    }
}

fn merge_deep(into: &mut Value, piece: &Value) {
    match (into, piece) {
        (Value::Object(members), Value::Object(news)) => {
            for (name, new) in news {
                merge_deep(members.entry(name).or_insert(Value::Null), new);
            }
        }
        (Value::Array(items), Value::Array(news)) => {
            for new in news {
                if !items.contains(new) {
                    items.push(new.clone());
                }
            }
        }
        (into, piece) => *into = piece.clone(),
    }
}

/// The statements in the value of a key, each with its place in words: for the check that every SQL passes. Shapes that are not as
/// osquery wants them are passed over.
#[must_use]
pub fn statements(key: &str, value: &Value) -> Vec<Statement> {
    let Value::Object(entries) = value else {
        return Vec::new();
    };
    match key {
        "views" => of_members(StatementKind::View, "", entries),
        "auto_table_construction" => (entries.iter())
            .filter_map(|(table, entry)| {
                Some(Statement {
                    kind: StatementKind::AutoTable,
                    place: format!("table {table}"),
                    sql: entry.get("query")?.as_str()?.to_owned(),
                    platform: text_of(entry.get("platform")),
                    path: text_of(entry.get("path")),
                })
            })
            .collect(),
        "file_paths_query" => of_members(StatementKind::FilePathQuery, "", entries),
        "decorators" => (entries.iter())
            .flat_map(|(moment, value)| match value {
                Value::Object(by_interval) => {
                    of_members(StatementKind::Decorator, "interval ", by_interval)
                }
                other => of_member(StatementKind::Decorator, "", moment, other),
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// A statement inside free JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it is for.
    pub kind: StatementKind,
    /// Where it stands, in words: `table shell_history`.
    pub place: String,
    /// What is run.
    pub sql: String,
    /// osquery's own condition, empty for all.
    pub platform: String,
    /// Of an automatic table: which files it reads.
    pub path: String,
}

/// What a statement inside free JSON is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// `views`.
    View,
    /// `auto_table_construction`; it runs over tables of the file at its path, not over osquery's.
    AutoTable,
    /// `file_paths_query`.
    FilePathQuery,
    /// `decorators`.
    Decorator,
}

fn of_members(kind: StatementKind, word: &str, members: &Map<String, Value>) -> Vec<Statement> {
    (members.iter())
        .flat_map(|(name, value)| of_member(kind, word, name, value))
        .collect()
}

fn of_member(kind: StatementKind, word: &str, name: &str, value: &Value) -> Vec<Statement> {
    let texts = match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        Value::String(text) => vec![text.as_str()],
        _ => Vec::new(),
    };
    (texts.into_iter())
        .map(|sql| Statement {
            kind,
            place: format!("{word}{name}"),
            sql: sql.to_owned(),
            platform: String::new(),
            path: String::new(),
        })
        .collect()
}

fn text_of(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}
