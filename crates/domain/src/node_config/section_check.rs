//! Is a piece of a top-level key shaped as osquery wants it? Its SQL is checked elsewhere.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::section::RESERVED;
use super::{MAX_DEPTH, depth};

/// A top-level key that osquery knows, for forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownKey {
    /// The key.
    pub key: &'static str,
    /// The first osquery that knows it, empty when it is older than anybody asks.
    pub since: &'static str,
    /// What it does, and what becomes of it when it is taken away.
    pub meaning: &'static str,
    /// A value as an example.
    pub example: &'static str,
}

/// The keys that osquery knows and that have no form of their own (`osquery/config/parsers`).
pub const KNOWN_KEYS: [KnownKey; 7] = [
    KnownKey {
        key: "views",
        since: "2.4.5",
        meaning: "SQL views that other queries can use.",
        example: r#"{"listening": "SELECT * FROM listening_ports WHERE port <> 0"}"#,
    },
    KnownKey {
        key: "auto_table_construction",
        since: "3.2.5",
        meaning: "Tables made of SQLite files on the node. A column path is added by osquery: do not list it.",
        example: r#"{"quarantine": {"query": "SELECT LSQuarantineAgentName FROM LSQuarantineEvent", "path": "/Users/%/Library/Preferences/com.apple.LaunchServices.QuarantineEventsV2", "columns": ["LSQuarantineAgentName"], "platform": "darwin"}}"#,
    },
    KnownKey {
        key: "yara",
        since: "",
        meaning: "YARA signatures by group, which groups watch which file path categories, and URLs that queries may take rules from. What a node got stays until osqueryd restarts, even when it is taken away here.",
        example: r#"{"signatures": {"malware": ["/etc/osquery/malware.yar"]}, "file_paths": {"downloads": ["malware"]}, "signature_urls": ["https://example.com/yara/.*"]}"#,
    },
    KnownKey {
        key: "events",
        since: "",
        meaning: "Event subscribers that are switched on or off; off wins. What a node got stays until osqueryd restarts, even when it is taken away here.",
        example: r#"{"disable_subscribers": ["yara_events"]}"#,
    },
    KnownKey {
        key: "prometheus_targets",
        since: "",
        meaning: "Where the table prometheus_metrics reads from.",
        example: r#"{"timeout": 5, "urls": ["http://localhost:9100/metrics"]}"#,
    },
    KnownKey {
        key: "feature_vectors",
        since: "",
        meaning: "Frequencies of the 256 bytes, for scoring scripts in powershell_events on Windows.",
        example: r#"{"character_frequencies": [0.0, 0.1, "… 256 numbers"]}"#,
    },
    KnownKey {
        key: "kafka_topics",
        since: "",
        meaning: "Which queries the Kafka logger sends to which topic.",
        example: r#"{"topic": ["pack/it/usb"]}"#,
    },
];

/// What is wrong with a key, as a sentence.
#[must_use]
pub fn check_key(key: &str) -> Option<String> {
    if RESERVED.contains(&key) {
        return Some(match key {
            "etag" | "error" | "node_invalid" => {
                format!("\"{key}\" means something else in an answer to a node.")
            }
            _ => format!("\"{key}\" has a page of its own."),
        });
    }
    key.is_empty()
        .then(|| "A top-level key is needed, such as yara or views.".to_owned())
}

/// What is wrong with a value of this key, a sentence each.
#[must_use]
pub fn check_value(key: &str, value: &Value) -> Vec<String> {
    let mut check = Shape(Vec::new());
    if depth(value) + 1 > MAX_DEPTH {
        check.wrong(format!(
            "This is nested too deeply: osquery takes {MAX_DEPTH} levels, and the config itself is one."
        ));
    }
    if value.is_null() {
        check.wrong("osquery ignores null.");
    }
    match (key, value) {
        ("views", Value::Object(views)) => check.views(views),
        ("auto_table_construction", Value::Object(tables)) => check.auto_tables(tables),
        ("yara", Value::Object(yara)) => check.yara(yara),
        ("events", Value::Object(events)) => {
            for member in ["enable_subscribers", "disable_subscribers"] {
                check.texts(member, events.get(member), |_| None);
            }
        }
        ("prometheus_targets", Value::Object(targets)) => {
            if targets
                .get("timeout")
                .is_some_and(|timeout| timeout.as_u64().is_none())
            {
                check.wrong("timeout is a whole number of seconds.");
            }
            check.texts("urls", targets.get("urls"), |url| {
                let is_http = url.starts_with("http://") || url.starts_with("https://");
                (!is_http).then_some("a URL begins with http:// or https://")
            });
        }
        ("feature_vectors", Value::Object(vectors)) => {
            if let Some(frequencies) = vectors.get("character_frequencies") {
                let is_fine = frequencies.as_array().is_some_and(|numbers| {
                    numbers.len() == 256 && numbers.iter().all(Value::is_number)
                });
                if !is_fine {
                    check.wrong("character_frequencies is a list of 256 numbers.");
                }
            }
        }
        ("kafka_topics", Value::Object(topics)) => {
            for (topic, queries) in topics {
                check.texts(topic, Some(queries), |_| None);
            }
        }
        (known, _) if KNOWN_KEYS.iter().any(|each| each.key == known) => {
            check.wrong(format!("{known} is an object: {{…}}."));
        }
        _ => {}
    }
    check.0
}

