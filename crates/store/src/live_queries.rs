//! Live queries as people make and read them. Handing tasks out and taking answers is the api's part and lives elsewhere.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{LiveQueryId, NodeId, UserId};
use ostiary_domain::live_query::{DISCOVERY_SINCE, Discovery, LiveQuery};
use ostiary_domain::target::Target;
use uuid::Uuid;

use crate::page::{Page, PageRequest};
use crate::{Conn, Result};

/// A live query with the states of its tasks that have a row.
#[derive(Debug, Clone)]
pub struct LiveQueryRecord {
    /// Which.
    pub id: Uuid,
    /// SQL.
    pub sql: String,
    /// What it is for.
    pub description: String,
    /// Tag expression; empty: named nodes only (see `target_all`).
    pub target: String,
    /// Goes to every node.
    pub target_all: bool,
    /// Nodes by name, besides.
    pub node_ids: Vec<Uuid>,
    /// Who asked, while that user exists.
    pub created_by: Option<String>,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Not handed out from then on.
    pub expires_at: DateTime<Utc>,
    /// Stopped by a person.
    pub cancelled_at: Option<DateTime<Utc>>,
    /// Answered with rows, maybe none.
    pub done: i64,
    /// Answered with an error.
    pub failed: i64,
    /// Handed out, not answered.
    pub offered: i64,
    /// Never answered in time.
    pub expired: i64,
    /// Handed out as often as it may be, and not answered.
    pub stuck: i64,
    /// Its discovery returned nothing there.
    pub skipped: i64,
    /// SQL that must return a row, or empty.
    pub discovery: String,
    /// Where the discovery can be sent.
    pub discovery_platforms: Vec<String>,
    /// From which version on it can be sent.
    pub discovery_since: String,
    /// osquery's tables that it reads.
    pub tables: Vec<String>,
    /// Columns in the order of the SELECT, as far as known before anybody answers.
    pub columns: Vec<String>,
    /// `tables` when the rows tell of tables that a node has.
    pub purpose: String,
}

impl LiveQueryRecord {
    /// As a node would be judged by it.
    #[must_use]
    pub fn to_domain(&self) -> LiveQuery {
        LiveQuery {
            id: LiveQueryId(self.id),
            wire_id: String::new(),
            sql: self.sql.clone(),
            discovery: (!self.discovery.trim().is_empty()).then(|| Discovery {
                sql: self.discovery.clone(),
                platforms: self.discovery_platforms.clone(),
                since: self.discovery_since.parse().unwrap_or(DISCOVERY_SINCE),
            }),
            tables: self.tables.clone(),
            description: self.description.clone(),
            target: if self.target_all {
                Some(Target::All)
            } else if self.target.trim().is_empty() {
                None
            } else {
                Some(Target::parse(&self.target).unwrap_or(Target::None))
            },
            node_ids: self.node_ids.iter().copied().map(NodeId).collect(),
            created_by: None,
            created_at: self.created_at,
            expires_at: self.expires_at,
            cancelled_at: self.cancelled_at,
        }
    }
}

/// A live query to be stored.
#[derive(Debug)]
pub struct NewLiveQuery<'a> {
    /// Which.
    pub id: LiveQueryId,
    /// Its id on the wire: unique, short, without dots.
    pub wire_id: &'a str,
    /// SQL.
    pub sql: &'a str,
    /// What it is for.
    pub description: &'a str,
    /// Tag expression, empty for none.
    pub target: &'a str,
    /// Goes to every node.
    pub target_all: bool,
    /// Nodes by name, besides.
    pub node_ids: &'a [Uuid],
    /// Who asks.
    pub created_by: Option<UserId>,
    /// Not handed out from then on.
    pub expires_at: DateTime<Utc>,
    /// What must return a row on a node for the query to run there.
    pub discovery: Option<&'a Discovery>,
    /// osquery's tables that both read.
    pub tables: &'a [String],
    /// Columns in the order of the SELECT.
    pub columns: &'a [String],
    /// As in [`LiveQueryRecord`].
    pub purpose: &'a str,
}

