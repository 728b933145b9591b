//! Compiled rules, arranged so that a row meets only those that may concern it.
//!
//! Judging takes two steps. For an execution, [`RuleSet::candidates`] looks up the rules that name the query (most do:
//! `query_name equal …`), adds those that name none, and drops every rule that the query and the node alone already
//! decide against. Per row only the candidates are left, so that rules on other queries cost nothing.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::evaluate::Evidence;
use super::{Comparison, Condition, EventView, Field, ParseError, parse};
use crate::finding::Severity;
use crate::ids::RuleId;
use crate::log::Action;
use crate::node::NodeFacts;
use crate::target::{self, Target};

/// A rule as it is stored.
#[derive(Debug, Clone)]
pub struct RuleDefinition {
    /// Its id.
    pub id: RuleId,
    /// Its name.
    pub name: String,
    /// Doorman's QueryBuilder JSON, with keys that we do not know.
    pub conditions: Value,
    /// How bad a match is.
    pub severity: Severity,
    /// Tag expression: the nodes that it looks at; empty for all.
    pub scope: String,
    /// Columns that tell one matter from another on a node; empty for all columns of the row.
    pub entity_columns: Vec<String>,
    /// The actions that it sees; empty for all.
    pub actions: Vec<Action>,
    /// Whether it also sees rows of a baseline.
    pub on_baseline: bool,
    /// Whether events that are late still match, marked as late.
    pub on_late: bool,
    /// An event older than this on arrival is late; `None` when no age is too much.
    pub max_age: Option<TimeDelta>,
}

/// A rule, ready to judge.
#[derive(Debug)]
pub struct Rule {
    /// What it was made of.
    pub definition: RuleDefinition,
    condition: Condition,
    scope: Target,
}

/// A rule that could not be compiled; it is off.
#[derive(Debug)]
pub struct Broken {
    /// Its id.
    pub id: RuleId,
    /// Why.
    pub reason: BrokenReason,
}

/// Why a rule could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum BrokenReason {
    /// Its conditions.
    #[error(transparent)]
    Conditions(#[from] ParseError),
    /// Its scope.
    #[error("scope: {0}")]
    Scope(#[from] target::ParseError),
}

/// One rule on one event.
#[derive(Debug, Clone, Copy)]
pub struct Match<'r> {
    /// The rule.
    pub rule: &'r Rule,
    /// The event was late: it is kept, but nobody is woken.
    pub is_late: bool,
}

impl Rule {
    /// Compiles one rule, as for checking a form.
    ///
    /// # Errors
    /// The conditions or the scope cannot be understood.
    pub fn compile(definition: RuleDefinition) -> Result<Self, BrokenReason> {
        Ok(Self {
            condition: parse(&definition.conditions)?,
            scope: Target::parse(&definition.scope)?,
            definition,
        })
    }

    /// Whether an event is older than the rule may page for.
    #[must_use]
    pub fn is_late(&self, occurred_at: DateTime<Utc>, received_at: DateTime<Utc>) -> bool {
        self.definition
            .max_age
            .is_some_and(|max_age| received_at - occurred_at > max_age)
    }

    fn judge<'r>(&'r self, evidence: Evidence<'_>, event: &EventView<'_>) -> Option<Match<'r>> {
        let wanted = &self.definition;
        if !wanted.actions.is_empty() && !wanted.actions.contains(&event.action) {
            return None;
        }
        let is_late = self.is_late(event.occurred_at, event.received_at);
        if (event.is_baseline && !wanted.on_baseline) || (is_late && !wanted.on_late) {
            return None;
        }
        (self.condition.judge(evidence) == Some(true)).then_some(Match {
            rule: self,
            is_late,
        })
    }
}

/// All rules that are on.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    by_query_name: HashMap<String, Vec<usize>>,
    of_any_query: Vec<usize>,
}

impl RuleSet {
    /// Compiles rules. One that cannot be compiled is reported and stops no other.
    #[must_use]
    pub fn compile(definitions: impl IntoIterator<Item = RuleDefinition>) -> (Self, Vec<Broken>) {
        let (mut set, mut broken) = (Self::default(), Vec::new());
        for definition in definitions {
            let id = definition.id;
            match Rule::compile(definition) {
                Ok(rule) => set.insert(rule),
                Err(reason) => broken.push(Broken { id, reason }),
            }
        }
        (set, broken)
    }

    fn insert(&mut self, rule: Rule) {
        let index = self.rules.len();
        let names = query_names(&rule.condition);
        for name in names.iter().flatten() {
            self.by_query_name
                .entry((*name).to_owned())
                .or_default()
                .push(index);
        }
        if names.is_none() {
            self.of_any_query.push(index);
        }
        self.rules.push(rule);
    }

    /// The rules, in the order given.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules that may match rows of this query on this node.
    #[must_use]
    pub fn candidates<'r>(&'r self, query_name: &'r str, node: &'r NodeFacts) -> Candidates<'r> {
        let named = self
            .by_query_name
            .get(query_name)
            .map_or(&[][..], Vec::as_slice);
        let evidence = Evidence {
            query_name,
            node,
            event: None,
        };
        let mut indices: Vec<usize> = named.iter().chain(&self.of_any_query).copied().collect();
        indices.sort_unstable();
        let rules = indices
            .into_iter()
            .map(|index| &self.rules[index])
            .filter(|rule| {
                rule.scope.matches(node) && rule.condition.judge(evidence) != Some(false)
            })
            .collect();
        Candidates {
            query_name,
            node,
            rules,
        }
    }

    /// The rules that match one event, in the order given. For many rows of one query ask [`RuleSet::candidates`] once.
    #[must_use]
    pub fn evaluate<'r>(
        &'r self,
        query_name: &'r str,
        event: &EventView<'_>,
        node: &'r NodeFacts,
    ) -> Vec<Match<'r>> {
        self.candidates(query_name, node).matches(event).collect()
    }
}

/// The rules that may match rows of one execution.
#[derive(Debug)]
pub struct Candidates<'r> {
    query_name: &'r str,
    node: &'r NodeFacts,
    rules: Vec<&'r Rule>,
}

impl<'r> Candidates<'r> {
    /// Whether no row can match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules that match this row.
    pub fn matches<'e>(
        &'e self,
        event: &'e EventView<'e>,
    ) -> impl Iterator<Item = Match<'r>> + use<'e, 'r> {
        let evidence = Evidence {
            query_name: self.query_name,
            node: self.node,
            event: Some(event),
        };
        self.rules
            .iter()
            .filter_map(move |rule| rule.judge(evidence, event))
    }
}

/// The query names without which the condition cannot hold; `None` when it may hold for names that it does not name.
fn query_names(condition: &Condition) -> Option<HashSet<&str>> {
    match condition {
        Condition::Test(test) => {
            // A number equals other spellings of itself, so its text is no key.
            let names_one = test.field == Field::QueryName
                && test.operator.comparison == Comparison::Equal
                && !test.operator.negated
                && !test.operand.is_number();
            names_one.then(|| HashSet::from([test.operand.text()]))
        }
        Condition::All(parts) => parts
            .iter()
            .filter_map(query_names)
            .min_by_key(HashSet::len),
        Condition::Any(parts) => {
            let each: Option<Vec<HashSet<&str>>> = parts.iter().map(query_names).collect();
            Some(each?.into_iter().flatten().collect())
        }
        Condition::Not(_) => None,
    }
}
