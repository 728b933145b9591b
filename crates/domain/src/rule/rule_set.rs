//! Compiled rules, arranged so that a row meets only those that may concern it.
//!
//! Judging takes two steps. For an execution, [`RuleSet::candidates`] looks up the rules that name the query (most do:
//! `query_name equal …`), adds those that name none, and drops every rule that the query and the node alone already
//! decide against. Per row only the candidates are left, and of the rules that name a value of a column only those that name the
//! row's, so that rules on other queries and other values cost nothing.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::evaluate::Evidence;
use super::index::{Bucket, query_names};
use super::{Condition, EventView, NodeView, ParseError, Watch, WatchError, parse};
use crate::finding::{Entity, Severity};
use crate::ids::RuleId;
use crate::log::Action;
use crate::osquery::Columns;
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
    /// What it waits for.
    pub watch: Watch,
    /// Whether it also sees rows of a baseline.
    pub on_baseline: bool,
    /// An event older than this on arrival is late; `None` when no age is too much.
    pub max_age: Option<TimeDelta>,
}

/// What a match of a rule is about: its entity columns, else the whole row; for a rule that counts or misses rows all of them together.
#[must_use]
pub fn entity_of(rule: &RuleDefinition, query_name: &str, row: &Columns<'_>) -> Entity {
    let named = rule.entity_columns.as_slice();
    match rule.watch {
        Watch::Absence => Entity::of(&[], &Columns::new([("no row of", query_name)])),
        watch if watch.counts_together() && named.is_empty() => {
            Entity::of(&[], &Columns::new([("matches", "all together")]))
        }
        _ => Entity::of(named, row),
    }
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
    /// What it waits for.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// One rule on one event.
#[derive(Debug, Clone, Copy)]
pub struct Match<'r> {
    /// The rule.
    pub rule: &'r Rule,
    /// What follows.
    pub effect: Effect,
}

/// What a match means for its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The row counts: a finding opens, or a count rises.
    Counts,
    /// The rule only has to know of the row: it was there already (a baseline), or came too late. Only rules on rarity learn.
    Learns,
    /// The row is gone, and the rule is to forget that the node had it. Only rules on rarity forget.
    Forgets,
}

impl Rule {
    /// Compiles one rule, as for checking a form.
    ///
    /// # Errors
    /// The conditions, the scope or the watch cannot be understood.
    pub fn compile(definition: RuleDefinition) -> Result<Self, BrokenReason> {
        let condition = parse(&definition.conditions)?.cheapest_first();
        if definition.watch == Watch::Absence && query_names(&condition).is_none() {
            return Err(WatchError::NoQuery.into());
        }
        Ok(Self {
            condition,
            scope: Target::parse(&definition.scope)?,
            definition,
        })
    }

    /// The queries that it names, sorted; `None` if it may look at any.
    #[must_use]
    pub fn query_names(&self) -> Option<Vec<&str>> {
        let mut names: Vec<&str> = query_names(&self.condition)?.into_iter().collect();
        names.sort_unstable();
        Some(names)
    }

    /// Whether an event is older than the rule may page for.
    #[must_use]
    pub fn is_late(&self, occurred_at: DateTime<Utc>, received_at: DateTime<Utc>) -> bool {
        self.definition
            .max_age
            .is_some_and(|max_age| received_at - occurred_at > max_age)
    }

    /// Whether the node is in its scope.
    #[must_use]
    pub fn concerns(&self, node: NodeView<'_>) -> bool {
        self.scope.matches(node.facts)
    }

    /// Whether rows of this query on this node may fit at all.
    #[must_use]
    pub fn concerns_query(&self, query_name: &str, node: NodeView<'_>) -> bool {
        let evidence = Evidence {
            query_name,
            node,
            event: None,
        };
        self.concerns(node) && self.condition.judge(evidence) != Some(false)
    }

    /// Whether a row that is gone may have fitted: it does, or nobody can say any more, since the node has left what the rule looks at.
    #[must_use]
    pub fn may_have_held(
        &self,
        (query_name, action, at): (&str, Action, DateTime<Utc>),
        node: NodeView<'_>,
        row: &Columns<'_>,
    ) -> bool {
        !self.concerns_query(query_name, node) || self.holds(query_name, node, row, (action, at))
    }

    /// Whether a row that is present fits, whenever it came. `action` is how such a row comes: `added`, or `snapshot`.
    #[must_use]
    pub fn holds(
        &self,
        query_name: &str,
        node: NodeView<'_>,
        row: &Columns<'_>,
        (action, at): (Action, DateTime<Utc>),
    ) -> bool {
        let event = EventView {
            action,
            columns: row,
            occurred_at: at,
            received_at: at,
            is_baseline: false,
        };
        let evidence = Evidence {
            query_name,
            node,
            event: Some(&event),
        };
        self.concerns(node) && self.condition.judge(evidence) == Some(true)
    }