struct Shape(Vec<String>);

impl Shape {
    fn wrong(&mut self, sentence: impl Into<String>) {
        self.0.push(sentence.into());
    }

    /// A list of texts, if it is there; `flaw` may say more of each.
    fn texts(
        &mut self,
        place: &str,
        value: Option<&Value>,
        flaw: impl Fn(&str) -> Option<&'static str>,
    ) {
        let Some(value) = value else { return };
        let Value::Array(items) = value else {
            return self.wrong(format!("{place} is a list of texts: [\"…\"]."));
        };
        for item in items {
            match item.as_str() {
                None => self.wrong(format!("{place} has {item}, which is no text.")),
                Some("") => self.wrong(format!("{place} has an empty text.")),
                Some(text) => {
                    if let Some(flaw) = flaw(text) {
                        self.wrong(format!("{place}, \"{text}\": {flaw}."));
                    }
                }
            }
        }
    }

    fn views(&mut self, views: &Map<String, Value>) {
        for (name, sql) in views {
            self.table_name("view", name);
            if sql.as_str().is_none_or(|sql| sql.trim().is_empty()) {
                self.wrong(format!("The view {name} is a text of SQL."));
            }
        }
    }

    fn auto_tables(&mut self, tables: &Map<String, Value>) {
        for (name, table) in tables {
            self.table_name("table", name);
            let Value::Object(table) = table else {
                self.wrong(format!(
                    "The table {name} is an object with query, path and columns."
                ));
                continue;
            };
            for member in ["query", "path"] {
                let text = table.get(member).and_then(Value::as_str);
                if text.is_none_or(|text| text.trim().is_empty()) {
                    self.wrong(format!("The table {name} needs {member}, a text."));
                }
            }
            if table
                .get("platform")
                .is_some_and(|platform| !platform.is_string())
            {
                self.wrong(format!("The platform of the table {name} is a text."));
            }
            self.columns(name, table.get("columns"));
        }
    }

    fn columns(&mut self, table: &str, columns: Option<&Value>) {
        let names: Option<Vec<&str>> = columns
            .and_then(Value::as_array)
            .map(|columns| columns.iter().filter_map(Value::as_str).collect());
        let is_whole = |names: &Vec<&str>| {
            !names.is_empty()
                && Some(names.len()) == columns.and_then(Value::as_array).map(Vec::len)
        };
        match names.filter(is_whole) {
            None => self.wrong(format!("The table {table} needs columns, a list of names.")),
            Some(names) => {
                let mut seen = BTreeSet::new();
                for name in names {
                    if name.eq_ignore_ascii_case("path") {
                        self.wrong(format!(
                            "The table {table} lists a column path: osquery adds it by itself."
                        ));
                    }
                    if !seen.insert(name.to_ascii_lowercase()) {
                        self.wrong(format!("The table {table} lists the column {name} twice."));
                    }
                }
            }
        }
    }

    fn table_name(&mut self, noun: &str, name: &str) {
        let is_plain = name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
            && !name.starts_with(|first: char| first.is_ascii_digit());
        if name.is_empty() || !is_plain {
            self.wrong(format!(
                "\"{name}\" cannot be the name of a {noun}: it has letters, digits and underscores only."
            ));
        }
        let begin = name.get(..7).unwrap_or_default();
        if begin.eq_ignore_ascii_case("sqlite_") {
            self.wrong(format!(
                "\"{name}\" cannot be the name of a {noun}: names that begin with sqlite_ are SQLite's own."
            ));
        }
    }

