//! Steering a staged roll-out by hand: halting it, letting it go on, finishing it at once, taking it back.

use ostiary_store::rollouts::{self, Rollout, Stage};
use ostiary_store::{Conn, Db, Tx, config_revisions, rollout_nodes};
use serde_json::json;
use uuid::Uuid;

use super::audit::{Change, record};
use super::config_change::{ConfigChange, Saving};
use crate::auth::{Edit, Permit};
use crate::error::{Error, Result};
use crate::state::App;

/// Halts a roll-out: no further node gets the change, those that have it keep it.
///
/// # Errors
/// [`Error::NotFound`], or [`Error::Refused`] when it is not running.
pub async fn halt(app: &App, permit: &Permit<Edit>, id: Uuid) -> Result<()> {
    let (mut tx, rollout) = active(app, id).await?;
    if !rollout.is_running() {
        return Err(Error::Refused("It is halted already.".to_owned()));
    }
    let reason = format!("{} halted it.", permit.actor().name);
    rollouts::halt(&mut tx, id, &reason).await?;
    note(app, &mut tx, permit, &rollout, "rollouts.halt").await?;
    Ok(Db::commit(tx).await?)
}

/// Lets a halted roll-out go on with its present stage, whose time begins anew. What halted it is forgotten.
///
/// # Errors
/// [`Error::NotFound`], or [`Error::Refused`] when it is not halted.
pub async fn resume(app: &App, permit: &Permit<Edit>, id: Uuid) -> Result<()> {
    let (mut tx, rollout) = active(app, id).await?;
    if rollout.is_running() {
        return Err(Error::Refused("It is running already.".to_owned()));
    }
    let nodes: Vec<_> = rollout_nodes::list(&mut tx, id)
        .await?
        .iter()
        .map(|node| (node.node_id.into(), node.stage, node.counted))
        .collect();
    // Noted anew: what is denylisted or logged by now is how things are before.
    rollout_nodes::clear(&mut tx, id).await?;
    for stage in 0..=rollout.stage {
        let of_stage: Vec<_> = nodes
            .iter()
            .filter(|(_, of, _)| *of == stage)
            .map(|(node, _, counted)| (*node, *counted))
            .collect();
        rollout_nodes::add(&mut tx, id, stage, &of_stage, app.now()).await?;
    }
    let stage = Stage {
        number: rollout.stage,
        threshold: rollout.threshold,
        revision: rollout.revision,
    };
    rollouts::begin_stage(&mut tx, id, stage, app.now()).await?;
    note(app, &mut tx, permit, &rollout, "rollouts.resume").await?;
    Ok(Db::commit(tx).await?)
}

/// Gives the change to all nodes now.
///
/// # Errors
/// [`Error::NotFound`], or [`Error::Refused`] when it is over.
pub async fn finish(app: &App, permit: &Permit<Edit>, id: Uuid) -> Result<()> {
    let (mut tx, rollout) = active(app, id).await?;
    rollouts::end(&mut tx, id, false, app.now()).await?;
    note(app, &mut tx, permit, &rollout, "rollouts.finish").await?;
    Ok(Db::commit(tx).await?)
}

/// Takes the change back: all config objects become what they were before the roll-out, changes that joined it included. Gives the
/// new revision.
///
/// # Errors
/// As [`super::revisions::return_to`], and [`Error::Refused`] when it is over: that would undo whatever was changed since.
pub async fn take_back(app: &App, permit: &Permit<Edit>, id: Uuid, saving: &Saving) -> Result<i64> {
    let mut tx = ConfigChange::begin(app).await?;
    let rollout = rollouts::find(&mut tx, id).await?.ok_or(Error::NotFound)?;
    if rollout.ended_at.is_some() {
        return Err(Error::Refused("This roll-out is over.".to_owned()));
    }
    super::revisions::return_in(app, permit, tx, rollout.base_revision, saving).await
}

/// The roll-out, with the turn to change configs.
async fn active(app: &App, id: Uuid) -> Result<(Tx, Rollout)> {
    let mut tx = app.db.begin().await?;
    config_revisions::lock(&mut tx).await?;
    match rollouts::lock_active(&mut tx).await? {
        Some(rollout) if rollout.id == id => Ok((tx, rollout)),
        _ if rollouts::find(&mut tx, id).await?.is_none() => Err(Error::NotFound),
        _ => Err(Error::Refused("This roll-out is over.".to_owned())),
    }
}

async fn note(
    app: &App,
    conn: &mut Conn,
    permit: &Permit<Edit>,
    rollout: &Rollout,
    action: &str,
) -> Result<()> {
    let name = format!("revision {}", rollout.revision);
    let change = Change {
        action,
        kind: "rollout",
        id: rollout.id.to_string(),
        name: &name,
        before: Some(
            json!({"state": rollout.state, "stage": rollout.stage, "reason": rollout.reason}),
        ),
        after: None,
    };
    Ok(record(app, conn, permit, change).await?)
}
