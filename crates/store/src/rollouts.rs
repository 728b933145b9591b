//! Staged roll-outs of configs: which there are, who is inside, and what became of the nodes. What follows from it is decided by
//! `domain::rollout`.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node_config::Parts;
use ostiary_domain::rollout::EVERYBODY;
use serde::Serialize;
use uuid::Uuid;

use crate::packed::Packed;
use crate::page::{Page, PageRequest};
use crate::{Conn, Error, Result, table_denials};

/// A roll-out.
#[derive(Debug, Clone, Serialize)]
pub struct Rollout {
    /// Which; positions of nodes depend on it.
    pub id: Uuid,
    /// `running`, `halted`, `finished` or `returned`.
    pub state: String,
    /// The revision to which one click returns.
    pub base_revision: i64,
    /// The newest revision that goes out with it.
    pub revision: i64,
    /// The stages in percent.
    pub shares: Vec<i16>,
    /// Which of them is under way, from 0.
    pub stage: i16,
    /// Nodes up to this position get the new config.
    #[serde(skip)]
    pub threshold: i64,
    /// Who began it.
    pub user_name: String,
    /// When.
    pub started_at: DateTime<Utc>,
    /// When its present stage began.
    pub stage_started_at: DateTime<Utc>,
    /// When it was over.
    pub ended_at: Option<DateTime<Utc>>,
    /// Why it was halted.
    pub reason: String,
}

impl Rollout {
    /// Is it to be moved on?
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }
}

/// The roll-out that is not over, if there is one.
///
/// # Errors
/// Postgres failed.
pub async fn find_active(conn: &mut Conn) -> Result<Option<Rollout>> {
    Ok(sqlx::query_as!(
        Rollout,
        r#"
        SELECT id, state, base_revision, revision, shares, stage, threshold, user_name, started_at, stage_started_at, ended_at, reason
        FROM rollouts WHERE ended_at IS NULL
        "#
    )
    .fetch_optional(conn)
    .await?)
}

/// The same, locked until the transaction ends; whoever changes it or what it is about holds this lock.
///
/// # Errors
/// Postgres failed.
pub async fn lock_active(conn: &mut Conn) -> Result<Option<Rollout>> {
    Ok(sqlx::query_as!(
        Rollout,
        r#"
        SELECT id, state, base_revision, revision, shares, stage, threshold, user_name, started_at, stage_started_at, ended_at, reason
        FROM rollouts WHERE ended_at IS NULL FOR UPDATE
        "#
    )
    .fetch_optional(conn)
    .await?)
}

/// One roll-out.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: Uuid) -> Result<Option<Rollout>> {
    Ok(sqlx::query_as!(
        Rollout,
        r#"
        SELECT id, state, base_revision, revision, shares, stage, threshold, user_name, started_at, stage_started_at, ended_at, reason
        FROM rollouts WHERE id = $1
        "#,
        id
    )
    .fetch_optional(conn)
    .await?)
}

/// Roll-outs, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn, page: &PageRequest) -> Result<Page<Rollout>> {
    let limit = page.limit_within(20, 100);
    let before = page.key::<1>().and_then(|[id]| id.parse::<Uuid>().ok());
    let rows = sqlx::query_as!(
        Rollout,
        r#"
        SELECT id, state, base_revision, revision, shares, stage, threshold, user_name, started_at, stage_started_at, ended_at, reason
        FROM rollouts WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2::bigint + 1
        "#,
        before,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| [row.id.to_string()]))
}

/// What the api must know of the roll-out that is not over: who is inside, and what the others get.
#[derive(Debug, Clone)]
pub struct Split {
    /// Positions of nodes depend on it.
    pub rollout: Uuid,
    /// Nodes up to this position get what there is now.
    pub threshold: i64,
    /// The others get what this gives.
    pub base: Parts,
}

/// See [`Split`].
///
/// # Errors
/// What is kept cannot be read, or Postgres failed.
pub async fn find_split(conn: &mut Conn) -> Result<Option<Split>> {
    let row = sqlx::query!(
        r#"SELECT id, threshold, base_parts AS "base_parts: Packed" FROM rollouts WHERE ended_at IS NULL"#
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let base: Parts = serde_json::from_str(&row.base_parts)
        .map_err(|error| Error::Corrupt(format!("the base of a roll-out: {error}")))?;
    // What may not be asked of nodes is as of now, not as of then.
    let base = table_denials::withhold(conn, base.sorted()).await?;
    Ok(Some(Split {
        rollout: row.id,
        threshold: row.threshold,
        base,
    }))
}

/// A roll-out that begins.
#[derive(Debug)]
pub struct NewRollout<'a> {
    /// UUIDv7.
    pub id: Uuid,
    /// See [`Rollout`].
    pub base_revision: i64,
    /// See [`Rollout`].
    pub revision: i64,
    /// What configs were made of before.
    pub base: &'a Parts,
    /// See [`Rollout`].
    pub shares: &'a [i16],
    /// See [`Rollout`].
    pub threshold: i64,
    /// Who begins it.
    pub user_name: &'a str,
}

