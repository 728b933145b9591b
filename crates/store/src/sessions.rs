//! Sessions of the manager, found by the hash of their cookie, and failed sign-ins.

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::UserId;
use serde_json::Value;

use crate::{Conn, Result};

/// A session.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// What is kept in it.
    pub data: Value,
    /// Ends then.
    pub expires_at: DateTime<Utc>,
}

/// The session of this cookie, unless it has ended.
///
/// # Errors
/// Postgres failed.
pub async fn find(
    conn: &mut Conn,
    id_sha256: &[u8],
    now: DateTime<Utc>,
) -> Result<Option<SessionRecord>> {
    Ok(sqlx::query_as!(
        SessionRecord,
        "SELECT data, expires_at FROM sessions WHERE id_sha256 = $1 AND expires_at > $2",
        id_sha256,
        now
    )
    .fetch_optional(conn)
    .await?)
}

/// Stores a session.
///
/// # Errors
/// Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id_sha256: &[u8],
    user: Option<UserId>,
    session: &SessionRecord,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO sessions (id_sha256, user_id, data, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
        id_sha256,
        user.map(|id| id.0),
        session.data,
        now,
        session.expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes a session. One that is gone, because it was ended meanwhile, stays gone.
///
/// # Errors
/// Postgres failed.
pub async fn update(
    conn: &mut Conn,
    id_sha256: &[u8],
    user: Option<UserId>,
    session: &SessionRecord,
) -> Result<()> {
    sqlx::query!(
        "UPDATE sessions SET user_id = $2, data = $3, expires_at = $4 WHERE id_sha256 = $1",
        id_sha256,
        user.map(|id| id.0),
        session.data,
        session.expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a session.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id_sha256: &[u8]) -> Result<()> {
    sqlx::query!("DELETE FROM sessions WHERE id_sha256 = $1", id_sha256)
        .execute(conn)
        .await?;
    Ok(())
}

/// Ends all sessions of a user but one.
///
/// # Errors
/// Postgres failed.
pub async fn delete_of_user(conn: &mut Conn, user: UserId, keep: Option<&[u8]>) -> Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM sessions WHERE user_id = $1 AND ($2::bytea IS NULL OR id_sha256 <> $2)",
        user.0,
        keep
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// How many sessions a user has.
///
/// # Errors
/// Postgres failed.
pub async fn count_of_user(conn: &mut Conn, user: UserId, now: DateTime<Utc>) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM sessions WHERE user_id = $1 AND expires_at > $2"#,
        user.0,
        now
    );
    Ok(count.fetch_one(conn).await?)
}

/// Forgets what has ended: sessions, and windows of failed sign-ins that began before `window_start`.
///
/// # Errors
/// Postgres failed.
pub async fn prune(
    conn: &mut Conn,
    now: DateTime<Utc>,
    window_start: DateTime<Utc>,
) -> Result<u64> {
    sqlx::query!(
        "DELETE FROM sign_in_attempts WHERE window_started_at < $1",
        window_start
    )
    .execute(&mut *conn)
    .await?;
    Ok(
        sqlx::query!("DELETE FROM sessions WHERE expires_at <= $1", now)
            .execute(conn)
            .await?
            .rows_affected(),
    )
}

/// Counts an attempt to sign in against a subject (`user:…` or `address:…`) *before* the password is looked at, so that many at
/// once cannot slip through. Returns the attempts in its window, this one included, and when the window ends.
///
/// # Errors
/// Postgres failed.
pub async fn count_attempt(
    conn: &mut Conn,
    subject: &str,
    window: TimeDelta,
    now: DateTime<Utc>,
) -> Result<(i32, DateTime<Utc>)> {
    let row = sqlx::query!(
        r#"
        INSERT INTO sign_in_attempts AS a (subject, failures, window_started_at) VALUES ($1, 1, $2)
        ON CONFLICT (subject) DO UPDATE SET
            failures = CASE WHEN a.window_started_at <= $3 THEN 1 ELSE least(a.failures + 1, 1000000) END,
            window_started_at = CASE WHEN a.window_started_at <= $3 THEN $2 ELSE a.window_started_at END
        RETURNING failures, window_started_at
        "#,
        subject,
        now,
        now - window
    )
    .fetch_one(conn)
    .await?;
    Ok((row.failures, row.window_started_at + window))
}

/// Forgets the attempts of a subject, or (`by` > 0) takes some back.
///
/// # Errors
/// Postgres failed.
pub async fn forgive(conn: &mut Conn, subject: &str, by: i32) -> Result<()> {
    sqlx::query!(
        "UPDATE sign_in_attempts SET failures = greatest(failures - $2, 0) WHERE subject = $1",
        subject,
        by
    )
    .execute(conn)
    .await?;
    Ok(())
}
