//! Nodes that wait for an approval. They have a key, which unlocks nothing (`nodes::put` makes them so); here people decide.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use serde::Serialize;
use uuid::Uuid;

use crate::{Conn, Result};

/// A node that waits, or was refused.
#[derive(Debug, Clone, Serialize)]
pub struct Claimant {
    /// Which.
    pub id: Uuid,
    /// The silent node whose identity it claims, if that is why it waits.
    pub approval_of: Option<Uuid>,
    /// The node with which it was found to be in conflict.
    pub conflict_with: Option<Uuid>,
    /// When it came for the first time.
    pub first_enrolled_at: DateTime<Utc>,
}

/// Nodes in this state (`waiting`, `refused`), those that came last first, at most `limit`.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn, state: &str, limit: i64) -> Result<Vec<Claimant>> {
    Ok(sqlx::query_as!(
        Claimant,
        r#"
        SELECT id, approval_of, conflict_with, first_enrolled_at FROM nodes
        WHERE approval = $1 ORDER BY first_enrolled_at DESC, id LIMIT $2
        "#,
        state,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// What people decide by: the state of a node's approval, and what its fact will say.
#[derive(Debug, Clone)]
pub struct ClaimantState {
    /// `waiting`, `refused`, or none: it need not be approved.
    pub approval: Option<String>,
    /// The silent node whose identity it claims.
    pub approval_of: Option<NodeId>,
    /// The node with which it was found to be in conflict.
    pub conflict_with: Option<NodeId>,
    /// Address of its latest request.
    pub last_ip: Option<String>,
    /// Name of its secret, while that exists.
    pub secret: Option<String>,
}

/// The standing of a node, with its row locked until the transaction ends.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: NodeId) -> Result<Option<ClaimantState>> {
    let row = sqlx::query!(
        r#"
        SELECT n.approval, n.approval_of, n.conflict_with, host(c.last_ip) AS last_ip, s.name AS "secret?"
        FROM nodes n
        LEFT JOIN node_checkins c ON c.node_id = n.id
        LEFT JOIN enroll_secrets s ON s.id = n.enroll_secret_id
        WHERE n.id = $1
        FOR UPDATE OF n
        "#,
        id.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| ClaimantState {
        approval: row.approval,
        approval_of: row.approval_of.map(NodeId),
        conflict_with: row.conflict_with.map(NodeId),
        last_ip: row.last_ip,
        secret: row.secret,
    }))
}

/// Lets a node in as a node of its own.
///
/// # Errors
/// Postgres failed.
pub async fn approve(conn: &mut Conn, id: NodeId) -> Result<()> {
    sqlx::query!(
        "UPDATE nodes SET approval = NULL, approval_of = NULL, disabled_at = NULL WHERE id = $1 AND approval IS NOT NULL",
        id.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Remembers that a node is not wanted: it keeps its key, which goes on to unlock nothing, and gets no other.
///
/// # Errors
/// Postgres failed.
pub async fn refuse(conn: &mut Conn, id: NodeId) -> Result<()> {
    sqlx::query!(
        "UPDATE nodes SET approval = 'refused' WHERE id = $1 AND approval = 'waiting'",
        id.0
    )
    .execute(conn)
    .await?;
    Ok(())
}
