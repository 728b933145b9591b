//! Judging an event by a condition.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::{Condition, Field, Test};
use crate::log::Action;
use crate::node::NodeFacts;
use crate::osquery::Columns;

/// One row as a rule sees it.
#[derive(Debug, Clone, Copy)]
pub struct EventView<'a> {
    /// What happened to the row.
    pub action: Action,
    /// The row.
    pub columns: &'a Columns<'a>,
    /// When it happened, by the node's clock where that can be believed.
    pub occurred_at: DateTime<Utc>,
    /// When we heard of it; the difference decides what is late.
    pub received_at: DateTime<Utc>,
    /// It is part of a baseline.
    pub is_baseline: bool,
}

/// What is known when a condition is judged: always the query and the node, the row only in the second step.
#[derive(Clone, Copy)]
pub(super) struct Evidence<'a> {
    pub(super) query_name: &'a str,
    pub(super) node: &'a NodeFacts,
    pub(super) event: Option<&'a EventView<'a>>,
}

impl Condition {
    /// Whether the condition holds; `None` when that depends on a row that is not there yet.
    pub(super) fn judge(&self, evidence: Evidence<'_>) -> Option<bool> {
        match self {
            Self::All(parts) => decide(parts, evidence, false),
            Self::Any(parts) => decide(parts, evidence, true),
            Self::Not(part) => part.judge(evidence).map(|held| !held),
            Self::Test(test) => test.judge(evidence),
        }
    }
}

/// The first part with the deciding outcome decides; without one, the opposite holds unless a part is open.
fn decide(parts: &[Condition], evidence: Evidence<'_>, deciding: bool) -> Option<bool> {
    let mut open = false;
    for part in parts {
        match part.judge(evidence) {
            Some(outcome) if outcome == deciding => return Some(deciding),
            Some(_) => {}
            None => open = true,
        }
    }
    (!open).then_some(!deciding)
}

impl Test {
    fn judge(&self, evidence: Evidence<'_>) -> Option<bool> {
        let of_node = |value: &str| !value.is_empty() && self.holds(value);
        if self.field.is_of_the_execution() {
            return Some(match self.field {
                Field::QueryName => self.holds(evidence.query_name),
                Field::HostIdentifier => of_node(&evidence.node.host_identifier),
                Field::HostName => of_node(&evidence.node.hostname),
                Field::Platform => of_node(&evidence.node.platform),
                _ => self.holds_for_tags(&evidence.node.tags),
            });
        }
        let event = evidence.event?;
        let value: Option<Cow<'_, str>> = match &self.field {
            Field::Action => Some(Cow::Borrowed(event.action.as_str())),
            Field::Column(name) => event.columns.get(name).map(Cow::Borrowed),
            _ => Some(Cow::Owned(event.occurred_at.timestamp().to_string())),
        };
        Some(value.is_some_and(|value| self.holds(&value)))
    }

    fn holds(&self, value: &str) -> bool {
        self.operand.compare(self.operator.comparison, value) != self.operator.negated
    }

    /// A node has any number of tags: some tag has to fit, or, negated, none may. Being empty is to have none.
    fn holds_for_tags(&self, tags: &[String]) -> bool {
        let fits = if self.operator.takes_value() {
            tags.iter()
                .any(|tag| self.operand.compare(self.operator.comparison, tag))
        } else {
            tags.is_empty()
        };
        fits != self.operator.negated
    }
}
