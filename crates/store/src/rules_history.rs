//! What was reported, for trying a rule on it: read in slices, in the order received, and never locked.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::log::Action;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::osquery::Columns;
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::packed::Packed;
use crate::reporting_nodes::{ReportingNode, object};
use crate::{Conn, Db, Error, Result, Tx};

/// Begins a transaction that sees one moment and writes nothing. A statement in it takes so many seconds at most.
///
/// # Errors
/// Postgres failed.
pub async fn begin(db: &Db, seconds: u32) -> Result<Tx> {
    let mut tx = db.begin_snapshot().await?;
    sqlx::query_scalar!(
        "SELECT set_config('statement_timeout', $1, true)",
        (seconds * 1_000).to_string()
    )
    .fetch_one(&mut *tx)
    .await?;
    Ok(tx)
}

/// One execution, packed.
#[derive(Debug)]
pub struct PackedEvent {
    /// Orders them with `received_at`.
    pub id: i64,
    /// Of whom.
    pub node_id: NodeId,
    /// Which query.
    pub query_name: String,
    /// When we heard of it.
    pub received_at: DateTime<Utc>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// It holds all rows.
    pub snapshot: bool,
    /// A first full set, or one that came again.
    pub baseline: bool,
    rows: Packed,
}

/// A stored row.
#[derive(Debug, Deserialize)]
struct Row<'a> {
    action: Action,
    #[serde(borrow, deserialize_with = "columns")]
    columns: Columns<'a>,
}

fn columns<'de: 'a, 'a, D: Deserializer<'de>>(
    json: D,
) -> std::result::Result<Columns<'a>, D::Error> {
    Columns::<'de>::deserialize(json)
}

impl PackedEvent {
    /// Its rows.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn rows(&self) -> Result<Vec<(Action, Columns<'_>)>> {
        let rows: Vec<Row<'_>> = serde_json::from_str(&self.rows)
            .map_err(|error| Error::Corrupt(format!("events: {error}")))?;
        Ok(rows
            .into_iter()
            .map(|row| (row.action, row.columns))
            .collect())
    }
}

/// A span of time, the end not included.
pub type Span = (DateTime<Utc>, DateTime<Utc>);

/// Executions of these queries (`None`: of all) that came in a span, after this position, in the order received.
///
/// # Errors
/// Postgres failed.
pub async fn list_events(
    conn: &mut Conn,
    queries: Option<&[i32]>,
    (from, to): Span,
    after: Option<(DateTime<Utc>, i64)>,
    limit: i64,
) -> Result<Vec<PackedEvent>> {
    let rows = sqlx::query!(
        r#"
        SELECT e.id, e.node_id, q.name, received_at, occurred_at, snapshot, baseline, rows AS "rows: Packed"
        FROM events e JOIN query_names q ON q.id = e.query_name_id
        WHERE received_at >= $1 AND received_at < $2 AND ($3::integer[] IS NULL OR e.query_name_id = ANY($3))
            AND ($4::timestamptz IS NULL OR (received_at, e.id) > ($4, $5))
        ORDER BY received_at, e.id LIMIT $6
        "#,
        after.map_or(from, |(at, _)| at.max(from)),
        to,
        queries as Option<&[i32]>,
        after.map(|(at, _)| at),
        after.map(|(_, id)| id),
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| PackedEvent {
            id: row.id,
            node_id: NodeId(row.node_id),
            query_name: row.name,
            received_at: row.received_at,
            occurred_at: row.occurred_at,
            snapshot: row.snapshot,
            baseline: row.baseline,
            rows: row.rows,
        })
        .collect())
}

/// Nodes as rules see them now, without keeping them from anything.
///
/// # Errors
/// Postgres failed.
pub async fn find_nodes(conn: &mut Conn, ids: &[NodeId]) -> Result<HashMap<NodeId, ReportingNode>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        r#"
        SELECT id, host_identifier, hostname, coalesce(nullif(display_name, ''), nullif(hostname, ''), host_identifier) AS "name!",
            platform, osquery_version, instance_id, vitals, host_details,
            ARRAY(SELECT t.name FROM node_tags nt JOIN tags t ON t.id = nt.tag_id WHERE nt.node_id = n.id ORDER BY t.name) AS "tags!"
        FROM nodes n WHERE id = ANY($1)
        "#,
        &ids
    )
    .fetch_all(conn)
    .await?;
    let node = |row: (Uuid, NodeFacts, String, _, _)| {
        let (id, facts, instance_id, vitals, host_details) = row;
        let id = NodeId(id);
        let node = ReportingNode {
            id,
            facts,
            instance_id,
            vitals: object(vitals),
            host_details: object(host_details),
        };
        (id, node)
    };
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
            node((row.id, facts, row.instance_id, row.vitals, row.host_details))
        })
        .collect())
}
