//! The nodes of a roll-out, with what they were like before, and what became of them. What follows from it is decided by
//! `domain::rollout`.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::NodeId;
use uuid::Uuid;

use crate::{Conn, Result};

/// Nodes that came in with a stage, with what they were like before: what osqueryd had denylisted, and errors of the last hour.
///
/// # Errors
/// Postgres failed.
pub async fn add(
    conn: &mut Conn,
    rollout: Uuid,
    stage: i16,
    nodes: &[(NodeId, bool)],
    now: DateTime<Utc>,
) -> Result<()> {
    let ids: Vec<Uuid> = nodes.iter().map(|(id, _)| id.0).collect();
    let counted: Vec<bool> = nodes.iter().map(|(_, counted)| *counted).collect();
    sqlx::query!(
        r#"
        INSERT INTO rollout_nodes (rollout_id, node_id, stage, counted, added_at, denylisted_before, errors_before)
        SELECT $1, n.id, $2, u.counted, $6,
            ARRAY(SELECT json_array_elements_text(coalesce(n.vitals -> 'osquery_schedule' -> 'denylisted', '[]'))),
            (SELECT count(*)::integer FROM status_logs s
                WHERE s.node_id = n.id AND s.severity >= 2 AND s.received_at > $5 AND s.received_at <= $6)
        FROM unnest($3::uuid[], $4::boolean[]) AS u (id, counted) JOIN nodes n ON n.id = u.id
        ORDER BY n.id
        ON CONFLICT ON CONSTRAINT rollout_nodes_pkey DO NOTHING
        "#,
        rollout,
        stage,
        &ids,
        &counted,
        now - TimeDelta::hours(1),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets the nodes: the roll-out begins again, or is over.
///
/// # Errors
/// Postgres failed.
pub async fn clear(conn: &mut Conn, rollout: Uuid) -> Result<()> {
    sqlx::query!("DELETE FROM rollout_nodes WHERE rollout_id = $1", rollout)
        .execute(conn)
        .await?;
    Ok(())
}

/// A node of a roll-out, and what is known of it now.
#[derive(Debug, Clone)]
pub struct NodeProgress {
    /// Which.
    pub node_id: Uuid,
    /// What people call it.
    pub name: String,
    /// When it came into the fleet.
    pub first_enrolled_at: DateTime<Utc>,
    /// The stage with which it came in.
    pub stage: i16,
    /// It was checking in then.
    pub counted: bool,
    /// When it came in.
    pub added_at: DateTime<Utc>,
    /// When it fetched the new config, if that was noted.
    pub fetched_at: Option<DateTime<Utc>>,
    /// Hash of the document it last fetched.
    pub document_hash: Option<Vec<u8>>,
    /// When it fetched that for the first time.
    pub document_at: Option<DateTime<Utc>>,
    /// `osquery_info.config_hash`.
    pub config_hash: String,
    /// Its last request.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When it last proved that its schedule runs.
    pub results_at: Option<DateTime<Utc>>,
    /// Denylisted now and not before.
    pub newly_denylisted: Vec<String>,
    /// Error lines in the hour before.
    pub errors_before: i32,
    /// What is wrong with it, in words.
    pub trouble: String,
}

/// The nodes of a roll-out, by stage and name.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn, rollout: Uuid) -> Result<Vec<NodeProgress>> {
    Ok(sqlx::query_as!(
        NodeProgress,
        r#"
        SELECT r.node_id, coalesce(nullif(n.display_name, ''), nullif(n.hostname, ''), n.host_identifier) AS "name!", n.first_enrolled_at,
            r.stage, r.counted, r.added_at, r.fetched_at, c.document_hash AS "document_hash?", c.fetched_at AS "document_at?", n.config_hash, k.last_seen_at AS "last_seen_at?", k.results_at,
            ARRAY(SELECT d FROM json_array_elements_text(coalesce(n.vitals -> 'osquery_schedule' -> 'denylisted', '[]')) d
                WHERE d <> ALL (r.denylisted_before)) AS "newly_denylisted!",
            r.errors_before, r.trouble
        FROM rollout_nodes r
        JOIN nodes n ON n.id = r.node_id
        LEFT JOIN node_configs c ON c.node_id = r.node_id
        LEFT JOIN node_checkins k ON k.node_id = r.node_id
        WHERE r.rollout_id = $1 AND n.disabled_at IS NULL
        ORDER BY r.stage, 2, r.node_id
        "#,
        rollout
    )
    .fetch_all(conn)
    .await?)
}

/// Notes when nodes have fetched the new config.
///
/// # Errors
/// Postgres failed.
pub async fn note_fetched(
    conn: &mut Conn,
    rollout: Uuid,
    nodes: &[(NodeId, DateTime<Utc>)],
) -> Result<()> {
    let (ids, times): (Vec<Uuid>, Vec<DateTime<Utc>>) =
        nodes.iter().map(|(id, at)| (id.0, *at)).unzip();
    sqlx::query!(
        r#"
        UPDATE rollout_nodes r SET fetched_at = u.at
        FROM unnest($2::uuid[], $3::timestamptz[]) AS u (id, at)
        WHERE r.rollout_id = $1 AND r.node_id = u.id AND r.fetched_at IS NULL
        "#,
        rollout,
        &ids,
        &times
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes what is wrong with nodes, and that nothing is with the others.
///
/// # Errors
/// Postgres failed.
pub async fn note_troubles(
    conn: &mut Conn,
    rollout: Uuid,
    troubles: &[(NodeId, &str)],
) -> Result<()> {
    let ids: Vec<Uuid> = troubles.iter().map(|(id, _)| id.0).collect();
    let texts: Vec<String> = troubles
        .iter()
        .map(|(_, text)| (*text).to_owned())
        .collect();
    sqlx::query!(
        r#"
        UPDATE rollout_nodes r SET trouble = coalesce(u.text, '')
        FROM rollout_nodes o LEFT JOIN unnest($2::uuid[], $3::text[]) AS u (id, text) ON u.id = o.node_id
        WHERE r.rollout_id = $1 AND o.rollout_id = r.rollout_id AND o.node_id = r.node_id AND r.trouble <> coalesce(u.text, '')
        "#,
        rollout,
        &ids,
        &texts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a node's status logs say since it fetched the new config, the last hour at most.
#[derive(Debug, Clone, Default)]
pub struct Complaints {
    /// Error lines.
    pub errors: i32,
    /// Messages about queries or the config that it had not sent before.
    pub messages: Vec<String>,
}

/// Kinds of messages that tell of a query or a config in trouble (osquery: `dispatcher/scheduler.cpp`, `config/config.cpp`,
/// `config/packs.cpp`), as patterns of `LIKE`.
const PATTERNS: [&str; 7] = [
    "%rror executing scheduled query %",
    "%Scheduled query may have failed%",
    "%denied scheduled query%",
    "%updateSource failed%",
    "%has invalid interval%",
    "%Cannot set unknown or invalid flag%",
    "%rror reading config%",
];

/// What nodes say since they fetched the new config. A message that one of them had sent within `look_back` before is none.
///
/// # Errors
/// Postgres failed.
pub async fn complaints(
    conn: &mut Conn,
    fetched: &[(NodeId, DateTime<Utc>)],
    look_back: TimeDelta,
    now: DateTime<Utc>,
) -> Result<HashMap<NodeId, Complaints>> {
    let (ids, times): (Vec<Uuid>, Vec<DateTime<Utc>>) =
        fetched.iter().map(|(id, at)| (id.0, *at)).unzip();
    let before: Vec<DateTime<Utc>> = times.iter().map(|at| *at - look_back).collect();
    let patterns: Vec<String> = PATTERNS.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        r#"
        SELECT u.id AS "node_id!",
            count(*) FILTER (WHERE s.severity >= 2)::integer AS "errors!",
            coalesce(array_agg(DISTINCT left(s.message, 300)) FILTER (WHERE s.message LIKE ANY ($5) AND NOT EXISTS (
                SELECT FROM status_logs b WHERE b.node_id = u.id AND b.message = s.message
                    AND b.received_at <= u.at AND b.received_at > u.before)), '{}') AS "messages!"
        FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS u (id, at, before)
        JOIN status_logs s ON s.node_id = u.id AND s.received_at > u.at AND s.received_at > $4
        WHERE s.severity >= 2 OR s.message LIKE ANY ($5)
        GROUP BY u.id
        "#,
        &ids,
        &times,
        &before,
        now - TimeDelta::hours(1),
        &patterns
    )
    .fetch_all(conn)
    .await?;
    let complaints = rows.into_iter().map(|row| {
        let said = Complaints {
            errors: row.errors,
            messages: row.messages,
        };
        (NodeId(row.node_id), said)
    });
    Ok(complaints.collect())
}

/// Nodes that are enabled and have checked in since.
///
/// # Errors
/// Postgres failed.
pub async fn list_seen_since(conn: &mut Conn, since: DateTime<Utc>) -> Result<HashSet<NodeId>> {
    let ids = sqlx::query_scalar!(
        r#"
        SELECT n.id FROM nodes n JOIN node_checkins c ON c.node_id = n.id
        WHERE c.last_seen_at >= $1 AND n.disabled_at IS NULL
        "#,
        since
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(NodeId).collect())
}
