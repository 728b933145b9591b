//! The work not yet done: posts to decode and facts to judge. The truth of the queue; Redis only rings.
//!
//! **Invariant:** the rows of one node are worked in the order of their ids, by one transaction at a time. Whoever takes rows holds
//! the advisory lock of their node until its transaction ends ([`lock_nodes`]). So [`take`] never passes over a row that somebody
//! has locked for a moment ([`release`], [`postpone`]): it waits.

use std::io::Read as _;

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use serde_json::Value;
use uuid::Uuid;

use crate::{Conn, Error, Result};

/// Sets our advisory locks on nodes apart from those of anybody else in the database.
const LOCK_SEED: i64 = 0x6f73_7469;

/// What a pending row is about.
#[derive(Debug, Clone)]
pub enum Work {
    /// A post.
    Batch(Batch),
    /// A fact: `{"name": "enrolled", "columns": {…}}`.
    Fact(Value),
    /// A post whose data is gone, which retention never does to waiting ones: somebody has dropped it by hand.
    Gone,
}

/// A post, as it was received.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its id.
    pub id: i64,
    /// `r`esult, `s`tatus or `x`.
    pub log_type: u8,
    /// Version of osquery in the `User-Agent`.
    pub client_version: String,
    /// The JSON of `data`, compressed.
    pub data: Vec<u8>,
}

/// The data of a post cannot be decompressed.
#[derive(Debug, thiserror::Error)]
#[error("the stored post cannot be decompressed: {0}")]
pub struct DamagedBatch(String);

/// The largest that the api takes by default, in bytes.
const LARGEST: u64 = 128 << 20;

impl Batch {
    /// How large it is when opened, in bytes, as its compression says; 0 if that is damaged. One that was compressed while it
    /// arrived says nothing, and may be as large as any.
    #[must_use]
    pub fn opened_len(&self) -> u64 {
        match zstd::zstd_safe::get_frame_content_size(&self.data) {
            Ok(Some(len)) => len,
            Ok(None) => LARGEST,
            Err(_) => 0,
        }
    }

    /// The JSON of `data`, decompressed.
    ///
    /// # Errors
    /// It is damaged, or larger than `max_bytes`.
    pub fn open(&self, max_bytes: u64) -> std::result::Result<Vec<u8>, DamagedBatch> {
        let damaged = |error: std::io::Error| DamagedBatch(error.to_string());
        let mut text = Vec::new();
        let decoder = zstd::stream::Decoder::new(self.data.as_slice()).map_err(damaged)?;
        let read = decoder
            .take(max_bytes + 1)
            .read_to_end(&mut text)
            .map_err(damaged)?;
        if u64::try_from(read).unwrap_or(u64::MAX) > max_bytes {
            return Err(DamagedBatch(format!("more than {max_bytes} bytes")));
        }
        Ok(text)
    }
}

/// A pending row.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Orders the work of a node.
    pub id: i64,
    /// Of whom.
    pub node_id: NodeId,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// How often it has failed.
    pub attempts: i16,
    /// How many claims are on it ([`claim`]).
    pub claims: i16,
    /// What is to be done.
    pub work: Work,
}

/// Some of the nodes with pending work.
#[derive(Debug, Clone, Default)]
pub struct DueNodes {
    /// Those whose first pending row is due, that with the oldest first.
    pub due: Vec<NodeId>,
    /// Where to go on; `None` when no node is left.
    pub next: Option<NodeId>,
}

/// Looks at up to `limit` nodes with pending work, in the order of their ids, beginning after `after`. Each costs one probe of an
/// index, however much work it has: a node with a large backlog keeps nobody else from being seen.
///
/// # Errors
/// Postgres failed.
pub async fn list_due_nodes(
    conn: &mut Conn,
    now: DateTime<Utc>,
    after: Option<NodeId>,
    limit: i64,
) -> Result<DueNodes> {
    let rows = sqlx::query!(
        r#"
        WITH RECURSIVE heads AS (
            (SELECT node_id, id, due_at FROM pending WHERE node_id >= $2 ORDER BY node_id, id LIMIT 1)
            UNION ALL
            SELECT next.node_id, next.id, next.due_at
            FROM heads
            CROSS JOIN LATERAL (
                SELECT node_id, id, due_at FROM pending WHERE node_id > heads.node_id ORDER BY node_id, id LIMIT 1) next
        )
        SELECT node_id AS "node_id!", id AS "id!", due_at <= $1 AS "due!" FROM heads LIMIT $3
        "#,
        now,
        after.map_or(Uuid::nil(), next_after),
        limit
    )
    .fetch_all(conn)
    .await?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().filter(|_| full).map(|row| NodeId(row.node_id));
    let mut due: Vec<(i64, NodeId)> = rows
        .iter()
        .filter(|row| row.due)
        .map(|row| (row.id, NodeId(row.node_id)))
        .collect();
    due.sort_unstable();
    Ok(DueNodes {
        due: due.into_iter().map(|(_, node)| node).collect(),
        next,
    })
}

