//! Rows that rules match, gathered into matters: one per rule, node and entity. Nothing is written here; what rules count in Postgres is
//! settled by [`crate::counting`].

mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use ostiary_domain::fact;
use ostiary_domain::finding::{Entity, counterpart};
use ostiary_domain::ids::{NodeId, RuleId};
use ostiary_domain::log::{Action, Execution, Kind};
use ostiary_domain::osquery::Columns;
use ostiary_domain::present::{Change, RowSet, Standing};
use ostiary_domain::rule::{Effect, EventView, Rule, Watch, entity_of};
use ostiary_store::findings::{LATEST_KEPT, Match};
use ostiary_store::reporting_nodes::ReportingNode;
use ostiary_store::rules::StoredRule;
use serde_json::Value;

use crate::facts::Fact;
use crate::findings::Recovery;
use crate::knowledge::Rules;
use crate::vitals;
use rows::{Holding, Others, Seen, read};

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
    /// When rows matched, for rules that want so many of them; the latest only.
    pub(crate) times: Vec<DateTime<Utc>>,
}

/// Where rows come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'k> {
    pub(crate) node: &'k ReportingNode,
    pub(crate) batch_id: Option<i64>,
    pub(crate) occurred_at: DateTime<Utc>,
    pub(crate) received_at: DateTime<Utc>,
}

/// A value on a node, for rules on rarity.
pub(crate) type Value32 = (RuleId, NodeId, [u8; 32]);

/// What came of judging.
#[derive(Debug)]
pub(crate) struct Judged<'k> {
    /// What matched, in an order that is the same for all transactions.
    pub(crate) matters: Vec<Matter<'k>>,
    /// What is over, in such an order.
    pub(crate) recoveries: Vec<Recovery<'k>>,
    /// Values that rules on rarity only have to know of.
    pub(crate) learned: BTreeSet<Value32>,
    /// Values that nodes no longer have.
    pub(crate) forgotten: BTreeSet<Value32>,
}

/// Judges rows and gathers what matched.
#[derive(Debug)]
pub(crate) struct Judge<'k> {
    rules: &'k Rules,
    matters: BTreeMap<Value32, Matter<'k>>,
    recoveries: BTreeMap<Value32, Recovery<'k>>,
    learned: BTreeSet<Value32>,
    forgotten: BTreeSet<Value32>,
    count: HashMap<(RuleId, NodeId), usize>,
}

impl<'k> Judge<'k> {
    pub(crate) fn new(rules: &'k Rules) -> Self {
        Self {
            rules,
            matters: BTreeMap::new(),
            recoveries: BTreeMap::new(),
            learned: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            count: HashMap::new(),
        }
    }