    fn yara(&mut self, yara: &Map<String, Value>) {
        for (member, of) in [
            ("signatures", "files of rules"),
            ("file_paths", "groups of signatures"),
        ] {
            match yara.get(member) {
                None => {}
                Some(Value::Object(entries)) => {
                    for (name, entry) in entries {
                        self.texts(&format!("{member}, {name}"), Some(entry), |_| None);
                    }
                }
                Some(_) => self.wrong(format!("{member} is an object of lists of {of}.")),
            }
        }
        self.texts("signature_urls", yara.get("signature_urls"), |url| {
            (!url.starts_with("https://")).then_some("a URL of rules begins with https://")
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_osquery_would_pass_over_in_silence_is_said() {
        let cases = [
            ("views", json!({"ok": "SELECT 1"}), None),
            (
                "views",
                json!({"two words": "SELECT 1"}),
                Some("cannot be the name of a view"),
            ),
            (
                "views",
                json!({"SQLite_v": "SELECT 1"}),
                Some("SQLite's own"),
            ),
            (
                "auto_table_construction",
                json!({"sqlite_t": {"query": "q", "path": "/x", "columns": ["a"]}}),
                Some("SQLite's own"),
            ),
            (
                "views",
                json!({"v": ["SELECT 1"]}),
                Some("is a text of SQL"),
            ),
            ("views", json!(["SELECT 1"]), Some("views is an object")),
            ("views", Value::Null, Some("osquery ignores null")),
            (
                "auto_table_construction",
                json!({"t": {"query": "SELECT a FROM b", "path": "/x", "columns": ["a"], "platform": "darwin"}}),
                None,
            ),
            (
                "auto_table_construction",
                json!({"t": {"path": "/x", "columns": ["a"]}}),
                Some("needs query"),
            ),
            (
                "auto_table_construction",
                json!({"t": {"query": "q", "path": "/x", "columns": ["a", "Path"]}}),
                Some("osquery adds it by itself"),
            ),
            (
                "auto_table_construction",
                json!({"t": {"query": "q", "path": "/x", "columns": ["a", "A"]}}),
                Some("twice"),
            ),
            (
                "auto_table_construction",
                json!({"t": {"query": "q", "path": "/x", "columns": [1]}}),
                Some("a list of names"),
            ),
            (
                "auto_table_construction",
                json!({"t": "SELECT 1"}),
                Some("an object with query"),
            ),
            (
                "yara",
                json!({"signatures": {"g": ["/a"]}, "file_paths": {"c": ["g"]}, "signature_urls": ["https://h/.*"], "other": 1}),
                None,
            ),
            (
                "yara",
                json!({"signatures": ["/a"]}),
                Some("an object of lists of files of rules"),
            ),
            (
                "yara",
                json!({"signature_urls": ["http://h/x"]}),
                Some("begins with https://"),
            ),
            (
                "events",
                json!({"enable_subscribers": [], "disable_subscribers": ["x"]}),
                None,
            ),
            (
                "events",
                json!({"disable_subscribers": "x"}),
                Some("a list of texts"),
            ),
            (
                "events",
                json!({"disable_subscribers": [""]}),
                Some("an empty text"),
            ),
            (
                "prometheus_targets",
                json!({"timeout": 5, "urls": ["http://h:9100/metrics"]}),
                None,
            ),
            (
                "prometheus_targets",
                json!({"timeout": "5"}),
                Some("whole number"),
            ),
            (
                "prometheus_targets",
                json!({"urls": ["h:9100"]}),
                Some("begins with http"),
            ),
            (
                "feature_vectors",
                json!({"character_frequencies": vec![0.5; 256]}),
                None,
            ),
            (
                "feature_vectors",
                json!({"character_frequencies": [0.5]}),
                Some("256 numbers"),
            ),
            ("kafka_topics", json!({"t": ["pack/it/usb"]}), None),
            ("kafka_topics", json!({"t": [1]}), Some("no text")),
            ("unheard_of", json!({"whatever": [1, {"x": null}]}), None),
            ("unheard_of", json!(7), None),
        ];
        for (key, value, expected) in cases {
            let wrong = check_value(key, &value);
            match expected {
                None => assert!(wrong.is_empty(), "{key} {value}: {wrong:?}"),
                Some(part) => assert!(wrong.join(" ").contains(part), "{key} {value}: {wrong:?}"),
            }
        }
        let nested = (0..31).fold(json!(1), |inner, _| json!([inner]));
        assert!(
            check_value("x", &nested).is_empty(),
            "the config is the 32nd level"
        );
        assert!(check_value("x", &json!([nested]))[0].contains("too deeply"));
    }

    #[test]
    fn a_piece_never_takes_a_key_that_means_something_else() {
        for key in RESERVED {
            assert!(check_key(key).is_some(), "{key}");
        }
        assert!(check_key("").is_some());
        for known in KNOWN_KEYS {
            assert_eq!(check_key(known.key), None);
            let example: Value = serde_json::from_str(known.example).unwrap();
            if known.key != "feature_vectors" {
                assert_eq!(check_value(known.key, &example), [""; 0], "{}", known.key);
            }
        }
        assert_eq!(check_key("something_new"), None);
    }
}
