//! What one execution changes in the present rows.
//!
//! *Newer* is decided by (epoch, counter) inside a **series**, never by `unixTime`: one spell at the year 2099 would
//! freeze a node. A new epoch, a new osquery instance, or a counter that falls, starts a new series. Counter 0 marks a
//! full set only from osquery 5.19 on (before, it was also reset by a change of the SQL, and by a defect after a week), or when a
//! later epoch begins with it.
//! After a new series began without such a set, rows that we have already are merged, not added twice.
//!
//! In the event format a set comes one row a line, so that it may go on in the next post, and nothing marks its end. So
//! rows of ours that such a set has not named yet stay, *unseen*, until anything else comes of the query
//! ([`PresentRows::settle`] does it by hand); only then are they gone and told as removed. An empty set says nothing at
//! all in that format; what it should have removed stays until a set comes that can be trusted.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::RowSet;
use crate::log::{Action, Execution, Kind};
use crate::osquery::OsqueryVersion;

/// The first version whose counter 0 always means a full set (osquery #8611).
const COUNTER_0_IS_A_FULL_SET: OsqueryVersion = OsqueryVersion::new(5, 19, 0);

/// Whether the rows of a query are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// An ordinary query.
    Kept,
    /// A differential query with `removed: false`: its rows would only grow.
    RemovedOff,
    /// A query on an evented table: every row is news.
    Evented,
}

/// Who reports, and what is to be done with the rows.
#[derive(Debug, Clone, Copy)]
pub struct Reporter<'a> {
    /// `osquery_info.instance_id` of the node as last known, `""` when unknown.
    pub instance_id: &'a str,
    /// Version of osquery that sent the post; when unknown, no counter is trusted.
    pub version: Option<OsqueryVersion>,
    /// Whether the rows of this query are kept.
    pub keeping: Keeping,
}

/// How much of the truth the rows are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Knowledge {
    /// Only changes have come so far.
    #[default]
    ChangesOnly,
    /// A first set came that cannot be told from a change (osquery before 5.19).
    Claimed,
    /// A full set that can be trusted came.
    Complete,
}

/// The latest full set of a series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullSet {
    /// `unixTime` of the set, by which its parts in later posts are known.
    pub unix_time: i64,
    /// It was the first ever.
    pub baseline: bool,
    /// Rows of ours that the set has not named yet; it may go on in the next post.
    #[serde(default, skip_serializing_if = "RowSet::is_empty")]
    pub unseen: RowSet,
}

/// Where the rows stand in what the node reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Epoch; 0 when the node sends none.
    pub epoch: u64,
    /// Counter of the latest change; 0 when the node sends none.
    pub counter: u64,
    /// `unixTime` of the latest change.
    pub unix_time: i64,
    /// The osquery instance that reported it.
    pub instance_id: String,
    /// It was a snapshot.
    pub snapshot: bool,
    /// How much of the truth the rows are.
    pub knowledge: Knowledge,
    /// The series began without a full set that can be trusted: rows we have are merged, not added twice.
    #[serde(default)]
    pub merging: bool,
    /// The latest full set of the series.
    #[serde(default)]
    pub set: Option<FullSet>,
}

/// What a row of an execution is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It changed what holds: drift.
    Drift,
    /// Part of the first set ever: no drift.
    Baseline,
    /// A row that we had already, come again with a set: no drift.
    Known,
}

/// What an execution changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// One for each row of the execution, in their order.
    pub standings: Vec<Standing>,
    /// Canonical rows that we had and that a set no longer holds: drift, though no line says so.
    pub removed: Vec<String>,
    /// The execution is (part of) the first set ever.
    pub is_baseline: bool,
    /// The rows changed, and not only where they stand in the series.
    pub content_changed: bool,
}

/// What holds now for one (node, query). The default is that of a pair of which nothing ever came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresentRows {
    /// The rows; none are kept unless [`Keeping::Kept`].
    pub rows: RowSet,
    /// `None` until the first execution.
    pub series: Option<Series>,
    /// The rows come from a backup: changes since were told to a database that is gone, and never come again.
    pub stale: bool,
}

/// What an execution is in its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// More of the latest full set.
    OfTheSet,
    /// The beginning, or all, of a full set that can be trusted.
    NewSet,
    /// Changes inside the series.
    Changes,
    /// Changes of a new series whose full set did not come, or cannot be trusted.
    ChangesAfterRestart,
}