    /// Judges what an execution changed: drift, for some rules a baseline, never what we had already. `present` is what holds after it.
    pub(crate) fn execution(
        &mut self,
        source: Source<'k>,
        execution: &Execution<'_>,
        change: &Change,
        present: &RowSet,
    ) {
        let query_name = execution.query_name.as_ref();
        let candidates = self.rules.set.candidates(query_name, source.node.view());
        if !candidates.is_empty() {
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
                found.extend(candidates.matches(&event).map(|matched| {
                    let rule = matched.rule.definition.id;
                    (rule, matched.effect, row.action, &row.columns)
                }));
            }
            if !found.is_empty() {
                let others = Others::of(execution, change);
                for (rule, effect, action, columns) in found {
                    let seen = Seen {
                        action,
                        columns,
                        others: others.opposite(action),
                    };
                    self.add((rule, effect), source, query_name, seen);
                }
            }
        }
        self.removed(source, query_name, &change.removed);
        let gone = execution
            .rows
            .iter()
            .filter(|row| row.action == Action::Removed)
            .map(|row| row.columns.canonical());
        let gone: Vec<String> = gone.chain(change.removed.iter().cloned()).collect();
        let moved = change.content_changed || change.is_baseline || !gone.is_empty();
        if moved {
            let came_as = match execution.kind {
                Kind::Snapshot => Action::Snapshot,
                Kind::Differential => Action::Added,
            };
            let holding = Holding {
                query_name,
                came_as,
                present,
                is_baseline: change.is_baseline,
            };
            self.present(source, &holding, &gone);
        }
    }

    /// Judges rows that are gone though no line said so: a full set no longer holds them.
    pub(crate) fn removed(&mut self, source: Source<'k>, query_name: &str, rows: &[String]) {
        for row in rows {
            if let Some(columns) = read(row) {
                self.row(source, query_name, Action::Removed, &columns);
            }
        }
    }

    /// Judges a set that has settled: rows that it did not name are gone.
    pub(crate) fn settled(
        &mut self,
        source: Source<'k>,
        query_name: &str,
        (gone, present): (&[String], &RowSet),
    ) {
        self.removed(source, query_name, gone);
        let holding = Holding {
            query_name,
            came_as: Action::Snapshot,
            present,
            is_baseline: false,
        };
        self.present(source, &holding, gone);
    }

    /// Judges a fact, under each of its names. That it is over ends what rules that wait for rows that hold have found.
    pub(crate) fn fact(&mut self, source: Source<'k>, fact: &Fact) {
        for name in &fact.query_names {
            match &fact.ended {
                None => self.row(source, name, Action::Triggered, &fact.columns),
                Some(reason) => self.fact_ended(source, name, &fact.columns, reason),
            }
        }
        if let Some(also) = fact.also() {
            self.fact(source, &also);
        }
    }

    fn fact_ended(
        &mut self,
        source: Source<'k>,
        query_name: &str,
        columns: &Columns<'_>,
        reason: &str,
    ) {
        let rules = self.rules;
        for rule in rules.set.of_present_rows(query_name) {
            let definition = &rule.definition;
            let Some(stored) = rules.stored.get(&definition.id) else {
                continue;
            };
            if definition.watch != Watch::Present {
                continue;
            }
            // Its times and numbers are others than when the rule matched: whether it did, the finding says.
            let hash = fact::entity_of(query_name, &definition.entity_columns, columns).hash;
            let recovery = Recovery {
                rule: stored,
                node: source.node,
                entity_hash: hash,
                reason: reason.to_owned(),
                columns: Some(vitals::object(columns)),
            };
            self.recoveries
                .insert((stored.id, source.node.id, hash), recovery);
        }
    }

    /// One rule looks at what is present: what it learns, and what it opens if it also wants what was there already.
    pub(crate) fn study(
        &mut self,
        rule: RuleId,
        source: Source<'k>,
        query_name: &str,
        (present, snapshot): (&RowSet, bool),
    ) {
        let Some(rule) = self.rules.compiled(rule) else {
            return;
        };
        let came_as = if snapshot {
            Action::Snapshot
        } else {
            Action::Added
        };
        let holding = Holding {
            query_name,
            came_as,
            present,
            is_baseline: true,
        };
        let watch = rule.definition.watch;
        if watch == Watch::Absence {
            self.absence(source, &holding, rule);
        } else if watch.is_rarity() || rule.definition.on_baseline {
            let effect = if watch.is_rarity() {
                Effect::Learns
            } else {
                Effect::Counts
            };
            for row in holding.rows(rule, source) {
                let matched = (rule.definition.id, effect);
                self.add(matched, source, query_name, Seen::alone(came_as, &row));
            }
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
        let matches = (self.rules.set).evaluate(query_name, &event, source.node.view());
        let matched: Vec<(RuleId, Effect)> = matches
            .iter()
            .map(|matched| (matched.rule.definition.id, matched.effect))
            .collect();
        for rule in matched {
            self.add(rule, source, query_name, Seen::alone(action, columns));
        }
    }

    /// Judges what holds by the rules that go by it: what of it is over, and what is missing.
    fn present(&mut self, source: Source<'k>, holding: &Holding<'_>, gone: &[String]) {
        let rules = self.rules;
        for rule in rules.set.of_present_rows(holding.query_name) {
            match rule.definition.watch {
                Watch::Absence => self.absence(source, holding, rule),
                _ if !gone.is_empty() => self.recovered(source, holding, rule, gone),
                _ => {}
            }
        }
    }

    /// Rows of a rule went: their matters are over, unless another row of the same entity still holds.
    fn recovered(
        &mut self,
        source: Source<'k>,
        holding: &Holding<'_>,
        rule: &Rule,
        gone: &[String],
    ) {
        let Some(stored) = self.rules.stored.get(&rule.definition.id) else {
            return;
        };
        let query = (holding.query_name, holding.came_as, source.received_at);
        let entity =
            |columns: &Columns<'_>| entity_of(&rule.definition, holding.query_name, columns);
        let over: Vec<([u8; 32], Value)> = gone
            .iter()
            .filter_map(|row| read(row))
            // What the rule would not have seen on this node it has not told of; of a node that has left its scope nobody can say.
            .filter(|row| rule.may_have_held(query, source.node.view(), row))
            .map(|row| (entity(&row).hash, vitals::object(&row)))
            .collect();
        if over.is_empty() {
            return;
        }
        let still: HashSet<[u8; 32]> = (holding.rows(rule, source).iter())
            .map(|row| entity(row).hash)
            .collect();
        for (hash, row) in over {
            let key = (stored.id, source.node.id, hash);
            if still.contains(&hash) || self.recoveries.contains_key(&key) {
                continue;
            }
            let recovery = Recovery {
                rule: stored,
                node: source.node,
                entity_hash: hash,
                reason: format!("the row is gone from {}", holding.query_name),
                columns: Some(row),
            };
            self.recoveries.insert(key, recovery);
        }
    }

    fn absence(&mut self, source: Source<'k>, holding: &Holding<'_>, rule: &Rule) {
        let definition = &rule.definition;
        let Some(stored) = self.rules.stored.get(&definition.id) else {
            return;
        };
        let empty = Columns::default();
        let hash = entity_of(definition, holding.query_name, &empty).hash;
        let key = (definition.id, source.node.id, hash);
        let found = holding.first(rule, source).map(|row| vitals::object(&row));
        if found.is_none() && rule.concerns_query(holding.query_name, source.node.view()) {
            self.recoveries.remove(&key);
            let quiet = (holding.is_baseline && !definition.on_baseline)
                || rule.is_late(source.occurred_at, source.received_at);
            if !quiet && !self.matters.contains_key(&key) {
                let matched = (definition.id, Effect::Counts);
                let seen = Seen::alone(holding.came_as, &empty);
                self.add(matched, source, holding.query_name, seen);
            }
            return;
        }
        self.matters.remove(&key);
        let recovery = Recovery {
            rule: stored,
            node: source.node,
            entity_hash: hash,
            reason: format!("a row of {} matches again", holding.query_name),
            columns: found,
        };
        self.recoveries.insert(key, recovery);
    }

    fn add(
        &mut self,
        (rule, effect): (RuleId, Effect),
        source: Source<'k>,
        query_name: &str,
        seen: Seen<'_>,
    ) {
        let Seen {
            action, columns, ..
        } = seen;
        let rules = self.rules;
        let (Some(rule), Some(compiled)) = (rules.stored.get(&rule), rules.compiled(rule)) else {
            return;
        };
        let is_fact = action == Action::Triggered && !rule.watch.counts_together();
        let mut entity = if is_fact {
            fact::entity_of(query_name, &rule.entity_columns, columns)
        } else {
            entity_of(&compiled.definition, query_name, columns)
        };
        let key = |entity: &Entity| (rule.id, source.node.id, entity.hash);
        match effect {
            Effect::Forgets => {
                self.learned.remove(&key(&entity));
                self.forgotten.insert(key(&entity));
                return;
            }
            Effect::Learns => {
                self.forgotten.remove(&key(&entity));
                self.learned.insert(key(&entity));
                return;
            }
            Effect::Counts if rule.watch.is_rarity() => {
                self.forgotten.remove(&key(&entity));
                if rule.to_study {
                    self.learned.insert(key(&entity));
                    return;
                }
            }
            Effect::Counts => {}
        }
        if !self.matters.contains_key(&key(&entity)) {
            let count = self.count.entry((rule.id, source.node.id)).or_default();
            *count += 1;
            if *count > MOST_MATTERS {
                if rule.watch.is_rarity() {
                    self.learned.insert(key(&entity));
                }
                entity = Entity::of(&[], &Columns::new([("more rows of", query_name)]));
            }
        }
        // What went and came again is not over.
        self.recoveries.remove(&key(&entity));
        let matter = self.matters.entry(key(&entity)).or_insert_with(|| Matter {
            rule,
            node: source.node,
            entity,
            matches: Vec::new(),
            count: 0,
            batch_id: None,
            times: Vec::new(),
        });
        matter.take(source, query_name, seen);
    }

    pub(crate) fn finish(self) -> Judged<'k> {
        Judged {
            matters: self.matters.into_values().collect(),
            recoveries: self.recoveries.into_values().collect(),
            learned: self.learned,
            forgotten: self.forgotten,
        }
    }
}

impl Matter<'_> {
    fn take(&mut self, source: Source<'_>, query_name: &str, seen: Seen<'_>) {
        self.count += 1;
        self.batch_id = source.batch_id;
        if let Watch::Times { times, .. } = self.rule.watch {
            if self.times.len() >= times as usize {
                self.times.remove(0);
            }
            self.times.push(source.occurred_at);
        }
        if self.matches.len() > usize::try_from(LATEST_KEPT).expect("a handful") {
            self.matches.remove(1);
        }
        self.matches.push(Match {
            query_name: query_name.to_owned(),
            action: seen.action.as_str(),
            columns: vitals::object(seen.columns),
            counterpart: counterpart(seen.columns, &self.rule.entity_columns, seen.others)
                .map(vitals::object),
            occurred_at: source.occurred_at,
        });
    }
}
