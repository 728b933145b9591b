//! Nodes that come with what another manager knew of them: their node keys above all, so that they go on without enrolling again.

use chrono::{DateTime, Utc};
use ostiary_domain::enrollment::{Conflict, Lookalike};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::{IdentifierKind, NodeDetails};
use uuid::Uuid;

use crate::node_keys::{KeyHash, standing};
use crate::{Conn, Result, node_conflicts};

/// Rows that one statement takes.
const AT_ONCE: usize = 5_000;

/// A node of another manager.
#[derive(Debug)]
pub struct TakenOver {
    /// Which it becomes here.
    pub id: NodeId,
    /// What is known of it; its vitals come with its first results.
    pub details: NodeDetails,
    /// What people called it.
    pub display_name: Option<String>,
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

/// The nodes that have any of these identifiers (kinds and lower-cased values), with the identifier by which each was found.
///
/// # Errors
/// Postgres failed.
pub async fn lookalikes(
    conn: &mut Conn,
    identifiers: &[(IdentifierKind, String)],
) -> Result<Vec<(IdentifierKind, String, Lookalike)>> {
    let mut found = Vec::new();
    for some in identifiers.chunks(AT_ONCE) {
        let kinds: Vec<&str> = some.iter().map(|(kind, _)| kind.as_str()).collect();
        let values: Vec<&str> = some.iter().map(|(_, value)| value.as_str()).collect();
        let rows = sqlx::query!(
            r#"
            SELECT w.at AS "at!", n.id, n.hardware_uuid, n.hardware_serial, n.hostname, n.disabled_at, n.approval
            FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (kind, value, at)
            JOIN node_identifiers i ON i.kind = w.kind AND i.value = w.value
            JOIN nodes n ON n.id = i.node_id
            ORDER BY w.at, n.id
            "#,
            &kinds as &[&str],
            &values as &[&str]
        )
        .fetch_all(&mut *conn)
        .await?;
        for row in rows {
            let at = usize::try_from(row.at - 1).unwrap_or_default();
            let Some((kind, value)) = some.get(at) else {
                continue;
            };
            let lookalike = Lookalike {
                node_id: NodeId(row.id),
                shared: vec![*kind],
                hardware_uuid: row.hardware_uuid,
                hardware_serial: row.hardware_serial,
                hostname: row.hostname,
                standing: standing(row.disabled_at, row.approval.as_deref()),
            };
            found.push((*kind, value.clone(), lookalike));
        }
    }
    Ok(found)
}

/// Makes nodes with their identifiers, some thousands by a statement.
///
/// # Errors
/// Postgres failed.
pub async fn insert_nodes(conn: &mut Conn, nodes: &[TakenOver]) -> Result<()> {
    for some in nodes.chunks(AT_ONCE) {
        let text = |of: fn(&NodeDetails) -> &String| -> Vec<&str> {
            some.iter().map(|node| of(&node.details).as_str()).collect()
        };
        let ids: Vec<Uuid> = some.iter().map(|node| node.id.0).collect();
        let names: Vec<Option<&str>> = some
            .iter()
            .map(|node| node.display_name.as_deref())
            .collect();
        let enrolled: Vec<DateTime<Utc>> = some.iter().map(|node| node.enrolled_at).collect();
        let disabled: Vec<Option<DateTime<Utc>>> =
            some.iter().map(|node| node.disabled_at).collect();
        sqlx::query!(
            r#"
            INSERT INTO nodes (id, host_identifier, display_name, hostname, platform, hardware_uuid, hardware_serial, hardware_model,
                enrolled_at, first_enrolled_at, disabled_at)
            SELECT id, identifier, display, hostname, platform, uuid, serial, model, enrolled, enrolled, disabled
            FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::timestamptz[], $10::timestamptz[])
                AS n (id, identifier, display, hostname, platform, uuid, serial, model, enrolled, disabled)
            "#,
            &ids,
            &text(|details| &details.host_identifier) as &[&str],
            &names as &[Option<&str>],
            &text(|details| &details.hostname) as &[&str],
            &text(|details| &details.platform) as &[&str],
            &text(|details| &details.hardware_uuid) as &[&str],
            &text(|details| &details.hardware_serial) as &[&str],
            &text(|details| &details.hardware_model) as &[&str],
            &enrolled,
            &disabled as &[Option<DateTime<Utc>>]
        )
        .execute(&mut *conn)
        .await?;
        let (mut of, mut kinds, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for node in some {
            for (kind, value) in node.details.identifiers() {
                of.push(node.id.0);
                kinds.push(kind.as_str());
                values.push(value);
            }
        }
        sqlx::query!(
            r#"
            INSERT INTO node_identifiers (node_id, kind, value)
            SELECT node, kind, value FROM unnest($1::uuid[], $2::text[], $3::text[]) AS i (node, kind, value)
            "#,
            &of,
            &kinds as &[&str],
            &values
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// A key of another manager, and whose it is here.
#[derive(Debug)]
pub struct TakenOverKey {
    /// Which key.
    pub id: Uuid,
    /// Whose.
    pub node: NodeId,
    /// SHA-256 of it.
    pub hash: KeyHash,
}

/// Gives keys to nodes, unless they are somebody's already.
///
/// # Errors
/// Postgres failed.
pub async fn insert_keys(conn: &mut Conn, keys: &[TakenOverKey], now: DateTime<Utc>) -> Result<()> {
    for some in keys.chunks(AT_ONCE) {
        let ids: Vec<Uuid> = some.iter().map(|key| key.id).collect();
        let nodes: Vec<Uuid> = some.iter().map(|key| key.node.0).collect();
        let hashes: Vec<&[u8]> = some.iter().map(|key| key.hash.as_slice()).collect();
        sqlx::query!(
            r#"
            INSERT INTO node_keys (id, node_id, key_sha256, created_at)
            SELECT id, node, hash, $4 FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) AS k (id, node, hash)
            ON CONFLICT ON CONSTRAINT node_keys_key_sha256_key DO NOTHING
            "#,
            &ids,
            &nodes,
            &hashes as &[&[u8]],
            now
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Flags newcomers that may be a node which was there, for people to settle. A pair that is flagged, or was kept apart, stays so.
///
/// # Errors
/// Postgres failed.
pub async fn flag_conflicts(
    conn: &mut Conn,
    conflicts: &[(NodeId, Conflict)],
    now: DateTime<Utc>,
) -> Result<()> {
    for some in conflicts.chunks(AT_ONCE) {
        let nodes: Vec<Uuid> = some.iter().map(|(node, _)| node.0).collect();
        let others: Vec<Uuid> = some.iter().map(|(_, conflict)| conflict.with.0).collect();
        let reasons: Vec<&str> = some
            .iter()
            .map(|(_, conflict)| conflict.reason.as_str())
            .collect();
        sqlx::query!(
            r#"
            INSERT INTO node_conflicts (node_id, other_id, reason, noted_at)
            SELECT node, other, reason, $4 FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS c (node, other, reason)
            ON CONFLICT (least(node_id, other_id), greatest(node_id, other_id)) DO NOTHING
            "#,
            &nodes,
            &others,
            &reasons as &[&str],
            now
        )
        .execute(&mut *conn)
        .await?;
        let nodes: Vec<NodeId> = some.iter().map(|(node, _)| *node).collect();
        node_conflicts::refresh_flags(conn, &nodes).await?;
    }
    Ok(())
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
