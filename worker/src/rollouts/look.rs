//! What is known of the roll-out that is under way, read at one moment and without any lock. Nothing is written here.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::{Parts, Selection, is_run_by, to_bytes};
use ostiary_domain::rollout::{
    Inside, Move, Plan, Present, Verdict, Watched, changed_nodes, inside, judge, position,
};
use ostiary_store::rollout_nodes::{self, Complaints, NodeProgress};
use ostiary_store::rollouts::{self, Rollout};
use ostiary_store::{Db, Result, config_parts, node_lists};
use sha2::{Digest as _, Sha256};

use crate::App;

/// A roll-out as it was at one moment.
pub(super) struct Look {
    pub(super) rollout: Rollout,
    pub(super) nodes: Vec<NodeProgress>,
    /// Nodes that have fetched the new config, which is not noted yet, and when.
    pub(super) fetched: Vec<(NodeId, DateTime<Utc>)>,
    /// Nodes that check in and get the change without anybody watching: they have enrolled, or got a tag, since their stage began.
    pub(super) newcomers: Vec<NodeId>,
    pub(super) verdict: Verdict,
    /// Nodes for which something changes.
    concerned: Vec<NodeId>,
    /// Nodes that check in.
    seen: HashSet<NodeId>,
}

impl Look {
    /// Looks, if a roll-out is running.
    pub(super) async fn take(app: &App) -> Result<Option<Self>> {
        let now = app.now();
        let mut tx = app.db.begin_snapshot().await?;
        let running = rollouts::find_active(&mut tx).await?;
        let Some(rollout) = running.filter(Rollout::is_running) else {
            return Ok(None);
        };
        let Some(split) = rollouts::find_split(&mut tx).await? else {
            return Ok(None);
        };
        let parts = config_parts::load_for_nodes(&mut tx).await?;
        let facts = node_lists::facts(&mut tx).await?;
        let nodes = rollout_nodes::list(&mut tx, rollout.id).await?;
        let since = now - app.settings.rollouts.online_within();
        let seen = rollout_nodes::list_seen_since(&mut tx, since).await?;
        let states = states(&parts, &nodes, &facts);
        let fetched: Vec<_> = states
            .iter()
            .filter_map(|state| Some((state.node, state.fetched_at?)))
            .collect();
        let look_back = Plan::look_back(&parts);
        let complaints = rollout_nodes::complaints(&mut tx, &fetched, look_back, now).await?;
        Db::roll_back(tx).await?;
        let all = facts.iter().map(|(id, facts)| (*id, facts));
        let concerned = changed_nodes(Move::all(&split.base, &parts, all));
        let mut look = Self {
            fetched: nodes
                .iter()
                .zip(&states)
                .filter(|(node, _)| node.fetched_at.is_none())
                .filter_map(|(_, state)| Some((state.node, state.fetched_at?)))
                .collect(),
            newcomers: Vec::new(),
            verdict: Verdict::Wait,
            rollout,
            nodes,
            concerned,
            seen,
        };
        look.newcomers = look.find_newcomers();
        let watched = look.watched(&states, complaints);
        let limits = app.settings.rollouts.limits();
        look.verdict = judge(&watched, &look.present(), &limits, now);
        Ok(Some(look))
    }

    /// Who is inside when this stage is measured now; none: there is no such stage.
    pub(super) fn measure(&self, stage: i16) -> Option<Inside> {
        let share = usize::try_from(stage)
            .ok()
            .and_then(|stage| self.rollout.shares.get(stage))?;
        let (id, least) = (self.rollout.id, self.rollout.threshold);
        Some(inside(id, &self.concerned, &self.seen, *share, least))
    }

    fn present(&self) -> Present {
        let stage = self.rollout.stage;
        let wider = self.measure(stage).map_or(0, |measured| {
            let joins = |(node, counted): &&(NodeId, bool)| *counted && !self.is_inside(*node);
            measured.nodes.iter().filter(joins).count()
        });
        Present {
            number: stage,
            started_at: self.rollout.stage_started_at,
            others: wider,
        }
    }

    fn is_inside(&self, node: NodeId) -> bool {
        position(self.rollout.id, node) <= self.rollout.threshold
    }

    fn find_newcomers(&self) -> Vec<NodeId> {
        let known: HashSet<NodeId> = (self.nodes.iter().map(|node| NodeId(node.node_id))).collect();
        let mut found = self.concerned.clone();
        found.retain(|node| {
            self.is_inside(*node) && self.seen.contains(node) && !known.contains(node)
        });
        found
    }

    fn watched(
        &self,
        states: &[State],
        mut complaints: HashMap<NodeId, Complaints>,
    ) -> Vec<Watched> {
        let watched = self.nodes.iter().zip(states).map(|(node, state)| {
            let said = complaints.remove(&state.node).unwrap_or_default();
            Watched {
                node: state.node,
                stage: node.stage,
                counted: node.counted,
                is_new: node.first_enrolled_at > self.rollout.started_at,
                fetched_at: state.fetched_at,
                runs: state.runs,
                last_seen_at: node.last_seen_at,
                results_at: node.results_at,
                newly_denylisted: node.newly_denylisted.clone(),
                errors_before: u32::try_from(node.errors_before).unwrap_or(0),
                errors_after: u32::try_from(said.errors).unwrap_or(0),
                complaints: said.messages,
            }
        });
        watched.collect()
    }
}

/// How far a node is.
struct State {
    node: NodeId,
    fetched_at: Option<DateTime<Utc>>,
    runs: bool,
}

fn states(parts: &Parts, nodes: &[NodeProgress], facts: &[(NodeId, NodeFacts)]) -> Vec<State> {
    let facts: HashMap<NodeId, &NodeFacts> = facts.iter().map(|(id, facts)| (*id, facts)).collect();
    let mut documents = Documents::new(parts);
    let states = nodes.iter().map(|node| {
        let id = NodeId(node.node_id);
        let (has, runs) = documents.has_and_runs(node, facts.get(&id).copied());
        let fetched_at = if has {
            node.document_at.map(|at| at.max(node.added_at))
        } else {
            // It says that it runs it, and the note of what it fetched got lost.
            runs.then_some(node.added_at)
        };
        State {
            node: id,
            fetched_at: node.fetched_at.or(fetched_at),
            runs,
        }
    });
    states.collect()
}

/// The documents that nodes should have, assembled once per selection.
struct Documents<'p> {
    parts: &'p Parts,
    known: HashMap<Selection, (Vec<u8>, [u8; 32])>,
    runs: HashMap<(Selection, String), bool>,
}

impl<'p> Documents<'p> {
    fn new(parts: &'p Parts) -> Self {
        Self {
            parts,
            known: HashMap::new(),
            runs: HashMap::new(),
        }
    }

    /// Has it fetched its document, and does it say that it runs it?
    fn has_and_runs(&mut self, node: &NodeProgress, facts: Option<&NodeFacts>) -> (bool, bool) {
        let Some(facts) = facts else {
            return (false, false);
        };
        let selection = self.parts.select(facts);
        let (bytes, hash) = self.known.entry(selection.clone()).or_insert_with(|| {
            let bytes = to_bytes(&self.parts.assemble_selection(&selection));
            let hash = Sha256::digest(&bytes).into();
            (bytes, hash)
        });
        let has = node.document_hash.as_deref() == Some(hash.as_slice());
        let runs = *(self.runs)
            .entry((selection, node.config_hash.clone()))
            .or_insert_with(|| is_run_by(bytes, &node.config_hash));
        (has, runs)
    }
}
