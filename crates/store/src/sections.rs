//! Pieces of top-level keys of configs that have no table of their own.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::SectionId;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{Conn, Result};

/// A piece of a top-level key.
#[derive(Debug, Clone, Serialize)]
pub struct SectionRecord {
    /// Which.
    pub id: Uuid,
    /// What may be set of it.
    #[serde(flatten)]
    pub values: SectionValues,
}

/// What an admin may set.
#[derive(Debug, Clone, Serialize)]
pub struct SectionValues {
    /// The top-level key.
    pub key: String,
    /// Unique among the pieces of the key.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What stands under the key.
    pub value: Value,
    /// Tag expression.
    pub target: String,
    /// Where two pieces contradict each other the higher one stays.
    pub priority: i32,
    /// Is it sent at all?
    pub enabled: bool,
}

/// All of them, in the order of keys and names.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<SectionRecord>> {
    let rows = sqlx::query!(
        r#"
        SELECT id, key, name, description, value, target, priority, enabled FROM config_sections
        ORDER BY key, lower(name), name
        "#
    )
    .fetch_all(conn)
    .await?;
    let records = rows.into_iter().map(|row| SectionRecord {
        id: row.id,
        values: SectionValues {
            key: row.key,
            name: row.name,
            description: row.description,
            value: row.value,
            target: row.target,
            priority: row.priority,
            enabled: row.enabled,
        },
    });
    Ok(records.collect())
}

/// One of them.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: SectionId) -> Result<Option<SectionRecord>> {
    Ok(list(conn)
        .await?
        .into_iter()
        .find(|record| record.id == id.0))
}

/// Makes one.
///
/// # Errors
/// The key has one of this name (`config_sections_key_name_key`), or Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: SectionId,
    values: &SectionValues,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO config_sections (id, key, name, description, value, target, priority, enabled, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
        "#,
        id.0,
        values.key,
        values.name,
        values.description,
        values.value,
        values.target,
        values.priority,
        values.enabled,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes one. Says whether it exists.
///
/// # Errors
/// The key has one of this name (`config_sections_key_name_key`), or Postgres failed.
pub async fn update(
    conn: &mut Conn,
    id: SectionId,
    values: &SectionValues,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        UPDATE config_sections SET key = $2, name = $3, description = $4, value = $5, target = $6, priority = $7, enabled = $8,
            updated_at = $9
        WHERE id = $1
        "#,
        id.0,
        values.key,
        values.name,
        values.description,
        values.value,
        values.target,
        values.priority,
        values.enabled,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes one. Says whether it existed.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: SectionId) -> Result<bool> {
    Ok(
        sqlx::query!("DELETE FROM config_sections WHERE id = $1", id.0)
            .execute(conn)
            .await?
            .rows_affected()
            > 0,
    )
}
