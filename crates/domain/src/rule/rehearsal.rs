//! A rule tried on what was reported already: what it would have opened. The very engine that the worker uses judges the rows; what
//! the worker keeps in Postgres is kept here in memory, within bounds.
//!
//! What differs from a real run, and is said with the outcome: nothing is known of the time before the first event, so rarity is
//! overrated; of snapshots the first of each node is taken for its baseline, and rows that went are not seen; a finding opens once and does not recover.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use xxhash_rust::xxh3::xxh3_128;

use super::rule_set::entity_of;
use super::{Effect, EventView, NodeView, Rule, RuleSet, Watch};
use crate::finding::Entity;
use crate::ids::NodeId;
use crate::log::Action;
use crate::osquery::Columns;

/// Rows of snapshots, values and findings that are kept in memory at most, together.
pub const MOST_KEPT: usize = 2_000_000;

/// Findings that are shown with a row.
const SAMPLES: usize = 50;

/// One execution of a query, as it was stored.
#[derive(Debug)]
pub struct Stored<'a> {
    /// Of whom.
    pub node_id: NodeId,
    /// As rules see it, by what is known now.
    pub node: NodeView<'a>,
    /// Which query.
    pub query_name: &'a str,
    /// When we heard of it.
    pub received_at: DateTime<Utc>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// It holds all rows.
    pub is_snapshot: bool,
    /// It was a first full set, or one that came again.
    pub is_baseline: bool,
    /// What it brought.
    pub rows: &'a [(Action, Columns<'a>)],
}

/// A finding that would have opened.
#[derive(Debug, Clone)]
pub struct Opening {
    /// On which node; `None` for the whole fleet.
    pub node_id: Option<NodeId>,
    /// About what.
    pub entity: Entity,
    /// When, by the node's clock.
    pub occurred_at: DateTime<Utc>,
    /// By which query.
    pub query_name: String,
    /// What happened to the row.
    pub action: Action,
    /// The row, as a JSON object.
    pub row: String,
    /// How many rows would have counted on it.
    pub count: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many findings would have opened.
    pub findings: usize,
    /// How many rows matched.
    pub matches: u64,
    /// How many rows were looked at.
    pub rows: u64,
    /// Findings by node, most first; without those of the fleet.
    pub nodes: Vec<(NodeId, usize)>,
    /// The latest findings.
    pub samples: Vec<Opening>,
}

/// A rule under trial.
#[derive(Debug)]
pub struct Rehearsal {
    set: RuleSet,
    openings: BTreeMap<(Option<NodeId>, [u8; 32]), Opening>,
    snapshots: HashMap<(NodeId, String), HashSet<u128>>,
    times: HashMap<(NodeId, [u8; 32]), VecDeque<DateTime<Utc>>>,
    nodes: HashMap<[u8; 32], HashMap<NodeId, DateTime<Utc>>>,
    kept: usize,
    rows: u64,
    matches: u64,
}

/// A row that counts.
struct Counted<'a> {
    node_id: NodeId,
    query_name: &'a str,
    occurred_at: DateTime<Utc>,
    action: Action,
    row: &'a Columns<'a>,
}

