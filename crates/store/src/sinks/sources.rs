//! The rows that sinks read, in the order of their ids.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use serde_json::Value;
use uuid::Uuid;

use crate::event_lists::EventRecord;
use crate::packed::Packed;
use crate::{Conn, Result};

/// Which rows: after one id, up to another, so many at most.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// The first is the next after this.
    pub after: i64,
    /// The last that may come: the horizon.
    pub up_to: i64,
    /// Rows at most.
    pub rows: i64,
    /// Packed bytes at most; a larger row comes alone.
    pub bytes: i64,
}

/// Events of a slice.
///
/// # Errors
/// Postgres failed.
pub async fn list_events(conn: &mut Conn, slice: Slice) -> Result<Vec<EventRecord>> {
    Ok(sqlx::query_as!(
        EventRecord,
        r#"
        SELECT e.id, e.node_id, q.name AS query_name, received_at, occurred_at, unix_time, epoch::text AS "epoch!", counter,
            snapshot, baseline, late, lossy, row_count, rows AS "rows: Packed"
        FROM (
            SELECT *, sum(octet_length(rows)) OVER (ORDER BY id) - octet_length(rows) AS before
            FROM (SELECT * FROM events WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3) slice
        ) e JOIN query_names q ON q.id = e.query_name_id
        WHERE before <= $4
        ORDER BY e.id
        "#,
        slice.after,
        slice.up_to,
        slice.rows,
        slice.bytes
    )
    .fetch_all(conn)
    .await?)
}

/// A line of a status log, with its node.
#[derive(Debug, Clone)]
pub struct StatusOfNode {
    /// Orders them.
    pub id: i64,
    /// Of which node.
    pub node_id: Uuid,
    /// By the server's clock.
    pub received_at: DateTime<Utc>,
    /// The node's time, clamped to `received_at`.
    pub occurred_at: DateTime<Utc>,
    /// 0 info, 1 warning, 2 error, 3 fatal.
    pub severity: i16,
    /// What it says.
    pub message: String,
    /// Source file of osquery.
    pub filename: String,
    /// Its line.
    pub line: i32,
    /// Of the osqueryd.
    pub version: String,
}

/// Status logs of a slice.
///
/// # Errors
/// Postgres failed.
pub async fn list_status_logs(conn: &mut Conn, slice: Slice) -> Result<Vec<StatusOfNode>> {
    Ok(sqlx::query_as!(
        StatusOfNode,
        r#"
        SELECT id, node_id, received_at, occurred_at, severity, message, filename, line, version
        FROM status_logs WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3
        "#,
        slice.after,
        slice.up_to,
        slice.rows
    )
    .fetch_all(conn)
    .await?)
}

/// Something that happened to a finding.
#[derive(Debug, Clone)]
pub struct FindingChange {
    /// Orders them.
    pub id: i64,
    /// The node, if the finding has one.
    pub node_id: Option<Uuid>,
    /// `opened`, or the state it came into.
    pub change: String,
    /// When.
    pub changed_at: DateTime<Utc>,
    /// The finding as it was then, by the names of its columns.
    pub finding: Value,
    /// `{"query_name", "action", "columns"}` of the first row that it was opened for, while it is kept.
    pub first_match: Option<Value>,
}

/// Changes of findings of a slice.
///
/// # Errors
/// Postgres failed.
pub async fn list_finding_changes(conn: &mut Conn, slice: Slice) -> Result<Vec<FindingChange>> {
    Ok(sqlx::query_as!(
        FindingChange,
        r#"
        SELECT id, node_id, change, changed_at, finding, first.found AS first_match
        FROM finding_changes c
        LEFT JOIN LATERAL (
            SELECT json_build_object('query_name', m.query_name, 'action', m.action, 'columns', m.columns) AS found
            FROM finding_matches m WHERE m.finding_id = c.finding_id ORDER BY m.id LIMIT 1) first ON true
        WHERE c.id > $1 AND c.id <= $2 ORDER BY c.id LIMIT $3
        "#,
        slice.after,
        slice.up_to,
        slice.rows
    )
    .fetch_all(conn)
    .await?)
}

/// Audit entries of a slice.
///
/// # Errors
/// Postgres failed.
pub async fn list_audit_entries(
    conn: &mut Conn,
    slice: Slice,
) -> Result<Vec<crate::audit::EntryRecord>> {
    Ok(sqlx::query_as!(
        crate::audit::EntryRecord,
        r#"
        SELECT id, at, user_name, action, subject_kind, subject_id, subject_name, before, after, host(ip) AS ip
        FROM audit_entries WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3
        "#,
        slice.after,
        slice.up_to,
        slice.rows
    )
    .fetch_all(conn)
    .await?)
}

/// What targets and lines say of nodes, as it is now. Nodes that are gone are not in it.
///
/// # Errors
/// Postgres failed.
pub async fn find_nodes(conn: &mut Conn, ids: &[Uuid]) -> Result<HashMap<NodeId, NodeFacts>> {
    let rows = sqlx::query!(
        r#"
        SELECT id, host_identifier, hostname, coalesce(nullif(display_name, ''), nullif(hostname, ''), host_identifier) AS "name!",
            platform, osquery_version,
            ARRAY(SELECT t.name FROM node_tags nt JOIN tags t ON t.id = nt.tag_id WHERE nt.node_id = n.id ORDER BY t.name) AS "tags!"
        FROM nodes n WHERE id = ANY($1)
        "#,
        ids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let facts = NodeFacts {
                host_identifier: row.host_identifier,
                hostname: row.hostname,
                name: row.name,
                platform: row.platform,
                osquery_version: row.osquery_version,
                tags: row.tags,
            };
            (NodeId(row.id), facts)
        })
        .collect())
}
