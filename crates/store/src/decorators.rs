//! Decorators: statements whose columns decorate every line of a node.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::DecoratorId;
use serde::Serialize;
use uuid::Uuid;

use crate::{Conn, Result};

/// A decorator.
#[derive(Debug, Clone, Serialize)]
pub struct DecoratorRecord {
    /// Which.
    pub id: Uuid,
    /// What may be set of it.
    #[serde(flatten)]
    pub values: DecoratorValues,
}

/// What an admin may set.
#[derive(Debug, Clone, Serialize)]
pub struct DecoratorValues {
    /// Unique; orders the statements.
    pub name: String,
    /// `load`, `always` or `interval`.
    pub moment: String,
    /// Only with `interval`: a multiple of 60.
    pub interval_seconds: Option<i32>,
    /// What is run.
    pub sql: String,
    /// Tag expression.
    pub target: String,
    /// Is it sent at all?
    pub enabled: bool,
}

/// All decorators, in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<DecoratorRecord>> {
    let rows =
        sqlx::query!("SELECT id, name, moment, interval_seconds, sql, target, enabled FROM decorators ORDER BY lower(name)")
            .fetch_all(conn)
            .await?;
    let records = rows.into_iter().map(|row| DecoratorRecord {
        id: row.id,
        values: DecoratorValues {
            name: row.name,
            moment: row.moment,
            interval_seconds: row.interval_seconds,
            sql: row.sql,
            target: row.target,
            enabled: row.enabled,
        },
    });
    Ok(records.collect())
}

/// One of them.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: DecoratorId) -> Result<Option<DecoratorRecord>> {
    Ok(list(conn)
        .await?
        .into_iter()
        .find(|record| record.id == id.0))
}

/// Makes one.
///
/// # Errors
/// The name is taken (`decorators_name_key`), or Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: DecoratorId,
    values: &DecoratorValues,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO decorators (id, name, moment, interval_seconds, sql, target, enabled, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
        "#,
        id.0,
        values.name,
        values.moment,
        values.interval_seconds,
        values.sql,
        values.target,
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
/// The name is taken (`decorators_name_key`), or Postgres failed.
pub async fn update(
    conn: &mut Conn,
    id: DecoratorId,
    values: &DecoratorValues,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        UPDATE decorators SET name = $2, moment = $3, interval_seconds = $4, sql = $5, target = $6, enabled = $7, updated_at = $8
        WHERE id = $1
        "#,
        id.0,
        values.name,
        values.moment,
        values.interval_seconds,
        values.sql,
        values.target,
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
pub async fn delete(conn: &mut Conn, id: DecoratorId) -> Result<bool> {
    Ok(sqlx::query!("DELETE FROM decorators WHERE id = $1", id.0)
        .execute(conn)
        .await?
        .rows_affected()
        > 0)
}
