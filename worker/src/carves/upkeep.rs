//! Carves that nobody rings for: given up, explained by later results, deleted.

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt as _;
use ostiary_domain::carve::carve_row;
use ostiary_domain::fact;
use ostiary_domain::ids::CarveId;
use ostiary_store::{Conn, Db, Result, backups, carve_upkeep, pending};
use serde_json::json;

use crate::App;

/// How long results of live queries are searched for who asked for a carve.
const EXPLAIN_FOR: TimeDelta = TimeDelta::days(1);
const EXPLAIN_AT_ONCE: i64 = 100;

/// Carves deleted in one turn.
const DELETE_AT_ONCE: i64 = 100;

/// Gives up carves that wait for blocks in vain, and ends sessions that are of no use any more.
pub(crate) async fn give_up(app: &App) -> Result<()> {
    let now = app.now();
    let before = now - app.settings.carves.timeout();
    let mut tx = app.db.begin().await?;
    let expired = carve_upkeep::expire(&mut tx, before, now).await?;
    for id in &expired {
        note_done(app, &mut tx, *id).await?;
    }
    carve_upkeep::end_sessions(&mut tx, before).await?;
    Db::commit(tx).await?;
    for id in expired {
        tracing::info!(carve.id = %id, "a carve is given up: blocks never came");
        metrics::counter!("ostiary_carves_expired_total").increment(1);
    }
    Ok(())
}

/// Tells rules that a carve has ended, in the transaction that ended it.
pub(super) async fn note_done(app: &App, conn: &mut Conn, id: CarveId) -> Result<()> {
    let Some(ended) = carve_upkeep::find_ended(conn, id).await? else {
        return Ok(());
    };
    let fact = fact::CARVE_DONE.noted(json!({
        "carve_id": id, "state": ended.state, "path": ended.path, "files": ended.file_count, "bytes": ended.carve_size,
        "sha256": ended.sha256, "problem": ended.problem,
    }));
    pending::insert_fact(conn, ended.node_id, &fact, app.now()).await?;
    Ok(())
}

/// Finds who asked for carves, and what SHA-256 their nodes give them: a result of a live query names both. That somebody has looked is
/// noted last: to look twice does no harm.
pub(crate) async fn explain(app: &App) -> Result<()> {
    let (mut conn, now) = (app.db.acquire().await?, app.now());
    let since = now - EXPLAIN_FOR;
    for carve in carve_upkeep::list_unexplained(&mut conn, since, EXPLAIN_AT_ONCE).await? {
        for (live_query, rows) in carve_upkeep::list_mentions(&mut conn, &carve).await? {
            let Some(row) = carve_row(&rows, &carve.carve_id) else {
                continue;
            };
            let asker = row.is_asked_for.then_some(live_query);
            let sha256 = row.sha256.as_deref();
            carve_upkeep::explain(&mut conn, carve.id, asker, &row.path, sha256).await?;
        }
        carve_upkeep::note_looked(&mut conn, carve.id, now).await?;
    }
    Ok(())
}

/// Clears the storage of what was begun and never finished, by processes that were killed meanwhile.
pub(crate) async fn clear_left_over(app: &App) {
    // Whoever collects no files need have no storage.
    if !app.settings.carves.enabled {
        return;
    }
    let cleared = match app.blobs() {
        Ok(blobs) => blobs.clear_left_over(app.now()).await,
        Err(error) => Err(error),
    };
    match cleared {
        Ok(0) => {}
        Ok(cleared) => tracing::info!(cleared, "unfinished objects are cleared away"),
        Err(error) => tracing::warn!(%error, "unfinished objects cannot be cleared away yet"),
    }
}

/// Deletes carves that are past their time, or whose node is gone: first the object, so that none is forgotten.
pub(crate) async fn delete_old(app: &App) -> Result<()> {
    let before = app.now() - app.settings.carves.keep();
    let mut conn = app.db.acquire().await?;
    let old = carve_upkeep::list_old(&mut conn, before, DELETE_AT_ONCE).await?;
    drop(conn);
    if old.is_empty() {
        return Ok(());
    }
    let blobs = match app.blobs() {
        Ok(blobs) => blobs,
        Err(error) => {
            tracing::warn!(%error, "old carves cannot be deleted");
            return Ok(());
        }
    };
    for id in old {
        if let Err(error) = blobs.delete(id.0).await {
            tracing::warn!(carve.id = %id, %error, "an old carve cannot be deleted yet");
            continue;
        }
        let mut conn = app.db.acquire().await?;
        carve_upkeep::delete(&mut conn, id).await?;
        tracing::info!(carve.id = %id, "a carve is deleted: past its time, or its node is gone");
    }
    Ok(())
}

/// Objects looked at in one statement.
const LOOK_AT_ONCE: usize = 1000;

/// Deletes objects that a restored database does not know, if whoever restored it said so: carves that came between the backup and the
/// restore. Some days later only, since a later backup may be restored yet.
pub(crate) async fn delete_orphans(app: &App) -> Result<()> {
    let mut conn = app.db.acquire().await?;
    let before = app.now() - backups::ORPHANS_AFTER;
    let Some(restored_at) = backups::find_uncleared(&mut conn, before).await? else {
        return Ok(());
    };
    drop(conn);
    match clear(app, restored_at).await {
        Ok(()) => {
            let mut conn = app.db.acquire().await?;
            backups::note_cleared(&mut conn, restored_at, app.now()).await
        }
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "carves that nobody knows cannot be deleted yet"
            );
            Ok(())
        }
    }
}

async fn clear(app: &App, restored_at: DateTime<Utc>) -> anyhow::Result<()> {
    let blobs = app.blobs()?;
    let mut objects = blobs.list_before(restored_at).chunks(LOOK_AT_ONCE);
    while let Some(chunk) = objects.next().await {
        let ids = chunk
            .into_iter()
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let mut conn = app.db.acquire().await?;
        let orphans = backups::orphans_among(&mut conn, &ids).await?;
        drop(conn);
        for id in orphans {
            blobs.delete(id).await?;
            tracing::info!(carve.id = %id, "a carve is deleted that came after the backup and before its restore");
        }
    }
    Ok(())
}
