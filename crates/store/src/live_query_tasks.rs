//! A node's share of a live query: claimed by a read, answered by a write. People's view of both is in `live_queries`.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{LiveQueryId, NodeId, UserId};
use ostiary_domain::live_query::{
    DISCOVERY_SINCE, Discovery, LiveQuery, MAX_OFFERS, MAX_OFFERS_WITH_DISCOVERY, OFFER_AGAIN_AFTER,
};
use ostiary_domain::target::Target;
use uuid::Uuid;

use crate::{Conn, Result};

/// Every live query that may still be handed out.
///
/// # Errors
/// Postgres failed.
pub async fn list_open(conn: &mut Conn, now: DateTime<Utc>) -> Result<Vec<LiveQuery>> {
    let rows = sqlx::query!(
        r#"
        SELECT id, wire_id, sql, discovery, discovery_platforms, discovery_since, tables, description, target, target_all, node_ids, created_by, created_at, expires_at, cancelled_at
        FROM live_queries
        WHERE expires_at > $1 AND cancelled_at IS NULL
        ORDER BY id
        "#,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| LiveQuery {
            id: LiveQueryId(row.id),
            target: if row.target_all {
                Some(Target::All)
            } else if row.target.trim().is_empty() {
                None
            } else {
                // It was checked when it was saved; one that cannot be read any more asks nobody.
                Some(Target::parse(&row.target).unwrap_or(Target::None))
            },
            wire_id: row.wire_id,
            discovery: (!row.discovery.trim().is_empty()).then(|| Discovery {
                sql: row.discovery,
                platforms: row.discovery_platforms,
                since: row.discovery_since.parse().unwrap_or(DISCOVERY_SINCE),
            }),
            sql: row.sql,
            tables: row.tables,
            description: row.description,
            node_ids: row.node_ids.into_iter().map(NodeId).collect(),
            created_by: row.created_by.map(UserId),
            created_at: row.created_at,
            expires_at: row.expires_at,
            cancelled_at: row.cancelled_at,
        })
        .collect())
}

/// Claims tasks of a node for being handed out now: those it never got, and those whose offer brought nothing for so long that the
/// answer was lost or the node died. What is not returned was handed out lately, or is settled. A query that makes a node carve is not
/// handed out again once the node has begun to carve, unless for another query as far as that is known: it did run, and would collect the
/// same files twice.
///
/// # Errors
/// Postgres failed.
pub async fn take(
    conn: &mut Conn,
    node: NodeId,
    queries: &[LiveQueryId],
    now: DateTime<Utc>,
) -> Result<Vec<LiveQueryId>> {
    let ids: Vec<Uuid> = queries.iter().map(|id| id.0).collect();
    let taken = sqlx::query_scalar!(
        r#"
        INSERT INTO live_query_tasks AS task (live_query_id, node_id, state, offered_at, offers)
        SELECT q.id, $1, 'offered', $3, 1
        FROM live_queries q
        WHERE q.id = ANY ($2) AND q.cancelled_at IS NULL AND q.expires_at > $3
        ORDER BY q.id
        ON CONFLICT ON CONSTRAINT live_query_tasks_pkey DO UPDATE SET
            offered_at = excluded.offered_at,
            offers = task.offers + 1
            WHERE task.state = 'offered' AND task.offered_at <= $4 AND task.offers < (
                SELECT CASE WHEN discovery = '' THEN $5::integer ELSE $6 END FROM live_queries WHERE id = task.live_query_id)
            AND NOT ('carves' = ANY ((SELECT tables FROM live_queries WHERE id = task.live_query_id)::text[])
                AND EXISTS (SELECT FROM carves c WHERE c.node_id = task.node_id AND c.started_at >= task.offered_at
                    AND (c.live_query_id IS NULL OR c.live_query_id = task.live_query_id)))
        RETURNING live_query_id
        "#,
        node.0,
        &ids,
        now,
        now - OFFER_AGAIN_AFTER,
        MAX_OFFERS,
        MAX_OFFERS_WITH_DISCOVERY
    )
    .fetch_all(conn)
    .await?;
    Ok(taken.into_iter().map(LiveQueryId).collect())
}

