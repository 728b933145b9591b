//! What a node sent that could not be understood, kept with the reason: by the api what it cannot even split, by the worker what it
//! cannot decode. How much of a node is kept is bounded by a trigger, so that nobody can forget it; the oldest make room.

use std::borrow::Cow;
use std::io::Read as _;

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use serde::Serialize;
use uuid::Uuid;

use crate::page::{Page, PageRequest};
use crate::{Conn, Result};

/// Nothing larger is opened, in bytes; no body that the api takes is.
const OPENED_MAX: u64 = 256 << 20;
/// Of an item so much stands in an export, in bytes; the rest is had by itself.
const EXPORTED_MAX: u64 = 16 << 20;
/// Of how much the excerpt in a list is, in bytes as stored and as shown.
const LISTED_MAX: i32 = 64 * 1024;
const EXCERPT: u64 = 300;

/// A line, or a whole post.
#[derive(Debug, Clone)]
pub struct NewUnreadable {
    /// Id of the row.
    pub id: Uuid,
    /// Of whom.
    pub node_id: NodeId,
    /// In which post.
    pub batch_id: Option<i64>,
    /// The wire's name of the log, or the endpoint.
    pub log_type: Cow<'static, str>,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// Why.
    pub reason: String,
    /// As it was sent, compressed by [`compress`](crate::log_batches::compress).
    pub data: Vec<u8>,
}

