//! Rules as people edit them. What a rule means is decided in `domain::rule`.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::RuleId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::rules::watch_of;
use crate::{Conn, Result};

/// A rule.
#[derive(Debug, Clone, Serialize)]
pub struct RuleRecord {
    /// Which.
    pub id: Uuid,
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
    /// Columns that tell one matter from another.
    pub entity_columns: Vec<String>,
    /// Does it see baseline rows?
    pub on_baseline: bool,
    /// Events older than this on arrival open nothing.
    pub max_age_seconds: i32,
    /// What to do when it matches.
    pub runbook_url: String,
    /// Is it evaluated at all?
    pub enabled: bool,
    /// The people to ask about it.
    pub owner: String,
    /// What it waits for: a word of `domain::rule::WATCHES`.
    pub watch: String,
    /// How many, where the watch counts.
    pub watch_count: Option<i32>,
    /// In which time, where it has one, in seconds.
    pub watch_seconds: Option<i32>,
    /// It has not yet looked at what is present.
    pub to_study: bool,
    /// Why it could not be compiled.
    pub broken_reason: Option<String>,
    /// Of the latest change.
    pub updated_at: DateTime<Utc>,
    /// Findings that are not resolved.
    pub open_findings: i64,
    /// Names of its destinations.
    pub destinations: Vec<String>,
}

/// What an admin may set: the fields of [`RuleRecord`], and the destinations by id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of RuleRecord")]
pub struct RuleValues {
    pub name: String,
    pub description: String,
    pub conditions: Value,
    pub severity: String,
    pub scope: String,
    pub entity_columns: Vec<String>,
    pub on_baseline: bool,
    pub max_age_seconds: i32,
    pub runbook_url: String,
    pub enabled: bool,
    pub owner: String,
    pub watch: String,
    pub watch_count: Option<i32>,
    pub watch_seconds: Option<i32>,
    pub destinations: Vec<Uuid>,
}

impl RuleValues {
    /// Whether what the rule has seen so far says nothing any more.
    #[must_use]
    pub fn means_otherwise(&self, before: &RuleRecord) -> bool {
        let of =
            |conditions: &Value, rest: [&str; 2]| (conditions.clone(), rest.map(ToOwned::to_owned));
        of(&self.conditions, [&self.scope, &self.watch])
            != of(&before.conditions, [&before.scope, &before.watch])
            || self.entity_columns != before.entity_columns
            || self.on_baseline != before.on_baseline
    }

    fn studies(&self) -> bool {
        watch_of(&self.watch, self.watch_count, self.watch_seconds).studies()
    }
}

/// A destination of a rule.
#[derive(Debug, Clone, Serialize)]
pub struct RuleDestination {
    /// Which.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// `email`, `webhook`, …
    pub kind: String,
}

/// All rules, in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<RuleRecord>> {
    select(conn, None).await
}

/// One rule.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: RuleId) -> Result<Option<RuleRecord>> {
    Ok(select(conn, Some(id.0)).await?.pop())
}

async fn select(conn: &mut Conn, id: Option<Uuid>) -> Result<Vec<RuleRecord>> {
    Ok(sqlx::query_as!(
        RuleRecord,
        r#"
        SELECT id, name, description, conditions, severity, scope, entity_columns, on_baseline, max_age_seconds, runbook_url,
            enabled, broken_reason, updated_at, owner, watch, watch_count, watch_seconds, to_study,
            (SELECT count(*) FROM findings f WHERE f.rule_id = r.id AND f.state <> 'resolved') AS "open_findings!",
            ARRAY(SELECT d.name FROM rule_destinations rd JOIN destinations d ON d.id = rd.destination_id
                WHERE rd.rule_id = r.id ORDER BY d.name) AS "destinations!"
        FROM rules r WHERE $1::uuid IS NULL OR id = $1
        ORDER BY lower(name)
        "#,
        id
    )
    .fetch_all(conn)
    .await?)
}

