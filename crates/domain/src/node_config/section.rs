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

/// Keeps of the statements in the value of a key only some; entries that have none left go. What [`statements`] does not see stays.
pub fn retain_statements(
    key: &str,
    value: &mut Value,
    is_kept: &impl Fn(StatementKind, &str) -> bool,
) {
    let Value::Object(entries) = value else {
        return;
    };
    match key {
        "views" => retain_texts(entries, StatementKind::View, is_kept),
        "auto_table_construction" => entries.retain(|_, entry| {
            let sql = entry.get("query").and_then(Value::as_str);
            sql.is_none_or(|sql| is_kept(StatementKind::AutoTable, sql))
        }),
        "file_paths_query" => retain_texts(entries, StatementKind::FilePathQuery, is_kept),
        "decorators" => {
            for by_interval in entries.values_mut().filter_map(Value::as_object_mut) {
                retain_texts(by_interval, StatementKind::Decorator, is_kept);
            }
            retain_texts(entries, StatementKind::Decorator, is_kept);
            entries.retain(|_, entry| entry.as_object().is_none_or(|left| !left.is_empty()));
        }
        _ => {}
    }
}

fn retain_texts(
    members: &mut Map<String, Value>,
    kind: StatementKind,
    is_kept: &impl Fn(StatementKind, &str) -> bool,
) {
    members.retain(|_, value| match value {
        Value::String(sql) => is_kept(kind, sql),
        Value::Array(items) => {
            let before = items.len();
            items.retain(|item| item.as_str().is_none_or(|sql| is_kept(kind, sql)));
            !items.is_empty() || before == 0
        }
        _ => true,
    });
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

impl Statement {
    /// What people call it: `the view listening`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.kind {
            StatementKind::View => format!("the view {}", self.place),
            StatementKind::AutoTable => format!("the automatic {}", self.place),
            StatementKind::FilePathQuery => format!("the file path {}", self.place),
            StatementKind::Decorator => format!("the decorator {}", self.place),
        }
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pieces_of_a_key_are_merged_by_its_rule() {
        let cases = [
            (
                "views",
                json!({"a": "SELECT 1", "b": "SELECT 2"}),
                json!({"b": "SELECT 3"}),
                json!({"a": "SELECT 1", "b": "SELECT 3"}),
            ),
            (
                "auto_table_construction",
                json!({"t": {"query": "q", "columns": ["a"], "path": "/a"}}),
                json!({"t": {"query": "r", "columns": ["b"]}}),
                json!({"t": {"query": "r", "columns": ["b"]}}),
            ),
            (
                "yara",
                json!({"signatures": {"g": ["/a", "/b"]}, "signature_urls": ["https://x/.*"]}),
                json!({"signatures": {"g": ["/b", "/c"], "h": ["/d"]}}),
                json!({"signatures": {"g": ["/a", "/b", "/c"], "h": ["/d"]}, "signature_urls": ["https://x/.*"]}),
            ),
            (
                "events",
                json!({"disable_subscribers": ["a"]}),
                json!({"disable_subscribers": ["b", "a"]}),
                json!({"disable_subscribers": ["a", "b"]}),
            ),
            (
                "prometheus_targets",
                json!({"timeout": 5, "urls": ["http://a"]}),
                json!({"timeout": 7}),
                json!({"timeout": 7, "urls": ["http://a"]}),
            ),
            (
                "feature_vectors",
                json!({"character_frequencies": [0.5]}),
                json!({"character_frequencies": [0.25]}),
                json!({"character_frequencies": [0.25]}),
            ),
            (
                "unheard_of",
                json!({"deep": {"list": [1], "x": null}}),
                json!({"deep": {"list": [2], "y": true}}),
                json!({"deep": {"list": [1, 2], "x": null, "y": true}}),
            ),
            (
                "unheard_of",
                json!([1]),
                json!({"now": "an object"}),
                json!({"now": "an object"}),
            ),
            ("unheard_of", json!("text"), json!(7), json!(7)),
        ];
        for (key, before, piece, expected) in cases {
            let mut merged = before.clone();
            merge(key, &mut merged, &piece);
            assert_eq!(merged, expected, "{key}: {before} and {piece}");
            let once = merged.clone();
            merge(key, &mut merged, &piece);
            assert_eq!(merged, once, "{key}: a piece twice changes nothing more");
        }
    }

    #[test]
    fn every_statement_in_free_json_is_found_with_its_place() {
        let places = |key, value| -> Vec<String> {
            (statements(key, &value).into_iter())
                .map(|found| format!("{:?} {} {}", found.kind, found.place, found.sql))
                .collect()
        };
        assert_eq!(
            places("views", json!({"a": "SELECT 1", "odd": 7})),
            ["View a SELECT 1"]
        );
        assert_eq!(
            places(
                "auto_table_construction",
                json!({"t": {"query": "SELECT 1", "platform": "darwin"}, "odd": []})
            ),
            ["AutoTable table t SELECT 1"]
        );
        assert_eq!(
            places("file_paths_query", json!({"c": ["SELECT 1", "SELECT 2"]})),
            ["FilePathQuery c SELECT 1", "FilePathQuery c SELECT 2"]
        );
        assert_eq!(
            places(
                "decorators",
                json!({"load": ["SELECT 1"], "interval": {"60": ["SELECT 2"]}})
            ),
            ["Decorator load SELECT 1", "Decorator interval 60 SELECT 2"]
        );
        assert!(
            places("views", json!([1])).is_empty()
                && places("yara", json!({"a": "SELECT 1"})).is_empty()
        );
    }
}
