//! What a recording says, and whether that is what is stored.

use std::collections::BTreeMap;

use ostiary_tests::{Stored, StoredRow, StoredStatus, World};
use serde_json::{Value, json};

use super::recorded::{Recorded, Replica};

/// What a recording says, each line once, read here anew so that a mistake of our decoder cannot hide.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) lines: usize,
    rows: Vec<String>,
    statuses: Vec<StoredStatus>,
}

impl Said {
    pub(super) fn of(recording: &[Recorded], replica: &Replica) -> Self {
        let mut said = Self::default();
        for recorded in recording.iter().filter(|recorded| recorded.path == "/log") {
            let body = replica.own(&recorded.body());
            let post: Value = serde_json::from_str(&String::from_utf8_lossy(&body)).unwrap();
            for line in post["data"].as_array().unwrap() {
                said.lines += 1;
                if post["log_type"] == "result" {
                    said.add_rows(line);
                } else {
                    said.add_status(line);
                }
            }
        }
        said.rows.sort();
        said.statuses.sort();
        said
    }

    pub(super) fn add_rows(&mut self, line: &Value) {
        let head = json!([
            line["name"],
            line["epoch"],
            line["counter"],
            line["unixTime"]
        ]);
        let decorations = line
            .get("decorations")
            .cloned()
            .unwrap_or_else(|| json!({}));
        let mut add = |action: &str, columns: &Value| {
            self.rows
                .push(format!("{head} {action} {columns} {decorations}"));
        };
        if let Some(snapshot) = line["snapshot"].as_array() {
            snapshot.iter().for_each(|row| add("snapshot", row));
            if snapshot.is_empty() {
                self.rows.push(format!("{head} nothing"));
            }
        } else if let Some(changes) = line["diffResults"].as_object() {
            for (action, rows) in changes {
                rows.as_array()
                    .unwrap()
                    .iter()
                    .for_each(|row| add(action, row));
            }
        } else {
            add(line["action"].as_str().unwrap(), &line["columns"]);
        }
    }

    pub(super) fn add_status(&mut self, line: &Value) {
        self.statuses.push(StoredStatus {
            severity: i16::try_from(line["severity"].as_i64().unwrap()).unwrap(),
            filename: line["filename"].as_str().unwrap().into(),
            line: i32::try_from(line["line"].as_i64().unwrap()).unwrap(),
            message: line["message"].as_str().unwrap().into(),
            version: line["version"].as_str().unwrap().into(),
            unix_time: line["unixTime"].as_i64(),
        });
    }

    pub(super) async fn compare(mut self, world: &World, replica: &Replica) {
        let stored = world.stored(replica.node).await;
        assert_eq!(stored.unreadable, Vec::<String>::new());
        assert_eq!(rows_of(&stored), self.rows);
        let mut statuses = stored.statuses.clone();
        // On a machine whose clock is behind the recording's, the time of receipt stands in.
        let now = world.now().timestamp();
        if self
            .statuses
            .iter()
            .any(|status| status.unix_time > Some(now))
        {
            statuses
                .iter_mut()
                .chain(&mut self.statuses)
                .for_each(|status| status.unix_time = None);
            statuses.sort();
            self.statuses.sort();
        }
        assert_eq!(statuses, self.statuses);
        let lossy: Vec<_> = stored
            .executions
            .iter()
            .filter(|execution| execution.lossy)
            .collect();
        assert!(!lossy.is_empty(), "the recording holds invalid UTF-8");
        for execution in &stored.executions {
            let replaced = serde_json::to_string(execution)
                .unwrap()
                .contains('\u{FFFD}');
            assert_eq!(execution.lossy, replaced, "{execution:?}");
        }
    }
}

/// What is stored, in the form of [`Said::rows`].
pub(super) fn rows_of(stored: &Stored) -> Vec<String> {
    let mut rows = Vec::new();
    for execution in &stored.executions {
        let head = json!([
            execution.query,
            execution.epoch,
            execution.counter,
            execution.unix_time
        ]);
        let decorations = json!(execution.decorations);
        if execution.rows.is_empty() {
            rows.push(format!("{head} nothing"));
        }
        for row in &execution.rows {
            let (action, columns): (_, &BTreeMap<_, _>) = match row {
                StoredRow::Added(columns) => ("added", columns),
                StoredRow::Removed(columns) => ("removed", columns),
                StoredRow::Snapshot(columns) => ("snapshot", columns),
            };
            rows.push(format!("{head} {action} {} {decorations}", json!(columns)));
        }
    }
    rows.sort();
    rows
}
