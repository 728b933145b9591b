//! Rules as the worker evaluates them. People edit them through `rule_edits`; what they mean is decided in `domain::rule`.

use ostiary_domain::ids::{DestinationId, RuleId};
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
            broken_reason,
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
            destinations: row.destinations.into_iter().map(DestinationId).collect(),
        })
        .collect())
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
