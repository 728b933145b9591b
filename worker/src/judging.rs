//! Rows that rules match, gathered into matters: one per rule, node and entity. Nothing is written here.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use ostiary_domain::finding::Entity;
use ostiary_domain::ids::{NodeId, RuleId};
use ostiary_domain::log::{Action, Execution};
use ostiary_domain::osquery::Columns;
use ostiary_domain::present::{Change, Standing};
use ostiary_domain::rule::EventView;
use ostiary_store::findings::{LATEST_KEPT, Match};
use ostiary_store::reporting_nodes::ReportingNode;
use ostiary_store::rules::StoredRule;

use crate::facts::Fact;
use crate::knowledge::Rules;
use crate::vitals;

/// Matters of one rule on one node in one group. A rule that matches every row of a large snapshot must not open thousands of
/// findings; what is beyond is counted on one of its own.
const MOST_MATTERS: usize = 200;

/// What rows of one group say about one entity.
#[derive(Debug)]
pub(crate) struct Matter<'k> {
    pub(crate) rule: &'k StoredRule,
    pub(crate) node: &'k ReportingNode,
    pub(crate) entity: Entity,
    /// The first match and the latest.
    pub(crate) matches: Vec<Match>,
    pub(crate) count: i64,
    pub(crate) batch_id: Option<i64>,
}

/// Where rows come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'k> {
    pub(crate) node: &'k ReportingNode,
    pub(crate) batch_id: Option<i64>,
    pub(crate) occurred_at: DateTime<Utc>,
    pub(crate) received_at: DateTime<Utc>,
}

/// Judges rows and gathers what matched.
#[derive(Debug)]
pub(crate) struct Judge<'k> {
    rules: &'k Rules,
    matters: BTreeMap<(RuleId, NodeId, [u8; 32]), Matter<'k>>,
    count: HashMap<(RuleId, NodeId), usize>,
}

impl<'k> Judge<'k> {
    pub(crate) fn new(rules: &'k Rules) -> Self {
        Self {
            rules,
            matters: BTreeMap::new(),
            count: HashMap::new(),
        }
    }

    /// Judges what an execution changed: drift, for some rules a baseline, never what we had already.
    pub(crate) fn execution(
        &mut self,
        source: Source<'k>,
        execution: &Execution<'_>,
        change: &Change,
    ) {
        let rules = self.rules;
        let candidates = rules
            .set
            .candidates(&execution.query_name, &source.node.facts);
        if candidates.is_empty() {
            return;
        }
        let mut found = Vec::new();
        for (row, standing) in execution.rows.iter().zip(&change.standings) {
            if *standing == Standing::Known {
                continue;
            }
            let event = EventView {
                action: row.action,
                columns: &row.columns,
                occurred_at: source.occurred_at,
                received_at: source.received_at,
                is_baseline: *standing == Standing::Baseline,
            };
            found.extend(
                candidates
                    .matches(&event)
                    .map(|matched| (matched.rule.definition.id, row.action, &row.columns)),
            );
        }
        for (rule, action, columns) in found {
            self.add(rule, source, &execution.query_name, action, columns);
        }
    }

    /// Judges rows that are gone though no line said so: a full set no longer holds them.
    pub(crate) fn removed(&mut self, source: Source<'k>, query_name: &str, rows: &[String]) {
        for row in rows {
            let Ok(columns) = serde_json::from_str::<Columns<'_>>(row) else {
                continue; // rows of ours are objects
            };
            self.row(source, query_name, Action::Removed, &columns);
        }
    }

    /// Judges a fact, under each of its names.
    pub(crate) fn fact(&mut self, source: Source<'k>, fact: &Fact) {
        for name in &fact.query_names {
            self.row(source, name, Action::Triggered, &fact.columns);
        }
    }

    fn row(&mut self, source: Source<'k>, query_name: &str, action: Action, columns: &Columns<'_>) {
        let event = EventView {
            action,
            columns,
            occurred_at: source.occurred_at,
            received_at: source.received_at,
            is_baseline: false,
        };
        let rules = self.rules;
        let matches = rules.set.evaluate(query_name, &event, &source.node.facts);
        let matched: Vec<RuleId> = matches
            .iter()
            .map(|matched| matched.rule.definition.id)
            .collect();
        for rule in matched {
            self.add(rule, source, query_name, action, columns);
        }
    }

    fn add(
        &mut self,
        rule: RuleId,
        source: Source<'k>,
        query_name: &str,
        action: Action,
        columns: &Columns<'_>,
    ) {
        let Some(rule) = self.rules.stored.get(&rule) else {
            return;
        };
        let mut entity = if action == Action::Triggered && rule.entity_columns.is_empty() {
            // A fact is about its node; its columns are times, which differ each time.
            Entity::of(&[], &Columns::new([("fact", query_name)]))
        } else {
            Entity::of(&rule.entity_columns, columns)
        };
        let key = |entity: &Entity| (rule.id, source.node.id, entity.hash);
        if !self.matters.contains_key(&key(&entity)) {
            let count = self.count.entry((rule.id, source.node.id)).or_default();
            *count += 1;
            if *count > MOST_MATTERS {
                entity = Entity::of(&[], &Columns::new([("more rows of", query_name)]));
            }
        }
        let matter = self.matters.entry(key(&entity)).or_insert_with(|| Matter {
            rule,
            node: source.node,
            entity,
            matches: Vec::new(),
            count: 0,
            batch_id: None,
        });
        matter.count += 1;
        matter.batch_id = source.batch_id;
        if matter.matches.len() > usize::try_from(LATEST_KEPT).expect("a handful") {
            matter.matches.remove(1);
        }
        matter.matches.push(Match {
            query_name: query_name.to_owned(),
            action: action.as_str(),
            columns: vitals::object(columns),
            counterpart: None,
            occurred_at: source.occurred_at,
        });
    }

    /// What matched, in an order that is the same for all transactions.
    pub(crate) fn into_matters(self) -> impl Iterator<Item = Matter<'k>> {
        self.matters.into_values()
    }
}
