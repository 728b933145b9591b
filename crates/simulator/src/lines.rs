//! Log lines in the formats of each version: event, batch and snapshot results, and status lines.

use serde_json::{Map, Value as Json, json};
use sha1::{Digest, Sha1};

use crate::differential::Changes;
use crate::ledger::{LedgerLine, LogType, Shape};
use crate::value::{Columns, Row, Value, as_property_tree, escape_differential, to_bytes};
use crate::version::Version;

/// A finished line: its bytes and what the ledger will say of it once it is deleted.
#[derive(Debug, Clone)]
pub struct Line {
    /// The JSON object.
    pub bytes: Vec<u8>,
    /// Its entry in the ledger.
    pub entry: LedgerLine,
}

/// How a node writes lines now: who it is, the time, and the options that shape lines.
pub struct Writer<'a> {
    /// The node's number in the fleet.
    pub node: usize,
    /// `hostIdentifier`.
    pub host_identifier: &'a str,
    /// Version of its osquery.
    pub version: Version,
    /// The node's clock.
    pub unix_time: i64,
    /// `logger_event_type`: a line for each change, else one for each run.
    pub events: bool,
    /// `logger_snapshot_event_type`.
    pub snapshot_events: bool,
    /// `logger_numerics`.
    pub numerics: bool,
    /// `decorations_top_level`.
    pub top_level: bool,
    /// What the decorators said.
    pub decorations: &'a Row,
    /// Gives each line its id.
    pub next_id: &'a mut dyn FnMut() -> String,
}

/// The time as asctime writes it, with ` UTC`.
pub fn calendar_time(unix_time: i64) -> String {
    chrono::DateTime::from_timestamp(unix_time, 0)
        .unwrap_or_default()
        .format("%a %b %e %H:%M:%S %Y UTC")
        .to_string()
}

