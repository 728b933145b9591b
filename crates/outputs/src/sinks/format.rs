//! How lines are written where a sink leaves the choice: as JSON, or as Doorman's two log plug-ins wrote them, for those who have
//! readers for these. (Source: doorman/plugins/logs/file.py and logstash.py of mwielgoszewski/doorman.)

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::record::{Body, Record};
use crate::destinations::Input;

/// A format of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a line, with all there is.
    #[default]
    Json,
    /// Doorman's `file` plug-in: `name="value", …`. Only results and status logs.
    Doorman,
    /// Doorman's `logstash` plug-in: JSON lines with `@timestamp`, ended by CR and LF. Only results and status logs.
    DoormanLogstash,
}

/// The choice in a form.
pub(crate) const FORMATS: Input = Input::Choice(&[
    ("json", "JSON"),
    ("doorman", "Doorman's file plug-in"),
    ("doorman_logstash", "Doorman's Logstash plug-in"),
]);
pub(crate) const FORMAT_HELP: &str = "Those of Doorman hold results and status logs only.";

impl Format {
    /// The line without its end; `None` if the format has no form for it.
    #[must_use]
    pub fn line(self, record: &Record) -> Option<String> {
        match self {
            Self::Json => Some(record.to_json_line()),
            Self::Doorman => doorman(record),
            Self::DoormanLogstash => logstash(record),
        }
    }

    /// What ends a line.
    #[must_use]
    pub fn end(self) -> &'static str {
        match self {
            Self::Json | Self::Doorman => "\n",
            Self::DoormanLogstash => "\r\n",
        }
    }

    /// All lines with their ends.
    #[must_use]
    pub fn lines(self, records: &[Record]) -> Vec<u8> {
        let mut text = String::new();
        for line in records.iter().filter_map(|record| self.line(record)) {
            text.push_str(&line);
            text.push_str(self.end());
        }
        text.into_bytes()
    }
}

fn host_identifier(record: &Record) -> &str {
    record
        .node
        .as_ref()
        .map_or("", |node| node.host_identifier.as_str())
}

fn doorman(record: &Record) -> Option<String> {
    let mut line = String::new();
    let mut put = |name: &str, value: &str| {
        if !line.is_empty() {
            line.push_str(", ");
        }
        line.push_str(name);
        line.push('=');
        quote(&mut line, value);
    };
    // Python prints the seconds as a float.
    let seconds = |at: DateTime<Utc>| format!("{}.0", at.timestamp());
    put("host_identifier", host_identifier(record));
    match &record.body {
        Body::Status {
            severity,
            message,
            filename,
            line,
            version,
        } => {
            put("line", &line.to_string());
            put("message", message);
            put("severity", &severity.to_string());
            put("filename", filename);
            put("version", version);
            put("created", &seconds(record.received_at));
        }
        Body::Test(text) => {
            put("message", text);
            put("created", &seconds(record.received_at));
        }
        Body::Result {
            query,
            action,
            columns,
            ..
        } => {
            put("name", query);
            put("timestamp", &seconds(record.occurred_at));
            put("result_type", action);
            for (name, value) in columns.as_object().into_iter().flatten() {
                put(&format!("{action}_{name}"), &text_of(value));
            }
        }
        Body::Finding { .. } | Body::Audit(_) => return None,
    }
    Some(line)
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// In double quotes; what could end them or the line is escaped, and so is what does not print.
fn quote(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            ' '..='~' => line.push(c),
            _ => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    write!(line, "\\x{byte:02x}").expect("a text takes what is written");
                }
            }
        }
    }
    line.push('"');
}

