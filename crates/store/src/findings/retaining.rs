//! How long findings are kept, and what is noted of those that a silence kept quiet.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::FindingId;

use super::By;
use super::entries::{Entry, EntryKind, insert_entry};
use crate::{Conn, Result};

/// Deletes findings that were resolved before `before`, with their matches, timelines, alerts and deliveries, at most `limit`; gives how
/// many. What is not resolved stays, however old.
///
/// # Errors
/// Postgres failed.
pub async fn delete_old(conn: &mut Conn, before: DateTime<Utc>, limit: i64) -> Result<u64> {
    let gone = sqlx::query!(
        r#"
        DELETE FROM findings WHERE id IN (
            SELECT id FROM findings WHERE state = 'resolved' AND resolved_at < $1 ORDER BY resolved_at LIMIT $2
            FOR UPDATE SKIP LOCKED)
        "#,
        before,
        limit
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

/// A finding that was opened silently has matched again, and no silence covers it any more: from now on it counts as told.
///
/// # Errors
/// Postgres failed.
pub async fn unsilence(conn: &mut Conn, id: FindingId, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!("UPDATE findings SET silence_id = NULL WHERE id = $1", id.0)
        .execute(&mut *conn)
        .await?;
    let entry = Entry {
        finding_id: id,
        at: now,
        kind: EntryKind::Unsilenced,
        by: By::RULE,
        text: "",
        columns: None,
    };
    insert_entry(conn, &entry).await
}
