//! Rules as the worker evaluates them. People edit them through `rule_edits`; what they mean is decided in `domain::rule`.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{DestinationId, NodeId, RuleId};
use ostiary_domain::rule::Watch;
use serde_json::Value;

use crate::{Conn, Result};

/// An enabled rule, not yet compiled.
#[derive(Debug, Clone)]
pub struct StoredRule {
    /// Which.
    pub id: RuleId,
    /// Unique.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Groups of conditions.
    pub conditions: Value,
    /// `info`, `low`, `medium`, `high` or `critical`.
    pub severity: String,
    /// Tag expression.
    pub scope: String,
    /// Columns that tell one matter from another; none: all of them.
    pub entity_columns: Vec<String>,
    /// Does it see baseline rows?
    pub on_baseline: bool,
    /// Events older than this on arrival open nothing.
    pub max_age_seconds: i32,
    /// What to do when it matches.
    pub runbook_url: String,
    /// Why it could not be compiled the last time.
    pub broken_reason: Option<String>,
    /// What it waits for; what Postgres holds otherwise than it lets anybody write is drift.
    pub watch: Watch,
    /// It has not yet looked at what is present.
    pub to_study: bool,
    /// Of the latest change.
    pub updated_at: DateTime<Utc>,
    /// Where its alerts go, disabled destinations too: the ledger says of those that nothing was sent.
    pub destinations: Vec<DestinationId>,
}

/// All enabled rules, the broken ones too: they may have been mended.
///
/// # Errors
/// Postgres failed.
pub async fn list_enabled(conn: &mut Conn) -> Result<Vec<StoredRule>> {
    let rows = sqlx::query!(
        r#"
        SELECT id, name, description, conditions, severity, scope, entity_columns, on_baseline, max_age_seconds, runbook_url,
            broken_reason, watch, watch_count, watch_seconds, to_study, updated_at,
            ARRAY(SELECT d.id FROM rule_destinations rd JOIN destinations d ON d.id = rd.destination_id
                WHERE rd.rule_id = r.id ORDER BY d.id) AS "destinations!"
        FROM rules r WHERE enabled ORDER BY name
        "#
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| StoredRule {
            id: RuleId(row.id),
            name: row.name,
            description: row.description,
            conditions: row.conditions,
            severity: row.severity,
            scope: row.scope,
            entity_columns: row.entity_columns,
            on_baseline: row.on_baseline,
            max_age_seconds: row.max_age_seconds,
            runbook_url: row.runbook_url,
            broken_reason: row.broken_reason,
            watch: watch_of(&row.watch, row.watch_count, row.watch_seconds),
            to_study: row.to_study,
            updated_at: row.updated_at,
            destinations: row.destinations.into_iter().map(DestinationId).collect(),
        })
        .collect())
}

/// The watch of stored columns.
pub(crate) fn watch_of(word: &str, count: Option<i32>, seconds: Option<i32>) -> Watch {
    let positive = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok());
    Watch::of(word, positive(count), positive(seconds)).unwrap_or_default()
}

/// A rule has looked at what is present, if it is still as it was then (`as_of`, its `updated_at`).
///
/// # Errors
/// Postgres failed.
pub async fn set_studied(conn: &mut Conn, id: RuleId, as_of: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE rules SET to_study = false WHERE id = $1 AND to_study AND updated_at = $2",
        id.0,
        as_of
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A query of which a node has present rows.
#[derive(Debug, Clone)]
pub struct Holding {
    /// Which node.
    pub node_id: NodeId,
    /// Which query.
    pub query_name_id: i32,
    /// Its name.
    pub query_name: String,
}

/// Who has present rows of these queries (`None`: of any), by node and query, after this pair.
///
/// # Errors
/// Postgres failed.
pub async fn list_holding(
    conn: &mut Conn,
    names: Option<&[&str]>,
    after: Option<(NodeId, i32)>,
    limit: i64,
) -> Result<Vec<Holding>> {
    let rows = sqlx::query!(
        r#"
        SELECT p.node_id, p.query_name_id, q.name FROM present_rows p JOIN query_names q ON q.id = p.query_name_id
        WHERE ($1::text[] IS NULL OR q.name = ANY($1)) AND ($2::uuid IS NULL OR (p.node_id, p.query_name_id) > ($2, $3))
        ORDER BY p.node_id, p.query_name_id LIMIT $4
        "#,
        names as Option<&[&str]>,
        after.map(|(node, _)| node.0),
        after.map(|(_, query)| query),
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Holding {
            node_id: NodeId(row.node_id),
            query_name_id: row.query_name_id,
            query_name: row.name,
        })
        .collect())
}

/// Names of queries that nodes have reported, by name; for completing what is typed.
///
/// # Errors
/// Postgres failed.
pub async fn list_query_names(conn: &mut Conn, limit: i64) -> Result<Vec<String>> {
    Ok(
        sqlx::query_scalar!("SELECT name FROM query_names ORDER BY name LIMIT $1", limit)
            .fetch_all(conn)
            .await?,
    )
}

/// Notes why a rule cannot be compiled, or (`None`) that it can.
///
/// # Errors
/// Postgres failed.
pub async fn set_broken_reason(conn: &mut Conn, id: RuleId, reason: Option<&str>) -> Result<()> {
    sqlx::query!(
        "UPDATE rules SET broken_reason = $2 WHERE id = $1",
        id.0,
        reason
    )
    .execute(conn)
    .await?;
    Ok(())
}
