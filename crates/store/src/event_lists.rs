//! Events, present rows and status logs as people read them. Writing them is the worker's part and lives elsewhere.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use uuid::Uuid;

use crate::packed::Packed;
use crate::page::{Page, PageRequest};
use crate::{Conn, Result};

/// One execution of a query, as one post reported it.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// Orders them as they were stored.
    pub id: i64,
    /// Of which node.
    pub node_id: Uuid,
    /// Which query.
    pub query_name: String,
    /// By the server's clock.
    pub received_at: DateTime<Utc>,
    /// The node's time, clamped to `received_at`.
    pub occurred_at: DateTime<Utc>,
    /// The node's time as it was sent, in seconds since 1970.
    pub unix_time: i64,
    /// As sent; does not fit an `i64`.
    pub epoch: String,
    /// As sent.
    pub counter: i64,
    /// All rows, rather than differences.
    pub snapshot: bool,
    /// Part of a full set.
    pub baseline: bool,
    /// Old on arrival.
    pub late: bool,
    /// Bytes that were no UTF-8 were replaced.
    pub lossy: bool,
    /// How many rows.
    pub row_count: i32,
    /// `[{"action": …, "columns": {…}, "decorations": {…}?}, …]`
    pub rows: Packed,
}

/// Where an event stands among the events of its node: newest first, by time and then by id.
fn position(received_at: DateTime<Utc>, id: i64) -> [String; 2] {
    [received_at.timestamp_micros().to_string(), id.to_string()]
}

/// Reads a [`position`].
fn read_position(micros: &str, id: &str) -> Option<(DateTime<Utc>, i64)> {
    Some((
        DateTime::from_timestamp_micros(micros.parse().ok()?)?,
        id.parse().ok()?,
    ))
}

/// Which events of a node are wanted; empty texts mean "any".
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Of this query.
    pub query: String,
    /// With a row of this action.
    pub action: String,
}

/// A page of the events of a node, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list_of_node(
    conn: &mut Conn,
    node: NodeId,
    filter: &EventFilter,
    page: &PageRequest,
) -> Result<Page<EventRecord>> {
    let limit = page.limit_within(50, 500);
    let before = page
        .key::<2>()
        .and_then(|[micros, id]| read_position(micros, id));
    let rows = sqlx::query_as!(
        EventRecord,
        r#"
        SELECT e.id, e.node_id, q.name AS query_name, received_at, occurred_at, unix_time, epoch::text AS "epoch!", counter,
            snapshot, baseline, late, lossy, row_count, rows AS "rows: Packed"
        FROM events e JOIN query_names q ON q.id = e.query_name_id
        WHERE e.node_id = $1 AND ($2::timestamptz IS NULL OR (received_at, e.id) < ($2, $3)) AND ($4 = '' OR q.name = $4)
            AND ($5::smallint = 0 OR actions & $5 <> 0)
        ORDER BY received_at DESC, e.id DESC LIMIT $6::bigint + 1
        "#,
        node.0,
        before.map(|(at, _)| at),
        before.map(|(_, id)| id),
        filter.query,
        action_bit(&filter.action),
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| {
        position(row.received_at, row.id)
    }))
}

/// The bit of an action in `events.actions`; 0 for the empty text.
#[must_use]
pub fn action_bit(action: &str) -> i16 {
    match action {
        "" => 0,
        "added" => 1,
        "removed" => 2,
        "snapshot" => 4,
        _ => 8,
    }
}

/// The rows of a node's events, newest event first, one page exact to the row: each with its index in its event, an event without
/// rows (an empty snapshot) once with no index. `next` names event and row.
///
/// # Errors
/// Postgres failed.
pub async fn list_rows_of_node(
    conn: &mut Conn,
    node: NodeId,
    page: &PageRequest,
) -> Result<RowPage> {
    let limit = page.limit_within(100, 1000);
    let from = page.key::<3>().and_then(|[micros, id, row]| {
        Some((read_position(micros, id)?, row.parse::<usize>().ok()?))
    });
    let at = from.map(|((at, _), _)| at);
    let sizes = sqlx::query!(
        r#"
        SELECT id, received_at, row_count FROM events
        WHERE node_id = $1 AND ($2::timestamptz IS NULL OR (received_at, id) <= ($2, $3))
        ORDER BY received_at DESC, id DESC LIMIT $4
        "#,
        node.0,
        at,
        from.map(|((_, id), _)| id),
        limit + 1
    )
    .fetch_all(&mut *conn)
    .await?;
    // The first event may have shrunk from the page by what was read of it before; retention may have taken it whole.
    let first = sizes.first().map(|size| (size.received_at, size.id));
    let mut skip = from
        .filter(|(position, _)| first == Some(*position))
        .map_or(0, |(_, row)| row);
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut parts, mut taken, mut next) = (Vec::new(), 0, None);
    for size in &sizes {
        if taken == wanted {
            next = Some(format!(
                "{}~0",
                position(size.received_at, size.id).join("~")
            ));
            break;
        }
        let items = usize::try_from(size.row_count).unwrap_or(0).max(1);
        let first = std::mem::take(&mut skip).min(items);
        let last = items.min(first + wanted - taken);
        taken += last - first;
        parts.push((size.id, first..last));
        if last < items {
            next = Some(format!(
                "{}~{last}",
                position(size.received_at, size.id).join("~")
            ));
            break;
        }
    }
    let ids: Vec<i64> = parts.iter().map(|(id, _)| *id).collect();
    let newest = sizes.first().map(|size| size.received_at);
    let oldest = sizes
        .get(parts.len().saturating_sub(1))
        .map(|size| size.received_at);
    let events = sqlx::query_as!(
        EventRecord,
        r#"
        SELECT e.id, e.node_id, q.name AS query_name, received_at, occurred_at, unix_time, epoch::text AS "epoch!", counter,
            snapshot, baseline, late, lossy, row_count, rows AS "rows: Packed"
        FROM events e JOIN query_names q ON q.id = e.query_name_id
        WHERE e.node_id = $1 AND e.id = ANY($2) AND received_at BETWEEN $3 AND $4
        ORDER BY received_at DESC, e.id DESC
        "#,
        node.0,
        &ids,
        oldest,
        newest
    )
    .fetch_all(conn)
    .await?;
    let parts = events
        .into_iter()
        .filter_map(|event| {
            parts
                .iter()
                .find(|(id, _)| *id == event.id)
                .map(|(_, range)| (event, range.clone()))
        })
        .collect();
    Ok(RowPage { parts, next })
}

