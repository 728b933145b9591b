//! One node, whole, and what an admin may change of it.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{Conn, Result};

/// Everything kept of one node beside its logs.
#[derive(Debug, Clone, Serialize)]
pub struct NodeRecord {
    /// Which.
    pub id: Uuid,
    /// Display name, else host name, else host identifier.
    pub name: String,
    /// Given by people.
    pub display_name: Option<String>,
    /// `system_info.hostname`.
    pub hostname: String,
    /// As the node named itself.
    pub host_identifier: String,
    /// `linux`, `darwin`, `windows`, `freebsd` or empty.
    pub platform: String,
    /// `os_version.name`.
    pub os_name: String,
    /// `os_version.version`.
    pub os_version: String,
    /// Of the osqueryd.
    pub osquery_version: String,
    /// SMBIOS or platform UUID.
    pub hardware_uuid: String,
    /// The maker's serial number.
    pub hardware_serial: String,
    /// Vendor and model.
    pub hardware_model: String,
    /// `osquery_info.instance_id`.
    pub instance_id: String,
    /// Of the latest enrollment, as sent.
    pub host_details: Value,
    /// Latest row of each built-in query, by name.
    pub vitals: Value,
    /// As the node last reported it; empty if it never did.
    pub config_hash: String,
    /// Name of the secret that it enrolled with, while that exists.
    pub enroll_secret: Option<String>,
    /// When it got its latest key.
    pub enrolled_at: DateTime<Utc>,
    /// When it came for the first time.
    pub first_enrolled_at: DateTime<Utc>,
    /// Switched off by an admin.
    pub disabled_at: Option<DateTime<Utc>>,
    /// `waiting` for an approval, or `refused` one.
    pub approval: Option<String>,
    /// Another node claims the same hardware.
    pub conflict_with: Option<Uuid>,
    /// Taken for the same machine by its secret alone.
    pub reestablished_at: Option<DateTime<Utc>>,
    /// Log lines that its buffer lost because they were too large to take.
    pub lines_lost: i64,
    /// Node keys in force.
    pub keys: i64,
    /// Names, sorted.
    pub tags: Vec<String>,
    /// Findings that are not resolved.
    pub open_findings: i64,
    /// Its latest request.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// Where that came from.
    pub last_ip: Option<String>,
    /// Latest `/enroll`.
    pub enroll_at: Option<DateTime<Utc>>,
    /// Latest `/config`.
    pub config_at: Option<DateTime<Utc>>,
    /// Latest `/log`.
    pub log_at: Option<DateTime<Utc>>,
    /// Latest `/distributed/read`.
    pub distributed_read_at: Option<DateTime<Utc>>,
    /// Latest `/distributed/write`.
    pub distributed_write_at: Option<DateTime<Utc>>,
    /// Latest results that prove a running schedule.
    pub results_at: Option<DateTime<Utc>>,
}

/// One node.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: NodeId) -> Result<Option<NodeRecord>> {
    Ok(sqlx::query_as!(
        NodeRecord,
        r#"
        SELECT n.id, coalesce(nullif(display_name, ''), nullif(hostname, ''), host_identifier) AS "name!",
            nullif(display_name, '') AS display_name, hostname, host_identifier, platform, os_name, os_version, osquery_version,
            hardware_uuid, hardware_serial, hardware_model, instance_id, host_details, vitals, config_hash,
            s.name AS "enroll_secret?", enrolled_at, first_enrolled_at, disabled_at, n.approval, conflict_with,
            identity_reestablished_at AS reestablished_at, lines_lost,
            (SELECT count(*) FROM node_keys k WHERE k.node_id = n.id AND k.revoked_at IS NULL) AS "keys!",
            ARRAY(SELECT t.name FROM node_tags nt JOIN tags t ON t.id = nt.tag_id WHERE nt.node_id = n.id ORDER BY t.name)
                AS "tags!",
            (SELECT count(*) FROM findings f WHERE f.node_id = n.id AND f.state <> 'resolved') AS "open_findings!",
            c.last_seen_at AS "last_seen_at?", host(c.last_ip) AS last_ip, c.enroll_at, c.config_at, c.log_at,
            c.distributed_read_at, c.distributed_write_at, c.results_at
        FROM nodes n
        LEFT JOIN node_checkins c ON c.node_id = n.id
        LEFT JOIN enroll_secrets s ON s.id = n.enroll_secret_id
        WHERE n.id = $1
        "#,
        id.0
    )
    .fetch_optional(conn)
    .await?)
}

/// Sets or clears the name that people use. Says whether the node exists.
///
/// # Errors
/// Postgres failed.
pub async fn set_display_name(conn: &mut Conn, id: NodeId, name: Option<&str>) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE nodes SET display_name = $2 WHERE id = $1",
        id.0,
        name
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Switches a node off (`Some`) or on. It keeps its key. Says whether the node exists.
///
/// # Errors
/// Postgres failed.
pub async fn set_disabled(conn: &mut Conn, id: NodeId, at: Option<DateTime<Utc>>) -> Result<bool> {
    let done = sqlx::query!("UPDATE nodes SET disabled_at = $2 WHERE id = $1", id.0, at)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Revokes all keys of a node: it must enroll again. Returns how many there were.
///
/// # Errors
/// Postgres failed.
pub async fn revoke_keys(conn: &mut Conn, id: NodeId, now: DateTime<Utc>) -> Result<u64> {
    let done = sqlx::query!(
        "UPDATE node_keys SET revoked_at = $2 WHERE node_id = $1 AND revoked_at IS NULL",
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes a node with its keys, tags, check-ins, present rows and tasks. Its events stay until their partition goes, its findings
/// stay with its name. Says whether the node existed.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: NodeId) -> Result<bool> {
    sqlx::query!("DELETE FROM present_rows WHERE node_id = $1", id.0)
        .execute(&mut *conn)
        .await?;
    sqlx::query!("DELETE FROM post_fingerprints WHERE node_id = $1", id.0)
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "UPDATE nodes SET conflict_with = NULL WHERE conflict_with = $1",
        id.0
    )
    .execute(&mut *conn)
    .await?;
    let done = sqlx::query!("DELETE FROM nodes WHERE id = $1", id.0)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// The config that a node last fetched.
#[derive(Debug, Clone)]
pub struct FetchedConfig {
    /// The exact bytes.
    pub document: String,
    /// When it fetched them for the last time.
    pub fetched_at: DateTime<Utc>,
}

/// The config that a node last fetched, if it ever did.
///
/// # Errors
/// Postgres failed.
pub async fn find_fetched_config(conn: &mut Conn, id: NodeId) -> Result<Option<FetchedConfig>> {
    Ok(sqlx::query_as!(
        FetchedConfig,
        "SELECT document, fetched_at FROM node_configs JOIN config_documents ON hash = document_hash WHERE node_id = $1",
        id.0
    )
    .fetch_optional(conn)
    .await?)
}
