//! Nodes as enrollment sees them: found by their identifiers, made, and brought up to date. Lists for people are in `node_lists`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use ostiary_domain::enrollment::{Candidate, Conflict};
use ostiary_domain::fact;
use ostiary_domain::ids::{EnrollSecretId, NodeId};
use ostiary_domain::node::{IdentifierKind, NodeDetails};
use serde_json::{Value, json};

use crate::node_keys::standing;
use crate::{Conn, Error, Result, log_batches};

/// What is written of a node when it enrolls.
#[derive(Debug)]
pub struct Enrolled<'a> {
    /// Which node.
    pub id: NodeId,
    /// What it says about itself.
    pub details: &'a NodeDetails,
    /// The same, whole.
    pub host_details: &'a Value,
    /// By which secret.
    pub secret: EnrollSecretId,
    /// The node that it may be.
    pub conflict: Option<Conflict>,
    /// Its identity rests on the secret alone.
    pub reestablished: bool,
    /// It is new and waits for an admin.
    pub waits: bool,
    /// The silent node whose identity it claims, for which it waits.
    pub approval_of: Option<NodeId>,
    /// Now.
    pub at: DateTime<Utc>,
}

/// Every node that shares one of these identifiers, with its row locked until the transaction ends.
///
/// The identifiers themselves are locked, too: of two enrollments of one new machine at the same time the second waits, and finds
/// the node that the first has made.
///
/// # Errors
/// Postgres failed.
pub async fn find_by_identifiers(
    conn: &mut Conn,
    identifiers: &[(IdentifierKind, String)],
) -> Result<Vec<Candidate>> {
    let (kinds, values) = split(identifiers);
    sqlx::query!(
        r#"
        SELECT pg_advisory_xact_lock(key)
        FROM (
            SELECT DISTINCT hashtextextended(kind || ':' || value, 7310) AS key
            FROM unnest($1::text[], $2::text[]) AS claimed (kind, value)
            ORDER BY key
            OFFSET 0
        ) AS keys
        "#,
        &kinds,
        &values
    )
    .fetch_all(&mut *conn)
    .await?;
    let rows = sqlx::query!(
        r#"
        SELECT n.id, n.instance_id, n.hardware_uuid, n.hardware_serial, n.enrolled_at, n.enroll_secret_id, n.disabled_at, n.approval,
            i.kind, c.last_seen_at AS "last_seen_at?", c.last_ip AS "last_ip?: IpNet"
        FROM unnest($1::text[], $2::text[]) AS claimed (kind, value)
        JOIN node_identifiers i ON i.kind = claimed.kind AND i.value = claimed.value
        JOIN nodes n ON n.id = i.node_id
        LEFT JOIN node_checkins c ON c.node_id = n.id
        ORDER BY n.id
        FOR NO KEY UPDATE OF n
        "#,
        &kinds,
        &values
    )
    .fetch_all(conn)
    .await?;
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut positions: HashMap<NodeId, usize> = HashMap::new();
    for row in rows {
        let kind = IdentifierKind::from_str_opt(&row.kind)
            .ok_or_else(|| Error::Corrupt(format!("unknown kind of identifier {:?}", row.kind)))?;
        let id = NodeId(row.id);
        let position = *positions.entry(id).or_insert_with(|| {
            candidates.push(Candidate {
                node_id: id,
                shared: Vec::new(),
                instance_id: row.instance_id.to_lowercase(),
                hardware_uuid: row.hardware_uuid.to_lowercase(),
                hardware_serial: row.hardware_serial.to_lowercase(),
                last_seen_at: row.last_seen_at,
                last_ip: row.last_ip.map(|net| net.addr()),
                enrolled_at: row.enrolled_at,
                secret: row.enroll_secret_id.map(EnrollSecretId),
                standing: standing(row.disabled_at, row.approval.as_deref()),
            });
            candidates.len() - 1
        });
        candidates[position].shared.push(kind);
    }
    Ok(candidates)
}

