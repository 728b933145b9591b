//! Where each sink stands in each source.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::SinkId;
use serde::Serialize;

use super::{Source, horizon};
use crate::{Conn, Result};

/// How far a source is forwarded: rows up to `after_id` are done, and of the next one the first `after_row` lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The last row that is done.
    pub after_id: i64,
    /// Lines of the row behind it that are done.
    pub after_row: i32,
}

/// The place of a sink in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Which table.
    pub source: Source,
    /// How far.
    pub position: Position,
    /// Lines that retention took before they were read.
    pub lost: i64,
}

/// The cursors of a sink.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn, sink: SinkId) -> Result<Vec<Cursor>> {
    let rows = sqlx::query!(
        "SELECT source, after_id, after_row, lost FROM sink_cursors WHERE sink_id = $1 ORDER BY source",
        sink.0
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let position = Position {
                after_id: row.after_id,
                after_row: row.after_row,
            };
            Some(Cursor {
                source: Source::of_table(&row.source)?,
                position,
                lost: row.lost,
            })
        })
        .collect())
}

/// Moves a cursor on, unless somebody has set it meanwhile (a replay): then it says so and changes nothing.
///
/// # Errors
/// Postgres failed.
pub async fn advance(
    conn: &mut Conn,
    sink: SinkId,
    source: Source,
    from: Position,
    to: Position,
) -> Result<bool> {
    let moved = sqlx::query!(
        r#"
        UPDATE sink_cursors SET after_id = $5, after_row = $6
        WHERE sink_id = $1 AND source = $2 AND after_id = $3 AND after_row = $4
        "#,
        sink.0,
        source.table(),
        from.after_id,
        from.after_row,
        to.after_id,
        to.after_row
    )
    .execute(conn)
    .await?;
    Ok(moved.rows_affected() > 0)
}

/// How far a sink is behind in a source.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Lag {
    /// Ids given out since: at least as many as there are rows.
    pub rows: i64,
    /// When the oldest row came that it has not read; `None` when there is none.
    pub oldest_at: Option<DateTime<Utc>>,
}

/// How far a cursor is behind.
///
/// # Errors
/// Postgres failed.
pub async fn lag(conn: &mut Conn, cursor: &Cursor) -> Result<Lag> {
    let after = cursor.position.after_id;
    let given = horizon::given_out(conn, cursor.source).await?;
    let oldest_at = if given > after {
        oldest_after(conn, cursor.source, after).await?
    } else {
        None
    };
    // Ids of transactions that failed are rows of nobody.
    let rows = if oldest_at.is_some() {
        given - after
    } else {
        0
    };
    Ok(Lag { rows, oldest_at })
}

async fn oldest_after(
    conn: &mut Conn,
    source: Source,
    after: i64,
) -> Result<Option<DateTime<Utc>>> {
    Ok(match source {
        Source::Events => {
            sqlx::query_scalar!(
                "SELECT received_at FROM events WHERE id > $1 ORDER BY id LIMIT 1",
                after
            )
            .fetch_optional(conn)
            .await?
        }
        Source::StatusLogs => {
            sqlx::query_scalar!(
                "SELECT received_at FROM status_logs WHERE id > $1 ORDER BY id LIMIT 1",
                after
            )
            .fetch_optional(conn)
            .await?
        }
        Source::FindingChanges => {
            sqlx::query_scalar!(
                "SELECT changed_at FROM finding_changes WHERE id > $1 ORDER BY id LIMIT 1",
                after
            )
            .fetch_optional(conn)
            .await?
        }
        Source::AuditEntries => {
            sqlx::query_scalar!(
                "SELECT at FROM audit_entries WHERE id > $1 ORDER BY id LIMIT 1",
                after
            )
            .fetch_optional(conn)
            .await?
        }
    })
}

/// The id before the first row that came at a time or later: from there on all of them are read again, with a few older ones that
/// were stored after them. What came to a source since is not there: `None`.
async fn id_before(conn: &mut Conn, source: Source, since: DateTime<Utc>) -> Result<Option<i64>> {
    let first = match source {
        Source::Events => {
            sqlx::query_scalar!("SELECT min(id) FROM events WHERE received_at >= $1", since)
                .fetch_one(conn)
                .await?
        }
        Source::StatusLogs => {
            sqlx::query_scalar!(
                "SELECT min(id) FROM status_logs WHERE received_at >= $1",
                since
            )
            .fetch_one(conn)
            .await?
        }
        Source::FindingChanges => {
            sqlx::query_scalar!(
                "SELECT min(id) FROM finding_changes WHERE changed_at >= $1",
                since
            )
            .fetch_one(conn)
            .await?
        }
        Source::AuditEntries => {
            sqlx::query_scalar!("SELECT min(id) FROM audit_entries WHERE at >= $1", since)
                .fetch_one(conn)
                .await?
        }
    };
    Ok(first.map(|first| first - 1))
}

/// Sets the cursors of a sink to sources: a new one stands at the end, those of sources that are no more wanted go.
///
/// # Errors
/// Postgres failed.
pub async fn set_sources(conn: &mut Conn, sink: SinkId, sources: &[Source]) -> Result<()> {
    let tables: Vec<&str> = sources.iter().map(|source| source.table()).collect();
    sqlx::query!(
        "DELETE FROM sink_cursors WHERE sink_id = $1 AND source <> ALL($2)",
        sink.0,
        &tables as &[&str]
    )
    .execute(&mut *conn)
    .await?;
    for source in sources {
        let end = horizon::given_out(&mut *conn, *source).await?;
        sqlx::query!(
            "INSERT INTO sink_cursors (sink_id, source, after_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            sink.0,
            source.table(),
            end
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Sets all cursors of a sink back to a time (or on to it). Lines counted as lost are forgotten.
///
/// # Errors
/// Postgres failed.
pub async fn replay(conn: &mut Conn, sink: SinkId, since: DateTime<Utc>) -> Result<()> {
    for cursor in list(conn, sink).await? {
        let after = match id_before(conn, cursor.source, since).await? {
            Some(after) => after,
            None => horizon::given_out(conn, cursor.source).await?,
        };
        sqlx::query!(
            "UPDATE sink_cursors SET after_id = $3, after_row = 0, lost = 0 WHERE sink_id = $1 AND source = $2",
            sink.0,
            cursor.source.table(),
            after
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}