/// A page of rows: each event with the range of its rows that belongs to the page.
#[derive(Debug)]
pub struct RowPage {
    /// Newest event first.
    pub parts: Vec<(EventRecord, std::ops::Range<usize>)>,
    /// What to ask for the next page; `None` at the end.
    pub next: Option<String>,
}

/// The names of the queries that a node has present rows of or reported lately.
///
/// # Errors
/// Postgres failed.
pub async fn query_names_of_node(conn: &mut Conn, node: NodeId) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT name FROM query_names WHERE id IN (
            SELECT query_name_id FROM present_rows WHERE node_id = $1
            UNION (SELECT query_name_id FROM (
                SELECT query_name_id FROM events WHERE node_id = $1 ORDER BY received_at DESC LIMIT 500) recent))
        ORDER BY name
        "#,
        node.0
    )
    .fetch_all(conn)
    .await?)
}

/// What holds now for one query of a node.
#[derive(Debug, Clone)]
pub struct PresentRecord {
    /// Which query.
    pub query_name: String,
    /// Does each execution replace all rows?
    pub snapshot: bool,
    /// False while rows are only known in part.
    pub complete: bool,
    /// How many rows.
    pub row_count: i32,
    /// When they last changed.
    pub changed_at: DateTime<Utc>,
    /// A JSON array; empty when only the list was asked for.
    pub rows: Packed,
}

/// The queries of which a node has present rows, without the rows, in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list_present(conn: &mut Conn, node: NodeId) -> Result<Vec<PresentRecord>> {
    Ok(sqlx::query_as!(
        PresentRecord,
        r#"
        SELECT q.name AS query_name, snapshot, complete, row_count, changed_at, ''::bytea AS "rows!: Packed"
        FROM present_rows p JOIN query_names q ON q.id = p.query_name_id
        WHERE p.node_id = $1 ORDER BY q.name
        "#,
        node.0
    )
    .fetch_all(conn)
    .await?)
}

/// The present rows of a node with the rows themselves: of one query, or of all.
///
/// # Errors
/// Postgres failed.
pub async fn find_present(
    conn: &mut Conn,
    node: NodeId,
    query: Option<&str>,
) -> Result<Vec<PresentRecord>> {
    Ok(sqlx::query_as!(
        PresentRecord,
        r#"
        SELECT q.name AS query_name, snapshot, complete, row_count, changed_at, rows AS "rows: Packed"
        FROM present_rows p JOIN query_names q ON q.id = p.query_name_id
        WHERE p.node_id = $1 AND ($2::text IS NULL OR q.name = $2) ORDER BY q.name
        "#,
        node.0,
        query
    )
    .fetch_all(conn)
    .await?)
}

/// Of these queries of a node, those of which an execution has come since.
///
/// # Errors
/// Postgres failed.
pub async fn list_reported_since(
    conn: &mut Conn,
    node: NodeId,
    queries: &[(&str, DateTime<Utc>)],
) -> Result<Vec<String>> {
    let (names, times): (Vec<String>, Vec<DateTime<Utc>>) = (queries.iter())
        .map(|(name, at)| ((*name).to_owned(), *at))
        .unzip();
    Ok(sqlx::query_scalar!(
        r#"
        SELECT q.name FROM unnest($2::text[], $3::timestamptz[]) AS u (name, since) JOIN query_names q ON q.name = u.name
        WHERE EXISTS (SELECT FROM events e WHERE e.node_id = $1 AND e.query_name_id = q.id AND e.received_at > u.since)
        "#,
        node.0,
        &names,
        &times
    )
    .fetch_all(conn)
    .await?)
}

/// A line of osqueryd's own log.
#[derive(Debug, Clone)]
pub struct StatusRecord {
    /// Orders them as they were stored.
    pub id: i64,
    /// 0 info, 1 warning, 2 error, 3 fatal.
    pub severity: i16,
    /// The node's time, clamped to the time of receipt.
    pub occurred_at: DateTime<Utc>,
    /// What it says.
    pub message: String,
    /// Source file of osquery.
    pub filename: String,
    /// Its line.
    pub line: i32,
    /// Of the osqueryd.
    pub version: String,
}

/// A page of a node's status logs at least this severe, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list_status_logs(
    conn: &mut Conn,
    node: NodeId,
    least: i16,
    page: &PageRequest,
) -> Result<Page<StatusRecord>> {
    let limit = page.limit_within(100, 500);
    let before: Option<i64> = page.key::<1>().and_then(|[id]| id.parse().ok());
    let rows = sqlx::query_as!(
        StatusRecord,
        r#"
        SELECT id, severity, occurred_at, message, filename, line, version
        FROM status_logs WHERE node_id = $1 AND severity >= $2 AND ($3::bigint IS NULL OR id < $3)
        ORDER BY id DESC LIMIT $4::bigint + 1
        "#,
        node.0,
        least,
        before,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| [row.id.to_string()]))
}