/// Stores a live query: nodes get it from their next poll on.
///
/// # Errors
/// Postgres failed.
pub async fn insert(conn: &mut Conn, query: &NewLiveQuery<'_>, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO live_queries (id, wire_id, sql, description, target, target_all, node_ids, created_by, created_at, expires_at,
            discovery, discovery_platforms, discovery_since, tables, columns, purpose)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
        "#,
        query.id.0,
        query.wire_id,
        query.sql,
        query.description,
        query.target,
        query.target_all,
        query.node_ids,
        query.created_by.map(|id| id.0),
        now,
        query.expires_at,
        query.discovery.map_or("", |discovery| &discovery.sql),
        query.discovery.map_or(&[][..], |discovery| &discovery.platforms),
        query
            .discovery
            .map_or_else(String::new, |discovery| discovery.since.to_string()),
        query.tables,
        query.columns,
        query.purpose
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A page of live queries, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn, page: &PageRequest) -> Result<Page<LiveQueryRecord>> {
    let limit = page.limit_within(50, 200);
    let after: Option<Uuid> = page.key::<1>().and_then(|[id]| id.parse().ok());
    let rows = select(conn, None, after, limit + 1).await?;
    Ok(Page::cut(rows, limit, |row| [row.id.to_string()]))
}

/// One live query.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: LiveQueryId) -> Result<Option<LiveQueryRecord>> {
    Ok(select(conn, Some(id.0), None, 1).await?.pop())
}

