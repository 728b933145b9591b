//! Node keys, by their SHA-256, and what is kept in memory beside them: who the node is for targets, and whether it is switched off.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use ostiary_domain::enrollment::Standing;
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use uuid::Uuid;

use crate::{Conn, Error, Result};

/// SHA-256 of a node key.
pub type KeyHash = [u8; 32];

/// What a check-in needs to know of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownNode {
    /// Which.
    pub id: NodeId,
    /// What people have decided about it.
    pub standing: Standing,
    /// What targets may ask.
    pub facts: NodeFacts,
}

/// What Postgres says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyState {
    /// It belongs to this node.
    InForce(KnownNode),
    /// It did belong to a node.
    Revoked,
    /// It was never given out, or its node was deleted.
    Unknown,
}

/// Adds a key to a node. Its other keys stay: osqueryd's threads race, and one of them may still use the key before.
///
/// # Errors
/// Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: Uuid,
    node: NodeId,
    hash: &KeyHash,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO node_keys (id, node_id, key_sha256, created_at) VALUES ($1, $2, $3, $4)",
        id,
        node.0,
        hash.as_slice(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Revokes keys of a node that nobody has used since `before`, so that a node which enrolls at every start does not pile them up.
///
/// # Errors
/// Postgres failed.
pub async fn revoke_unused(
    conn: &mut Conn,
    node: NodeId,
    before: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<()> {
    // Asked first, because even an update of no rows bumps the generation, and every api would read all keys anew.
    let unused = sqlx::query_scalar!(
        r#"
        SELECT id FROM node_keys
        WHERE node_id = $1 AND revoked_at IS NULL AND coalesce(last_used_at, created_at) < $2
        "#,
        node.0,
        before
    )
    .fetch_all(&mut *conn)
    .await?;
    if !unused.is_empty() {
        sqlx::query!(
            "UPDATE node_keys SET revoked_at = $2 WHERE id = ANY ($1)",
            &unused,
            now
        )
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// Looks a key up.
///
/// # Errors
/// Postgres failed: nothing is known then, least of all that the key is unknown.
pub async fn find(conn: &mut Conn, hash: &KeyHash) -> Result<KeyState> {
    let key = sqlx::query!(
        "SELECT node_id, revoked_at FROM node_keys WHERE key_sha256 = $1",
        hash.as_slice()
    )
    .fetch_optional(&mut *conn)
    .await?;
    match key {
        None => Ok(KeyState::Unknown),
        Some(key) if key.revoked_at.is_some() => Ok(KeyState::Revoked),
        Some(key) => {
            let node = find_node(conn, NodeId(key.node_id)).await?;
            Ok(node.map_or(KeyState::Unknown, KeyState::InForce))
        }
    }
}

/// The keys in force of some nodes, or of all.
///
/// # Errors
/// Postgres failed.
pub async fn list_in_force(
    conn: &mut Conn,
    only: Option<&[NodeId]>,
) -> Result<Vec<(KeyHash, NodeId)>> {
    let only = only.map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>());
    let rows = sqlx::query!(
        r#"
        SELECT key_sha256, node_id FROM node_keys
        WHERE revoked_at IS NULL AND ($1::uuid[] IS NULL OR node_id = ANY ($1))
        "#,
        only.as_deref()
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let hash = row
                .key_sha256
                .try_into()
                .map_err(|_| Error::Corrupt("a node key's hash is not 32 bytes long".into()))?;
            Ok((hash, NodeId(row.node_id)))
        })
        .collect()
}

/// Which nodes changed in what is kept in memory of them, after generation `seen` of `node_keys` and up to `present`; `None` when that
/// is not told, and all must be read.
///
/// # Errors
/// Postgres failed.
pub async fn list_changed(conn: &mut Conn, seen: i64, present: i64) -> Result<Option<Vec<NodeId>>> {
    let rows = sqlx::query!(
        "SELECT generation, node_id FROM node_changes WHERE generation > $1 AND generation <= $2",
        seen,
        present
    )
    .fetch_all(conn)
    .await?;
    let told: HashSet<i64> = rows.iter().map(|row| row.generation).collect();
    let all_told = i64::try_from(told.len()).is_ok_and(|told| told == present - seen);
    if !all_told || rows.iter().any(|row| row.node_id.is_nil()) {
        return Ok(None);
    }
    let nodes: HashSet<NodeId> = rows.iter().map(|row| NodeId(row.node_id)).collect();
    Ok(Some(nodes.into_iter().collect()))
}

/// One node.
///
/// # Errors
/// Postgres failed.
pub async fn find_node(conn: &mut Conn, id: NodeId) -> Result<Option<KnownNode>> {
    Ok(list_nodes(conn, Some(&[id])).await?.pop())
}

/// Some nodes, or all.
///
/// # Errors
/// Postgres failed.
pub async fn list_nodes(conn: &mut Conn, only: Option<&[NodeId]>) -> Result<Vec<KnownNode>> {
    let only = only.map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>());
    let rows = sqlx::query!(
        r#"
        SELECT n.id, n.host_identifier, n.hostname, n.display_name, n.platform, n.osquery_version,
            n.disabled_at, n.approval, coalesce(tagged.names, '{}') AS "tags!: Vec<String>"
        FROM nodes n
        LEFT JOIN (
            SELECT nt.node_id, array_agg(t.name ORDER BY t.name) AS names
            FROM node_tags nt
            JOIN tags t ON t.id = nt.tag_id
            WHERE $1::uuid[] IS NULL OR nt.node_id = ANY ($1)
            GROUP BY nt.node_id
        ) AS tagged ON tagged.node_id = n.id
        WHERE $1::uuid[] IS NULL OR n.id = ANY ($1)
        "#,
        only.as_deref()
    )
    .fetch_all(conn)
    .await?;
    let filled = |text: &String| !text.is_empty();
    Ok(rows
        .into_iter()
        .map(|row| KnownNode {
            id: NodeId(row.id),
            standing: standing(row.disabled_at, row.approval.as_deref()),
            facts: NodeFacts {
                name: row
                    .display_name
                    .filter(filled)
                    .or_else(|| Some(row.hostname.clone()).filter(filled))
                    .unwrap_or_else(|| row.host_identifier.clone()),
                host_identifier: row.host_identifier,
                hostname: row.hostname,
                platform: row.platform,
                osquery_version: row.osquery_version,
                tags: row.tags,
            },
        })
        .collect())
}

/// What people have decided about a node, from the columns that say so.
pub(crate) fn standing(disabled_at: Option<DateTime<Utc>>, approval: Option<&str>) -> Standing {
    match (approval, disabled_at) {
        (Some("waiting"), _) => Standing::Waiting,
        (Some(_), _) => Standing::Refused,
        (None, Some(_)) => Standing::Disabled,
        (None, None) => Standing::InForce,
    }
}

/// Notes when keys were last used.
///
/// # Errors
/// Postgres failed.
pub async fn note_used(conn: &mut Conn, used: &HashMap<KeyHash, DateTime<Utc>>) -> Result<()> {
    let (hashes, times): (Vec<Vec<u8>>, Vec<DateTime<Utc>>) =
        used.iter().map(|(hash, at)| (hash.to_vec(), *at)).unzip();
    sqlx::query!(
        r#"
        UPDATE node_keys k SET last_used_at = used.at
        FROM unnest($1::bytea[], $2::timestamptz[]) AS used (hash, at)
        WHERE k.key_sha256 = used.hash
        "#,
        &hashes,
        &times
    )
    .execute(conn)
    .await?;
    Ok(())
}