fn logstash(record: &Record) -> Option<String> {
    // As Python's isoformat: no zone.
    let iso = |at: DateTime<Utc>| {
        let text = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        text.trim_end_matches('Z').to_owned()
    };
    let created = iso(record.received_at);
    let host = host_identifier(record);
    let line = match &record.body {
        Body::Status {
            severity,
            message,
            filename,
            line,
            version,
        } => json!({
            "@version": 1, "@host_identifier": host, "@timestamp": created, "@message": message, "log_type": "status", "line": line.to_string(),
            "message": message, "severity": severity.to_string(), "filename": filename, "osquery_version": version, "created": created,
        }),
        Body::Result {
            query,
            action,
            columns,
            ..
        } => json!({
            "@version": 1, "@host_identifier": host, "@timestamp": iso(record.occurred_at), "log_type": "result", "action": action,
            "columns": columns, "name": query.as_ref(), "created": created,
        }),
        Body::Test(text) => json!({
            "@version": 1, "@host_identifier": host, "@timestamp": created, "@message": text, "log_type": "test", "message": text,
            "created": created,
        }),
        Body::Finding { .. } | Body::Audit(_) => return None,
    };
    Some(line.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::record::NodeOfRecord;
    use super::*;

    fn record(body: Body) -> Record {
        let at = "2026-11-21T09:30:05.250Z".parse().unwrap();
        Record {
            id: "r-1-0".into(),
            received_at: at,
            occurred_at: at - chrono::TimeDelta::seconds(5),
            node: Some(Arc::new(NodeOfRecord {
                id: uuid::Uuid::nil(),
                name: "web-1".into(),
                hostname: "web-1.example".into(),
                host_identifier: "4C4C".into(),
                platform: "linux".into(),
                tags: vec!["prod".into()],
            })),
            body,
        }
    }

    fn result() -> Record {
        record(Body::Result {
            query: "pack/it/usb".into(),
            action: "added".into(),
            columns: json!({"model": "a \"stick\"\n", "path": "C:\\é"}),
            decorations: Value::Null,
            epoch: "0".into(),
            counter: 3,
            unix_time: 1_795_253_400,
            baseline: false,
            late: false,
        })
    }

    fn status() -> Record {
        record(Body::Status {
            severity: 1,
            message: "slow".into(),
            filename: "scheduler.cpp".into(),
            line: 72,
            version: "5.9.1".into(),
        })
    }

    #[test]
    fn lines_of_doormans_file_plugin_are_as_it_wrote_them() {
        assert_eq!(
            Format::Doorman.line(&result()).unwrap(),
            r#"host_identifier="4C4C", name="pack/it/usb", timestamp="1795253400.0", result_type="added", added_model="a \"stick\"\n", added_path="C:\\\xc3\xa9""#
        );
        assert_eq!(
            Format::Doorman.line(&status()).unwrap(),
            r#"host_identifier="4C4C", line="72", message="slow", severity="1", filename="scheduler.cpp", version="5.9.1", created="1795253405.0""#
        );
    }

    #[test]
    fn lines_of_doormans_logstash_plugin_are_as_it_wrote_them() {
        let lines = Format::DoormanLogstash.lines(&[result(), status()]);
        assert_eq!(
            String::from_utf8(lines).unwrap(),
            concat!(
                r#"{"@version":1,"@host_identifier":"4C4C","@timestamp":"2026-11-21T09:30:00","log_type":"result","action":"added","columns":{"model":"a \"stick\"\n","path":"C:\\é"},"name":"pack/it/usb","created":"2026-11-21T09:30:05"}"#,
                "\r\n",
                r#"{"@version":1,"@host_identifier":"4C4C","@timestamp":"2026-11-21T09:30:05","@message":"slow","log_type":"status","line":"72","message":"slow","severity":"1","filename":"scheduler.cpp","osquery_version":"5.9.1","created":"2026-11-21T09:30:05"}"#,
                "\r\n"
            )
        );
    }

    #[test]
    fn a_line_of_json_tells_all_and_stays_one_line() {
        let line = Format::Json.line(&result()).unwrap();
        assert!(!line.contains('\n'));
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            read,
            json!({
                "id": "r-1-0", "type": "result", "time": "2026-11-21T09:30:00.250Z", "received_at": "2026-11-21T09:30:05.250Z",
                "node": {"id": "00000000-0000-0000-0000-000000000000", "name": "web-1", "host_identifier": "4C4C", "platform": "linux",
                    "tags": ["prod"]},
                "query": "pack/it/usb", "action": "added", "columns": {"model": "a \"stick\"\n", "path": "C:\\é"},
                "epoch": "0", "counter": 3, "unix_time": 1_795_253_400, "baseline": false, "late": false,
            })
        );
    }

    #[test]
    fn doormans_formats_have_no_form_for_findings() {
        let finding = record(Body::Finding {
            change: "opened".into(),
            finding: json!({}),
            first_match: Value::Null,
        });
        assert_eq!(Format::Doorman.line(&finding), None);
        assert_eq!(Format::DoormanLogstash.line(&finding), None);
    }
}
