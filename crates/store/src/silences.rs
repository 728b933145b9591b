//! Silences: times in which nobody is told of some findings. What one covers is decided in `domain::finding::Silence`.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{NodeId, RuleId, SilenceId, UserId};
use serde::Serialize;
use uuid::Uuid;

use crate::page::{Page, PageRequest};
use crate::{Conn, Result};

/// A silence to be made.
#[derive(Debug, Clone)]
pub struct NewSilence {
    /// Which.
    pub id: SilenceId,
    /// Only of this rule.
    pub rule_id: Option<RuleId>,
    /// Only on this node.
    pub node_id: Option<NodeId>,
    /// Only on nodes of this tag expression; empty for any.
    pub target: String,
    /// Why.
    pub reason: String,
    /// Nobody is told until then.
    pub ends_at: DateTime<Utc>,
    /// Who makes it.
    pub by: Option<UserId>,
    /// Their name.
    pub by_name: String,
    /// Now.
    pub at: DateTime<Utc>,
}

/// Makes a silence.
///
/// # Errors
/// [`crate::Error::Constraint`] `silences_rule_id_fkey`, `silences_node_id_fkey`: no such rule or node. Else Postgres failed.
pub async fn insert(conn: &mut Conn, silence: &NewSilence) -> Result<()> {
    sqlx::query!(
        "INSERT INTO silences (id, rule_id, node_id, target, reason, ends_at, created_at, created_by, created_by_name)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        silence.id.0,
        silence.rule_id.map(|id| id.0),
        silence.node_id.map(|id| id.0),
        silence.target,
        silence.reason,
        silence.ends_at,
        silence.at,
        silence.by.map(|id| id.0),
        silence.by_name
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a silence before its time. Says whether it was on.
///
/// # Errors
/// Postgres failed.
pub async fn end(
    conn: &mut Conn,
    id: SilenceId,
    by_name: &str,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE silences SET ended_at = $2, ended_by_name = $3 WHERE id = $1 AND ended_at IS NULL AND ends_at > $2",
        id.0,
        now,
        by_name
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A silence that is on, as those who would tell see it.
#[derive(Debug, Clone)]
pub struct ActiveSilence {
    /// Which.
    pub id: SilenceId,
    /// Only of this rule.
    pub rule_id: Option<RuleId>,
    /// Only on this node.
    pub node_id: Option<NodeId>,
    /// Tag expression; empty for any node.
    pub target: String,
    /// Why.
    pub reason: String,
    /// Until then.
    pub ends_at: DateTime<Utc>,
    /// Who made it.
    pub by_name: String,
}

/// The silences that are on, the oldest first.
///
/// # Errors
/// Postgres failed.
pub async fn list_active(conn: &mut Conn, now: DateTime<Utc>) -> Result<Vec<ActiveSilence>> {
    let rows = sqlx::query!(
        r#"
        SELECT id, rule_id, node_id, target, reason, ends_at, created_by_name
        FROM silences WHERE ends_at > $1 AND ended_at IS NULL ORDER BY created_at, id
        "#,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ActiveSilence {
            id: SilenceId(row.id),
            rule_id: row.rule_id.map(RuleId),
            node_id: row.node_id.map(NodeId),
            target: row.target,
            reason: row.reason,
            ends_at: row.ends_at,
            by_name: row.created_by_name,
        })
        .collect())
}

/// A silence as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct SilenceRecord {
    /// Which.
    pub id: Uuid,
    /// Only of this rule.
    pub rule_id: Option<Uuid>,
    /// Its name.
    pub rule_name: Option<String>,
    /// Only on this node.
    pub node_id: Option<Uuid>,
    /// Its name.
    pub node_name: Option<String>,
    /// Tag expression; empty for any node.
    pub target: String,
    /// Why.
    pub reason: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Who made it.
    pub created_by: String,
    /// Nobody is told until then.
    pub ends_at: DateTime<Utc>,
    /// Ended before its time.
    pub ended_at: Option<DateTime<Utc>>,
    /// By whom.
    pub ended_by: String,
    /// Is it on?
    pub is_on: bool,
    /// Findings that it has silenced so far.
    pub findings: i64,
    /// Of those, the ones that are not resolved.
    pub open: i64,
}

/// A page of silences, those that are on first, then the newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list(
    conn: &mut Conn,
    is_on: bool,
    now: DateTime<Utc>,
    page: &PageRequest,
) -> Result<Page<SilenceRecord>> {
    let limit = page.limit_within(50, 500);
    let after = page.key::<2>().and_then(|[micros, id]| {
        Some((
            DateTime::from_timestamp_micros(micros.parse().ok()?)?,
            id.parse::<Uuid>().ok()?,
        ))
    });
    let (created_at, id) = after.unzip();
    let rows = sqlx::query_as!(
        SilenceRecord,
        r#"
        SELECT s.id, s.rule_id, r.name AS "rule_name?", s.node_id,
            coalesce(nullif(n.display_name, ''), nullif(n.hostname, ''), n.host_identifier) AS node_name,
            s.target, s.reason, s.created_at, s.created_by_name AS created_by, s.ends_at, s.ended_at, s.ended_by_name AS ended_by,
            o.is_on AS "is_on!",
            (SELECT count(*) FROM findings f WHERE f.silence_id = s.id) AS "findings!",
            (SELECT count(*) FROM findings f WHERE f.silence_id = s.id AND f.state <> 'resolved') AS "open!"
        FROM silences s
        LEFT JOIN rules r ON r.id = s.rule_id
        LEFT JOIN nodes n ON n.id = s.node_id
        CROSS JOIN LATERAL (SELECT s.ended_at IS NULL AND s.ends_at > $1 AS is_on) o
        WHERE o.is_on = $2 AND ($3::timestamptz IS NULL OR (s.created_at, s.id) < ($3, $4))
        ORDER BY s.created_at DESC, s.id DESC
        LIMIT $5::bigint + 1
        "#,
        now,
        is_on,
        created_at,
        id,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| {
        [
            row.created_at.timestamp_micros().to_string(),
            row.id.to_string(),
        ]
    }))
}

/// How much is silenced just now.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Silenced {
    /// Silences that are on.
    pub silences: i64,
    /// Findings that are not resolved and of which nobody was told because of one of them.
    pub findings: i64,
}

/// Counts silences that are on, and what they silence.
///
/// # Errors
/// Postgres failed.
pub async fn count_active(conn: &mut Conn, now: DateTime<Utc>) -> Result<Silenced> {
    Ok(sqlx::query_as!(
        Silenced,
        r#"
        SELECT count(*) AS "silences!", coalesce(sum((
            SELECT count(*) FROM findings f WHERE f.silence_id = s.id AND f.state <> 'resolved')), 0)::bigint AS "findings!"
        FROM silences s WHERE s.ended_at IS NULL AND s.ends_at > $1
        "#,
        now
    )
    .fetch_one(conn)
    .await?)
}
