//! What the operator's backups and restores change in the database, apart from the dump itself.

use chrono::{DateTime, Utc};
use ostiary_boot::clock::new_id;
use ostiary_store::Db;
use ostiary_store::backups::{self, Backup, Settled};
use serde_json::json;

use super::audit::{Change, record};
use super::resync::bump_schedule_epoch;
use super::sql_check::look_at_all;
use crate::auth::{Admin, Permit};
use crate::error::Result;
use crate::state::App;

/// Notes a backup that is complete. It is not in itself.
///
/// # Errors
/// Postgres failed.
pub async fn note_made(app: &App, permit: &Permit<Admin>, backup: &Backup) -> Result<()> {
    let mut tx = app.db.begin().await?;
    backups::insert(&mut tx, new_id(), backup).await?;
    let change = Change {
        action: "backups.make",
        kind: "backup",
        name: &backup.file,
        after: Some(
            json!({"made_at": backup.made_at, "bytes": backup.bytes, "encrypted": backup.encrypted}),
        ),
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Ok(Db::commit(tx).await?)
}

/// What was done to a database that comes from a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What was set right.
    pub settled: Settled,
    /// The epoch in which every node is to send all its rows.
    pub schedule_epoch: u64,
}

/// Makes a restored database fit to meet a fleet that has lived on: see [`backups::settle`]; and every node is asked to send
/// everything again, since the differences that it has told meanwhile are gone. No node is asked to enroll.
///
/// Unless `clear_orphans`, nothing is ever deleted from the storage of carves because this database does not know it: the storage may
/// be that of another installation, of which this one is a copy.
///
/// # Errors
/// Postgres failed.
pub async fn settle_restore(
    app: &App,
    permit: &Permit<Admin>,
    backup_made_at: DateTime<Utc>,
    file: &str,
    clear_orphans: bool,
) -> Result<Restored> {
    let now = app.now();
    let mut tx = app.db.begin().await?;
    let settled = backups::settle(&mut tx, now).await?;
    let schedule_epoch = bump_schedule_epoch(&mut tx, "", now).await?;
    backups::insert_restore(&mut tx, new_id(), now, backup_made_at, schedule_epoch).await?;
    if !clear_orphans {
        backups::note_cleared(&mut tx, now, now).await?;
    }
    look_at_all(&app.sql_checkers, &mut tx, now).await?;
    let after = json!({
        "backup_made_at": backup_made_at, "schedule_epoch": schedule_epoch, "stale_sets": settled.stale_sets,
        "live_queries_cancelled": settled.live_queries, "clear_orphans": clear_orphans,
    });
    let change = Change {
        action: "backups.restore",
        kind: "backup",
        name: file,
        after: Some(after),
        ..Change::default()
    };
    record(app, &mut tx, permit, change).await?;
    Db::commit(tx).await?;
    Ok(Restored {
        settled,
        schedule_epoch,
    })
}
