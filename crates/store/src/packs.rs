//! Packs as people edit them. Which node gets which is decided by `domain::target`, not here.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::PackId;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{Conn, Result};

/// A pack without its queries.
#[derive(Debug, Clone, Serialize)]
pub struct PackRecord {
    /// Which.
    pub id: Uuid,
    /// Unique; part of the names of results.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Tag expression.
    pub target: String,
    /// osquery's own condition.
    pub platform: String,
    /// Lowest osquery version.
    pub version: String,
    /// Share of hosts in percent.
    pub shard: Option<i16>,
    /// Discovery queries.
    pub discovery: Vec<String>,
    /// Keys that we do not know.
    pub extra: Value,
    /// Is it sent at all?
    pub enabled: bool,
    /// Shipped with Ostiary.
    pub built_in: bool,
    /// Of the latest change to the pack itself.
    pub updated_at: DateTime<Utc>,
    /// How many queries it has.
    pub queries: i64,
}

/// What an admin may set of a pack.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PackValues {
    /// As in [`PackRecord`].
    pub name: String,
    /// As in [`PackRecord`].
    pub description: String,
    /// As in [`PackRecord`].
    pub target: String,
    /// As in [`PackRecord`].
    pub platform: String,
    /// As in [`PackRecord`].
    pub version: String,
    /// As in [`PackRecord`].
    pub shard: Option<i16>,
    /// As in [`PackRecord`].
    pub discovery: Vec<String>,
    /// As in [`PackRecord`].
    pub extra: Value,
    /// As in [`PackRecord`].
    pub enabled: bool,
}

/// All packs, in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<PackRecord>> {
    Ok(sqlx::query_as!(
        PackRecord,
        r#"
        SELECT id, name, description, target, platform, version, shard, discovery, extra, enabled, built_in, updated_at,
            (SELECT count(*) FROM queries WHERE pack_id = packs.id) AS "queries!"
        FROM packs ORDER BY built_in, lower(name)
        "#
    )
    .fetch_all(conn)
    .await?)
}

/// One pack.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: PackId) -> Result<Option<PackRecord>> {
    Ok(sqlx::query_as!(
        PackRecord,
        r#"
        SELECT id, name, description, target, platform, version, shard, discovery, extra, enabled, built_in, updated_at,
            (SELECT count(*) FROM queries WHERE pack_id = packs.id) AS "queries!"
        FROM packs WHERE id = $1
        "#,
        id.0
    )
    .fetch_optional(conn)
    .await?)
}

/// One pack by its name.
///
/// # Errors
/// Postgres failed.
pub async fn find_id(conn: &mut Conn, name: &str) -> Result<Option<PackId>> {
    Ok(
        sqlx::query_scalar!("SELECT id FROM packs WHERE name = $1", name)
            .fetch_optional(conn)
            .await?
            .map(PackId),
    )
}

/// Makes a pack.
///
/// # Errors
/// The name is taken (`packs_name_key`), or Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: PackId,
    values: &PackValues,
    built_in: bool,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO packs (id, name, description, target, platform, version, shard, discovery, extra, enabled, built_in,
            created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)
        "#,
        id.0,
        values.name,
        values.description,
        values.target,
        values.platform,
        values.version,
        values.shard,
        &values.discovery,
        values.extra,
        values.enabled,
        built_in,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes a pack. Says whether it exists.
///
/// # Errors
/// The name is taken (`packs_name_key`), or Postgres failed.
pub async fn update(
    conn: &mut Conn,
    id: PackId,
    values: &PackValues,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        UPDATE packs SET name = $2, description = $3, target = $4, platform = $5, version = $6, shard = $7, discovery = $8,
            extra = $9, enabled = $10, updated_at = $11
        WHERE id = $1
        "#,
        id.0,
        values.name,
        values.description,
        values.target,
        values.platform,
        values.version,
        values.shard,
        &values.discovery,
        values.extra,
        values.enabled,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a pack with its queries. Says whether it existed.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: PackId) -> Result<bool> {
    Ok(sqlx::query!("DELETE FROM packs WHERE id = $1", id.0)
        .execute(conn)
        .await?
        .rows_affected()
        > 0)
}
