//! Numbers over the whole fleet, for the first page.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::{Conn, Result};

/// Counts of what comes in and goes out.
#[derive(Debug, Clone, Serialize)]
pub struct Traffic {
    /// Posts and facts that wait for a worker.
    pub pending: i64,
    /// The oldest of them.
    pub oldest_at: Option<DateTime<Utc>>,
    /// Unreadable data since the day began.
    pub unreadable_day: i64,
    /// Nodes enrolled for the first time since the day began.
    pub enrolled_day: i64,
    /// Deliveries given up since the day began.
    pub dead_day: i64,
    /// Deliveries that wait.
    pub waiting: i64,
}

/// Counts of what comes in and goes out, "day" being the 24 hours before `now`.
///
/// # Errors
/// Postgres failed.
pub async fn traffic(conn: &mut Conn, now: DateTime<Utc>) -> Result<Traffic> {
    let day = now - TimeDelta::days(1);
    Ok(sqlx::query_as!(
        Traffic,
        r#"
        SELECT (SELECT count(*) FROM pending) AS "pending!", (SELECT min(received_at) FROM pending) AS oldest_at,
            (SELECT count(*) FROM unreadable WHERE received_at > $1) AS "unreadable_day!",
            (SELECT count(*) FROM nodes WHERE first_enrolled_at > $1) AS "enrolled_day!",
            (SELECT count(*) FROM deliveries WHERE state = 'dead' AND created_at > $1) AS "dead_day!",
            (SELECT count(*) FROM deliveries WHERE state = 'waiting') AS "waiting!"
        "#,
        day
    )
    .fetch_one(conn)
    .await?)
}

/// An enroll secret that will not be taken much longer.
#[derive(Debug, Clone, Serialize)]
pub struct EndingSecret {
    /// Which.
    pub id: uuid::Uuid,
    /// Its name.
    pub name: String,
    /// Refused from then on.
    pub expires_at: DateTime<Utc>,
    /// Nodes that know no other.
    pub nodes: i64,
}

/// Enroll secrets in force that expire before `until`, the first to go first.
///
/// # Errors
/// Postgres failed.
pub async fn ending_secrets(
    conn: &mut Conn,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<EndingSecret>> {
    Ok(sqlx::query_as!(
        EndingSecret,
        r#"
        SELECT s.id, s.name, s.expires_at AS "expires_at!",
            (SELECT count(*) FROM nodes n WHERE n.enroll_secret_id = s.id) AS "nodes!"
        FROM enroll_secrets s
        WHERE s.revoked_at IS NULL AND s.expires_at > $1 AND s.expires_at < $2
        ORDER BY s.expires_at, s.name
        LIMIT 5
        "#,
        now,
        until
    )
    .fetch_all(conn)
    .await?)
}

/// Rows received in each of the 60 minutes before `now`, oldest first.
///
/// # Errors
/// Postgres failed.
pub async fn rows_per_minute(conn: &mut Conn, now: DateTime<Utc>) -> Result<Vec<i64>> {
    let rows = sqlx::query!(
        r#"
        SELECT floor(extract(epoch FROM ($1 - received_at)) / 60)::int AS "minutes_ago!", sum(row_count)::bigint AS "rows!"
        FROM events WHERE received_at > $2 AND received_at <= $1 GROUP BY 1
        "#,
        now,
        now - TimeDelta::minutes(60)
    )
    .fetch_all(conn)
    .await?;
    let mut minutes = vec![0; 60];
    for row in rows {
        if let Some(slot) = usize::try_from(row.minutes_ago)
            .ok()
            .and_then(|ago| 59_usize.checked_sub(ago))
        {
            minutes[slot] += row.rows;
        }
    }
    Ok(minutes)
}

/// Nodes that share a value.
#[derive(Debug, Clone, Serialize)]
pub struct ValueCount {
    /// The value.
    pub value: String,
    /// Nodes that have it.
    pub count: i64,
}

/// osquery versions, most used first.
///
/// # Errors
/// Postgres failed.
pub async fn versions(conn: &mut Conn) -> Result<Vec<ValueCount>> {
    Ok(sqlx::query_as!(
        ValueCount,
        r#"SELECT osquery_version AS value, count(*) AS "count!" FROM nodes GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20"#
    )
    .fetch_all(conn)
    .await?)
}

/// Platforms, most used first.
///
/// # Errors
/// Postgres failed.
pub async fn platforms(conn: &mut Conn) -> Result<Vec<ValueCount>> {
    Ok(sqlx::query_as!(
        ValueCount,
        r#"SELECT platform AS value, count(*) AS "count!" FROM nodes GROUP BY 1 ORDER BY 2 DESC, 1"#
    )
    .fetch_all(conn)
    .await?)
}
