//! Vitals: what nodes say about themselves through the built-in pack.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Conn, Result};

/// What the built-in queries of one node said. `None` leaves a value as it is.
#[derive(Debug, Clone, Default)]
pub struct Vitals {
    /// The latest rows, by built-in query.
    pub rows: Map<String, Value>,
    /// `osquery_info.version`.
    pub osquery_version: Option<String>,
    /// `osquery_info.config_hash`.
    pub config_hash: Option<String>,
    /// `osquery_info.instance_id`.
    pub instance_id: Option<String>,
    /// `system_info.hostname`.
    pub hostname: Option<String>,
    /// `system_info.hardware_serial`.
    pub hardware_serial: Option<String>,
    /// `system_info.hardware_model`.
    pub hardware_model: Option<String>,
    /// `os_version.name`.
    pub os_name: Option<String>,
    /// `os_version.version`.
    pub os_version: Option<String>,
    /// The build platform, for a node that never told it: one that came with its key from another manager.
    pub platform: Option<String>,
}

/// Brings a node up to date.
///
/// # Errors
/// Postgres failed.
pub async fn update(conn: &mut Conn, node: NodeId, vitals: &Vitals) -> Result<()> {
    sqlx::query!(
        r#"
        UPDATE nodes SET vitals = $2::text::json,
            osquery_version = coalesce($3, osquery_version),
            config_hash = coalesce($4, config_hash),
            instance_id = coalesce($5, instance_id),
            hostname = coalesce($6, hostname),
            hardware_serial = coalesce($7, hardware_serial),
            hardware_model = coalesce($8, hardware_model),
            os_name = coalesce($9, os_name),
            os_version = coalesce($10, os_version),
            platform = CASE platform WHEN '' THEN coalesce($11, '') ELSE platform END
        WHERE id = $1
        "#,
        node.0,
        Value::Object(vitals.rows.clone()).to_string(),
        vitals.osquery_version,
        vitals.config_hash,
        vitals.instance_id,
        vitals.hostname,
        vitals.hardware_serial,
        vitals.hardware_model,
        vitals.os_name,
        vitals.os_version,
        vitals.platform
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes when nodes last proved that their schedule runs, to the minute. Times only move forward.
///
/// # Errors
/// Postgres failed.
pub async fn note_results(conn: &mut Conn, proofs: &[(NodeId, DateTime<Utc>)]) -> Result<()> {
    let mut proofs = proofs.to_vec();
    proofs.sort_unstable();
    let nodes: Vec<Uuid> = proofs.iter().map(|(node, _)| node.0).collect();
    let times: Vec<DateTime<Utc>> = proofs.iter().map(|(_, at)| *at).collect();
    sqlx::query!(
        r#"
        INSERT INTO node_checkins AS c (node_id, last_seen_at, results_at)
        SELECT node_id, at, at FROM unnest($1::uuid[], $2::timestamptz[]) AS proof (node_id, at) ORDER BY node_id
        ON CONFLICT (node_id) DO UPDATE SET results_at = excluded.results_at
        WHERE c.results_at IS NULL OR c.results_at < excluded.results_at - interval '1 minute'
        "#,
        &nodes,
        &times
    )
    .execute(conn)
    .await?;
    Ok(())
}
