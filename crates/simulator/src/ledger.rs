//! The ledger: every log line that a simulated client deleted because an answer said it may. Whether the
//! server still has each of them exactly once is asked in `verdict`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

/// The two log types of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogType {
    /// Results of scheduled queries.
    Result,
    /// osquery's own log.
    Status,
}

impl LogType {
    /// The value of `log_type`.
    pub fn word(self) -> &'static str {
        match self {
            LogType::Result => "result",
            LogType::Status => "status",
        }
    }
}

/// The shape of a line, which says how many events it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// One row, added or removed, or one row of a snapshot told as events.
    Event,
    /// All changes of a run.
    Batch,
    /// All rows of a run.
    Snapshot,
    /// A status line.
    Status,
}

/// One line that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerLine {
    /// The node's number in the fleet.
    pub node: usize,
    /// What the node called itself.
    pub host_identifier: String,
    /// The log it belongs to.
    pub log_type: LogType,
    /// Name of the query; empty for status lines.
    pub name: String,
    /// Epoch of the query.
    pub epoch: u64,
    /// Counter of the query.
    pub counter: u64,
    /// The node's clock when the line was made.
    #[serde(rename = "unixTime")]
    pub unix_time: i64,
    /// `added`, `removed`, `snapshot`; empty for batches and status lines.
    pub action: String,
    /// Id of the line, unique over all runs of all fleets: a decoration of result lines, and a part of
    /// the message of status lines.
    pub fleet_line: String,
    /// How the line is built.
    pub shape: Shape,
    /// Rows in the line.
    pub rows: u32,
    /// SHA-1 of the line's bytes, hex.
    pub hash: String,
}

/// All lines deleted so far, in memory and, if wished, in a file.
#[derive(Debug, Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lines: Vec<LedgerLine>,
    file: Option<BufWriter<File>>,
}

impl Ledger {
    /// A ledger that also appends JSON lines to `path`.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn with_file(path: &Path) -> std::io::Result<Ledger> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Ledger {
            inner: Mutex::new(Inner {
                lines: Vec::new(),
                file: Some(BufWriter::new(file)),
            }),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// Notes lines that were just deleted. A file that cannot be written is given up, with a word in the log.
    pub fn note(&self, lines: Vec<LedgerLine>) {
        let mut inner = self.inner();
        if let Some(file) = inner.file.as_mut() {
            let written = lines
                .iter()
                .try_for_each(|line| {
                    serde_json::to_writer(&mut *file, line)?;
                    file.write_all(b"\n")
                })
                .and_then(|()| file.flush());
            if let Err(error) = written {
                tracing::error!(%error, "The ledger's file cannot be written; it is kept in memory only");
                inner.file = None;
            }
        }
        inner.lines.extend(lines);
    }

    /// A copy of all lines.
    pub fn lines(&self) -> Vec<LedgerLine> {
        self.inner().lines.clone()
    }

    /// The number of lines.
    pub fn len(&self) -> usize {
        self.inner().lines.len()
    }

    /// Whether nothing was deleted yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first line that `wanted` accepts.
    pub fn find(&self, wanted: impl Fn(&LedgerLine) -> bool) -> Option<LedgerLine> {
        self.inner().lines.iter().find(|line| wanted(line)).cloned()
    }
}
