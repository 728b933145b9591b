//! How sinks run: one worker holds one by a lease, and says how it went.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::SinkId;
use uuid::Uuid;

use crate::{Conn, Result};

/// A sink as the worker that holds it needs it.
#[derive(Debug, Clone)]
pub struct Running {
    /// Which.
    pub id: SinkId,
    /// Its name.
    pub name: String,
    /// `file`, `http`, …
    pub kind: String,
    /// Its settings, sealed.
    pub settings_sealed: Vec<u8>,
    /// What is forwarded: `result`, `status`, `finding`, `audit`.
    pub types: Vec<String>,
    /// Patterns of query names.
    pub queries: Vec<String>,
    /// Tag expression.
    pub target: String,
    /// Of the latest change: what was made of the settings before is out of date.
    pub updated_at: DateTime<Utc>,
    /// Nothing is to be sent before.
    pub due_at: DateTime<Utc>,
    /// Failures in a row.
    pub attempts: i32,
    /// A test was asked for, and is not sent yet.
    pub test_asked: bool,
    /// By this whoever holds it proves that it still does.
    pub lease: Uuid,
}

/// The sinks that nobody runs and somebody should.
///
/// # Errors
/// Postgres failed.
pub async fn list_free(conn: &mut Conn, now: DateTime<Utc>) -> Result<Vec<SinkId>> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT id FROM sinks
        WHERE (enabled OR test_asked_at IS NOT NULL) AND (leased_until IS NULL OR leased_until <= $1)
        ORDER BY due_at, id
        "#,
        now
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(SinkId)
    .collect())
}

/// Claims a sink until `until` with a fresh id as lease, unless somebody holds it.
///
/// # Errors
/// Postgres failed.
pub async fn take(
    conn: &mut Conn,
    id: SinkId,
    lease: Uuid,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<bool> {
    let taken = sqlx::query!(
        "UPDATE sinks SET lease_id = $2, leased_until = $4 WHERE id = $1 AND (leased_until IS NULL OR leased_until <= $3)",
        id.0,
        lease,
        now,
        until
    )
    .execute(conn)
    .await?;
    Ok(taken.rows_affected() > 0)
}

/// Goes on holding a sink, and says how it is now. `None`: it is held no more, switched off, or gone.
///
/// # Errors
/// Postgres failed.
pub async fn hold(
    conn: &mut Conn,
    id: SinkId,
    lease: Uuid,
    until: DateTime<Utc>,
) -> Result<Option<Running>> {
    let row = sqlx::query!(
        r#"
        UPDATE sinks SET leased_until = $3 WHERE id = $1 AND lease_id = $2 AND (enabled OR test_asked_at IS NOT NULL)
        RETURNING name, kind, settings_sealed, types, queries, target, updated_at, due_at, attempts, enabled,
            test_asked_at IS NOT NULL AS "test_asked!"
        "#,
        id.0,
        lease,
        until
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Running {
        id,
        name: row.name,
        kind: row.kind,
        settings_sealed: row.settings_sealed,
        // One that is switched off is held for a test only.
        types: if row.enabled { row.types } else { Vec::new() },
        queries: row.queries,
        target: row.target,
        updated_at: row.updated_at,
        due_at: row.due_at,
        attempts: row.attempts,
        test_asked: row.test_asked,
        lease,
    }))
}

/// Lets a sink go, for whoever wants it next.
///
/// # Errors
/// Postgres failed.
pub async fn release(conn: &mut Conn, id: SinkId, lease: Uuid) -> Result<()> {
    sqlx::query!(
        "UPDATE sinks SET lease_id = NULL, leased_until = NULL WHERE id = $1 AND lease_id = $2",
        id.0,
        lease
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lines that a sink dealt with.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// Taken.
    pub lines: i64,
    /// Refused for good.
    pub refused: i64,
    /// Why; empty when none was.
    pub refusal: String,
}

/// Notes that lines were sent; failures of before are over. `false`: the sink is held no more.
///
/// # Errors
/// Postgres failed.
pub async fn note_sent(
    conn: &mut Conn,
    id: SinkId,
    lease: Uuid,
    sent: &Sent,
    now: DateTime<Utc>,
) -> Result<bool> {
    let noted = sqlx::query!(
        r#"
        UPDATE sinks SET sent_at = CASE WHEN $3::bigint > 0 THEN $6 ELSE sent_at END, sent_lines = sent_lines + $3::bigint,
            refused_lines = refused_lines + $4::bigint,
            last_refusal = CASE WHEN $4::bigint > 0 THEN $5 ELSE last_refusal END, attempts = 0, last_error = '', due_at = $6
        WHERE id = $1 AND lease_id = $2
        "#,
        id.0,
        lease,
        sent.lines,
        sent.refused,
        sent.refusal,
        now
    )
    .execute(conn)
    .await?;
    Ok(noted.rows_affected() > 0)
}

/// Notes a failure; the next attempt is due later.
///
/// # Errors
/// Postgres failed.
pub async fn note_failed(
    conn: &mut Conn,
    id: SinkId,
    lease: Uuid,
    error: &str,
    now: DateTime<Utc>,
    due_at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        UPDATE sinks SET attempts = attempts + 1, last_error = $3, failed_at = $4, due_at = $5
        WHERE id = $1 AND lease_id = $2
        "#,
        id.0,
        lease,
        error,
        now,
        due_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes how the test went that was asked for.
///
/// # Errors
/// Postgres failed.
pub async fn note_tested(
    conn: &mut Conn,
    id: SinkId,
    lease: Uuid,
    answer: std::result::Result<&str, &str>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        UPDATE sinks SET test_asked_at = NULL, tested_at = $3, test_taken = $4, test_answer = $5
        WHERE id = $1 AND lease_id = $2
        "#,
        id.0,
        lease,
        now,
        answer.is_ok(),
        answer.unwrap_or_else(|error| error)
    )
    .execute(conn)
    .await?;
    Ok(())
}
