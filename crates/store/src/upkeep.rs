//! What is done now and then by one worker of all: settling what has run out, deleting what nobody needs.

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::NodeId;

use crate::{Conn, Result};

/// Sets our locks on once-only work apart from those on nodes.
const LOCK_CLASS: i32 = 0x0051_1eed;

/// Work of which one worker at a time is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// Noting quiet nodes, ending live queries: every few seconds.
    Often,
    /// Partitions and pruning: every few minutes.
    Seldom,
}

/// Takes the lock of this work until the transaction ends, without waiting. `false`: another worker is at it.
///
/// # Errors
/// Postgres failed.
pub async fn try_lead(conn: &mut Conn, upkeep: Upkeep) -> Result<bool> {
    let key = match upkeep {
        Upkeep::Often => 1,
        Upkeep::Seldom => 2,
    };
    Ok(sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock($1, $2) AS "led!""#,
        LOCK_CLASS,
        key
    )
    .fetch_one(conn)
    .await?)
}

/// Ends the tasks that were handed out for live queries which have expired or were cancelled. Gives how many.
///
/// # Errors
/// Postgres failed.
pub async fn expire_tasks(conn: &mut Conn, now: DateTime<Utc>) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        UPDATE live_query_tasks t SET state = 'expired', finished_at = $1
        FROM live_queries q
        WHERE q.id = t.live_query_id AND t.state = 'offered'
          AND (q.expires_at <= $1 OR q.cancelled_at IS NOT NULL)
        "#,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets some of what live queries that were over before `before` have asked for: at most `tasks` answers of the oldest of them, and
/// the query itself when none is left. Gives whether there was anything to forget; not one statement when there was not, for each that
/// touches live queries tells all apis.
///
/// # Errors
/// Postgres failed.
pub async fn forget_live_query(conn: &mut Conn, before: DateTime<Utc>, tasks: i64) -> Result<bool> {
    let oldest = sqlx::query_scalar!(
        "SELECT id FROM live_queries WHERE expires_at < $1 ORDER BY expires_at LIMIT 1",
        before
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(id) = oldest else {
        return Ok(false);
    };
    // Answers first, and in slices: a fleet's are many and large, and whoever merges nodes locks queries before their answers.
    let forgotten = sqlx::query!(
        r#"
        DELETE FROM live_query_tasks WHERE live_query_id = $1 AND node_id IN (
            SELECT node_id FROM live_query_tasks WHERE live_query_id = $1 ORDER BY node_id LIMIT $2)
        "#,
        id,
        tasks
    )
    .execute(&mut *conn)
    .await?;
    if i64::try_from(forgotten.rows_affected()).is_ok_and(|count| count < tasks) {
        sqlx::query!("DELETE FROM live_queries WHERE id = $1", id)
            .execute(conn)
            .await?;
    }
    Ok(true)
}

/// Deletes config documents that no node has any more. Gives how many.
///
/// # Errors
/// Postgres failed.
pub async fn delete_unused_configs(conn: &mut Conn, now: DateTime<Utc>) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        DELETE FROM config_documents d WHERE created_at < $1
            AND NOT EXISTS (SELECT FROM node_configs n WHERE n.document_hash = d.hash)
        "#,
        now - TimeDelta::days(1)
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Nodes with a full set of rows that came one row a line and has not been settled since `before`.
///
/// # Errors
/// Postgres failed.
pub async fn list_unsettled_nodes(
    conn: &mut Conn,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<NodeId>> {
    Ok(sqlx::query_scalar!(
        "SELECT DISTINCT node_id FROM present_rows WHERE unsettled_at < $1 LIMIT $2",
        before,
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(NodeId)
    .collect())
}
