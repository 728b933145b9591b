//! Facts about nodes that nobody reports but that follow from what is missing: offline, silent. Each is noted once until the node is
//! back, together with the pending work by which rules see it.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::HealthLimits;

use crate::{Conn, Result};

/// A node that became quiet.
#[derive(Debug, Clone)]
pub struct Quiet {
    /// Which.
    pub node_id: NodeId,
    /// Its last authenticated request.
    pub last_seen_at: DateTime<Utc>,
    /// When it last proved that its schedule runs.
    pub results_at: Option<DateTime<Utc>>,
    /// Its latest enrollment.
    pub enrolled_at: DateTime<Utc>,
}

/// Notes nodes as offline that have not checked in for too long, and were not noted before. At most `limit` at a time. A restored
/// backup knows no check-ins since it was made, so after a restore every node is given its time anew.
///
/// # Errors
/// Postgres failed.
pub async fn note_offline(
    conn: &mut Conn,
    limits: &HealthLimits,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Quiet>> {
    let rows = sqlx::query!(
        r#"
        WITH quiet AS (
            SELECT n.id, c.last_seen_at, c.results_at
            FROM nodes n JOIN node_checkins c ON c.node_id = n.id
            WHERE c.last_seen_at < $1 AND n.offline_noted_at IS NULL AND n.disabled_at IS NULL
              AND NOT EXISTS (SELECT FROM restores WHERE restored_at > $1)
            LIMIT $3 FOR NO KEY UPDATE OF n SKIP LOCKED
        )
        UPDATE nodes n SET offline_noted_at = $2 FROM quiet WHERE n.id = quiet.id
        RETURNING n.id, quiet.last_seen_at AS "last_seen_at!", quiet.results_at, n.enrolled_at
        "#,
        now - limits.offline_after,
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Quiet {
            node_id: NodeId(row.id),
            last_seen_at: row.last_seen_at,
            results_at: row.results_at,
            enrolled_at: row.enrolled_at,
        })
        .collect())
}

/// Notes nodes as silent that check in, but whose results have been missing for too long, and were not noted before.
/// After a restore every node is given its time anew.
///
/// # Errors
/// Postgres failed.
pub async fn note_silent(
    conn: &mut Conn,
    limits: &HealthLimits,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Quiet>> {
    let rows = sqlx::query!(
        r#"
        WITH quiet AS (
            SELECT n.id, c.last_seen_at, c.results_at
            FROM nodes n JOIN node_checkins c ON c.node_id = n.id
            WHERE c.last_seen_at >= $1 AND greatest(c.results_at, n.enrolled_at) < $2
              AND n.silent_noted_at IS NULL AND n.disabled_at IS NULL
              AND NOT EXISTS (SELECT FROM restores WHERE restored_at > $2)
            LIMIT $4 FOR NO KEY UPDATE OF n SKIP LOCKED
        )
        UPDATE nodes n SET silent_noted_at = $3 FROM quiet WHERE n.id = quiet.id
        RETURNING n.id, quiet.last_seen_at AS "last_seen_at!", quiet.results_at, n.enrolled_at
        "#,
        now - limits.offline_after,
        now - limits.silent_after,
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Quiet {
            node_id: NodeId(row.id),
            last_seen_at: row.last_seen_at,
            results_at: row.results_at,
            enrolled_at: row.enrolled_at,
        })
        .collect())
}

/// Takes the notes back from nodes that are back.
///
/// # Errors
/// Postgres failed.
pub async fn clear_notes(conn: &mut Conn, limits: &HealthLimits, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        r#"
        UPDATE nodes n SET offline_noted_at = NULL FROM node_checkins c
        WHERE c.node_id = n.id AND n.offline_noted_at IS NOT NULL AND c.last_seen_at >= $1
        "#,
        now - limits.offline_after
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        UPDATE nodes n SET silent_noted_at = NULL FROM node_checkins c
        WHERE c.node_id = n.id AND n.silent_noted_at IS NOT NULL AND greatest(c.results_at, n.enrolled_at) >= $1
        "#,
        now - limits.silent_after
    )
    .execute(conn)
    .await?;
    Ok(())
}
