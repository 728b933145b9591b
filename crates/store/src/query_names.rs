//! The dictionary of query names: events and present rows hold an integer instead of `pack/it-compliance/firewall_state`.
//!
//! Names come from nodes, so whoever adds some caps how many one node may introduce ([`count_introduced_by`]).

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use uuid::Uuid;

use crate::{Conn, Result};

/// The ids of those names that are known.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, names: &[&str]) -> Result<HashMap<String, i32>> {
    let rows = sqlx::query!(
        "SELECT id, name FROM query_names WHERE name = ANY($1)",
        names as &[&str]
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.name, row.id)).collect())
}

/// Adds names, each with the node that said it first; those that exist by now are left as they are. Gives all ids.
///
/// The caller's transaction may yet be rolled back: remember the ids only after its commit.
///
/// # Errors
/// Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    names: &[(&str, NodeId)],
    now: DateTime<Utc>,
) -> Result<HashMap<String, i32>> {
    let mut names = names.to_vec();
    // Two transactions that add the same names in one order cannot wait for each other in a circle.
    names.sort_unstable();
    let texts: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    let nodes: Vec<Uuid> = names.iter().map(|(_, node)| node.0).collect();
    sqlx::query!(
        r#"
        INSERT INTO query_names (name, first_node_id, created_at)
        SELECT name, node_id, $3 FROM unnest($1::text[], $2::uuid[]) AS new (name, node_id) ORDER BY name
        ON CONFLICT (name) DO NOTHING
        "#,
        &texts as &[&str],
        &nodes,
        now
    )
    .execute(&mut *conn)
    .await?;
    find(conn, &texts).await
}

/// How many names each of these nodes was the first to say.
///
/// # Errors
/// Postgres failed.
pub async fn count_introduced_by(
    conn: &mut Conn,
    nodes: &[NodeId],
) -> Result<HashMap<NodeId, i64>> {
    let nodes: Vec<Uuid> = nodes.iter().map(|node| node.0).collect();
    let rows = sqlx::query!(
        r#"SELECT first_node_id, count(*) AS "count!" FROM query_names WHERE first_node_id = ANY($1) GROUP BY first_node_id"#,
        &nodes
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (NodeId(row.first_node_id), row.count))
        .collect())
}