/// Settles tasks of a node that were handed out as often as they may be and brought nothing, though the node asks again: one with a
/// discovery is `skipped`, any other `stuck`. Says how many.
///
/// # Errors
/// Postgres failed.
pub async fn settle_unanswered(
    conn: &mut Conn,
    node: NodeId,
    queries: &[LiveQueryId],
    now: DateTime<Utc>,
) -> Result<u64> {
    let ids: Vec<Uuid> = queries.iter().map(|id| id.0).collect();
    let settled = sqlx::query!(
        r#"
        UPDATE live_query_tasks t
        SET state = CASE WHEN q.discovery = '' THEN 'stuck' ELSE 'skipped' END, finished_at = $3
        FROM live_queries q
        WHERE q.id = t.live_query_id AND t.node_id = $1 AND t.live_query_id = ANY ($2)
            AND t.state = 'offered' AND t.offered_at <= $4
            AND t.offers >= CASE WHEN q.discovery = '' THEN $5::integer ELSE $6 END
        "#,
        node.0,
        &ids,
        now,
        now - OFFER_AGAIN_AFTER,
        MAX_OFFERS,
        MAX_OFFERS_WITH_DISCOVERY
    )
    .execute(conn)
    .await?;
    Ok(settled.rows_affected())
}

/// Fails tasks of a node whose answer came and could not be taken: those with these ids on the wire, or all that are handed out if
/// none is known. They are not handed out again.
///
/// # Errors
/// Postgres failed.
pub async fn give_up(
    conn: &mut Conn,
    node: NodeId,
    wire_ids: &[String],
    message: &str,
    now: DateTime<Utc>,
) -> Result<u64> {
    let failed = sqlx::query!(
        r#"
        UPDATE live_query_tasks t
        SET state = 'failed', finished_at = $4, message = $3
        FROM live_queries q
        WHERE q.id = t.live_query_id AND t.node_id = $1 AND t.state = 'offered'
            AND (cardinality($2::text[]) = 0 OR q.wire_id = ANY ($2))
        "#,
        node.0,
        wire_ids,
        message,
        now
    )
    .execute(conn)
    .await?;
    Ok(failed.rows_affected())
}

/// A node's answer to one live query.
#[derive(Debug)]
pub struct Answer {
    /// The query's id on the wire.
    pub wire_id: String,
    /// Did it run?
    pub succeeded: bool,
    /// As the node says; absent before osquery 2.1.2.
    pub status: Option<i32>,
    /// The error, if any.
    pub message: String,
    /// What it cost, as the node measured.
    pub stats: Option<serde_json::Value>,
    /// How many rows.
    pub row_count: i32,
    /// The rows as a JSON array, columns in the order of the SELECT.
    pub rows: String,
}

/// Stores an answer. The first one counts: a second one, an unknown id and a node that was never asked change nothing.
///
/// # Errors
/// Postgres failed.
pub async fn put_answer(
    conn: &mut Conn,
    node: NodeId,
    answer: &Answer,
    now: DateTime<Utc>,
) -> Result<bool> {
    let state = if answer.succeeded { "done" } else { "failed" };
    let stored = sqlx::query!(
        r#"
        UPDATE live_query_tasks t
        SET state = $3, finished_at = $4, status = $5, message = $6, stats = $7, row_count = $8, rows = $9
        FROM live_queries q
        WHERE q.wire_id = $1 AND t.live_query_id = q.id AND t.node_id = $2 AND t.state NOT IN ('done', 'failed')
        "#,
        answer.wire_id,
        node.0,
        state,
        now,
        answer.status,
        answer.message,
        answer.stats,
        answer.row_count,
        answer.rows
    )
    .execute(conn)
    .await?;
    Ok(stored.rows_affected() > 0)
}
