//! Whether the api is there. While none is, no node can check in: that says nothing about nodes.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{Conn, Result};

/// How long nothing may be heard of any api before there was none. It says so with its check-ins, every ten seconds by default.
pub const GAP: TimeDelta = TimeDelta::minutes(2);

/// An api says that it is there. After a gap the count begins anew.
///
/// # Errors
/// Postgres failed.
pub async fn note(conn: &mut Conn, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO api_uptime AS known (up_since, alive_at) VALUES ($1, $1)
        ON CONFLICT ON CONSTRAINT api_uptime_pkey DO UPDATE SET
            up_since = CASE WHEN known.alive_at < $2 THEN excluded.up_since ELSE known.up_since END,
            alive_at = greatest(known.alive_at, excluded.alive_at)
        "#,
        now,
        now - GAP
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Is any api there? Unlike [`is_up_since`] it believes nothing that was not said.
///
/// # Errors
/// Postgres failed.
pub async fn is_up(conn: &mut Conn, now: DateTime<Utc>) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM api_uptime WHERE alive_at >= $1) AS "up!""#,
        now - GAP
    )
    .fetch_one(conn)
    .await?)
}

/// Has any api been there without a gap since `since`? So it is believed, too, while none has ever said anything.
///
/// # Errors
/// Postgres failed.
pub async fn is_up_since(
    conn: &mut Conn,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (SELECT FROM api_uptime WHERE up_since > $1 OR alive_at < $2) AS "up!""#,
        since,
        now - GAP
    )
    .fetch_one(conn)
    .await?)
}
