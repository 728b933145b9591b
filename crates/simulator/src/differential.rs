//! What a node remembers of a query to send only changes: the rows of the last run, epoch and counter.

use serde::{Deserialize, Serialize};

use crate::value::Columns;
use crate::version::Version;

/// What is stored under a query's name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stored {
    epoch: u64,
    counter: u64,
    sql: String,
    rows: Vec<Columns>,
}

/// What one run has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The epoch of the lines.
    pub epoch: u64,
    /// The counter of the lines; 0 where they hold the whole result.
    pub counter: u64,
    /// Rows that are gone.
    pub removed: Vec<Columns>,
    /// Rows that are new.
    pub added: Vec<Columns>,
    /// Whether this is the first run of a new query or epoch.
    pub fresh: bool,
}

impl Changes {
    /// Whether there is nothing to say of rows.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }
}

/// Compares a run with the last one and remembers it. Rows are a multiset: equal rows may occur twice.
/// `keep_removed` false drops what is gone before it is counted.
pub fn advance(
    stored: &mut Option<Stored>,
    epoch: u64,
    sql: &str,
    mut rows: Vec<Columns>,
    keep_removed: bool,
    version: Version,
) -> Changes {
    rows.sort();
    let Some(last) = stored.as_mut().filter(|last| last.epoch == epoch) else {
        *stored = Some(Stored {
            epoch,
            counter: 0,
            sql: sql.to_owned(),
            rows: rows.clone(),
        });
        return Changes {
            epoch,
            counter: 0,
            removed: Vec::new(),
            added: rows,
            fresh: true,
        };
    };
    let (mut removed, added) = differences(&last.rows, &rows);
    if !keep_removed {
        removed.clear();
    }
    let mut changes = Changes {
        epoch,
        counter: last.counter,
        removed,
        added,
        fresh: false,
    };
    if last.sql != sql && version.counter_falls_with_new_sql() {
        changes.counter = 0;
    } else if !changes.is_empty() {
        changes.counter += 1;
    }
    *last = Stored {
        epoch,
        counter: changes.counter,
        sql: sql.to_owned(),
        rows,
    };
    changes
}

/// The next counter of an event-based query: these start at 1 and only ever add.
pub fn advance_events(
    stored: &mut Option<Stored>,
    epoch: u64,
    sql: &str,
    rows: Vec<Columns>,
) -> Changes {
    let before = stored
        .as_ref()
        .filter(|last| last.epoch == epoch)
        .map_or(0, |last| last.counter);
    let counter = if rows.is_empty() { before } else { before + 1 };
    *stored = Some(Stored {
        epoch,
        counter,
        sql: sql.to_owned(),
        rows: Vec::new(),
    });
    Changes {
        epoch,
        counter,
        removed: Vec::new(),
        added: rows,
        fresh: false,
    }
}

/// Both sides must be sorted.
fn differences(old: &[Columns], new: &[Columns]) -> (Vec<Columns>, Vec<Columns>) {
    let (mut removed, mut added) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b => {
                i += 1;
                j += 1;
            }
            (Some(a), Some(b)) if a < b => {
                removed.push(a.clone());
                i += 1;
            }
            (Some(a), None) => {
                removed.push(a.clone());
                i += 1;
            }
            (_, Some(b)) => {
                added.push(b.clone());
                j += 1;
            }
            (None, None) => break,
        }
    }
    (removed, added)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Version = Version(5, 23, 1);

    fn rows(values: &[&str]) -> Vec<Columns> {
        values
            .iter()
            .map(|v| Columns::from([("a".to_owned(), (*v).into())]))
            .collect()
    }

    #[test]
    fn the_first_run_is_the_whole_set_and_then_only_changes_count() {
        let mut stored = None;
        let first = advance(&mut stored, 0, "q", rows(&["x", "x", "y"]), true, NEW);
        assert_eq!(
            (first.counter, first.added.len(), first.fresh),
            (0, 3, true)
        );
        let same = advance(&mut stored, 0, "q", rows(&["y", "x", "x"]), true, NEW);
        assert_eq!((same.counter, same.is_empty()), (0, true));
        let changed = advance(&mut stored, 0, "q", rows(&["x", "z"]), true, NEW);
        assert_eq!(changed.counter, 1);
        assert_eq!(changed.removed, rows(&["x", "y"]));
        assert_eq!(changed.added, rows(&["z"]));
    }

    #[test]
    fn a_new_epoch_starts_again() {
        let mut stored = None;
        advance(&mut stored, 0, "q", rows(&["x"]), true, NEW);
        let again = advance(&mut stored, 5, "q", rows(&["x"]), true, NEW);
        assert_eq!((again.epoch, again.counter, again.added.len()), (5, 0, 1));
    }

    #[test]
    fn only_old_versions_fall_to_zero_when_the_text_changes() {
        for (version, counter) in [(NEW, 2), (Version(5, 7, 0), 0)] {
            let mut stored = None;
            advance(&mut stored, 0, "q", rows(&["x"]), true, version);
            advance(&mut stored, 0, "q", rows(&["y"]), true, version);
            let changes = advance(&mut stored, 0, "other", rows(&["z"]), true, version);
            assert_eq!(changes.counter, counter, "{version}");
        }
    }

    #[test]
    fn event_queries_start_at_one() {
        let mut stored = None;
        assert!(advance_events(&mut stored, 0, "q", Vec::new()).is_empty());
        assert_eq!(advance_events(&mut stored, 0, "q", rows(&["x"])).counter, 1);
        assert_eq!(advance_events(&mut stored, 0, "q", rows(&["x"])).counter, 2);
    }
}
