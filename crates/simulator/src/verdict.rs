//! The oracle: of the lines that clients deleted, which does the server have exactly once?

use std::collections::HashMap;
use std::fmt;

use crate::ledger::{LedgerLine, LogType, Shape};

/// One stored event or status line, by the id that its line carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLine {
    /// The decoration `fleet_line`, or what [`fleet_line_in`] finds in a status message.
    pub fleet_line: String,
}

/// How a server keeps snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Snapshots {
    /// One event for each row.
    #[default]
    PerRow,
    /// One event for the whole line.
    PerLine,
    /// Not as events; they are left out of the comparison.
    Skip,
}

/// What the comparison covers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope {
    /// How snapshots are stored.
    pub snapshots: Snapshots,
    /// Whether status lines are among the stored lines.
    pub status_lines: bool,
}

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Lines that were posted at least once.
    pub sent: u64,
    /// Lines that clients deleted.
    pub deleted: u64,
    /// Deleted lines that the comparison covers: those that hold at least one event of a kind in scope.
    pub compared: u64,
    /// Of these, lines that the server has exactly once.
    pub stored_exactly_once: u64,
    /// Lines of which something is missing.
    pub missing: Vec<String>,
    /// Lines of which something is there more than once.
    pub doubled: Vec<String>,
}

impl Verdict {
    /// Compares a ledger with what is stored. A line of n rows must be there n times under its id.
    /// Stored lines that no client deleted (their answers were lost) are fine.
    pub fn compare<'a>(
        sent: u64,
        ledger: impl IntoIterator<Item = &'a LedgerLine>,
        stored: impl IntoIterator<Item = StoredLine>,
        scope: Scope,
    ) -> Verdict {
        let mut counts: HashMap<String, u64> = HashMap::new();
        for line in stored {
            *counts.entry(line.fleet_line).or_default() += 1;
        }
        let mut verdict = Verdict {
            sent,
            ..Verdict::default()
        };
        for line in ledger {
            verdict.deleted += 1;
            let expected = expected_events(line, scope);
            if expected == 0 {
                continue;
            }
            verdict.compared += 1;
            let found = counts.get(&line.fleet_line).copied().unwrap_or(0);
            match found.cmp(&expected) {
                std::cmp::Ordering::Less => verdict.missing.push(line.fleet_line.clone()),
                std::cmp::Ordering::Equal => verdict.stored_exactly_once += 1,
                std::cmp::Ordering::Greater => verdict.doubled.push(line.fleet_line.clone()),
            }
        }
        verdict
    }

    /// Whether nothing is missing and nothing doubled.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.doubled.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent {} · deleted {} · compared {} · stored exactly once {} · missing {} · doubled {}",
            self.sent,
            self.deleted,
            self.compared,
            self.stored_exactly_once,
            self.missing.len(),
            self.doubled.len()
        )
    }
}

fn expected_events(line: &LedgerLine, scope: Scope) -> u64 {
    match (line.shape, scope.snapshots) {
        (Shape::Status, _) => u64::from(scope.status_lines),
        (Shape::Event, _) => u64::from(line.log_type == LogType::Result),
        (Shape::Batch, _) | (Shape::Snapshot, Snapshots::PerRow) => u64::from(line.rows),
        (Shape::Snapshot, Snapshots::PerLine) => 1,
        (Shape::Snapshot, Snapshots::Skip) => 0,
    }
}

/// The id in the message of a status line.
pub fn fleet_line_in(message: &str) -> Option<&str> {
    message.rsplit_once("[fleet_line ")?.1.split(']').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, shape: Shape, rows: u32) -> LedgerLine {
        LedgerLine {
            node: 0,
            host_identifier: "h".to_owned(),
            log_type: if shape == Shape::Status {
                LogType::Status
            } else {
                LogType::Result
            },
            name: "q".to_owned(),
            epoch: 0,
            counter: 0,
            unix_time: 0,
            action: String::new(),
            fleet_line: id.to_owned(),
            shape,
            rows,
            hash: String::new(),
        }
    }

    #[test]
    fn every_row_of_every_deleted_line_must_be_there_once() {
        let ledger = [
            line("once", Shape::Event, 1),
            line("lost", Shape::Event, 1),
            line("twice", Shape::Event, 1),
            line("batch", Shape::Batch, 3),
            line("torn", Shape::Batch, 2),
            line("empty", Shape::Snapshot, 0),
            line("status", Shape::Status, 1),
        ];
        let stored = [
            "once",
            "twice",
            "twice",
            "batch",
            "batch",
            "batch",
            "torn",
            "never deleted",
        ]
        .map(|id| StoredLine {
            fleet_line: id.to_owned(),
        });
        let verdict = Verdict::compare(9, &ledger, stored, Scope::default());
        assert_eq!((verdict.sent, verdict.deleted, verdict.compared), (9, 7, 5));
        assert_eq!(verdict.stored_exactly_once, 2);
        assert_eq!(verdict.missing, ["lost", "torn"]);
        assert_eq!(verdict.doubled, ["twice"]);
        assert!(!verdict.is_clean());
    }

    #[test]
    fn the_id_is_found_in_a_message() {
        assert_eq!(fleet_line_in("x [fleet_line ab-0-7]"), Some("ab-0-7"));
        assert_eq!(fleet_line_in("x"), None);
    }
}