impl Writer<'_> {
    /// The lines of one run of a differential query: removed rows first.
    pub fn differential(&mut self, name: &str, changes: &Changes) -> Vec<Line> {
        if self.events {
            let removed = changes.removed.iter().map(|row| ("removed", row));
            let added = changes.added.iter().map(|row| ("added", row));
            let rows: Vec<_> = removed.chain(added).collect();
            return rows
                .into_iter()
                .map(|(action, row)| {
                    let content = [
                        ("columns", self.columns(row, true)),
                        ("action", action.into()),
                    ];
                    self.result(
                        name,
                        changes.epoch,
                        changes.counter,
                        (Shape::Event, action, 1),
                        content,
                    )
                })
                .collect();
        }
        // From 5.8.0 on an empty first set is told too.
        if changes.is_empty() && !(changes.fresh && self.version >= Version(5, 8, 0)) {
            return Vec::new();
        }
        let rows = u32::try_from(changes.removed.len() + changes.added.len()).unwrap_or(u32::MAX);
        let content = [(
            "diffResults",
            json!({"removed": self.rows(&changes.removed, true), "added": self.rows(&changes.added, true)}),
        )];
        vec![self.result(
            name,
            changes.epoch,
            changes.counter,
            (Shape::Batch, "", rows),
            content,
        )]
    }

    /// The lines of one run of a snapshot query; their counter is always 0.
    pub fn snapshot(&mut self, name: &str, epoch: u64, rows: &[Columns]) -> Vec<Line> {
        if self.snapshot_events {
            return rows
                .iter()
                .map(|row| {
                    let content = [
                        ("columns", self.columns(row, false)),
                        ("action", "snapshot".into()),
                    ];
                    self.result(name, epoch, 0, (Shape::Event, "snapshot", 1), content)
                })
                .collect();
        }
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let content = [
            ("snapshot", self.rows(rows, false)),
            ("action", "snapshot".into()),
        ];
        vec![self.result(
            name,
            epoch,
            0,
            (Shape::Snapshot, "snapshot", count),
            content,
        )]
    }

    /// A status line. Its id also stands in the message, because few servers keep a status's decorations.
    pub fn status(&mut self, severity: u8, filename: &str, line: u32, message: &str) -> Line {
        let id = (self.next_id)();
        let message = format!("{message} [fleet_line {id}]");
        let number = |value: i64| -> Json {
            if self.version.status_numbers_are_strings() {
                value.to_string().into()
            } else {
                value.into()
            }
        };
        let object = json!({
            "hostIdentifier": self.host_identifier,
            "calendarTime": calendar_time(self.unix_time),
            "unixTime": number(self.unix_time),
            "severity": number(severity.into()),
            "filename": filename,
            "line": number(line.into()),
            "message": message,
            "version": self.version.to_string(),
            "decorations": self.decorations(&id),
        });
        let mut bytes = to_bytes(&object);
        if self.version.status_numbers_are_strings() {
            bytes = as_property_tree(&bytes);
        }
        self.line(bytes, LogType::Status, "", 0, 0, (Shape::Status, "", 1), id)
    }

    fn result<const N: usize>(
        &mut self,
        name: &str,
        epoch: u64,
        counter: u64,
        kind: (Shape, &str, u32),
        content: [(&str, Json); N],
    ) -> Line {
        let id = (self.next_id)();
        let number = |value: Json| -> Json {
            if self.version.writes_property_tree() {
                value.to_string().into()
            } else {
                value
            }
        };
        let mut object = Map::new();
        for (key, value) in content {
            object.insert(key.to_owned(), value);
        }
        object.insert("name".to_owned(), name.into());
        object.insert("hostIdentifier".to_owned(), self.host_identifier.into());
        object.insert(
            "calendarTime".to_owned(),
            calendar_time(self.unix_time).into(),
        );
        object.insert("unixTime".to_owned(), number(self.unix_time.into()));
        object.insert("epoch".to_owned(), number(epoch.into()));
        object.insert("counter".to_owned(), number(counter.into()));
        if let Some(key) = self.version.numerics_key() {
            object.insert(key.to_owned(), self.numerics.into());
        }
        let decorations = self.decorations(&id);
        if self.top_level {
            object.extend(decorations);
        } else {
            object.insert("decorations".to_owned(), Json::Object(decorations));
        }
        let mut bytes = to_bytes(&Json::Object(object));
        if self.version.writes_property_tree() {
            bytes = as_property_tree(&bytes);
        }
        self.line(bytes, LogType::Result, name, epoch, counter, kind, id)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one ledger entry")]
    fn line(
        &self,
        bytes: Vec<u8>,
        log_type: LogType,
        name: &str,
        epoch: u64,
        counter: u64,
        (shape, action, rows): (Shape, &str, u32),
        fleet_line: String,
    ) -> Line {
        let entry = LedgerLine {
            node: self.node,
            host_identifier: self.host_identifier.to_owned(),
            log_type,
            name: name.to_owned(),
            epoch,
            counter,
            unix_time: self.unix_time,
            action: action.to_owned(),
            fleet_line,
            shape,
            rows,
            hash: hex::encode(Sha1::digest(&bytes)),
        };
        Line { bytes, entry }
    }

    fn decorations(&self, id: &str) -> Map<String, Json> {
        let mut decorations: Map<String, Json> = self
            .decorations
            .iter()
            .map(|(name, value)| (name.clone(), value.text().into()))
            .collect();
        decorations.insert("fleet_line".to_owned(), id.into());
        decorations
    }

    fn columns(&self, row: &Columns, escape: bool) -> Json {
        row.iter()
            .map(|(name, value)| (name.clone(), self.value(value, escape)))
            .collect::<Map<_, _>>()
            .into()
    }

    fn rows(&self, rows: &[Columns], escape: bool) -> Json {
        if rows.is_empty() && self.version.writes_property_tree() {
            return "".into();
        }
        rows.iter()
            .map(|row| self.columns(row, escape))
            .collect::<Vec<_>>()
            .into()
    }

    fn value(&self, value: &Value, escape: bool) -> Json {
        match value {
            Value::Text(text) if escape => escape_differential(text, self.version).into(),
            other => other.json(self.numerics && self.version >= Version(3, 4, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(version: Version, events: bool, use_it: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        let decorations = vec![("host_uuid".to_owned(), Value::from("u"))];
        let mut count = 0;
        let mut next_id = || {
            count += 1;
            format!("id-{count}")
        };
        use_it(&mut Writer {
            node: 0,
            host_identifier: "h",
            version,
            unix_time: 1_786_096_805,
            events,
            snapshot_events: false,
            numerics: false,
            top_level: false,
            decorations: &decorations,
            next_id: &mut next_id,
        })
    }

    fn json(line: &Line) -> Json {
        serde_json::from_slice(&line.bytes).unwrap()
    }

    fn changes() -> Changes {
        let row = |v: i64| Columns::from([("a".to_owned(), Value::Int(v))]);
        Changes {
            epoch: 0,
            counter: 3,
            removed: vec![row(1)],
            added: vec![row(2), row(2)],
            fresh: false,
        }
    }

    #[test]
    fn the_time_is_written_as_asctime_does() {
        assert_eq!(calendar_time(1_786_096_805), "Fri Aug  7 10:00:05 2026 UTC");
    }

    #[test]
    fn events_are_one_line_a_row_removed_first_each_with_its_own_id() {
        let lines = with(Version(5, 23, 1), true, |w| w.differential("q", &changes()));
        let first = json(&lines[0]);
        assert_eq!(first["action"], "removed");
        assert_eq!(first["columns"], json!({"a": "1"}));
        assert_eq!(
            (&first["counter"], &first["unixTime"]),
            (&json!(3), &json!(1_786_096_805))
        );
        assert_eq!(first["numerics"], json!(false));
        assert_eq!(
            first["decorations"],
            json!({"host_uuid": "u", "fleet_line": "id-1"})
        );
        let ids: Vec<_> = lines
            .iter()
            .map(|line| line.entry.fleet_line.as_str())
            .collect();
        assert_eq!(ids, ["id-1", "id-2", "id-3"]);
    }

    #[test]
    fn old_versions_write_texts_for_numbers_and_for_empty_arrays() {
        let old = with(Version(2, 11, 2), false, |w| {
            let mut changes = changes();
            changes.removed.clear();
            w.differential("q", &changes)
        });
        let object = json(&old[0]);
        assert_eq!(
            object["diffResults"],
            json!({"removed": "", "added": [{"a": "2"}, {"a": "2"}]})
        );
        assert_eq!(
            (&object["counter"], &object["unixTime"]),
            (&json!("3"), &json!("1786096805"))
        );
        assert!(object.get("numerics").is_none());
        let snapshot = with(Version(2, 11, 2), true, |w| w.snapshot("q", 0, &[]));
        assert_eq!(json(&snapshot[0])["snapshot"], "");
        let snapshot = with(Version(3, 3, 2), true, |w| w.snapshot("q", 0, &[]));
        assert_eq!(json(&snapshot[0])["snapshot"], json!([]));
    }

    #[test]
    fn status_numbers_are_texts_before_5_10() {
        for (version, severity) in [
            (Version(5, 9, 1), json!("1")),
            (Version(5, 23, 1), json!(1)),
        ] {
            let line = with(version, true, |w| {
                w.status(1, "scheduler.cpp", 113, "no such table: foo")
            });
            let object = json(&line);
            assert_eq!(object["severity"], severity);
            assert_eq!(object["message"], "no such table: foo [fleet_line id-1]");
        }
    }

    #[test]
    fn an_empty_first_set_is_told_in_batch_format_only_from_5_8() {
        let empty = Changes {
            epoch: 0,
            counter: 0,
            removed: vec![],
            added: vec![],
            fresh: true,
        };
        let count = |version, events| with(version, events, |w| w.differential("q", &empty).len());
        assert_eq!(count(Version(5, 23, 1), false), 1);
        assert_eq!(count(Version(4, 9, 0), false), 0);
        assert_eq!(count(Version(5, 23, 1), true), 0);
    }
}
