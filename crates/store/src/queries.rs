//! Scheduled queries as people edit them: those of a pack, and those that stand in the schedule itself.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{PackId, QueryId};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{Conn, Result};

/// A query.
#[derive(Debug, Clone, Serialize)]
pub struct QueryRecord {
    /// Which.
    pub id: Uuid,
    /// Its pack; `None` when it stands in the schedule itself.
    pub pack_id: Option<Uuid>,
    /// Unique in its pack, or in the schedule.
    pub name: String,
    /// SQL as osquery understands it.
    pub sql: String,
    /// Seconds.
    pub interval_seconds: i32,
    /// All rows each time.
    pub snapshot: bool,
    /// Are removed rows reported?
    pub removed: bool,
    /// May the watchdog denylist it?
    pub denylist: bool,
    /// Run at once when osqueryd starts, in the order of these numbers.
    pub startup_priority: Option<i32>,
    /// osquery's own condition.
    pub platform: String,
    /// Lowest osquery version.
    pub version: String,
    /// Share of hosts in percent.
    pub shard: Option<i16>,
    /// What it is for.
    pub description: String,
    /// What its rows are good for.
    pub value: String,
    /// Tag expression; only without a pack.
    pub target: String,
    /// Keys that we do not know.
    pub extra: Value,
    /// Is it sent at all?
    pub enabled: bool,
}

/// What an admin may set of a query: [`QueryRecord`] without its place.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the fields are those of QueryRecord")]
pub struct QueryValues {
    pub name: String,
    pub sql: String,
    pub interval_seconds: i32,
    pub snapshot: bool,
    pub removed: bool,
    pub denylist: bool,
    pub startup_priority: Option<i32>,
    pub platform: String,
    pub version: String,
    pub shard: Option<i16>,
    pub description: String,
    pub value: String,
    pub target: String,
    pub extra: Value,
    pub enabled: bool,
}

/// The queries of a pack, or (`None`) of the schedule, in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn, pack: Option<PackId>) -> Result<Vec<QueryRecord>> {
    Ok(sqlx::query_as!(
        QueryRecord,
        r#"
        SELECT id, pack_id, name, sql, interval_seconds, snapshot, removed, denylist, startup_priority, platform, version,
            shard, description, value, target, extra, enabled
        FROM queries WHERE pack_id IS NOT DISTINCT FROM $1 ORDER BY lower(name), name
        "#,
        pack.map(|id| id.0)
    )
    .fetch_all(conn)
    .await?)
}

/// The queries of all packs, by pack, each in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list_packed(conn: &mut Conn) -> Result<HashMap<Uuid, Vec<QueryRecord>>> {
    let all = sqlx::query_as!(
        QueryRecord,
        r#"
        SELECT id, pack_id, name, sql, interval_seconds, snapshot, removed, denylist, startup_priority, platform, version,
            shard, description, value, target, extra, enabled
        FROM queries WHERE pack_id IS NOT NULL ORDER BY lower(name), name
        "#
    )
    .fetch_all(conn)
    .await?;
    let mut by_pack: HashMap<Uuid, Vec<QueryRecord>> = HashMap::new();
    for query in all {
        if let Some(pack) = query.pack_id {
            by_pack.entry(pack).or_default().push(query);
        }
    }
    Ok(by_pack)
}

/// One query.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: QueryId) -> Result<Option<QueryRecord>> {
    Ok(sqlx::query_as!(
        QueryRecord,
        r#"
        SELECT id, pack_id, name, sql, interval_seconds, snapshot, removed, denylist, startup_priority, platform, version,
            shard, description, value, target, extra, enabled
        FROM queries WHERE id = $1
        "#,
        id.0
    )
    .fetch_optional(conn)
    .await?)
}

/// Makes a query.
///
/// # Errors
/// The name is taken there (`queries_pack_id_name_key`), or Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: QueryId,
    pack: Option<PackId>,
    values: &QueryValues,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO queries (id, pack_id, name, sql, interval_seconds, snapshot, removed, denylist, platform, version, shard,
            description, value, target, extra, enabled, created_at, updated_at, startup_priority)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $17, $18)
        "#,
        id.0,
        pack.map(|id| id.0),
        values.name,
        values.sql,
        values.interval_seconds,
        values.snapshot,
        values.removed,
        values.denylist,
        values.platform,
        values.version,
        values.shard,
        values.description,
        values.value,
        values.target,
        values.extra,
        values.enabled,
        now,
        values.startup_priority
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes a query. Says whether it exists.
///
/// # Errors
/// The name is taken there (`queries_pack_id_name_key`), or Postgres failed.
pub async fn update(
    conn: &mut Conn,
    id: QueryId,
    values: &QueryValues,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        UPDATE queries SET name = $2, sql = $3, interval_seconds = $4, snapshot = $5, removed = $6, denylist = $7, platform = $8,
            version = $9, shard = $10, description = $11, value = $12, target = $13, extra = $14, enabled = $15, updated_at = $16,
            startup_priority = $17
        WHERE id = $1
        "#,
        id.0,
        values.name,
        values.sql,
        values.interval_seconds,
        values.snapshot,
        values.removed,
        values.denylist,
        values.platform,
        values.version,
        values.shard,
        values.description,
        values.value,
        values.target,
        values.extra,
        values.enabled,
        now,
        values.startup_priority
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a query. Says whether it existed.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: QueryId) -> Result<bool> {
    Ok(sqlx::query!("DELETE FROM queries WHERE id = $1", id.0)
        .execute(conn)
        .await?
        .rows_affected()
        > 0)
}