/// The smallest id beyond this one; work about Ostiary itself has the smallest of all, and must be found, too.
fn next_after(node: NodeId) -> Uuid {
    Uuid::from_u128(node.0.as_u128().saturating_add(1))
}

/// Does any node wait for its first pending row to be worked, that was due before `since`?
///
/// # Errors
/// Postgres failed.
pub async fn is_any_due_since(conn: &mut Conn, since: DateTime<Utc>) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"
        WITH RECURSIVE heads AS (
            (SELECT node_id, due_at FROM pending ORDER BY node_id, id LIMIT 1)
            UNION ALL
            SELECT next.node_id, next.due_at
            FROM heads
            CROSS JOIN LATERAL (
                SELECT node_id, due_at FROM pending WHERE node_id > heads.node_id ORDER BY node_id, id LIMIT 1) next
        )
        SELECT EXISTS (SELECT FROM heads WHERE due_at < $1) AS "waits!"
        "#,
        since
    )
    .fetch_one(conn)
    .await?)
}

/// Takes the locks of those nodes whose lock is free, in sorted order, without waiting, and says of which. They are held until the
/// transaction ends.
///
/// # Errors
/// Postgres failed.
pub async fn lock_nodes(conn: &mut Conn, nodes: &[NodeId]) -> Result<Vec<NodeId>> {
    let mut ids: Vec<Uuid> = nodes.iter().map(|node| node.0).collect();
    ids.sort_unstable();
    let locked = sqlx::query_scalar!(
        r#"
        SELECT node_id AS "node_id!" FROM unnest($1::uuid[]) AS wanted (node_id)
        WHERE pg_try_advisory_xact_lock(hashtextextended(node_id::text, $2))
        "#,
        &ids,
        LOCK_SEED
    );
    Ok(locked
        .fetch_all(conn)
        .await?
        .into_iter()
        .map(NodeId)
        .collect())
}

