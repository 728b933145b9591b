//! osquery's options, each for one target.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::OptionId;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{Conn, Result};

/// An option.
#[derive(Debug, Clone, Serialize)]
pub struct OptionRecord {
    /// Which.
    pub id: Uuid,
    /// What may be set of it.
    #[serde(flatten)]
    pub values: OptionValues,
}

/// What an admin may set.
#[derive(Debug, Clone, Serialize)]
pub struct OptionValues {
    /// The flag's name; unique with the target.
    pub name: String,
    /// Text, whole number or bool.
    pub value: Value,
    /// Tag expression.
    pub target: String,
    /// Of several that apply to a node the highest wins.
    pub priority: i32,
}

/// All options, in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<OptionRecord>> {
    let rows = sqlx::query!("SELECT id, name, value, target, priority FROM options ORDER BY lower(name), priority DESC, target")
        .fetch_all(conn)
        .await?;
    let records = rows.into_iter().map(|row| OptionRecord {
        id: row.id,
        values: OptionValues {
            name: row.name,
            value: row.value,
            target: row.target,
            priority: row.priority,
        },
    });
    Ok(records.collect())
}

/// One of them.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: OptionId) -> Result<Option<OptionRecord>> {
    Ok(list(conn)
        .await?
        .into_iter()
        .find(|record| record.id == id.0))
}

/// Makes one.
///
/// # Errors
/// There is one of this name and target (`options_name_target_key`), or Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: OptionId,
    values: &OptionValues,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO options (id, name, value, target, priority, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6)",
        id.0,
        values.name,
        values.value,
        values.target,
        values.priority,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes one. Says whether it exists.
///
/// # Errors
/// There is one of this name and target (`options_name_target_key`), or Postgres failed.
pub async fn update(
    conn: &mut Conn,
    id: OptionId,
    values: &OptionValues,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE options SET name = $2, value = $3, target = $4, priority = $5, updated_at = $6 WHERE id = $1",
        id.0,
        values.name,
        values.value,
        values.target,
        values.priority,
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
pub async fn delete(conn: &mut Conn, id: OptionId) -> Result<bool> {
    Ok(sqlx::query!("DELETE FROM options WHERE id = $1", id.0)
        .execute(conn)
        .await?
        .rows_affected()
        > 0)
}
