//! How long findings are kept, and what is noted of those that a silence kept quiet.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::FindingId;

use super::By;
use super::entries::{Entry, EntryKind, insert_entry};
use crate::{Conn, Result};

/// Deletes findings that were resolved before `before`, and those that nobody resolved and that last matched before it, with their
/// matches, timelines, alerts and deliveries; at most `limit`, and gives how many. What holds until it recovers stays, however old: a rule
/// on present rows does not match again while they stay.
///
/// # Errors
/// Postgres failed.
pub async fn delete_old(conn: &mut Conn, before: DateTime<Utc>, limit: i64) -> Result<u64> {
    let gone = sqlx::query!(
        r#"
        DELETE FROM findings WHERE id IN (
            SELECT id FROM findings f
            WHERE (state = 'resolved' AND resolved_at < $1)
                OR (state <> 'resolved' AND last_matched_at < $1 AND NOT EXISTS (
                    SELECT FROM rules r WHERE r.id = f.rule_id AND r.enabled AND r.watch IN ('present', 'absence')))
            LIMIT $2 FOR UPDATE SKIP LOCKED)
        "#,
        before,
        limit
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

/// Deletes silences that were over before `before`.
///
/// # Errors
/// Postgres failed.
pub async fn delete_old_silences(conn: &mut Conn, before: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "DELETE FROM silences WHERE least(ends_at, ended_at) < $1",
        before
    )
    .execute(conn)
    .await?;
    Ok(())
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
