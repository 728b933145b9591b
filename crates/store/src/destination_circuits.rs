//! Destinations that fail: after some failures in a row nothing is tried for a while, then one delivery as a probe.
//!
//! How many and how long is not decided here. A probe is let through by [`take`](crate::deliveries::take).

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::DestinationId;

use crate::{Conn, Result};

/// Notes a failure and gives how many there are in a row now.
///
/// # Errors
/// Postgres failed.
pub async fn note_failure(
    conn: &mut Conn,
    id: DestinationId,
    answer: &str,
    now: DateTime<Utc>,
) -> Result<u32> {
    let failures = sqlx::query_scalar!(
        r#"
        INSERT INTO destination_circuits AS c (destination_id, failures, failing_since, last_answer)
        SELECT id, 1, $2, $3 FROM destinations WHERE id = $1
        ON CONFLICT (destination_id) DO UPDATE SET failures = least(c.failures + 1, 1000000), last_answer = excluded.last_answer
        RETURNING failures
        "#,
        id.0,
        now,
        answer
    )
    .fetch_optional(conn)
    .await?;
    Ok(failures.unwrap_or(0).unsigned_abs())
}

/// Pauses a destination that fails.
///
/// # Errors
/// Postgres failed.
pub async fn pause(
    conn: &mut Conn,
    id: DestinationId,
    pause: TimeDelta,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE destination_circuits SET paused_until = $2 WHERE destination_id = $1",
        id.0,
        now + pause
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that a destination works, or that somebody wants it tried at once.
///
/// # Errors
/// Postgres failed.
pub async fn close(conn: &mut Conn, id: DestinationId) -> Result<bool> {
    let done = sqlx::query!(
        "DELETE FROM destination_circuits WHERE destination_id = $1",
        id.0
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}
