//! One execution of one scheduled query: the rows that share query, epoch, counter, time and kind.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::Action;
use crate::osquery::Columns;

/// Whether rows say what changed or what is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Rows that were added or removed since the last execution.
    Differential,
    /// All rows.
    Snapshot,
}

/// One row of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    /// What happened to it.
    pub action: Action,
    /// The row.
    pub columns: Columns<'a>,
    /// Decorations of its line, where they differ from those of its execution.
    pub decorations: Option<Columns<'a>>,
}

impl<'a> Row<'a> {
    /// A row that is decorated as its execution is.
    #[must_use]
    pub fn new(action: Action, columns: Columns<'a>) -> Self {
        Self {
            action,
            columns,
            decorations: None,
        }
    }
}

/// The rows of one execution that came in one post, in the order sent.
///
/// Equal rows are legitimate: the differences of osquery are those of multisets.
#[derive(Debug, Clone)]
pub struct Execution<'a> {
    /// The scheduled name, `pack/<pack>/<query>` for queries of packs.
    pub query_name: Cow<'a, str>,
    /// What the node calls itself in this line; attribute by node key, this may drift.
    pub host_identifier: Cow<'a, str>,
    /// Rows say what changed, or what is.
    pub kind: Kind,
    /// `--schedule_epoch` of the node; not sent before osquery 2.5.3.
    pub epoch: Option<u64>,
    /// Number of the change set inside the epoch; always 0 for snapshots, not sent before osquery 2.8.
    pub counter: Option<u64>,
    /// Seconds since 1970 by the node's clock, as sent; from `calendarTime` when `unixTime` is missing or no number,
    /// and the time of receipt when that is no time either.
    pub unix_time: i64,
    /// That time, or the time of receipt when it lies in the future or before there was an osquery.
    pub occurred_at: DateTime<Utc>,
    /// What the decorators of the config said, in its first line; `logger` options may put them at the top level of a line instead.
    pub decorations: Columns<'a>,
    /// Every row came in a line of its own, so that the rest of the set may stand in another post.
    pub line_per_row: bool,
    /// Something in it had to be replaced by U+FFFD (or the node really holds that character).
    pub lossy: bool,
    /// The rows; none for an empty snapshot and an empty batch.
    pub rows: Vec<Row<'a>>,
}

impl Execution<'_> {
    fn is_same(&self, other: &Self) -> bool {
        self.unix_time == other.unix_time
            && self.counter == other.counter
            && self.epoch == other.epoch
            && self.kind == other.kind
            && self.query_name == other.query_name
    }
}

type Key<'a> = (Cow<'a, str>, Option<u64>, Option<u64>, i64, Kind);

/// Gathers the lines of a post into executions, in the order of their first lines.
#[derive(Default)]
pub(super) struct Executions<'a> {
    gathered: Vec<Execution<'a>>,
    open: HashMap<Key<'a>, usize>,
}

impl<'a> Executions<'a> {
    /// Adds what one line holds. A line that holds a whole set is an execution by itself.
    pub(super) fn add(&mut self, line: Execution<'a>) {
        if line.line_per_row {
            // Lines of one execution nearly always follow each other.
            if let Some(last) = self
                .gathered
                .last_mut()
                .filter(|last| last.line_per_row && last.is_same(&line))
            {
                join(last, line);
                return;
            }
            let key = (
                line.query_name.clone(),
                line.epoch,
                line.counter,
                line.unix_time,
                line.kind,
            );
            if let Some(index) = self.open.get(&key) {
                join(&mut self.gathered[*index], line);
                return;
            }
            self.open.insert(key, self.gathered.len());
        }
        self.gathered.push(line);
    }

    pub(super) fn finish(self) -> Vec<Execution<'a>> {
        order_by_counter(self.gathered)
    }
}

/// osqueryd decorates an execution once, but what stands in a line is kept even if it did otherwise.
fn join<'a>(execution: &mut Execution<'a>, mut line: Execution<'a>) {
    if line.decorations != execution.decorations {
        for row in &mut line.rows {
            row.decorations = Some(line.decorations.clone());
        }
    }
    execution.rows.extend(line.rows);
    execution.lossy |= line.lossy;
}

/// Puts the differential executions of each (query, epoch) in the order of their counters: osqueryd sorts buffered
/// lines of one second as text (`_10` before `_9`), so `data` is not in order of time.
fn order_by_counter(executions: Vec<Execution<'_>>) -> Vec<Execution<'_>> {
    let mut places: HashMap<(&str, Option<u64>), Vec<usize>> = HashMap::new();
    for (index, execution) in executions.iter().enumerate() {
        if execution.kind == Kind::Differential {
            places
                .entry((&execution.query_name, execution.epoch))
                .or_default()
                .push(index);
        }
    }
    let mut order: Vec<usize> = (0..executions.len()).collect();
    for places in places.into_values() {
        let mut by_counter = places.clone();
        by_counter.sort_by_key(|index| executions[*index].counter);
        for (place, index) in places.into_iter().zip(by_counter) {
            order[place] = index;
        }
    }
    if order.is_sorted() {
        return executions;
    }
    let mut unordered: Vec<_> = executions.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|index| unordered[index].take())
        .collect()
}
