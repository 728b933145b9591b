//! File paths: named sets of globs that nodes watch.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::FilePathId;
use serde::Serialize;
use uuid::Uuid;

use crate::{Conn, Result};

/// A named set of globs.
#[derive(Debug, Clone, Serialize)]
pub struct FilePathRecord {
    /// Which.
    pub id: Uuid,
    /// What may be set of it.
    #[serde(flatten)]
    pub values: FilePathValues,
}

/// What an admin may set.
#[derive(Debug, Clone, Serialize)]
pub struct FilePathValues {
    /// Unique.
    pub category: String,
    /// With osquery's wildcards `%` and `%%`.
    pub globs: Vec<String>,
    /// Statements that return more of them in a column `path`.
    pub queries: Vec<String>,
    /// What of it is left out.
    pub exclude_globs: Vec<String>,
    /// Are reads reported, too?
    pub file_accesses: bool,
    /// Tag expression.
    pub target: String,
    /// Is it sent at all?
    pub enabled: bool,
}

/// All file paths, in order of their category.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<FilePathRecord>> {
    let rows = sqlx::query!(
        r#"
        SELECT id, category, globs, queries, exclude_globs, file_accesses, target, enabled FROM file_paths
        ORDER BY lower(category)
        "#
    )
    .fetch_all(conn)
    .await?;
    let records = rows.into_iter().map(|row| FilePathRecord {
        id: row.id,
        values: FilePathValues {
            category: row.category,
            globs: row.globs,
            queries: row.queries,
            exclude_globs: row.exclude_globs,
            file_accesses: row.file_accesses,
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
pub async fn find(conn: &mut Conn, id: FilePathId) -> Result<Option<FilePathRecord>> {
    Ok(list(conn)
        .await?
        .into_iter()
        .find(|record| record.id == id.0))
}

/// Makes one.
///
/// # Errors
/// The category is taken (`file_paths_category_key`), or Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: FilePathId,
    values: &FilePathValues,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO file_paths (id, category, globs, exclude_globs, file_accesses, target, enabled, created_at, updated_at, queries)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9)
        "#,
        id.0,
        values.category,
        &values.globs,
        &values.exclude_globs,
        values.file_accesses,
        values.target,
        values.enabled,
        now,
        &values.queries
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes one. Says whether it exists.
///
/// # Errors
/// The category is taken (`file_paths_category_key`), or Postgres failed.
pub async fn update(
    conn: &mut Conn,
    id: FilePathId,
    values: &FilePathValues,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        UPDATE file_paths SET category = $2, globs = $3, exclude_globs = $4, file_accesses = $5, target = $6, enabled = $7,
            updated_at = $8, queries = $9
        WHERE id = $1
        "#,
        id.0,
        values.category,
        &values.globs,
        &values.exclude_globs,
        values.file_accesses,
        values.target,
        values.enabled,
        now,
        &values.queries
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes one. Says whether it existed.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: FilePathId) -> Result<bool> {
    Ok(sqlx::query!("DELETE FROM file_paths WHERE id = $1", id.0)
        .execute(conn)
        .await?
        .rows_affected()
        > 0)
}
