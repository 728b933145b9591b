//! Facts that hold until they end and that follow from what is stored. Each is noted once, and once its end.
//!
//! [`settle`] compares what holds now with what was noted; the `list_*` functions say what holds. Whoever settles a fact holds the lead
//! of the sweep ([`crate::upkeep`]).

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::NodeId;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::reporting_nodes::OSTIARY;
use crate::{Conn, Result};

/// Failures of a sink in a row before it counts as failing, as with destinations.
const SINK_FAILURES: i32 = 5;

/// Something that holds now.
#[derive(Debug, Clone, PartialEq)]
pub struct Holding {
    /// On which node; [`OSTIARY`] for Ostiary itself.
    pub node_id: NodeId,
    /// What on the node it is about; empty: the node.
    pub entity: String,
    /// The row that rules see.
    pub columns: Value,
}

/// What has changed since the last time.
#[derive(Debug, Default)]
pub struct Settled {
    /// What is new.
    pub begun: Vec<Holding>,
    /// What holds no longer, as it was noted.
    pub ended: Vec<Holding>,
}

/// Notes what holds of the fact `name`, and forgets what does not any more. Each entity of a node must be named once.
///
/// # Errors
/// Postgres failed.
pub async fn settle(
    conn: &mut Conn,
    name: &str,
    holding: Vec<Holding>,
    now: DateTime<Utc>,
) -> Result<Settled> {
    let rows = sqlx::query!(
        "SELECT node_id, entity, columns FROM noted_facts WHERE name = $1",
        name
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut noted: HashMap<(Uuid, String), Value> = rows
        .into_iter()
        .map(|row| ((row.node_id, row.entity), row.columns))
        .collect();
    let mut settled = Settled::default();
    for one in holding {
        if noted.remove(&(one.node_id.0, one.entity.clone())).is_none() {
            settled.begun.push(one);
        }
    }
    let ended = noted.into_iter().map(|((node, entity), columns)| Holding {
        node_id: NodeId(node),
        entity,
        columns,
    });
    settled.ended = ended.collect();
    // In an order that is the same each time, for whoever reads of them.
    let order = |one: &Holding| (one.node_id, one.entity.clone());
    settled.begun.sort_by_key(order);
    settled.ended.sort_by_key(order);
    put(&mut *conn, name, &settled.begun, now).await?;
    delete(conn, name, &settled.ended).await?;
    Ok(settled)
}

async fn put(conn: &mut Conn, name: &str, begun: &[Holding], now: DateTime<Utc>) -> Result<()> {
    let (nodes, entities) = keys(begun);
    let columns: Vec<Value> = begun.iter().map(|one| one.columns.clone()).collect();
    sqlx::query!(
        r#"
        INSERT INTO noted_facts (node_id, name, entity, noted_at, columns)
        SELECT node_id, $1, entity, $2, columns FROM unnest($3::uuid[], $4::text[], $5::json[]) AS begun (node_id, entity, columns)
        "#,
        name,
        now,
        &nodes,
        &entities,
        &columns
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn delete(conn: &mut Conn, name: &str, ended: &[Holding]) -> Result<()> {
    let (nodes, entities) = keys(ended);
    sqlx::query!(
        r#"
        DELETE FROM noted_facts n USING unnest($2::uuid[], $3::text[]) AS ended (node_id, entity)
        WHERE n.name = $1 AND n.node_id = ended.node_id AND n.entity = ended.entity
        "#,
        name,
        &nodes,
        &entities
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn keys(all: &[Holding]) -> (Vec<Uuid>, Vec<String>) {
    let key = |one: &Holding| (one.node_id.0, one.entity.clone());
    all.iter().map(key).unzip()
}

/// Nodes that look like another one, as far as people have not decided about them.
///
/// # Errors
/// Postgres failed.
pub async fn list_conflicts(conn: &mut Conn) -> Result<Vec<Holding>> {
    let rows = sqlx::query!(
        r#"SELECT id, conflict_with AS "with!" FROM nodes WHERE conflict_with IS NOT NULL AND approval IS NULL"#
    )
    .fetch_all(conn)
    .await?;
    let conflict = |node: Uuid, with: Uuid| Holding {
        node_id: NodeId(node),
        entity: String::new(),
        columns: json!({"conflict_with": with}),
    };
    Ok(rows
        .into_iter()
        .map(|row| conflict(row.id, row.with))
        .collect())
}

/// Destinations that are paused since they fail.
///
/// # Errors
/// Postgres failed.
pub async fn list_failing_destinations(conn: &mut Conn) -> Result<Vec<Holding>> {
    let rows = sqlx::query!(
        r#"
        SELECT d.id, d.name, d.kind, c.failing_since, c.failures, c.last_answer
        FROM destination_circuits c JOIN destinations d ON d.id = c.destination_id
        WHERE c.paused_until IS NOT NULL
        "#
    )
    .fetch_all(conn)
    .await?;
    let failing = rows.into_iter().map(|row| Holding {
        node_id: OSTIARY,
        entity: row.id.to_string(),
        columns: json!({"destination": row.name, "kind": row.kind, "failing_since": row.failing_since, "failures": row.failures,
            "answer": row.last_answer}),
    });
    Ok(failing.collect())
}

/// Sinks that fail again and again.
///
/// # Errors
/// Postgres failed.
pub async fn list_failing_sinks(conn: &mut Conn) -> Result<Vec<Holding>> {
    let rows = sqlx::query!(
        "SELECT id, name, kind, failed_at, attempts, last_error FROM sinks WHERE enabled AND attempts >= $1",
        SINK_FAILURES
    )
    .fetch_all(conn)
    .await?;
    let failing = rows.into_iter().map(|row| Holding {
        node_id: OSTIARY,
        entity: row.id.to_string(),
        columns: json!({"sink": row.name, "kind": row.kind, "failed_at": row.failed_at, "failures": row.attempts,
            "answer": row.last_error}),
    });
    Ok(failing.collect())
}

/// A node, the config that it fetched, and the one that it says it runs.
#[derive(Debug)]
pub struct Running {
    /// Which node.
    pub node_id: NodeId,
    /// SHA-256 of the document that it fetched.
    pub document_hash: Vec<u8>,
    /// When it first fetched it.
    pub fetched_at: DateTime<Utc>,
    /// `osquery_info.config_hash`, as it said last.
    pub config_hash: String,
}

/// What nodes run that have sent results for long enough since they fetched a config: by then they should run it.
///
/// # Errors
/// Postgres failed.
pub async fn list_running(conn: &mut Conn, after: TimeDelta) -> Result<Vec<Running>> {
    let rows = sqlx::query!(
        r#"
        SELECT n.id, c.document_hash, c.fetched_at, n.config_hash
        FROM node_configs c JOIN nodes n ON n.id = c.node_id JOIN node_checkins k ON k.node_id = c.node_id
        WHERE n.config_hash <> '' AND n.disabled_at IS NULL AND k.results_at >= c.fetched_at + make_interval(secs => $1::bigint)
        "#,
        after.num_seconds()
    )
    .fetch_all(conn)
    .await?;
    let running = rows.into_iter().map(|row| Running {
        node_id: NodeId(row.id),
        document_hash: row.document_hash,
        fetched_at: row.fetched_at,
        config_hash: row.config_hash,
    });
    Ok(running.collect())
}
