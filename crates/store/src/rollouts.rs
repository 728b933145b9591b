//! Staged roll-outs of configs: which there are, how far they are, and what those outside get. Their nodes are in
//! [`crate::rollout_nodes`]; what follows from all of it is decided by `domain::rollout`.

use chrono::{DateTime, Utc};
use ostiary_domain::node_config::Parts;
use ostiary_domain::rollout::EVERYBODY;
use serde::Serialize;
use uuid::Uuid;

use crate::packed::Packed;
use crate::page::{Page, PageRequest};
use crate::{Conn, Error, Result, table_denials};

/// A roll-out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rollout {
    /// Which; positions of nodes depend on it.
    pub id: Uuid,
    /// `running`, `halted`, `finished` or `returned`.
    pub state: String,
    /// The revision to which one click returns.
    pub base_revision: i64,
    /// The newest revision that goes out with it.
    pub revision: i64,
    /// The stages in percent.
    pub shares: Vec<i16>,
    /// Which of them is under way, from 0.
    pub stage: i16,
    /// Nodes up to this position get the new config.
    #[serde(skip)]
    pub threshold: i64,
    /// Who began it.
    pub user_name: String,
    /// When.
    pub started_at: DateTime<Utc>,
    /// When its present stage began.
    pub stage_started_at: DateTime<Utc>,
    /// When it was over.
    pub ended_at: Option<DateTime<Utc>>,
    /// Why it was halted.
    pub reason: String,
}

impl Rollout {
    /// Is it to be moved on?
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }
}

/// The roll-out that is not over, if there is one.
///
/// # Errors
/// Postgres failed.
pub async fn find_active(conn: &mut Conn) -> Result<Option<Rollout>> {
    Ok(sqlx::query_as!(
        Rollout,
        r#"
        SELECT id, state, base_revision, revision, shares, stage, threshold, user_name, started_at, stage_started_at, ended_at, reason
        FROM rollouts WHERE ended_at IS NULL
        "#
    )
    .fetch_optional(conn)
    .await?)
}

/// The same, locked until the transaction ends; whoever changes it or what it is about holds this lock.
///
/// # Errors
/// Postgres failed.
pub async fn lock_active(conn: &mut Conn) -> Result<Option<Rollout>> {
    Ok(sqlx::query_as!(
        Rollout,
        r#"
        SELECT id, state, base_revision, revision, shares, stage, threshold, user_name, started_at, stage_started_at, ended_at, reason
        FROM rollouts WHERE ended_at IS NULL FOR UPDATE
        "#
    )
    .fetch_optional(conn)
    .await?)
}

/// One roll-out.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: Uuid) -> Result<Option<Rollout>> {
    Ok(sqlx::query_as!(
        Rollout,
        r#"
        SELECT id, state, base_revision, revision, shares, stage, threshold, user_name, started_at, stage_started_at, ended_at, reason
        FROM rollouts WHERE id = $1
        "#,
        id
    )
    .fetch_optional(conn)
    .await?)
}

/// Roll-outs, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn, page: &PageRequest) -> Result<Page<Rollout>> {
    let limit = page.limit_within(20, 100);
    let before = page.key::<1>().and_then(|[id]| id.parse::<Uuid>().ok());
    let rows = sqlx::query_as!(
        Rollout,
        r#"
        SELECT id, state, base_revision, revision, shares, stage, threshold, user_name, started_at, stage_started_at, ended_at, reason
        FROM rollouts WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2::bigint + 1
        "#,
        before,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| [row.id.to_string()]))
}

/// What the api must know of the roll-out that is not over: who is inside, and what the others get.
#[derive(Debug, Clone)]
pub struct Split {
    /// Positions of nodes depend on it.
    pub rollout: Uuid,
    /// Nodes up to this position get what there is now.
    pub threshold: i64,
    /// The others get what this gives.
    pub base: Parts,
}

/// See [`Split`].
///
/// # Errors
/// What is kept cannot be read, or Postgres failed.
pub async fn find_split(conn: &mut Conn) -> Result<Option<Split>> {
    let row = sqlx::query!(
        r#"SELECT id, threshold, base_parts AS "base_parts: Packed" FROM rollouts WHERE ended_at IS NULL"#
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let base: Parts = serde_json::from_str(&row.base_parts)
        .map_err(|error| Error::Corrupt(format!("the base of a roll-out: {error}")))?;
    // What may not be asked of nodes is as of now, not as of then.
    let base = table_denials::withhold(conn, base.sorted()).await?;
    Ok(Some(Split {
        rollout: row.id,
        threshold: row.threshold,
        base,
    }))
}

/// A roll-out that begins.
#[derive(Debug)]
pub struct NewRollout<'a> {
    /// UUIDv7.
    pub id: Uuid,
    /// See [`Rollout`].
    pub base_revision: i64,
    /// See [`Rollout`].
    pub revision: i64,
    /// What configs were made of before.
    pub base: &'a Parts,
    /// See [`Rollout`].
    pub shares: &'a [i16],
    /// See [`Rollout`].
    pub threshold: i64,
    /// Who begins it.
    pub user_name: &'a str,
}

/// Begins a roll-out.
///
/// # Errors
/// Another is under way (`rollouts_active_key`), or Postgres failed.
pub async fn insert(conn: &mut Conn, rollout: &NewRollout<'_>, now: DateTime<Utc>) -> Result<()> {
    let base = serde_json::to_string(rollout.base).expect("parts are JSON");
    sqlx::query!(
        r#"
        INSERT INTO rollouts (id, state, base_revision, revision, base_parts, shares, threshold, user_name, started_at, stage_started_at)
        VALUES ($1, 'running', $2, $3, $4, $5, $6, $7, $8, $8)
        "#,
        rollout.id,
        rollout.base_revision,
        rollout.revision,
        Packed(base) as Packed,
        rollout.shares,
        rollout.threshold,
        rollout.user_name,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Where a roll-out goes on.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// From 0.
    pub number: i16,
    /// Nodes up to this position.
    pub threshold: i64,
    /// The newest revision that goes out with it.
    pub revision: i64,
}

/// Lets a roll-out run, from now on in this stage.
///
/// # Errors
/// Postgres failed.
pub async fn begin_stage(
    conn: &mut Conn,
    id: Uuid,
    stage: Stage,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        UPDATE rollouts SET state = 'running', reason = '', stage = $2, threshold = $3, revision = $4, stage_started_at = $5
        WHERE id = $1
        "#,
        id,
        stage.number,
        stage.threshold,
        stage.revision,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Halts a roll-out: nobody else gets inside.
///
/// # Errors
/// Postgres failed.
pub async fn halt(conn: &mut Conn, id: Uuid, reason: &str) -> Result<()> {
    sqlx::query!(
        "UPDATE rollouts SET state = 'halted', reason = $2 WHERE id = $1",
        id,
        reason
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a roll-out; from now on all nodes get what there is now.
///
/// # Errors
/// Postgres failed.
pub async fn end(conn: &mut Conn, id: Uuid, returned: bool, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE rollouts SET state = $2, ended_at = $3, threshold = $4, base_parts = '' WHERE id = $1",
        id,
        if returned { "returned" } else { "finished" },
        now,
        EVERYBODY
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes roll-outs that ended before, with what is known of their nodes. Gives how many.
///
/// # Errors
/// Postgres failed.
pub async fn delete_ended(conn: &mut Conn, before: DateTime<Utc>) -> Result<u64> {
    let done = sqlx::query!("DELETE FROM rollouts WHERE ended_at < $1", before)
        .execute(conn)
        .await?;
    Ok(done.rows_affected())
}