/// Makes a node, or brings a known one up to date; its identifiers become those of `details`.
///
/// # Errors
/// Postgres failed.
pub async fn put(conn: &mut Conn, node: &Enrolled<'_>) -> Result<()> {
    let details = node.details;
    sqlx::query!(
        r#"
        INSERT INTO nodes (id, host_identifier, hostname, platform, os_name, os_version, osquery_version, hardware_uuid,
            hardware_serial, hardware_model, instance_id, host_details, enroll_secret_id, enrolled_at, first_enrolled_at,
            conflict_with, identity_reestablished_at, disabled_at, approval, approval_of)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14, $15, CASE WHEN $16 THEN $14::timestamptz END,
            CASE WHEN $17 THEN $14::timestamptz END, CASE WHEN $17 THEN 'waiting' END, $18)
        ON CONFLICT ON CONSTRAINT nodes_pkey DO UPDATE SET
            host_identifier = excluded.host_identifier,
            hostname = coalesce(nullif(excluded.hostname, ''), nodes.hostname),
            platform = coalesce(nullif(excluded.platform, ''), nodes.platform),
            os_name = coalesce(nullif(excluded.os_name, ''), nodes.os_name),
            os_version = coalesce(nullif(excluded.os_version, ''), nodes.os_version),
            osquery_version = coalesce(nullif(excluded.osquery_version, ''), nodes.osquery_version),
            hardware_uuid = coalesce(nullif(excluded.hardware_uuid, ''), nodes.hardware_uuid),
            hardware_serial = coalesce(nullif(excluded.hardware_serial, ''), nodes.hardware_serial),
            hardware_model = coalesce(nullif(excluded.hardware_model, ''), nodes.hardware_model),
            instance_id = coalesce(nullif(excluded.instance_id, ''), nodes.instance_id),
            host_details = excluded.host_details,
            enroll_secret_id = excluded.enroll_secret_id,
            enrolled_at = excluded.enrolled_at,
            identity_reestablished_at = coalesce(excluded.identity_reestablished_at, nodes.identity_reestablished_at)
        "#,
        node.id.0,
        details.host_identifier,
        details.hostname,
        details.platform,
        details.os_name,
        details.os_version,
        details.osquery_version,
        details.hardware_uuid,
        details.hardware_serial,
        details.hardware_model,
        details.instance_id,
        node.host_details,
        node.secret.0,
        node.at,
        node.conflict.map(|conflict| conflict.with.0),
        node.reestablished,
        node.waits,
        node.approval_of.map(|id| id.0)
    )
    .execute(&mut *conn)
    .await?;
    if let Some(conflict) = &node.conflict {
        // A pair that was noted, or kept apart by an admin, stays as it is.
        sqlx::query!(
            "INSERT INTO node_conflicts (node_id, other_id, reason, noted_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            node.id.0,
            conflict.with.0,
            conflict.reason.as_str(),
            node.at
        )
        .execute(&mut *conn)
        .await?;
    }
    let (kinds, values) = split(&details.identifiers());
    sqlx::query!(
        r#"
        WITH claimed AS (SELECT kind, value FROM unnest($2::text[], $3::text[]) AS claimed (kind, value)),
        gone AS (
            DELETE FROM node_identifiers i
            WHERE i.node_id = $1
              AND EXISTS (SELECT FROM claimed WHERE claimed.kind = i.kind)
              AND NOT EXISTS (SELECT FROM claimed WHERE claimed.kind = i.kind AND claimed.value = i.value)
        )
        INSERT INTO node_identifiers (node_id, kind, value)
        SELECT $1, kind, value FROM claimed
        ON CONFLICT ON CONSTRAINT node_identifiers_pkey DO NOTHING
        "#,
        node.id.0,
        &kinds,
        &values
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How many nodes wait for an approval.
///
/// # Errors
/// Postgres failed.
pub async fn count_waiting(conn: &mut Conn) -> Result<i64> {
    let count =
        sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM nodes WHERE approval = 'waiting'"#);
    Ok(count.fetch_one(conn).await?)
}

/// Adds to the lines that a node had to throw away, or that we could not take, and tells rules of it.
///
/// # Errors
/// Postgres failed.
pub async fn add_lines_lost(
    conn: &mut Conn,
    id: NodeId,
    lines: i64,
    now: DateTime<Utc>,
) -> Result<()> {
    let in_all = sqlx::query_scalar!(
        "UPDATE nodes SET lines_lost = lines_lost + $2 WHERE id = $1 RETURNING lines_lost",
        id.0,
        lines
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(in_all) = in_all {
        let fact = fact::LINES_LOST.noted(json!({"lines": lines, "lines_in_all": in_all}));
        log_batches::insert_fact(conn, id, &fact, now).await?;
    }
    Ok(())
}

fn split(identifiers: &[(IdentifierKind, String)]) -> (Vec<String>, Vec<String>) {
    identifiers
        .iter()
        .map(|(kind, value)| (kind.as_str().to_owned(), value.clone()))
        .unzip()
}