async fn select(
    conn: &mut Conn,
    id: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<LiveQueryRecord>> {
    Ok(sqlx::query_as!(
        LiveQueryRecord,
        r#"
        SELECT q.id, sql, description, target, target_all, node_ids, u.name AS "created_by?", q.created_at, expires_at,
            cancelled_at, discovery, discovery_platforms, discovery_since, tables, columns, purpose,
            t.stuck AS "stuck!", t.skipped AS "skipped!", t.done AS "done!", t.failed AS "failed!", t.offered AS "offered!", t.expired AS "expired!"
        FROM live_queries q
        LEFT JOIN users u ON u.id = q.created_by
        CROSS JOIN LATERAL (
            SELECT count(*) FILTER (WHERE state = 'done') AS done, count(*) FILTER (WHERE state = 'failed') AS failed,
                count(*) FILTER (WHERE state = 'stuck') AS stuck, count(*) FILTER (WHERE state = 'skipped') AS skipped,
                count(*) FILTER (WHERE state = 'offered') AS offered, count(*) FILTER (WHERE state = 'expired') AS expired
            FROM live_query_tasks WHERE live_query_id = q.id) t
        WHERE ($1::uuid IS NULL OR q.id = $1) AND ($2::uuid IS NULL OR q.id < $2)
        ORDER BY q.id DESC LIMIT $3
        "#,
        id,
        before,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// Stops a live query: it is not handed out any more. Says whether it ran until now.
///
/// # Errors
/// Postgres failed.
pub async fn cancel(conn: &mut Conn, id: LiveQueryId, now: DateTime<Utc>) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE live_queries SET cancelled_at = $2 WHERE id = $1 AND cancelled_at IS NULL AND expires_at > $2",
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A node's share that was handed out or answered.
#[derive(Debug, Clone)]
pub struct TaskRecord {
    /// Which node.
    pub node_id: Uuid,
    /// `offered`, `done`, `failed`, `expired`, `stuck` or `skipped`.
    pub state: String,
    /// Handed out for the last time.
    pub offered_at: Option<DateTime<Utc>>,
    /// How often it was handed out.
    pub offers: i32,
    /// When the answer came.
    pub finished_at: Option<DateTime<Utc>>,
    /// What the node said of an error.
    pub message: String,
    /// How many rows.
    pub row_count: i32,
    /// What it cost, as the node measured: `wall_time_ms`, `user_time_ms`, `system_time_ms`, `memory_bytes`.
    pub stats: Option<serde_json::Value>,
}

/// The tasks of a live query that have a row.
///
/// # Errors
/// Postgres failed.
pub async fn list_tasks(conn: &mut Conn, id: LiveQueryId) -> Result<Vec<TaskRecord>> {
    Ok(sqlx::query_as!(
        TaskRecord,
        r#"
        SELECT node_id, state, offered_at, offers, finished_at, message, row_count, stats
        FROM live_query_tasks WHERE live_query_id = $1
        "#,
        id.0
    )
    .fetch_all(conn)
    .await?)
}

/// The rows of one node.
#[derive(Debug, Clone)]
pub struct TaskRows {
    /// Which node.
    pub node_id: Uuid,
    /// A JSON array of objects.
    pub rows: String,
}

/// The rows that nodes answered with, in the order of their answers: of as many nodes as it takes to reach `max_rows` rows.
///
/// # Errors
/// Postgres failed.
pub async fn list_rows(conn: &mut Conn, id: LiveQueryId, max_rows: i64) -> Result<Vec<TaskRows>> {
    Ok(sqlx::query_as!(
        TaskRows,
        r#"
        SELECT t.node_id, t.rows
        FROM live_query_tasks t
        JOIN (
            SELECT node_id, finished_at, sum(row_count) OVER (ORDER BY finished_at, node_id) - row_count AS before
            FROM live_query_tasks WHERE live_query_id = $1 AND row_count > 0
        ) c ON c.node_id = t.node_id
        WHERE t.live_query_id = $1 AND c.before < $2
        ORDER BY c.finished_at, t.node_id
        "#,
        id.0,
        max_rows
    )
    .fetch_all(conn)
    .await?)
}

/// A task of one node with its query.
#[derive(Debug, Clone)]
pub struct NodeTask {
    /// Of which live query.
    pub live_query_id: Uuid,
    /// What it is for.
    pub description: String,
    /// SQL.
    pub sql: String,
    /// As in [`TaskRecord::state`].
    pub state: String,
    /// When the answer came.
    pub finished_at: Option<DateTime<Utc>>,
    /// When the query was asked.
    pub created_at: DateTime<Utc>,
    /// How many rows.
    pub row_count: i32,
    /// What the node said of an error.
    pub message: String,
}

/// A page of the tasks of a node, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list_of_node(
    conn: &mut Conn,
    node: NodeId,
    page: &PageRequest,
) -> Result<Page<NodeTask>> {
    let limit = page.limit_within(50, 200);
    let after: Option<Uuid> = page.key::<1>().and_then(|[id]| id.parse().ok());
    let rows = sqlx::query_as!(
        NodeTask,
        r#"
        SELECT t.live_query_id, q.description, q.sql, t.state, t.finished_at, q.created_at, t.row_count, t.message
        FROM live_query_tasks t JOIN live_queries q ON q.id = t.live_query_id
        WHERE t.node_id = $1 AND ($2::uuid IS NULL OR t.live_query_id < $2)
        ORDER BY t.live_query_id DESC LIMIT $3::bigint + 1
        "#,
        node.0,
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| {
        [row.live_query_id.to_string()]
    }))
}

/// A live query that is handed out.
#[derive(Debug, Clone)]
pub struct OpenSql {
    /// Which.
    pub id: LiveQueryId,
    /// Its SQL, and that of its discovery.
    pub sql: Vec<String>,
    /// The tables that it is known to read.
    pub tables: Vec<String>,
}

/// The SQL of all live queries that are handed out.
///
/// # Errors
/// Postgres failed.
pub async fn list_open_sql(conn: &mut Conn, now: DateTime<Utc>) -> Result<Vec<OpenSql>> {
    let rows = sqlx::query!(
        "SELECT id, sql, discovery, tables FROM live_queries WHERE cancelled_at IS NULL AND expires_at > $1",
        now
    )
    .fetch_all(conn)
    .await?;
    let open = rows.into_iter().map(|row| OpenSql {
        id: LiveQueryId(row.id),
        sql: [row.sql, row.discovery]
            .into_iter()
            .filter(|sql| !sql.is_empty())
            .collect(),
        tables: row.tables,
    });
    Ok(open.collect())
}

/// Notes which tables a live query reads.
///
/// # Errors
/// Postgres failed.
pub async fn set_tables(conn: &mut Conn, id: LiveQueryId, tables: &[String]) -> Result<()> {
    sqlx::query!(
        "UPDATE live_queries SET tables = $2 WHERE id = $1",
        id.0,
        tables
    )
    .execute(conn)
    .await?;
    Ok(())
}
