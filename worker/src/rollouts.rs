//! Moving staged roll-outs on, as part of the sweep: who has taken the change up, who is in trouble, and what follows from it. The
//! decision itself is `domain::rollout`'s.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::{Parts, Selection, is_run_by, to_bytes};
use ostiary_domain::rollout::{Kind, Trouble, Verdict, Watched, changed_nodes, inside, judge};
use ostiary_store::rollouts::{self, Complaints, NodeProgress, Rollout, Stage};
use ostiary_store::{Conn, Db, Result, config_parts, config_revisions, node_lists, pending};
use sha2::{Digest as _, Sha256};

use crate::App;
use crate::facts::{CONFIG_NOT_TAKEN_UP, ROLLOUT_HALTED, rollout_fact};

/// Nodes that are named in the reason of a halt, and of which rules hear.
const NAMED: usize = 5;
const TOLD: usize = 100;

/// Ended roll-outs are kept this long.
const KEEP_ENDED: TimeDelta = TimeDelta::days(180);

/// Looks at the roll-out that is under way, if there is one.
pub(crate) async fn advance(app: &App) -> Result<()> {
    let running = rollouts::find_active(&mut *app.db.acquire().await?).await?;
    if !running.is_some_and(|rollout| rollout.is_running()) {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    // Taken before anything else, as every change of configs does: then neither waits for the other in a circle.
    config_revisions::lock(&mut tx).await?;
    if let Some(rollout) = rollouts::lock_active(&mut tx).await?
        && rollout.is_running()
    {
        look_at(app, &mut tx, &rollout).await?;
    }
    Db::commit(tx).await
}

/// Deletes what is past its time.
pub(crate) async fn prune(app: &App) -> Result<()> {
    let mut conn = app.db.acquire().await?;
    rollouts::delete_ended(&mut conn, app.now() - KEEP_ENDED).await?;
    config_revisions::delete_old(&mut conn, app.settings.rollouts.keep_revisions.max(1)).await?;
    Ok(())
}

async fn look_at(app: &App, conn: &mut Conn, rollout: &Rollout) -> Result<()> {
    let now = app.now();
    let parts = config_parts::load_for_nodes(conn).await?;
    let facts: HashMap<NodeId, NodeFacts> = node_lists::facts(conn).await?.into_iter().collect();
    let nodes = rollouts::list_nodes(conn, rollout.id).await?;
    let mut documents = Documents::new(&parts);
    let have: Vec<(bool, bool)> = nodes
        .iter()
        .map(|node| documents.has_and_runs(node, facts.get(&NodeId(node.node_id))))
        .collect();
    let new: Vec<NodeId> = nodes
        .iter()
        .zip(&have)
        .filter(|(node, (has, _))| *has && node.fetched_at.is_none())
        .map(|(node, _)| NodeId(node.node_id))
        .collect();
    if !new.is_empty() {
        rollouts::note_fetched(conn, rollout.id, &new, now).await?;
    }
    let mut complaints = rollouts::complaints(conn, rollout.id, now).await?;
    let watched: Vec<Watched> = nodes
        .iter()
        .zip(&have)
        .map(|(node, have)| {
            let said = complaints.remove(&NodeId(node.node_id)).unwrap_or_default();
            watch(node, *have, said, now)
        })
        .collect();
    let limits = app.settings.rollouts.limits();
    match judge(
        &watched,
        rollout.stage,
        rollout.stage_started_at,
        &limits,
        now,
    ) {
        Verdict::Wait => Ok(()),
        Verdict::Go => go_on(app, conn, rollout, &parts, &facts).await,
        Verdict::Halt(troubles) => halt(conn, rollout, &nodes, &troubles, now).await,
    }
}

fn watch(
    node: &NodeProgress,
    (has, runs): (bool, bool),
    said: Complaints,
    now: DateTime<Utc>,
) -> Watched {
    Watched {
        node: NodeId(node.node_id),
        stage: node.stage,
        counted: node.counted,
        fetched_at: node.fetched_at.or(has.then_some(now)),
        runs,
        last_seen_at: node.last_seen_at,
        results_at: node.results_at,
        newly_denylisted: node.newly_denylisted.clone(),
        errors_before: u32::try_from(node.errors_before).unwrap_or(0),
        errors_after: u32::try_from(said.errors).unwrap_or(0),
        complaints: said.messages,
    }
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
        (has || runs, runs)
    }
}

async fn go_on(
    app: &App,
    conn: &mut Conn,
    rollout: &Rollout,
    parts: &Parts,
    facts: &HashMap<NodeId, NodeFacts>,
) -> Result<()> {
    let now = app.now();
    let next = rollout.stage + 1;
    let share = usize::try_from(next)
        .ok()
        .and_then(|next| rollout.shares.get(next));
    let (Some(share), Some(split)) = (share, rollouts::find_split(conn).await?) else {
        tracing::info!(rollout.id = %rollout.id, "the roll-out is finished");
        return rollouts::end(conn, rollout.id, false, now).await;
    };
    let concerned = changed_nodes(
        &split.base,
        parts,
        facts.iter().map(|(id, facts)| (*id, facts)),
    );
    let since = now - app.settings.rollouts.online_within();
    let seen: HashSet<NodeId> = rollouts::list_seen_since(conn, since).await?;
    let inside = inside(rollout.id, &concerned, &seen, *share);
    let stage = Stage {
        number: next,
        threshold: inside.threshold.max(rollout.threshold),
        revision: rollout.revision,
    };
    tracing::info!(rollout.id = %rollout.id, stage = next, nodes = inside.nodes.len(), "the roll-out goes on");
    rollouts::begin_stage(conn, rollout.id, stage, now).await?;
    rollouts::add_nodes(conn, rollout.id, next, &inside.nodes, now).await
}

async fn halt(
    conn: &mut Conn,
    rollout: &Rollout,
    nodes: &[NodeProgress],
    troubles: &[Trouble],
    now: DateTime<Utc>,
) -> Result<()> {
    let names: HashMap<NodeId, &str> = nodes
        .iter()
        .map(|node| (NodeId(node.node_id), node.name.as_str()))
        .collect();
    let name = |trouble: &Trouble| names.get(&trouble.node).copied().unwrap_or_default();
    let mut reasons: Vec<String> = troubles
        .iter()
        .take(NAMED)
        .map(|trouble| format!("{}: {}", name(trouble), trouble.text))
        .collect();
    if troubles.len() > NAMED {
        reasons.push(format!("and {} more", troubles.len() - NAMED));
    }
    let reason = reasons.join("\n");
    tracing::warn!(rollout.id = %rollout.id, reason, "the roll-out is halted");
    rollouts::halt(conn, rollout.id, &reason).await?;
    let texts: Vec<(NodeId, &str)> = troubles
        .iter()
        .map(|trouble| (trouble.node, trouble.text.as_str()))
        .collect();
    rollouts::note_troubles(conn, rollout.id, &texts).await?;
    for trouble in troubles.iter().take(TOLD) {
        let fact = if trouble.kind == Kind::NotTakenUp {
            CONFIG_NOT_TAKEN_UP
        } else {
            ROLLOUT_HALTED
        };
        let fact = rollout_fact(fact, rollout, &trouble.text);
        pending::insert_fact(conn, trouble.node, &fact, now).await?;
    }
    Ok(())
}
