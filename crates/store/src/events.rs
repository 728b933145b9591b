//! Events as the worker writes them: one tuple per (node, query, execution, post). `event_lists` reads them.
//!
//! How the rows of an execution are written into a tuple is decided here ([`encode_rows`]) and nowhere else.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::log::{Action, Execution, Kind};
use ostiary_domain::osquery::Columns;
use serde::Serialize;
use uuid::Uuid;

use crate::packed::Packed;
use crate::{Conn, Result};

/// One execution as one post reported it.
#[derive(Debug)]
pub struct NewEvent<'a> {
    /// Of whom.
    pub node_id: NodeId,
    /// Which query.
    pub query_name_id: i32,
    /// In which post.
    pub batch_id: i64,
    /// When that came.
    pub received_at: DateTime<Utc>,
    /// What was executed, and its rows.
    pub execution: &'a Execution<'a>,
    /// The rows are part of the first set ever: what was there already.
    pub baseline: bool,
    /// It was old on arrival.
    pub late: bool,
}

#[derive(Serialize)]
struct WrittenRow<'a> {
    action: &'static str,
    columns: &'a Columns<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decorations: Option<&'a Columns<'a>>,
}

/// The rows as they are stored: a JSON array, each row with its action and the decorations of its execution.
#[must_use]
pub fn encode_rows(execution: &Execution<'_>) -> String {
    let rows: Vec<WrittenRow<'_>> = execution
        .rows
        .iter()
        .map(|row| {
            let decorations = row.decorations.as_ref().unwrap_or(&execution.decorations);
            WrittenRow {
                action: row.action.as_str(),
                columns: &row.columns,
                decorations: Some(decorations).filter(|decorations| !decorations.is_empty()),
            }
        })
        .collect();
    serde_json::to_string(&rows).expect("maps of strings are always JSON")
}

/// Stores events in one statement.
///
/// # Errors
/// [`NoPartition`](crate::Error::NoPartition), or Postgres failed.
pub async fn insert(conn: &mut Conn, events: &[NewEvent<'_>]) -> Result<()> {
    let nodes: Vec<Uuid> = events.iter().map(|event| event.node_id.0).collect();
    let queries: Vec<i32> = events.iter().map(|event| event.query_name_id).collect();
    let batches: Vec<i64> = events.iter().map(|event| event.batch_id).collect();
    let received: Vec<DateTime<Utc>> = events.iter().map(|event| event.received_at).collect();
    let occurred: Vec<DateTime<Utc>> = events
        .iter()
        .map(|event| event.execution.occurred_at)
        .collect();
    let times: Vec<i64> = events
        .iter()
        .map(|event| event.execution.unix_time)
        .collect();
    // numeric has no array type that u64 would fit into, text has
    let epochs: Vec<String> = events
        .iter()
        .map(|event| event.execution.epoch.unwrap_or(0).to_string())
        .collect();
    let counters: Vec<i64> = events
        .iter()
        .map(|event| to_bigint(event.execution.counter.unwrap_or(0)))
        .collect();
    let snapshots: Vec<bool> = events
        .iter()
        .map(|event| event.execution.kind == Kind::Snapshot)
        .collect();
    let baselines: Vec<bool> = events.iter().map(|event| event.baseline).collect();
    let lates: Vec<bool> = events.iter().map(|event| event.late).collect();
    let lossies: Vec<bool> = events.iter().map(|event| event.execution.lossy).collect();
    let counts: Vec<i32> = events
        .iter()
        .map(|event| i32::try_from(event.execution.rows.len()).unwrap_or(i32::MAX))
        .collect();
    let actions: Vec<i16> = events
        .iter()
        .map(|event| action_bits(event.execution))
        .collect();
    let rows: Vec<Packed> = events
        .iter()
        .map(|event| Packed(encode_rows(event.execution)))
        .collect();
    sqlx::query!(
        r#"
        INSERT INTO events (node_id, query_name_id, batch_id, received_at, occurred_at, unix_time, epoch, counter, snapshot,
            baseline, late, lossy, actions, row_count, rows)
        SELECT node_id, query_name_id, batch_id, received_at, occurred_at, unix_time, epoch::numeric, counter, snapshot,
            baseline, late, lossy, actions, row_count, rows
        FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::bigint[], $7::text[],
            $8::bigint[], $9::boolean[], $10::boolean[], $11::boolean[], $12::boolean[], $13::smallint[], $14::integer[], $15::bytea[])
            WITH ORDINALITY AS new (node_id, query_name_id, batch_id, received_at, occurred_at, unix_time, epoch, counter,
                snapshot, baseline, late, lossy, actions, row_count, rows, position)
        ORDER BY position
        "#,
        &nodes,
        &queries,
        &batches,
        &received,
        &occurred,
        &times,
        &epochs,
        &counters,
        &snapshots,
        &baselines,
        &lates,
        &lossies,
        &actions,
        &counts,
        &rows as &[Packed]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A counter beyond `bigint` is nonsense that must not cost the post.
fn to_bigint(counter: u64) -> i64 {
    i64::try_from(counter).unwrap_or(i64::MAX)
}

/// Which actions an execution holds, as in the column `actions`.
fn action_bits(execution: &Execution<'_>) -> i16 {
    execution.rows.iter().fold(0, |bits, row| {
        bits | match row.action {
            Action::Added => 1,
            Action::Removed => 2,
            Action::Snapshot => 4,
            Action::Triggered => 8,
        }
    })
}
