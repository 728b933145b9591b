//! Pairs of nodes that look like one machine, until people decide. Enrollment notes them (`nodes::put`); merging is in `node_merges`.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{NodeId, UserId};
use serde::Serialize;
use uuid::Uuid;

use crate::{Conn, Result};

/// A pair that nobody has decided about.
#[derive(Debug, Clone, Serialize)]
pub struct NodeConflict {
    /// The newcomer.
    pub node_id: Uuid,
    /// The node that was there.
    pub other_id: Uuid,
    /// What both have: `hardware`, `database` or `host_identifier`.
    pub reason: String,
    /// When the newcomer enrolled.
    pub noted_at: DateTime<Utc>,
}

/// Undecided pairs, newest first, at most `limit`. Those of which one still waits for an approval are shown there.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn, limit: i64) -> Result<Vec<NodeConflict>> {
    Ok(sqlx::query_as!(
        NodeConflict,
        r#"
        SELECT c.node_id, c.other_id, c.reason, c.noted_at
        FROM node_conflicts c
        JOIN nodes n ON n.id = c.node_id AND n.approval IS NULL
        JOIN nodes o ON o.id = c.other_id AND o.approval IS NULL
        WHERE c.kept_apart_at IS NULL
        ORDER BY c.noted_at DESC, c.node_id
        LIMIT $1
        "#,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// How many pairs [`list`] would give.
///
/// # Errors
/// Postgres failed.
pub async fn count(conn: &mut Conn) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"
        SELECT count(*) AS "count!"
        FROM node_conflicts c
        JOIN nodes n ON n.id = c.node_id AND n.approval IS NULL
        JOIN nodes o ON o.id = c.other_id AND o.approval IS NULL
        WHERE c.kept_apart_at IS NULL
        "#
    );
    Ok(count.fetch_one(conn).await?)
}

/// Notes that two nodes are two machines: they are not flagged again. A pair that nobody has flagged is noted, too.
///
/// # Errors
/// Postgres failed.
pub async fn keep_apart(
    conn: &mut Conn,
    one: NodeId,
    other: NodeId,
    by: Option<UserId>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO node_conflicts (node_id, other_id, reason, noted_at, kept_apart_at, kept_apart_by)
        VALUES ($1, $2, 'hardware', $3, $3, $4)
        ON CONFLICT (least(node_id, other_id), greatest(node_id, other_id))
            DO UPDATE SET kept_apart_at = $3, kept_apart_by = $4
        "#,
        one.0,
        other.0,
        now,
        by.map(|id| id.0)
    )
    .execute(&mut *conn)
    .await?;
    refresh_flags(conn, &[one, other]).await
}

/// Makes the flags of nodes say what is undecided about them.
///
/// # Errors
/// Postgres failed.
pub async fn refresh_flags(conn: &mut Conn, nodes: &[NodeId]) -> Result<()> {
    let ids: Vec<Uuid> = nodes.iter().map(|id| id.0).collect();
    sqlx::query!(
        r#"
        UPDATE nodes n SET conflict_with = (
            SELECT c.other_id FROM node_conflicts c
            WHERE c.node_id = n.id AND c.kept_apart_at IS NULL
            ORDER BY c.noted_at DESC LIMIT 1)
        WHERE n.id = ANY ($1)
        "#,
        &ids
    )
    .execute(conn)
    .await?;
    Ok(())
}
