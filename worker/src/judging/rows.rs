//! Rows as rules see them: one row of a change with what it stands against, and all that hold of one query.

use ostiary_domain::log::{Action, Execution};
use ostiary_domain::osquery::Columns;
use ostiary_domain::present::{Change, RowSet, Standing};
use ostiary_domain::rule::Rule;

use super::Source;

/// Rows of one change that are looked at for what was before, or is after.
const MOST_OTHERS: usize = 500;

/// A row, as one change shows it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'s> {
    pub(super) action: Action,
    pub(super) columns: &'s Columns<'s>,
    /// What went by the same change, if it came; what came, if it went.
    pub(super) others: &'s [Columns<'s>],
}

impl<'s> Seen<'s> {
    pub(super) fn alone(action: Action, columns: &'s Columns<'s>) -> Self {
        Self {
            action,
            columns,
            others: &[],
        }
    }
}

/// The rows of one change, by whether they came or went.
pub(super) struct Others<'e> {
    came: Vec<Columns<'e>>,
    went: Vec<Columns<'e>>,
}

impl<'e> Others<'e> {
    pub(super) fn of(execution: &Execution<'e>, change: &Change) -> Self {
        // Of a new set everything came, in the place of nothing.
        if change.is_baseline {
            return Self {
                came: Vec::new(),
                went: Vec::new(),
            };
        }
        let rows = execution.rows.iter().zip(&change.standings);
        let (went, came): (Vec<_>, Vec<_>) = rows
            .filter(|(_, standing)| **standing != Standing::Known)
            .map(|(row, _)| row)
            .take(MOST_OTHERS)
            .partition(|row| row.action == Action::Removed);
        let columns = |rows: Vec<&ostiary_domain::log::Row<'e>>| -> Vec<Columns<'e>> {
            rows.into_iter().map(|row| row.columns.clone()).collect()
        };
        let mut went = columns(went);
        went.extend(
            change
                .removed
                .iter()
                .take(MOST_OTHERS)
                .filter_map(|row| read(row)),
        );
        Self {
            came: columns(came),
            went,
        }
    }

    pub(super) fn opposite(&self, action: Action) -> &[Columns<'e>] {
        match action {
            Action::Removed => &self.came,
            _ => &self.went,
        }
    }
}

/// What holds of one query on one node.
pub(super) struct Holding<'h> {
    pub(super) query_name: &'h str,
    pub(super) came_as: Action,
    pub(super) present: &'h RowSet,
    pub(super) is_baseline: bool,
}

impl Holding<'_> {
    /// The rows that fit a rule.
    pub(super) fn rows(&self, rule: &Rule, source: Source<'_>) -> Vec<Columns<'static>> {
        self.present
            .iter()
            .filter_map(|row| self.fitting(row, rule, source))
            .collect()
    }

    /// A row that fits a rule.
    pub(super) fn first(&self, rule: &Rule, source: Source<'_>) -> Option<Columns<'static>> {
        self.present
            .iter()
            .find_map(|row| self.fitting(row, rule, source))
    }

    fn fitting(&self, row: &str, rule: &Rule, source: Source<'_>) -> Option<Columns<'static>> {
        let at = (self.came_as, source.received_at);
        read(row).filter(|row| rule.holds(self.query_name, source.node.view(), row, at))
    }
}

/// Rows of ours are objects.
pub(super) fn read(row: impl AsRef<str>) -> Option<Columns<'static>> {
    serde_json::from_str::<Columns<'_>>(row.as_ref())
        .ok()
        .map(Columns::into_owned)
}