/// Begins a roll-out.
///
/// # Errors
/// Another is under way (`rollouts_active_key`), or Postgres failed.
pub async fn insert(conn: &mut Conn, rollout: &NewRollout<'_>, now: DateTime<Utc>) -> Result<()> {
    let base = serde_json::to_string(rollout.base).expect("parts are JSON");
    sqlx::query!(
        r#"
        INSERT INTO rollouts (id, state, base_revision, revision, base_parts, shares, threshold, user_name, started_at, stage_started_at)
        VALUES ($1, 'running', $2, $3, $4, $5, $6, $7, $8, $8)
        "#,
        rollout.id,
        rollout.base_revision,
        rollout.revision,
        Packed(base) as Packed,
        rollout.shares,
        rollout.threshold,
        rollout.user_name,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Where a roll-out goes on.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// From 0.
    pub number: i16,
    /// Nodes up to this position.
    pub threshold: i64,
    /// The newest revision that goes out with it.
    pub revision: i64,
}

/// Lets a roll-out run, from now on in this stage.
///
/// # Errors
/// Postgres failed.
pub async fn begin_stage(
    conn: &mut Conn,
    id: Uuid,
    stage: Stage,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        UPDATE rollouts SET state = 'running', reason = '', stage = $2, threshold = $3, revision = $4, stage_started_at = $5
        WHERE id = $1
        "#,
        id,
        stage.number,
        stage.threshold,
        stage.revision,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Halts a roll-out: nobody else gets inside.
///
/// # Errors
/// Postgres failed.
pub async fn halt(conn: &mut Conn, id: Uuid, reason: &str) -> Result<()> {
    sqlx::query!(
        "UPDATE rollouts SET state = 'halted', reason = $2 WHERE id = $1",
        id,
        reason
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a roll-out; from now on all nodes get what there is now.
///
/// # Errors
/// Postgres failed.
pub async fn end(conn: &mut Conn, id: Uuid, returned: bool, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE rollouts SET state = $2, ended_at = $3, threshold = $4, base_parts = '' WHERE id = $1",
        id,
        if returned { "returned" } else { "finished" },
        now,
        EVERYBODY
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Nodes that came in with a stage, with what they were like before: what osqueryd had denylisted, and errors of the last hour.
///
/// # Errors
/// Postgres failed.
pub async fn add_nodes(
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
        INSERT INTO rollout_nodes (rollout_id, node_id, stage, counted, denylisted_before, errors_before)
        SELECT $1, n.id, $2, u.counted,
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
pub async fn clear_nodes(conn: &mut Conn, rollout: Uuid) -> Result<()> {
    sqlx::query!("DELETE FROM rollout_nodes WHERE rollout_id = $1", rollout)
        .execute(conn)
        .await?;
    Ok(())
}

/// Deletes roll-outs that ended before, with what is known of their nodes. Gives how many.
///
/// # Errors
/// Postgres failed.
pub async fn delete_ended(conn: &mut Conn, before: DateTime<Utc>) -> Result<u64> {
    let done = sqlx::query!("DELETE FROM rollouts WHERE ended_at < $1", before)
        .execute(conn)
        .await?;
    Ok(done.rows_affected())
}

/// A node of a roll-out, and what is known of it now.
#[derive(Debug, Clone)]
pub struct NodeProgress {
    /// Which.
    pub node_id: Uuid,
    /// What people call it.
    pub name: String,
    /// The stage with which it came in.
    pub stage: i16,
    /// It was checking in then.
    pub counted: bool,
    /// When it was first seen to have fetched the new config.
    pub fetched_at: Option<DateTime<Utc>>,
    /// Hash of the document it last fetched.
    pub document_hash: Option<Vec<u8>>,
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
pub async fn list_nodes(conn: &mut Conn, rollout: Uuid) -> Result<Vec<NodeProgress>> {
    Ok(sqlx::query_as!(
        NodeProgress,
        r#"
        SELECT r.node_id, coalesce(nullif(n.display_name, ''), nullif(n.hostname, ''), n.host_identifier) AS "name!",
            r.stage, r.counted, r.fetched_at, c.document_hash AS "document_hash?", n.config_hash, k.last_seen_at AS "last_seen_at?", k.results_at,
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

/// Notes that nodes have fetched the new config.
///
/// # Errors
/// Postgres failed.
pub async fn note_fetched(
    conn: &mut Conn,
    rollout: Uuid,
    nodes: &[NodeId],
    now: DateTime<Utc>,
) -> Result<()> {
    let ids: Vec<Uuid> = nodes.iter().map(|id| id.0).collect();
    sqlx::query!(
        "UPDATE rollout_nodes SET fetched_at = $3 WHERE rollout_id = $1 AND node_id = ANY($2) AND fetched_at IS NULL",
        rollout,
        &ids,
        now
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
    /// Messages about queries or the config that the hour before its stage did not have.
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

/// The status logs of the nodes of a roll-out that have fetched the new config.
///
/// # Errors
/// Postgres failed.
pub async fn complaints(
    conn: &mut Conn,
    rollout: Uuid,
    now: DateTime<Utc>,
) -> Result<HashMap<NodeId, Complaints>> {
    let patterns: Vec<String> = PATTERNS.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        r#"
        SELECT r.node_id,
            count(*) FILTER (WHERE s.severity >= 2)::integer AS "errors!",
            coalesce(array_agg(DISTINCT left(s.message, 300)) FILTER (WHERE s.message LIKE ANY ($3) AND NOT EXISTS (
                SELECT FROM status_logs b WHERE b.node_id = r.node_id AND b.message = s.message
                    AND b.received_at <= r.fetched_at AND b.received_at > r.fetched_at - interval '1 hour')), '{}') AS "messages!"
        FROM rollout_nodes r
        JOIN status_logs s ON s.node_id = r.node_id AND s.received_at > r.fetched_at AND s.received_at > $2
        WHERE r.rollout_id = $1 AND r.fetched_at IS NOT NULL AND (s.severity >= 2 OR s.message LIKE ANY ($3))
        GROUP BY r.node_id
        "#,
        rollout,
        now - TimeDelta::hours(1),
        &patterns
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let complaints = Complaints {
                errors: row.errors,
                messages: row.messages,
            };
            (NodeId(row.node_id), complaints)
        })
        .collect())
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