/// Keeps what could not be understood, in one statement.
///
/// # Errors
/// Postgres failed.
pub async fn insert(conn: &mut Conn, items: &[NewUnreadable]) -> Result<()> {
    let ids: Vec<Uuid> = items.iter().map(|item| item.id).collect();
    let nodes: Vec<Uuid> = items.iter().map(|item| item.node_id.0).collect();
    let batches: Vec<Option<i64>> = items.iter().map(|item| item.batch_id).collect();
    let types: Vec<&str> = items.iter().map(|item| item.log_type.as_ref()).collect();
    let times: Vec<DateTime<Utc>> = items.iter().map(|item| item.received_at).collect();
    let reasons: Vec<String> = items
        .iter()
        .map(|item| item.reason.replace('\0', "\u{FFFD}"))
        .collect();
    let data: Vec<&[u8]> = items.iter().map(|item| item.data.as_slice()).collect();
    sqlx::query!(
        r#"
        INSERT INTO unreadable (id, node_id, batch_id, log_type, received_at, reason, data)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::timestamptz[], $6::text[], $7::bytea[])
        "#,
        &ids,
        &nodes,
        &batches as &[Option<i64>],
        &types as &[&str],
        &times,
        &reasons,
        &data as &[&[u8]]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// One of them.
#[derive(Debug, Clone, Serialize)]
pub struct UnreadableRecord {
    /// Which.
    pub id: Uuid,
    /// Who sent it.
    pub node_id: Uuid,
    /// Their name; the id when the node is gone.
    pub node_name: String,
    /// The wire's name of the log, or the endpoint.
    pub log_type: String,
    /// By the server's clock.
    pub received_at: DateTime<Utc>,
    /// Why it could not be understood.
    pub reason: String,
    /// Bytes as stored, which is compressed.
    pub stored_bytes: i32,
    /// As sent: in a list the beginning of what is not large, in an export as much as may be held in memory.
    #[serde(skip)]
    pub data: Vec<u8>,
    /// In an export: there is more than `data`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// A page of them, newest first; with beginnings, or `whole` for an export. Then each may take 16 MiB: ask for one at a time.
///
/// # Errors
/// Postgres failed.
pub async fn list(
    conn: &mut Conn,
    node: Option<NodeId>,
    page: &PageRequest,
    whole: bool,
) -> Result<Page<UnreadableRecord>> {
    let limit = page.limit_within(50, 200);
    let after = page.key::<2>().and_then(|[micros, id]| {
        Some((
            DateTime::from_timestamp_micros(micros.parse().ok()?)?,
            id.parse::<Uuid>().ok()?,
        ))
    });
    let (received_at, id) = after.unzip();
    let mut rows = sqlx::query_as!(
        UnreadableRecord,
        r#"
        SELECT u.id, u.node_id,
            coalesce(nullif(n.display_name, ''), nullif(n.hostname, ''), n.host_identifier, u.node_id::text) AS "node_name!",
            log_type, received_at, reason, octet_length(data) AS "stored_bytes!",
            CASE WHEN $5 OR octet_length(data) <= $6 THEN data ELSE '' END AS "data!", false AS "truncated!"
        FROM unreadable u LEFT JOIN nodes n ON n.id = u.node_id
        WHERE ($1::uuid IS NULL OR u.node_id = $1) AND ($2::timestamptz IS NULL OR (received_at, u.id) < ($2, $3))
        ORDER BY received_at DESC, u.id DESC LIMIT $4::bigint + 1
        "#,
        node.map(|id| id.0),
        received_at,
        id,
        limit,
        whole,
        LISTED_MAX
    )
    .fetch_all(conn)
    .await?;
    for row in &mut rows {
        if whole {
            row.data = open(&row.data, EXPORTED_MAX + 1);
            let kept = usize::try_from(EXPORTED_MAX).unwrap_or(usize::MAX);
            row.truncated = row.data.len() > kept;
            row.data.truncate(kept);
        } else {
            row.data = open(&row.data, EXCERPT);
        }
    }
    Ok(Page::cut(rows, limit, |row| {
        [
            row.received_at.timestamp_micros().to_string(),
            row.id.to_string(),
        ]
    }))
}

/// The bytes of one of them, as sent.
///
/// # Errors
/// Postgres failed.
pub async fn find_data(conn: &mut Conn, id: Uuid) -> Result<Option<Vec<u8>>> {
    let stored = sqlx::query_scalar!("SELECT data FROM unreadable WHERE id = $1", id)
        .fetch_optional(conn)
        .await?;
    Ok(stored.map(|data| open(&data, OPENED_MAX)))
}

/// What was sent, up to so many bytes. What is not compressed, or damaged, is shown as far as it goes.
fn open(stored: &[u8], max: u64) -> Vec<u8> {
    let mut opened = Vec::new();
    let decoder = zstd::stream::Decoder::new(stored);
    match decoder.and_then(|decoder| decoder.take(max).read_to_end(&mut opened)) {
        Err(_) if opened.is_empty() => stored
            .iter()
            .copied()
            .take(usize::try_from(max).unwrap_or(usize::MAX))
            .collect(),
        Ok(_) | Err(_) => opened,
    }
}

/// What had to make room for later unreadable data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// How many items.
    pub items: i64,
    /// How many bytes, as stored.
    pub bytes: i64,
}

/// What was dropped of a node, or of all.
///
/// # Errors
/// Postgres failed.
pub async fn dropped(conn: &mut Conn, node: Option<NodeId>) -> Result<Dropped> {
    Ok(sqlx::query_as!(
        Dropped,
        r#"
        SELECT coalesce(sum(items), 0)::bigint AS "items!", coalesce(sum(bytes), 0)::bigint AS "bytes!"
        FROM unreadable_dropped WHERE $1::uuid IS NULL OR node_id = $1
        "#,
        node.map(|id| id.0)
    )
    .fetch_one(conn)
    .await?)
}

/// Deletes what is past its retention, and what nobody asks about any more. Gives how many.
///
/// # Errors
/// Postgres failed.
pub async fn delete_old(conn: &mut Conn, now: DateTime<Utc>) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        DELETE FROM unreadable WHERE received_at < $1::timestamptz - make_interval(days => (
            SELECT keep_days FROM retention WHERE table_name = 'unreadable'))
        "#,
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM unreadable_dropped d WHERE NOT EXISTS (SELECT FROM nodes WHERE nodes.id = d.node_id)"
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
