//! Deliveries that are sent again by people, and forgotten when their time is over.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{DeliveryId, DestinationId};
use uuid::Uuid;

use crate::{Conn, Result};

/// Has a delivery sent again that was given up or left out, and gives its destination; `None` if it is neither. What it tried before is
/// forgiven.
///
/// # Errors
/// Postgres failed.
pub async fn send_again(
    conn: &mut Conn,
    id: DeliveryId,
    now: DateTime<Utc>,
) -> Result<Option<DestinationId>> {
    let destination = sqlx::query_scalar!(
        r#"
        UPDATE deliveries
        SET state = 'waiting', due_at = $2, finished_at = NULL, forgiven_attempts = attempts, rejections = 0
        WHERE id = $1 AND state IN ('dead', 'skipped') AND destination_id IS NOT NULL
        RETURNING destination_id AS "destination_id!"
        "#,
        id.0,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(destination.map(DestinationId))
}

/// Has all deliveries of a destination sent again that were given up; gives their number.
///
/// # Errors
/// Postgres failed.
pub async fn send_dead_again(
    conn: &mut Conn,
    id: DestinationId,
    now: DateTime<Utc>,
) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        UPDATE deliveries
        SET state = 'waiting', due_at = $2, finished_at = NULL, forgiven_attempts = attempts, rejections = 0
        WHERE destination_id = $1 AND state = 'dead'
        "#,
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// The alerts that were for a destination since a time, whatever became of them, but not those that still wait; in the order in
/// which they were recorded.
///
/// # Errors
/// Postgres failed.
pub async fn list_alerts_since(
    conn: &mut Conn,
    id: DestinationId,
    since: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT a.id FROM alerts a
        WHERE a.created_at >= $2
            AND EXISTS (SELECT FROM deliveries d WHERE d.alert_id = a.id AND d.destination_id = $1)
            AND NOT EXISTS (SELECT FROM deliveries d WHERE d.alert_id = a.id AND d.destination_id = $1 AND d.state = 'waiting')
        ORDER BY a.created_at, a.id
        LIMIT $3
        "#,
        id.0,
        since,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// Forgets, up to `limit` at a time, deliveries that ended before `before` and whose finding is resolved; those of a finding that is
/// open say who is to be told of its end. Gives their number.
///
/// # Errors
/// Postgres failed.
pub async fn delete_old(conn: &mut Conn, before: DateTime<Utc>, limit: i64) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        DELETE FROM deliveries WHERE id IN (
            SELECT d.id FROM deliveries d JOIN findings f ON f.id = d.finding_id
            WHERE d.created_at < $1 AND d.finished_at < $1 AND f.state = 'resolved'
            ORDER BY d.created_at LIMIT $2)
        "#,
        before,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets, up to `limit` at a time, attempts that were made before `before`. Gives their number.
///
/// # Errors
/// Postgres failed.
pub async fn delete_old_attempts(
    conn: &mut Conn,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        DELETE FROM delivery_attempts WHERE id IN (
            SELECT id FROM delivery_attempts WHERE started_at < $1 ORDER BY started_at LIMIT $2)
        "#,
        before,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets what pagers' webhooks told before `before`.
///
/// # Errors
/// Postgres failed.
pub async fn delete_old_events(conn: &mut Conn, before: DateTime<Utc>) -> Result<()> {
    sqlx::query!("DELETE FROM pager_events WHERE received_at < $1", before)
        .execute(conn)
        .await?;
    Ok(())
}
