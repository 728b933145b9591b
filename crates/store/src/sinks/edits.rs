//! Sinks as admins edit them. Their settings are sealed; only a key of the settings opens them.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::SinkId;
use serde::Serialize;
use uuid::Uuid;

use crate::{Conn, Result};

/// A sink, without its settings.
#[derive(Debug, Clone, Serialize)]
pub struct SinkLine {
    /// Which.
    pub id: Uuid,
    /// Unique.
    pub name: String,
    /// `file`, `http`, …
    pub kind: String,
    /// What a list may show; no secrets.
    pub summary: String,
    /// Is anything forwarded?
    pub enabled: bool,
    /// What: `result`, `status`, `finding`, `audit`.
    pub types: Vec<String>,
    /// Patterns of query names; none: every query.
    pub queries: Vec<String>,
    /// Tag expression.
    pub target: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Of the latest change.
    pub updated_at: DateTime<Utc>,
    /// When it is tried again, after a failure.
    pub due_at: DateTime<Utc>,
    /// Failures in a row.
    pub attempts: i32,
    /// The latest; empty when the last attempt succeeded.
    pub last_error: String,
    /// When that was.
    pub failed_at: Option<DateTime<Utc>>,
    /// When lines were last taken.
    pub sent_at: Option<DateTime<Utc>>,
    /// Lines taken.
    pub sent_lines: i64,
    /// Lines refused for good.
    pub refused_lines: i64,
    /// Why the latest of those was.
    pub last_refusal: String,
    /// Lines that retention took before they were read.
    pub lost_lines: i64,
    /// When the test that waits was asked for.
    pub test_asked_at: Option<DateTime<Utc>>,
    /// When the latest test was sent.
    pub tested_at: Option<DateTime<Utc>>,
    /// Was it taken?
    pub test_taken: Option<bool>,
    /// What was answered.
    pub test_answer: String,
}

/// All sinks, in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<SinkLine>> {
    Ok(sqlx::query_as!(
        SinkLine,
        r#"
        SELECT id, name, kind, summary, enabled, types, queries, target, created_at, updated_at, due_at, attempts, last_error, failed_at,
            sent_at, sent_lines, refused_lines, last_refusal,
            (SELECT coalesce(sum(lost), 0)::bigint FROM sink_cursors c WHERE c.sink_id = s.id) AS "lost_lines!",
            test_asked_at, tested_at, test_taken, test_answer
        FROM sinks s
        ORDER BY lower(name)
        "#
    )
    .fetch_all(conn)
    .await?)
}

/// One of them.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: SinkId) -> Result<Option<SinkLine>> {
    Ok(list(conn).await?.into_iter().find(|line| line.id == id.0))
}

/// The sealed settings of a sink.
///
/// # Errors
/// Postgres failed.
pub async fn find_sealed(conn: &mut Conn, id: SinkId) -> Result<Option<Vec<u8>>> {
    Ok(
        sqlx::query_scalar!("SELECT settings_sealed FROM sinks WHERE id = $1", id.0)
            .fetch_optional(conn)
            .await?,
    )
}

/// What an admin may set.
#[derive(Debug)]
pub struct SinkValues<'a> {
    /// Unique.
    pub name: &'a str,
    /// As in [`SinkLine::kind`].
    pub kind: &'a str,
    /// The settings, sealed.
    pub settings_sealed: &'a [u8],
    /// What a list may show.
    pub summary: &'a str,
    /// Is anything forwarded?
    pub enabled: bool,
    /// As in [`SinkLine::types`].
    pub types: &'a [String],
    /// As in [`SinkLine::queries`].
    pub queries: &'a [String],
    /// As in [`SinkLine::target`].
    pub target: &'a str,
}

/// Makes a sink; its cursors are set by [`super::cursors::set_sources`].
///
/// # Errors
/// The name is taken (`sinks_name_key`), or Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: SinkId,
    values: &SinkValues<'_>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO sinks (id, name, kind, settings_sealed, summary, enabled, types, queries, target, created_at, updated_at, due_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $10)
        "#,
        id.0,
        values.name,
        values.kind,
        values.settings_sealed,
        values.summary,
        values.enabled,
        values.types,
        values.queries,
        values.target,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes a sink; its kind stays, and its next attempt is at once. Says whether it exists.
///
/// # Errors
/// The name is taken (`sinks_name_key`), or Postgres failed.
pub async fn update(
    conn: &mut Conn,
    id: SinkId,
    values: &SinkValues<'_>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        UPDATE sinks SET name = $2, settings_sealed = $3, summary = $4, enabled = $5, types = $6, queries = $7, target = $8,
            updated_at = $9, due_at = $9
        WHERE id = $1
        "#,
        id.0,
        values.name,
        values.settings_sealed,
        values.summary,
        values.enabled,
        values.types,
        values.queries,
        values.target,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Switches a sink on or off; it stays where it stands. Says whether it exists.
///
/// # Errors
/// Postgres failed.
pub async fn set_enabled(
    conn: &mut Conn,
    id: SinkId,
    enabled: bool,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE sinks SET enabled = $2, updated_at = $3, due_at = $3 WHERE id = $1",
        id.0,
        enabled,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Lets the next attempt be at once.
///
/// # Errors
/// Postgres failed.
pub async fn hurry(conn: &mut Conn, id: SinkId, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!("UPDATE sinks SET due_at = $2 WHERE id = $1", id.0, now)
        .execute(conn)
        .await?;
    Ok(())
}

/// Asks the worker to send a test.
///
/// # Errors
/// Postgres failed.
pub async fn ask_test(conn: &mut Conn, id: SinkId, now: DateTime<Utc>) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE sinks SET test_asked_at = $2 WHERE id = $1",
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a sink. Says whether it existed.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: SinkId) -> Result<bool> {
    Ok(sqlx::query!("DELETE FROM sinks WHERE id = $1", id.0)
        .execute(conn)
        .await?
        .rows_affected()
        > 0)
}