impl PresentRows {
    /// Applies the rows of one execution, and says what they changed. Executions of one query come in the order of their
    /// counters (as [`crate::log::decode`] gives them), posts in the order received.
    pub fn apply(&mut self, execution: &Execution<'_>, reporter: &Reporter<'_>) -> Change {
        if reporter.keeping == Keeping::Evented {
            return Change {
                standings: vec![Standing::Drift; execution.rows.len()],
                ..Change::default()
            };
        }
        if self.is_replaced_by(execution) {
            *self = Self::default();
        }
        let part = self.part(execution, reporter);
        let mut change = if part == Part::OfTheSet {
            Change::default()
        } else {
            self.settle()
        };
        change.is_baseline = self.advance(part, execution, reporter);
        if reporter.keeping == Keeping::RemovedOff && execution.kind == Kind::Differential {
            // Without rows, a set that comes again cannot be compared: what it holds was there already.
            let set = change.is_baseline || matches!(part, Part::OfTheSet | Part::NewSet);
            let standing = if set {
                Standing::Baseline
            } else {
                Standing::Drift
            };
            change.standings = vec![standing; execution.rows.len()];
            self.rows = RowSet::default();
            return change;
        }
        match part {
            Part::OfTheSet | Part::NewSet => self.apply_set(part, execution, &mut change),
            Part::Changes | Part::ChangesAfterRestart => self.apply_changes(execution, &mut change),
        }
        change
    }

    /// Ends a full set that came one row a line: rows that it did not name are gone. To be called when anything else
    /// of the node has come, which proves the set to be whole; the next execution of the query does it by itself.
    pub fn settle(&mut self) -> Change {
        let Some(set) = self.series.as_mut().and_then(|series| series.set.as_mut()) else {
            return Change::default();
        };
        let removed: Vec<String> = std::mem::take(&mut set.unseen)
            .iter()
            .map(ToOwned::to_owned)
            .collect();
        for row in &removed {
            self.rows.remove(row);
        }
        Change {
            content_changed: !removed.is_empty(),
            removed,
            ..Change::default()
        }
    }

