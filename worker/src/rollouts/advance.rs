//! What follows from a look at a roll-out: on to the next stage, halted, or done.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::fact;
use ostiary_domain::ids::NodeId;
use ostiary_domain::rollout::{Inside, Kind, Trouble, Verdict};
use ostiary_store::rollout_nodes::{self, NodeProgress};
use ostiary_store::rollouts::{self, Rollout, Stage};
use ostiary_store::{Conn, Db, Result, config_revisions, pending};
use serde_json::json;

use super::look::Look;
use crate::App;

/// Nodes that are named in the reason of a halt, and of which rules hear.
const NAMED: usize = 5;
const TOLD: usize = 100;

/// Ended roll-outs are kept this long.
const KEEP_ENDED: TimeDelta = TimeDelta::days(180);

/// Looks at the roll-out that is under way, if there is one, and does what follows.
pub(crate) async fn advance(app: &App) -> Result<()> {
    let Some(look) = Look::take(app).await? else {
        return Ok(());
    };
    let has_news = !look.fetched.is_empty() || !look.newcomers.is_empty();
    if !has_news && look.verdict == Verdict::Wait {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    // Taken before anything else, as every change of configs does: then neither waits for the other in a circle.
    config_revisions::lock(&mut tx).await?;
    if rollouts::lock_active(&mut tx).await?.as_ref() != Some(&look.rollout) {
        // Somebody has steered or changed it meanwhile: the next sweep looks again.
        return Ok(());
    }
    carry_out(&mut tx, &look, app.now()).await?;
    Db::commit(tx).await
}

/// Deletes what is past its time.
pub(crate) async fn prune(app: &App) -> Result<()> {
    let mut conn = app.db.acquire().await?;
    rollouts::delete_ended(&mut conn, app.now() - KEEP_ENDED).await?;
    config_revisions::delete_old(&mut conn, app.settings.rollouts.keep_revisions.max(1)).await?;
    Ok(())
}

async fn carry_out(conn: &mut Conn, look: &Look, now: DateTime<Utc>) -> Result<()> {
    let rollout = &look.rollout;
    if !look.fetched.is_empty() {
        rollout_nodes::note_fetched(conn, rollout.id, &look.fetched).await?;
    }
    if !look.newcomers.is_empty() {
        // Watched from now on, and not waited for: others may come every day.
        let new: Vec<_> = look.newcomers.iter().map(|node| (*node, false)).collect();
        rollout_nodes::add(conn, rollout.id, rollout.stage, &new, now).await?;
    }
    match &look.verdict {
        Verdict::Wait => Ok(()),
        Verdict::Widen => match look.measure(rollout.stage) {
            Some(inside) => begin_stage(conn, rollout, rollout.stage, &inside, now).await,
            None => Ok(()),
        },
        Verdict::Go => match look.measure(rollout.stage + 1) {
            Some(inside) => begin_stage(conn, rollout, rollout.stage + 1, &inside, now).await,
            None => {
                tracing::info!(rollout.id = %rollout.id, "the roll-out is finished");
                rollouts::end(conn, rollout.id, false, now).await
            }
        },
        Verdict::Halt(troubles) => halt(conn, rollout, &look.nodes, troubles, now).await,
    }
}

async fn begin_stage(
    conn: &mut Conn,
    rollout: &Rollout,
    number: i16,
    inside: &Inside,
    now: DateTime<Utc>,
) -> Result<()> {
    let stage = Stage {
        number,
        threshold: inside.threshold,
        revision: rollout.revision,
    };
    tracing::info!(rollout.id = %rollout.id, stage = number, nodes = inside.nodes.len(), "the roll-out goes on");
    rollouts::begin_stage(conn, rollout.id, stage, now).await?;
    rollout_nodes::add(conn, rollout.id, number, &inside.nodes, now).await
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
    rollout_nodes::note_troubles(conn, rollout.id, &texts).await?;
    for trouble in troubles.iter().take(TOLD) {
        let kind = if trouble.kind == Kind::NotTakenUp {
            &fact::CONFIG_NOT_TAKEN_UP
        } else {
            &fact::ROLLOUT_HALTED
        };
        let fact = kind.noted(json!({
            "reason": trouble.text, "rollout_id": rollout.id, "revision": rollout.revision,
            "base_revision": rollout.base_revision, "stage": rollout.stage + 1,
        }));
        pending::insert_fact(conn, trouble.node, &fact, now).await?;
    }
    Ok(())
}