/// Takes the locks of all these nodes, in sorted order, waiting for who works on them. For people who wait for an answer; workers use
/// [`lock_nodes`].
///
/// # Errors
/// Postgres failed.
pub async fn wait_for_nodes(conn: &mut Conn, nodes: &[NodeId]) -> Result<()> {
    let mut ids: Vec<Uuid> = nodes.iter().map(|node| node.0).collect();
    ids.sort_unstable();
    sqlx::query!(
        r#"
        SELECT pg_advisory_xact_lock(hashtextextended(node_id::text, $2))
        FROM unnest($1::uuid[]) AS wanted (node_id)
        "#,
        &ids,
        LOCK_SEED
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// What of the work of locked nodes may be taken at once.
#[derive(Debug, Clone, Copy)]
pub struct TakeLimits {
    /// Rows at most.
    pub rows: i64,
    /// Compressed bytes at most; one row is taken however large it is.
    pub bytes: i64,
    /// Only rows whose ids lie between these, both included; `None` for any. A node with a row before them is left alone, as if
    /// that row were not yet due: who locks it only now has not seen that row, and would work a later one first.
    pub only: Option<(i64, i64)>,
}

/// Takes pending rows of nodes whose locks the transaction holds, in the order of their ids. A row that is not yet due holds back
/// those of its node that came after it.
///
/// # Errors
/// Postgres failed.
pub async fn take(
    conn: &mut Conn,
    nodes: &[NodeId],
    now: DateTime<Utc>,
    limits: TakeLimits,
) -> Result<Vec<Pending>> {
    let nodes: Vec<Uuid> = nodes.iter().map(|node| node.0).collect();
    let (first, last) = limits.only.unwrap_or((i64::MIN, i64::MAX));
    let rows = sqlx::query!(
        r#"
        WITH heads AS MATERIALIZED (
            SELECT head.id,
                bool_and(head.due_at <= $2 AND head.id >= $5) OVER (PARTITION BY wanted.node_id ORDER BY head.id) AS ready
            FROM unnest($1::uuid[]) AS wanted (node_id)
            CROSS JOIN LATERAL (SELECT id, due_at FROM pending WHERE node_id = wanted.node_id ORDER BY id LIMIT $3) head
        ), claimed AS MATERIALIZED (
            SELECT id, node_id, kind, batch_id, received_at, fact, attempts, claims
            FROM pending
            WHERE id IN (SELECT id FROM heads WHERE ready AND id <= $6 ORDER BY id LIMIT $3)
            ORDER BY id
            FOR UPDATE
        ), sized AS (
            SELECT c.*, b.id AS found_id, b.log_type, b.client_version, b.data,
                coalesce(sum(octet_length(b.data)) OVER (ORDER BY c.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
            FROM claimed c
            LEFT JOIN log_batches b ON b.id = c.batch_id AND b.received_at = c.received_at
        )
        SELECT id AS "id!", node_id AS "node_id!", kind AS "kind!", batch_id, received_at AS "received_at!", fact, attempts AS "attempts!",
            claims AS "claims!",
            found_id AS "found_id?", log_type AS "log_type?", client_version AS "client_version?", data AS "data?"
        FROM sized WHERE before < $4 ORDER BY id
        "#,
        &nodes,
        now,
        limits.rows,
        limits.bytes,
        first,
        last
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let work = match (row.kind.cast_unsigned(), row.fact, row.found_id) {
                (b'f', Some(fact), _) => Work::Fact(fact),
                (b'b', _, Some(id)) => Work::Batch(Batch {
                    id,
                    log_type: row.log_type.unwrap_or_default().cast_unsigned(),
                    client_version: row.client_version.unwrap_or_default(),
                    data: row.data.unwrap_or_default(),
                }),
                (b'b', _, None) => Work::Gone,
                (kind, ..) => return Err(Error::Corrupt(format!("pending work of kind {kind}"))),
            };
            Ok(Pending {
                id: row.id,
                node_id: NodeId(row.node_id),
                received_at: row.received_at,
                attempts: row.attempts,
                claims: row.claims,
                work,
            })
        })
        .collect()
}

/// Adds a fact about a node, e.g. that it is offline. Gives the id of the pending row.
///
/// # Errors
/// Postgres failed.
pub async fn insert_fact(
    conn: &mut Conn,
    node: NodeId,
    fact: &Value,
    now: DateTime<Utc>,
) -> Result<i64> {
    crate::log_batches::insert_fact(conn, node, fact, now).await
}

/// Removes work that is done.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, ids: &[i64]) -> Result<()> {
    sqlx::query!("DELETE FROM pending WHERE id = ANY($1)", ids)
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes that work has failed, and when to try again. Until then it holds back the later work of its node.
///
/// # Errors
/// Postgres failed.
pub async fn postpone(conn: &mut Conn, id: i64, due_at: DateTime<Utc>, error: &str) -> Result<()> {
    let error: String = error.chars().take(500).collect();
    sqlx::query!(
        "UPDATE pending SET attempts = least(attempts, 30000) + 1, due_at = $2, last_error = $3 WHERE id = $1",
        id,
        due_at,
        error
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Counts, before these rows are worked, that they are.
///
/// # Errors
/// Postgres failed.
pub async fn claim(conn: &mut Conn, ids: &[i64]) -> Result<()> {
    sqlx::query!(
        "UPDATE pending SET claims = least(claims, 30000) + 1 WHERE id = ANY($1)",
        ids
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes claims back: the process is still alive after it worked these rows. They are locked in the order in which [`take`] does it.
///
/// # Errors
/// Postgres failed.
pub async fn release(conn: &mut Conn, ids: &[i64]) -> Result<()> {
    sqlx::query!(
        r#"
        WITH ours AS MATERIALIZED (
            SELECT id FROM pending WHERE id = ANY($1) AND claims > 0 ORDER BY id FOR UPDATE
        )
        UPDATE pending SET claims = claims - 1 WHERE id IN (SELECT id FROM ours)
        "#,
        ids
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How much waits, and since when.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    /// Rows.
    pub rows: i64,
    /// When the oldest came.
    pub oldest_at: Option<DateTime<Utc>>,
}

/// How much waits. Counts the table: ask now and then, not for each batch.
///
/// # Errors
/// Postgres failed.
pub async fn backlog(conn: &mut Conn) -> Result<Backlog> {
    Ok(sqlx::query_as!(
        Backlog,
        r#"SELECT count(*) AS "rows!", min(received_at) AS oldest_at FROM pending"#
    )
    .fetch_one(conn)
    .await?)
}