impl Rehearsal {
    /// Begins with nothing known.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self {
            set: RuleSet::of(rule),
            openings: BTreeMap::new(),
            snapshots: HashMap::new(),
            times: HashMap::new(),
            nodes: HashMap::new(),
            kept: 0,
            rows: 0,
            matches: 0,
        }
    }

    /// The rule.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.set.rules()[0]
    }

    /// No more can be kept; what is there is an outcome.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kept >= MOST_KEPT
    }

    /// Takes the next execution; they come in the order received.
    pub fn take(&mut self, stored: &Stored<'_>) {
        self.rows += stored.rows.len() as u64;
        if self.rule().definition.watch == Watch::Absence {
            self.absence(stored);
            return;
        }
        let news = if stored.is_snapshot {
            self.news_of_snapshot(stored)
        } else {
            let each = stored.rows.iter();
            each.map(|(action, row)| (*action, row, stored.is_baseline))
                .collect()
        };
        for (action, row, is_baseline) in news {
            self.row(stored, action, row, is_baseline);
        }
    }

    fn row(&mut self, stored: &Stored<'_>, action: Action, row: &Columns<'_>, is_baseline: bool) {
        let event = EventView {
            action,
            columns: row,
            occurred_at: stored.occurred_at,
            received_at: stored.received_at,
            is_baseline,
        };
        let matched = self.set.evaluate(stored.query_name, &event, stored.node);
        let Some(effect) = matched.first().map(|matched| matched.effect) else {
            return;
        };
        self.matches += u64::from(effect == Effect::Counts);
        let counted = Counted {
            node_id: stored.node_id,
            query_name: stored.query_name,
            occurred_at: stored.occurred_at,
            action,
            row,
        };
        self.count(effect, &counted);
    }

    /// What a snapshot brought against the one before; all of the first is a baseline. Only hashes are kept, so what went is not told.
    fn news_of_snapshot<'s>(
        &mut self,
        stored: &'s Stored<'_>,
    ) -> Vec<(Action, &'s Columns<'s>, bool)> {
        let key = (stored.node_id, stored.query_name.to_owned());
        let hashed: Vec<u128> = stored
            .rows
            .iter()
            .map(|(_, row)| xxh3_128(row.canonical().as_bytes()))
            .collect();
        let before = self.snapshots.insert(key, hashed.iter().copied().collect());
        self.kept += hashed.len();
        self.kept -= before.as_ref().map_or(0, HashSet::len).min(self.kept);
        let first = before.is_none();
        let before = before.unwrap_or_default();
        let fresh = stored
            .rows
            .iter()
            .zip(&hashed)
            .filter(|(_, hash)| !before.contains(hash))
            .map(|((action, row), _)| (*action, row, first || stored.is_baseline));
        fresh.collect()
    }

    fn absence(&mut self, stored: &Stored<'_>) {
        let rule = self.rule();
        let at = (Action::Snapshot, stored.received_at);
        let holds = |row: &Columns<'_>| rule.holds(stored.query_name, stored.node, row, at);
        let missing = stored.is_snapshot
            && rule.concerns_query(stored.query_name, stored.node)
            && !rule.is_late(stored.occurred_at, stored.received_at)
            && !stored.rows.iter().any(|(_, row)| holds(row));
        if !missing {
            return;
        }
        self.matches += 1;
        let empty = Columns::default();
        let counted = Counted {
            node_id: stored.node_id,
            query_name: stored.query_name,
            occurred_at: stored.occurred_at,
            action: Action::Snapshot,
            row: &empty,
        };
        self.open(Some(stored.node_id), &counted);
    }

    fn count(&mut self, effect: Effect, counted: &Counted<'_>) {
        let definition = &self.rule().definition;
        let watch = definition.watch;
        let hash = entity_of(definition, counted.query_name, counted.row).hash;
        let span = |seconds: u32| TimeDelta::seconds(seconds.into());
        match watch {
            Watch::Times { times, seconds } => {
                let key = (counted.node_id, hash);
                let seen = self.times.entry(key).or_default();
                seen.push_back(counted.occurred_at);
                self.kept += 1;
                if seen.len() > times as usize {
                    seen.pop_front();
                    self.kept -= 1;
                }
                let earliest = seen.iter().min().copied();
                let enough = seen.len() >= times as usize
                    && earliest.is_some_and(|at| counted.occurred_at - at <= span(seconds));
                if enough {
                    self.open(Some(counted.node_id), counted);
                }
            }
            Watch::Nodes { nodes, seconds } => {
                let seen = self.see(hash, counted);
                let since = counted.occurred_at - span(seconds);
                if seen.values().filter(|at| **at >= since).count() >= nodes as usize {
                    self.open(None, counted);
                }
            }
            Watch::FirstSeen | Watch::Rare { .. } => {
                if effect == Effect::Forgets {
                    if let Some(seen) = self.nodes.get_mut(&hash) {
                        seen.remove(&counted.node_id);
                    }
                    return;
                }
                let is_new = !self.nodes.contains_key(&hash);
                let seen = self.see(hash, counted).len();
                let opens = match watch {
                    Watch::Rare { nodes } => seen <= nodes as usize,
                    _ => is_new,
                };
                if opens && effect == Effect::Counts {
                    self.open(Some(counted.node_id), counted);
                }
            }
            _ => self.open(Some(counted.node_id), counted),
        }
    }

    fn see(&mut self, hash: [u8; 32], counted: &Counted<'_>) -> &HashMap<NodeId, DateTime<Utc>> {
        let seen = self.nodes.entry(hash).or_default();
        let before = seen.insert(counted.node_id, counted.occurred_at);
        self.kept += usize::from(before.is_none());
        seen
    }

    fn open(&mut self, node_id: Option<NodeId>, counted: &Counted<'_>) {
        let entity = entity_of(&self.rule().definition, counted.query_name, counted.row);
        let key = (node_id, entity.hash);
        if let Some(opening) = self.openings.get_mut(&key) {
            opening.count += 1;
            return;
        }
        self.kept += 1;
        let opening = Opening {
            node_id,
            entity,
            occurred_at: counted.occurred_at,
            query_name: counted.query_name.to_owned(),
            action: counted.action,
            row: counted.row.to_json(),
            count: 1,
        };
        self.openings.insert(key, opening);
    }

    /// What would have been.
    #[must_use]
    pub fn finish(self) -> Outcome {
        let mut by_node: HashMap<NodeId, usize> = HashMap::new();
        for node in self.openings.keys().filter_map(|(node, _)| *node) {
            *by_node.entry(node).or_default() += 1;
        }
        let mut nodes: Vec<(NodeId, usize)> = by_node.into_iter().collect();
        nodes.sort_unstable_by_key(|(node, count)| (std::cmp::Reverse(*count), *node));
        let findings = self.openings.len();
        let mut samples: Vec<Opening> = self.openings.into_values().collect();
        samples.sort_unstable_by_key(|opening| std::cmp::Reverse(opening.occurred_at));
        samples.truncate(SAMPLES);
        Outcome {
            findings,
            matches: self.matches,
            rows: self.rows,
            nodes,
            samples,
        }
    }
}
