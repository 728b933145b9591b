//! Carves as people read them.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{CarveId, LiveQueryId, NodeId};
use uuid::Uuid;

use crate::page::{Page, PageRequest};
use crate::{Conn, Result};

/// One carve.
#[derive(Debug, Clone)]
pub struct CarveRecord {
    /// Which.
    pub id: Uuid,
    /// Whose files, while that node exists.
    pub node_id: Option<Uuid>,
    /// What people call the node.
    pub node_name: Option<String>,
    /// The node's name for it.
    pub carve_id: String,
    /// As the node said.
    pub request_id: String,
    /// `receiving`, `received`, `stored`, `expired` or `failed`.
    pub state: String,
    /// How many blocks will come.
    pub block_count: i32,
    /// How many have.
    pub received_blocks: i32,
    /// Bytes of the archive.
    pub carve_size: i64,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When the latest block came.
    pub last_block_at: Option<DateTime<Utc>>,
    /// When it was stored or given up.
    pub ended_at: Option<DateTime<Utc>>,
    /// The paths that were asked for, if a live query asked.
    pub path: String,
    /// That live query.
    pub live_query_id: Option<Uuid>,
    /// Who asked it, while that user exists.
    pub asked_by: Option<String>,
    /// SHA-256 that the node gives.
    pub node_sha256: Option<String>,
    /// SHA-256 of what is stored.
    pub sha256: Option<String>,
    /// `tar`, `tar.zst` or `unknown`.
    pub format: Option<String>,
    /// Files in it.
    pub file_count: Option<i32>,
    /// What went wrong.
    pub problem: String,
}

/// Which carves are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct CarveFilter {
    /// Of this node.
    pub node: Option<NodeId>,
    /// Asked for by this live query.
    pub live_query: Option<LiveQueryId>,
}

/// A page of carves, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list(
    conn: &mut Conn,
    filter: CarveFilter,
    page: &PageRequest,
) -> Result<Page<CarveRecord>> {
    let limit = page.limit_within(50, 200);
    let before: Option<Uuid> = page.key::<1>().and_then(|[id]| id.parse().ok());
    let rows = select(conn, None, filter, before, limit + 1).await?;
    Ok(Page::cut(rows, limit, |row| [row.id.to_string()]))
}

/// One carve.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: CarveId) -> Result<Option<CarveRecord>> {
    Ok(select(conn, Some(id.0), CarveFilter::default(), None, 1)
        .await?
        .pop())
}

async fn select(
    conn: &mut Conn,
    id: Option<Uuid>,
    filter: CarveFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<CarveRecord>> {
    Ok(sqlx::query_as!(
        CarveRecord,
        r#"
        SELECT c.id, c.node_id, coalesce(nullif(n.display_name, ''), nullif(n.hostname, ''), n.host_identifier) AS node_name,
            c.carve_id, c.request_id, c.state, c.block_count, c.received_blocks, c.carve_size, c.started_at, c.last_block_at,
            c.ended_at, c.path, c.live_query_id, u.name AS "asked_by?", c.node_sha256, c.sha256, c.format, c.file_count, c.problem
        FROM carves c
        LEFT JOIN nodes n ON n.id = c.node_id
        LEFT JOIN live_queries q ON q.id = c.live_query_id
        LEFT JOIN users u ON u.id = q.created_by
        WHERE ($1::uuid IS NULL OR c.id = $1) AND ($2::uuid IS NULL OR c.node_id = $2)
            AND ($3::uuid IS NULL OR c.live_query_id = $3) AND ($4::uuid IS NULL OR c.id < $4)
        ORDER BY c.id DESC LIMIT $5
        "#,
        id,
        filter.node.map(|id| id.0),
        filter.live_query.map(|id| id.0),
        before,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// A file in a carve.
#[derive(Debug, Clone)]
pub struct CarveFile {
    /// Its place in the archive, from 1 on.
    pub position: i32,
    /// Its path on the node: hostile text.
    pub path: String,
    /// In bytes.
    pub size: i64,
    /// As the archive says.
    pub modified_at: Option<DateTime<Utc>>,
    /// Where its bytes begin in the unpacked archive; `None` when they cannot be taken by themselves.
    pub data_at: Option<i64>,
}

/// A page of the files of a carve, in their order.
///
/// # Errors
/// Postgres failed.
pub async fn list_files(
    conn: &mut Conn,
    id: CarveId,
    page: &PageRequest,
) -> Result<Page<CarveFile>> {
    let limit = page.limit_within(200, 1000);
    let after: i32 = page
        .key::<1>()
        .and_then(|[position]| position.parse().ok())
        .unwrap_or(0);
    let rows = sqlx::query_as!(
        CarveFile,
        r#"
        SELECT position, path, size, modified_at, data_at FROM carve_files
        WHERE carve_id = $1 AND position > $2 ORDER BY position LIMIT $3::bigint + 1
        "#,
        id.0,
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| [row.position.to_string()]))
}

/// One of the files of a carve.
///
/// # Errors
/// Postgres failed.
pub async fn find_file(conn: &mut Conn, id: CarveId, position: i32) -> Result<Option<CarveFile>> {
    Ok(sqlx::query_as!(
        CarveFile,
        r#"
        SELECT position, path, size, modified_at, data_at FROM carve_files
        WHERE carve_id = $1 AND position = $2
        "#,
        id.0,
        position
    )
    .fetch_optional(conn)
    .await?)
}