/// The id of a rule by its name.
///
/// # Errors
/// Postgres failed.
pub async fn find_id(conn: &mut Conn, name: &str) -> Result<Option<RuleId>> {
    Ok(
        sqlx::query_scalar!("SELECT id FROM rules WHERE name = $1", name)
            .fetch_optional(conn)
            .await?
            .map(RuleId),
    )
}

/// Where alerts of a rule go.
///
/// # Errors
/// Postgres failed.
pub async fn list_destinations(conn: &mut Conn, id: RuleId) -> Result<Vec<RuleDestination>> {
    Ok(sqlx::query_as!(
        RuleDestination,
        r#"
        SELECT d.id, d.name, d.kind FROM rule_destinations rd JOIN destinations d ON d.id = rd.destination_id
        WHERE rd.rule_id = $1 ORDER BY lower(d.name)
        "#,
        id.0
    )
    .fetch_all(conn)
    .await?)
}

/// Makes a rule with its destinations.
///
/// # Errors
/// The name is taken (`rules_name_key`), a destination is gone (`rule_destinations_destination_id_fkey`), or Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: RuleId,
    values: &RuleValues,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO rules (id, name, description, conditions, severity, scope, entity_columns, on_baseline, max_age_seconds,
            runbook_url, enabled, created_at, updated_at, owner, watch, watch_count, watch_seconds, to_study)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14, $15, $16, $17)
        "#,
        id.0,
        values.name,
        values.description,
        values.conditions,
        values.severity,
        values.scope,
        &values.entity_columns,
        values.on_baseline,
        values.max_age_seconds,
        values.runbook_url,
        values.enabled,
        now,
        values.owner,
        values.watch,
        values.watch_count,
        values.watch_seconds,
        values.studies()
    )
    .execute(&mut *conn)
    .await?;
    set_destinations(conn, id, &values.destinations).await
}

/// Changes a rule and its destinations; a reason for being broken is forgotten. `anew` forgets what it has seen, too, and has it look at
/// what is present. Says whether it exists.
///
/// # Errors
/// As [`insert`].
pub async fn update(
    conn: &mut Conn,
    id: RuleId,
    values: &RuleValues,
    (anew, now): (bool, DateTime<Utc>),
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        UPDATE rules SET name = $2, description = $3, conditions = $4, severity = $5, scope = $6, entity_columns = $7,
            on_baseline = $8, max_age_seconds = $9, runbook_url = $10, enabled = $11, updated_at = $12, broken_reason = NULL, owner = $13,
            watch = $14, watch_count = $15, watch_seconds = $16, to_study = $17 OR (to_study AND $18)
        WHERE id = $1
        "#,
        id.0,
        values.name,
        values.description,
        values.conditions,
        values.severity,
        values.scope,
        &values.entity_columns,
        values.on_baseline,
        values.max_age_seconds,
        values.runbook_url,
        values.enabled,
        now,
        values.owner,
        values.watch,
        values.watch_count,
        values.watch_seconds,
        values.studies() && anew,
        values.studies()
    )
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    if anew {
        sqlx::query!("DELETE FROM rule_values WHERE rule_id = $1", id.0)
            .execute(&mut *conn)
            .await?;
        sqlx::query!("DELETE FROM rule_times WHERE rule_id = $1", id.0)
            .execute(&mut *conn)
            .await?;
    }
    set_destinations(conn, id, &values.destinations).await?;
    Ok(true)
}

async fn set_destinations(conn: &mut Conn, id: RuleId, destinations: &[Uuid]) -> Result<()> {
    sqlx::query!("DELETE FROM rule_destinations WHERE rule_id = $1", id.0)
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "INSERT INTO rule_destinations (rule_id, destination_id) SELECT DISTINCT $1::uuid, d FROM unnest($2::uuid[]) AS d",
        id.0,
        destinations
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes a rule; its findings stay with its name. Says whether it existed.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: RuleId) -> Result<bool> {
    Ok(sqlx::query!("DELETE FROM rules WHERE id = $1", id.0)
        .execute(conn)
        .await?
        .rows_affected()
        > 0)
}
