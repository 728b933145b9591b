//! Nodes that come with what another manager knew of them: their node keys above all, so that they go on without enrolling again.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::{IdentifierKind, NodeDetails};
use uuid::Uuid;

use crate::node_keys::KeyHash;
use crate::{Conn, Result};

/// A node of another manager.
#[derive(Debug)]
pub struct TakenOver<'a> {
    /// Which it becomes here.
    pub id: NodeId,
    /// What is known of it; its vitals come with its first results.
    pub details: &'a NodeDetails,
    /// What people called it.
    pub display_name: Option<&'a str>,
    /// When it enrolled there.
    pub enrolled_at: DateTime<Utc>,
    /// Switched off there.
    pub disabled_at: Option<DateTime<Utc>>,
}

/// Which of these keys are known here, with their nodes; revoked ones, too.
///
/// # Errors
/// Postgres failed.
pub async fn known_keys(conn: &mut Conn, hashes: &[Vec<u8>]) -> Result<Vec<(Vec<u8>, NodeId)>> {
    let rows = sqlx::query!(
        "SELECT key_sha256, node_id FROM node_keys WHERE key_sha256 = ANY($1)",
        hashes
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.key_sha256, NodeId(row.node_id)))
        .collect())
}

/// The nodes that have this identifier: kind and lower-cased value.
///
/// # Errors
/// Postgres failed.
pub async fn nodes_with(conn: &mut Conn, kind: IdentifierKind, value: &str) -> Result<Vec<NodeId>> {
    let ids = sqlx::query_scalar!(
        "SELECT node_id FROM node_identifiers WHERE kind = $1 AND value = $2 ORDER BY node_id",
        kind.as_str(),
        value
    );
    Ok(ids.fetch_all(conn).await?.into_iter().map(NodeId).collect())
}

/// Makes a node with its identifiers.
///
/// # Errors
/// Postgres failed.
pub async fn insert_node(conn: &mut Conn, node: &TakenOver<'_>) -> Result<()> {
    let details = node.details;
    sqlx::query!(
        r#"
        INSERT INTO nodes (id, host_identifier, display_name, hostname, platform, hardware_uuid, hardware_serial, hardware_model,
            enrolled_at, first_enrolled_at, disabled_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10)
        "#,
        node.id.0,
        details.host_identifier,
        node.display_name,
        details.hostname,
        details.platform,
        details.hardware_uuid,
        details.hardware_serial,
        details.hardware_model,
        node.enrolled_at,
        node.disabled_at
    )
    .execute(&mut *conn)
    .await?;
    let (kinds, values): (Vec<String>, Vec<String>) = (details.identifiers().into_iter())
        .map(|(kind, value)| (kind.as_str().to_owned(), value))
        .unzip();
    sqlx::query!(
        "INSERT INTO node_identifiers (node_id, kind, value) SELECT $1, kind, value FROM unnest($2::text[], $3::text[]) AS i (kind, value)",
        node.id.0,
        &kinds,
        &values
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives a key to a node, unless it is somebody's already. Says whether it was new.
///
/// # Errors
/// Postgres failed.
pub async fn insert_key(
    conn: &mut Conn,
    id: Uuid,
    node: NodeId,
    hash: &KeyHash,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        INSERT INTO node_keys (id, node_id, key_sha256, created_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT ON CONSTRAINT node_keys_key_sha256_key DO NOTHING
        "#,
        id,
        node.0,
        hash.as_slice(),
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A node found by a name that another manager has for it.
#[derive(Debug)]
pub struct NamedNode {
    /// Which.
    pub id: Uuid,
    /// What it is called here.
    pub name: String,
    /// Does it carry the tag that was asked about?
    pub carries: bool,
}

/// Nodes whose host name, host identifier, serial or display name is one of these, and whether they carry the tag.
///
/// # Errors
/// Postgres failed.
pub async fn nodes_by_names(
    conn: &mut Conn,
    tag: &str,
    names: &[String],
) -> Result<Vec<NamedNode>> {
    let lower: Vec<String> = names
        .iter()
        .map(|name| name.trim().to_lowercase())
        .collect();
    let rows = sqlx::query_as!(
        NamedNode,
        r#"
        SELECT n.id, coalesce(nullif(n.display_name, ''), nullif(n.hostname, ''), n.host_identifier) AS "name!",
            EXISTS (SELECT FROM node_tags nt JOIN tags t ON t.id = nt.tag_id
                WHERE nt.node_id = n.id AND lower(t.name) = lower($1)) AS "carries!"
        FROM nodes n
        WHERE lower(n.hostname) = ANY($2) OR lower(n.host_identifier) = ANY($2) OR lower(n.hardware_serial) = ANY($2)
            OR lower(n.display_name) = ANY($2)
        ORDER BY 2, n.id
        "#,
        tag,
        &lower
    )
    .fetch_all(conn)
    .await?;
    Ok(rows)
}