    fn judge<'r>(&'r self, evidence: Evidence<'_>, event: &EventView<'_>) -> Option<Match<'r>> {
        let wanted = &self.definition;
        let quiet = (event.is_baseline && !wanted.on_baseline)
            || self.is_late(event.occurred_at, event.received_at);
        let gone = event.action == Action::Removed;
        let effect = match wanted.watch {
            Watch::Absence => return None,
            Watch::Present if gone => return None,
            Watch::FirstSeen if gone => return None,
            Watch::Rare { .. } if gone => Effect::Forgets,
            Watch::FirstSeen | Watch::Rare { .. } if quiet => Effect::Learns,
            _ if quiet => return None,
            _ => Effect::Counts,
        };
        let matches = if effect == Effect::Forgets {
            // The row that the rule saw coming is the one that goes.
            let came = EventView {
                action: Action::Added,
                ..*event
            };
            let evidence = Evidence {
                event: Some(&came),
                ..evidence
            };
            self.condition.judge(evidence)
        } else {
            self.condition.judge(evidence)
        };
        (matches == Some(true)).then_some(Match { rule: self, effect })
    }
}

/// All rules that are on.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    by_query_name: HashMap<String, Bucket>,
    of_any_query: Bucket,
    /// Those that go by present rows, by query name; the empty name for those of any query.
    of_present_rows: HashMap<String, Vec<usize>>,
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

    /// One rule.
    #[must_use]
    pub fn of(rule: Rule) -> Self {
        let mut set = Self::default();
        set.insert(rule);
        set
    }

    fn insert(&mut self, rule: Rule) {
        let place = self.rules.len();
        if rule.definition.watch.is_of_present_rows() {
            for name in rule.query_names().unwrap_or_else(|| vec![""]) {
                let places = self.of_present_rows.entry(name.to_owned()).or_default();
                places.push(place);
            }
        }
        match query_names(&rule.condition) {
            Some(names) => {
                for name in names {
                    let bucket = self.by_query_name.entry(name.to_owned()).or_default();
                    bucket.insert(place, &rule.condition);
                }
            }
            None => self.of_any_query.insert(place, &rule.condition),
        }
        self.rules.push(rule);
    }

    /// The rules, in the order given.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn buckets(&self, query_name: &str) -> impl Iterator<Item = &Bucket> {
        let named = self.by_query_name.get(query_name);
        named.into_iter().chain([&self.of_any_query])
    }

    /// The rules that may match rows of this query on this node.
    #[must_use]
    pub fn candidates<'r>(&'r self, query_name: &'r str, node: NodeView<'r>) -> Candidates<'r> {
        let evidence = Evidence {
            query_name,
            node,
            event: None,
        };
        let plain = self
            .buckets(query_name)
            .flat_map(|bucket| &bucket.plain)
            .map(|place| &self.rules[*place])
            .filter(|rule| rule.concerns(node) && rule.condition.judge(evidence) != Some(false))
            .collect();
        Candidates {
            set: self,
            query_name,
            node,
            plain,
        }
    }

    /// The rules that go by the present rows of this query, whatever the node: [`Watch::Present`] and [`Watch::Absence`].
    pub fn of_present_rows<'r>(&'r self, query_name: &'r str) -> impl Iterator<Item = &'r Rule> {
        [query_name, ""]
            .into_iter()
            .filter_map(|name| self.of_present_rows.get(name))
            .flatten()
            .map(|place| &self.rules[*place])
    }

    /// The rules that match one event. For many rows of one query ask [`RuleSet::candidates`] once.
    #[must_use]
    pub fn evaluate<'r>(
        &'r self,
        query_name: &'r str,
        event: &EventView<'_>,
        node: NodeView<'r>,
    ) -> Vec<Match<'r>> {
        self.candidates(query_name, node).matches(event).collect()
    }
}

/// The rules that may match rows of one execution.
#[derive(Debug)]
pub struct Candidates<'r> {
    set: &'r RuleSet,
    query_name: &'r str,
    node: NodeView<'r>,
    plain: Vec<&'r Rule>,
}

impl<'r> Candidates<'r> {
    /// Whether no row can match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty()
            && self
                .set
                .buckets(self.query_name)
                .all(|bucket| !bucket.names_values())
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
        let named = self
            .set
            .buckets(self.query_name)
            .flat_map(|bucket| bucket.named_by(event.columns))
            .map(|place| &self.set.rules[place])
            .filter(|rule| rule.concerns(self.node));
        (self.plain.iter().copied())
            .chain(named)
            .filter_map(move |rule| rule.judge(evidence, event))
    }
}
