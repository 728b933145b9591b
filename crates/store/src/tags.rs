//! Tags, and which node carries which.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{NodeId, TagId};
use serde::Serialize;
use uuid::Uuid;

use crate::{Conn, Error, Result};

/// A tag and what hangs on it.
#[derive(Debug, Clone, Serialize)]
pub struct TagLine {
    /// Which.
    pub id: Uuid,
    /// Unique, regardless of case.
    pub name: String,
    /// What it means.
    pub description: String,
    /// Nodes that carry it.
    pub nodes: i64,
    /// Enroll secrets that give it.
    pub secrets: i64,
}

/// All tags, in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<TagLine>> {
    Ok(sqlx::query_as!(
        TagLine,
        r#"
        SELECT id, name, description,
            (SELECT count(*) FROM node_tags WHERE tag_id = tags.id) AS "nodes!",
            (SELECT count(*) FROM enroll_secrets s WHERE revoked_at IS NULL
                AND EXISTS (SELECT FROM unnest(s.tags) AS given WHERE lower(given) = lower(tags.name))) AS "secrets!"
        FROM tags ORDER BY lower(name)
        "#
    )
    .fetch_all(conn)
    .await?)
}

/// The names of all tags, sorted.
///
/// # Errors
/// Postgres failed.
pub async fn names(conn: &mut Conn) -> Result<Vec<String>> {
    Ok(
        sqlx::query_scalar!("SELECT name FROM tags ORDER BY lower(name)")
            .fetch_all(conn)
            .await?,
    )
}

/// Makes a tag.
///
/// # Errors
/// The name is taken ([`is_taken`]), or Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: TagId,
    name: &str,
    description: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO tags (id, name, description, created_at) VALUES ($1, $2, $3, $4)",
        id.0,
        name,
        description,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Is this the refusal of a name that another tag has, perhaps written with other capitals?
#[must_use]
pub fn is_taken(error: &Error) -> bool {
    error.is_constraint("tags_name_key") || error.is_constraint("tags_lower_name_key")
}

/// Makes a tag unless one of that name exists, in whatever case; returns its id.
///
/// # Errors
/// Postgres failed.
pub async fn ensure(conn: &mut Conn, id: TagId, name: &str, now: DateTime<Utc>) -> Result<TagId> {
    sqlx::query!(
        "INSERT INTO tags (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT (lower(name)) DO NOTHING",
        id.0,
        name,
        now
    )
    .execute(&mut *conn)
    .await?;
    Ok(TagId(
        sqlx::query_scalar!("SELECT id FROM tags WHERE lower(name) = lower($1)", name)
            .fetch_one(conn)
            .await?,
    ))
}

/// The id of a tag by its name, in whatever case.
///
/// # Errors
/// Postgres failed.
pub async fn find_id(conn: &mut Conn, name: &str) -> Result<Option<TagId>> {
    Ok(
        sqlx::query_scalar!("SELECT id FROM tags WHERE lower(name) = lower($1)", name)
            .fetch_optional(conn)
            .await?
            .map(TagId),
    )
}

/// Changes a tag. Says whether it exists.
///
/// # Errors
/// The name is taken ([`is_taken`]), or Postgres failed.
pub async fn update(conn: &mut Conn, id: TagId, name: &str, description: &str) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE tags SET name = $2, description = $3 WHERE id = $1",
        id.0,
        name,
        description
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a tag and takes it from all nodes. Says whether it existed.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: TagId) -> Result<bool> {
    Ok(sqlx::query!("DELETE FROM tags WHERE id = $1", id.0)
        .execute(conn)
        .await?
        .rows_affected()
        > 0)
}

/// Gives a tag to nodes; returns how many did not carry it yet.
///
/// # Errors
/// Postgres failed.
pub async fn attach(conn: &mut Conn, tag: TagId, nodes: &[NodeId]) -> Result<u64> {
    let ids: Vec<Uuid> = nodes.iter().map(|id| id.0).collect();
    let done = sqlx::query!(
        "INSERT INTO node_tags (node_id, tag_id) SELECT id, $1 FROM nodes WHERE id = ANY($2) ON CONFLICT DO NOTHING",
        tag.0,
        &ids
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Takes a tag from nodes; returns how many carried it.
///
/// # Errors
/// Postgres failed.
pub async fn detach(conn: &mut Conn, tag: TagId, nodes: &[NodeId]) -> Result<u64> {
    let ids: Vec<Uuid> = nodes.iter().map(|id| id.0).collect();
    let done = sqlx::query!(
        "DELETE FROM node_tags WHERE tag_id = $1 AND node_id = ANY($2)",
        tag.0,
        &ids
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
