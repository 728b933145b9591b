//! What osqueryd says about itself, written by the worker. `event_lists` reads it.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::log::StatusLine;
use uuid::Uuid;

use crate::{Conn, Result};

/// A status line of a post.
#[derive(Debug)]
pub struct NewStatus<'a> {
    /// Of whom.
    pub node_id: NodeId,
    /// In which post.
    pub batch_id: i64,
    /// When that came.
    pub received_at: DateTime<Utc>,
    /// What it says.
    pub line: &'a StatusLine<'a>,
}

/// Stores status lines in one statement.
///
/// # Errors
/// [`NoPartition`](crate::Error::NoPartition), or Postgres failed.
pub async fn insert(conn: &mut Conn, lines: &[NewStatus<'_>]) -> Result<()> {
    let nodes: Vec<Uuid> = lines.iter().map(|new| new.node_id.0).collect();
    let batches: Vec<i64> = lines.iter().map(|new| new.batch_id).collect();
    let received: Vec<DateTime<Utc>> = lines.iter().map(|new| new.received_at).collect();
    let occurred: Vec<DateTime<Utc>> = lines.iter().map(|new| new.line.occurred_at).collect();
    let severities: Vec<i16> = lines.iter().map(|new| new.line.severity).collect();
    let numbers: Vec<i32> = lines.iter().map(|new| new.line.line).collect();
    let files: Vec<&str> = lines.iter().map(|new| new.line.filename.as_ref()).collect();
    let messages: Vec<&str> = lines.iter().map(|new| new.line.message.as_ref()).collect();
    let versions: Vec<&str> = lines.iter().map(|new| new.line.version.as_ref()).collect();
    sqlx::query!(
        r#"
        INSERT INTO status_logs (node_id, batch_id, received_at, occurred_at, severity, line, filename, message, version)
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::smallint[], $6::integer[],
            $7::text[], $8::text[], $9::text[])
        "#,
        &nodes,
        &batches,
        &received,
        &occurred,
        &severities,
        &numbers,
        &files as &[&str],
        &messages as &[&str],
        &versions as &[&str]
    )
    .execute(conn)
    .await?;
    Ok(())
}
