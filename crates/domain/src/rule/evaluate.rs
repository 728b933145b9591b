//! Judging an event by a condition.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

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

/// A node as a rule sees it.
#[derive(Debug, Clone, Copy)]
pub struct NodeView<'a> {
    /// What targets look at, too.
    pub facts: &'a NodeFacts,
    /// The latest row of each query of the built-in pack, by its name.
    pub vitals: Option<&'a Map<String, Value>>,
    /// What it told of itself when it enrolled, in the same form; asked where the vitals say nothing.
    pub host_details: Option<&'a Map<String, Value>>,
}

impl<'a> NodeView<'a> {
    /// A node of which no vitals are known.
    #[must_use]
    pub fn of(facts: &'a NodeFacts) -> Self {
        Self {
            facts,
            vitals: None,
            host_details: None,
        }
    }

    /// A vital, if anything is known of it; the empty text is how osquery says that nothing is.
    fn vital(&self, query: &str, column: &str) -> Option<Cow<'a, str>> {
        [self.vitals, self.host_details]
            .into_iter()
            .flatten()
            .find_map(|rows| match rows.get(query)?.get(column)? {
                Value::String(text) if text.is_empty() => None,
                Value::String(text) => Some(Cow::Borrowed(text.as_str())),
                Value::Null | Value::Array(_) | Value::Object(_) => None,
                other => Some(Cow::Owned(other.to_string())),
            })
    }
}

/// What is known when a condition is judged: always the query and the node, the row only in the second step.
#[derive(Clone, Copy)]
pub(super) struct Evidence<'a> {
    pub(super) query_name: &'a str,
    pub(super) node: NodeView<'a>,
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
        if self.operand.needs_the_event() && evidence.event.is_none() {
            return None;
        }
        let at = evidence.event.map(|event| event.occurred_at);
        let facts = evidence.node.facts;
        let of_node = |value: &str| !value.is_empty() && self.holds(value, at);
        if self.field.is_of_the_execution() {
            return Some(match &self.field {
                Field::QueryName => self.holds(evidence.query_name, at),
                Field::HostIdentifier => of_node(&facts.host_identifier),
                Field::HostName => of_node(&facts.hostname),
                Field::Platform => of_node(&facts.platform),
                Field::OsqueryVersion => of_node(&facts.osquery_version),
                Field::Vital { query, column } => evidence
                    .node
                    .vital(query, column)
                    .is_some_and(|value| self.holds(&value, at)),
                Field::Target => (self.operand.target())
                    .is_some_and(|target| target.matches(facts) != self.operator.negated),
                _ => self.holds_for_tags(&facts.tags, at),
            });
        }
        let event = evidence.event?;
        let value: Option<Cow<'_, str>> = match &self.field {
            Field::Action => Some(Cow::Borrowed(event.action.as_str())),
            Field::Column(name) => event.columns.get(name).map(Cow::Borrowed),
            _ => Some(Cow::Owned(event.occurred_at.timestamp().to_string())),
        };
        Some(value.is_some_and(|value| self.holds(&value, at)))
    }

    fn holds(&self, value: &str, at: Option<DateTime<Utc>>) -> bool {
        self.operand
            .compare(self.operator.comparison, value, at)
            .is_some_and(|held| held != self.operator.negated)
    }

    /// A node has any number of tags: some tag has to fit, or, negated, none may. Being empty is to have none.
    fn holds_for_tags(&self, tags: &[String], at: Option<DateTime<Utc>>) -> bool {
        let fits = if self.operator.takes_value() {
            tags.iter()
                .any(|tag| self.operand.compare(self.operator.comparison, tag, at) == Some(true))
        } else {
            tags.is_empty()
        };
        fits != self.operator.negated
    }
}
