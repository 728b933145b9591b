//! The lines that a node has not delivered yet, in the order in which osquery's database gives them back.

use std::collections::BTreeMap;

use crate::ledger::LogType;
use crate::lines::Line;

/// Buffered lines under osquery's own keys. These sort as texts: results before statuses, and within one
/// second `_10` before `_9`, so posts are not chronological.
#[derive(Debug, Default)]
pub struct Buffer {
    lines: BTreeMap<String, Buffered>,
    made: u64,
}

/// A buffered line and whether it was ever posted.
#[derive(Debug, Clone)]
pub struct Buffered {
    /// The line.
    pub line: Line,
    /// Whether a post has carried it.
    pub posted: bool,
}

impl Buffer {
    /// Adds a line.
    pub fn push(&mut self, line: Line) {
        self.insert(line, false);
    }

    fn insert(&mut self, line: Line, posted: bool) {
        self.made += 1;
        let mark = match line.entry.log_type {
            LogType::Result => 'r',
            LogType::Status => 's',
        };
        let key = format!("tls_{mark}_{}_{}", line.entry.unix_time, self.made);
        self.lines.insert(key, Buffered { line, posted });
    }

    /// Keys of the first `max` lines of both types together, by type.
    pub fn first(&self, max: usize) -> (Vec<String>, Vec<String>) {
        self.lines
            .keys()
            .take(max)
            .cloned()
            .partition(|key| key.starts_with("tls_r_"))
    }

    /// The bytes of these lines, in their order, and how many of them were never posted before.
    pub fn post(&mut self, keys: &[String]) -> (Vec<Vec<u8>>, u64) {
        let (mut bytes, mut new) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            if let Some(buffered) = self.lines.get_mut(key) {
                new += u64::from(!std::mem::replace(&mut buffered.posted, true));
                bytes.push(buffered.line.bytes.clone());
            }
        }
        (bytes, new)
    }

    /// Deletes lines that were delivered and returns them.
    pub fn delete(&mut self, keys: &[String]) -> Vec<Line> {
        keys.iter()
            .filter_map(|key| self.lines.remove(key))
            .map(|buffered| buffered.line)
            .collect()
    }

    /// Drops the oldest lines beyond `max` (0 is no limit) and says how many.
    pub fn purge(&mut self, max: usize) -> usize {
        if max == 0 || self.lines.len() <= max {
            return 0;
        }
        let excess = self.lines.len() - max;
        for _ in 0..excess {
            self.lines.pop_first();
        }
        excess
    }

    /// The number of lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether all lines are delivered.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// All lines, to be kept on disk.
    pub fn lines(&self) -> impl Iterator<Item = &Buffered> {
        self.lines.values()
    }

    /// Puts back a line that was kept on disk.
    pub fn restore(&mut self, line: Line, posted: bool) {
        self.insert(line, posted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{LedgerLine, Shape};

    fn line(log_type: LogType, unix_time: i64) -> Line {
        let entry = LedgerLine {
            node: 0,
            host_identifier: String::new(),
            log_type,
            name: String::new(),
            epoch: 0,
            counter: 0,
            unix_time,
            action: String::new(),
            fleet_line: String::new(),
            shape: Shape::Event,
            rows: 1,
            hash: String::new(),
        };
        Line {
            bytes: b"{}".to_vec(),
            entry,
        }
    }

    #[test]
    fn results_crowd_out_statuses_and_keys_sort_as_texts() {
        let mut buffer = Buffer::default();
        buffer.push(line(LogType::Status, 5));
        (0..10).for_each(|_| buffer.push(line(LogType::Result, 5)));
        let (results, statuses) = buffer.first(10);
        assert_eq!((results.len(), statuses.len()), (10, 0));
        assert_eq!(results[0], "tls_r_5_10");
        assert_eq!(results[1], "tls_r_5_11");
        assert_eq!(results[2], "tls_r_5_2");
    }

    #[test]
    fn a_line_counts_as_sent_once_and_goes_only_when_deleted() {
        let mut buffer = Buffer::default();
        buffer.push(line(LogType::Result, 5));
        let (keys, _) = buffer.first(1024);
        assert_eq!(buffer.post(&keys).1, 1);
        assert_eq!(buffer.post(&keys).1, 0);
        assert_eq!(buffer.delete(&keys).len(), 1);
        assert!(buffer.is_empty());
    }
}