    /// Whether [`PresentRows::settle`] has anything to do.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let set = self.series.as_ref().and_then(|series| series.set.as_ref());
        set.is_none_or(|set| set.unseen.is_empty())
    }

    /// Does this execution make rows of a backup needless? A restore asks for a new epoch, in which each query tells all its rows;
    /// a snapshot does so anyway. What they differ in happened while nobody kept count, and was told then: no drift now.
    fn is_replaced_by(&self, execution: &Execution<'_>) -> bool {
        let later_epoch = self
            .series
            .as_ref()
            .is_some_and(|series| execution.epoch.unwrap_or(0) > series.epoch);
        self.stale && (later_epoch || execution.kind == Kind::Snapshot)
    }

    /// A later epoch begins with a full set in every version (`osquery/core/query.cpp`); counter 0 misleads only inside an epoch. Is this
    /// its beginning, or more of that set?
    fn is_of_a_new_epoch(&self, execution: &Execution<'_>) -> bool {
        let epoch = execution.epoch.unwrap_or(0);
        self.series.as_ref().is_some_and(|series| {
            let goes_on = epoch == series.epoch
                && series.counter == 0
                && series.knowledge == Knowledge::Complete
                && series.set_began_at(execution.unix_time);
            epoch > series.epoch || goes_on
        })
    }

    fn part(&self, execution: &Execution<'_>, reporter: &Reporter<'_>) -> Part {
        let snapshot = execution.kind == Kind::Snapshot;
        let trusted = snapshot
            || (execution.counter == Some(0)
                && (self.is_of_a_new_epoch(execution)
                    || reporter
                        .version
                        .is_some_and(|version| version >= COUNTER_0_IS_A_FULL_SET)));
        let Some(series) = &self.series else {
            return if trusted { Part::NewSet } else { Part::Changes };
        };
        let known_instance = [reporter.instance_id, &series.instance_id]
            .iter()
            .all(|id| !id.is_empty());
        let same_source = series.epoch == execution.epoch.unwrap_or(0)
            && series.snapshot == snapshot
            && (!known_instance || series.instance_id == reporter.instance_id);
        if trusted {
            let goes_on =
                same_source && execution.line_per_row && series.set_began_at(execution.unix_time);
            return if goes_on {
                Part::OfTheSet
            } else {
                Part::NewSet
            };
        }
        let fell = execution.counter.is_some_and(|counter| {
            let another_run = counter == series.counter && execution.unix_time != series.unix_time;
            counter < series.counter || another_run
        });
        if same_source && !fell {
            Part::Changes
        } else {
            Part::ChangesAfterRestart
        }
    }

    /// Moves the series on to this execution, and says whether its rows are (part of) the first set ever.
    ///
    /// Without a counter 0 that can be trusted that is a guess, made for the sake of quiet: the first thing that we ever
    /// hear of a query, if it carries counter 0 or none at all, is what was there already.
    fn advance(&mut self, part: Part, execution: &Execution<'_>, reporter: &Reporter<'_>) -> bool {
        let series = self.series.get_or_insert_with(Series::default);
        let of_a_baseline = series.set_began_at(execution.unix_time)
            && series.set.as_ref().is_some_and(|set| set.baseline);
        if part == Part::OfTheSet {
            return of_a_baseline; // it may come late, when the counter has moved on
        }
        series.epoch = execution.epoch.unwrap_or(0);
        series.counter = execution.counter.unwrap_or(0);
        series.unix_time = execution.unix_time;
        series.snapshot = execution.kind == Kind::Snapshot;
        if !reporter.instance_id.is_empty() {
            reporter.instance_id.clone_into(&mut series.instance_id);
        }
        series.merging =
            part == Part::ChangesAfterRestart || (series.merging && part == Part::Changes);

        let first_set = series.knowledge == Knowledge::ChangesOnly;
        let claimed = part != Part::NewSet && series.counter == 0;
        if claimed && of_a_baseline {
            return true;
        }
        if part == Part::NewSet || (claimed && first_set) {
            series.knowledge = if claimed {
                Knowledge::Claimed
            } else {
                Knowledge::Complete
            };
            series.set = Some(FullSet {
                unix_time: execution.unix_time,
                baseline: first_set,
                unseen: RowSet::default(),
            });
            return first_set;
        }
        false
    }

    /// Rows of a full set: those that we have are known, those that we have not are new, those that it does not name
    /// are gone; at once if the set came in one line, else when it is settled.
    fn apply_set(&mut self, part: Part, execution: &Execution<'_>, change: &mut Change) {
        let Some(set) = self.series.as_mut().and_then(|series| series.set.as_mut()) else {
            return;
        };
        if part == Part::NewSet {
            set.unseen = self.rows.clone();
        }
        for row in &execution.rows {
            let canonical = row.columns.canonical();
            if set.unseen.remove(&canonical) {
                change.standings.push(Standing::Known);
                continue;
            }
            self.rows.insert(canonical);
            change.standings.push(if change.is_baseline {
                Standing::Baseline
            } else {
                Standing::Drift
            });
            change.content_changed = true;
        }
        if !execution.line_per_row {
            let gone = self.settle();
            change.content_changed |= gone.content_changed;
            change.removed.extend(gone.removed);
        }
    }

    fn apply_changes(&mut self, execution: &Execution<'_>, change: &mut Change) {
        let merging = self.series.as_ref().is_some_and(|series| series.merging);
        let mut named: HashMap<String, usize> = HashMap::new();
        for row in &execution.rows {
            let canonical = row.columns.canonical();
            if row.action == Action::Removed {
                change.content_changed |= self.rows.remove(&canonical);
                change.standings.push(Standing::Drift); // the node says so, whether we knew the row or not
                continue;
            }
            if merging {
                let times = named.entry(canonical.clone()).or_default();
                *times += 1;
                if self.rows.count(&canonical) >= *times {
                    change.standings.push(Standing::Known);
                    continue;
                }
            }
            self.rows.insert(canonical);
            change.standings.push(if change.is_baseline {
                Standing::Baseline
            } else {
                Standing::Drift
            });
            change.content_changed = true;
        }
    }
}

impl Series {
    fn set_began_at(&self, unix_time: i64) -> bool {
        self.set
            .as_ref()
            .is_some_and(|set| set.unix_time == unix_time)
    }
}
