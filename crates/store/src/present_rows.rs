//! Present rows as the worker keeps them: what holds now for one (node, query). `event_lists` reads them; what an execution changes
//! is decided in `domain::present`.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::present::{FullSet, Knowledge, PresentRows, RowSet, Series};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use crate::packed::Packed;
use crate::{Conn, Error, Result};

/// What of a series has no column of its own.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    #[serde(default)]
    knowledge: Knowledge,
    #[serde(default)]
    merging: bool,
    #[serde(default)]
    set: Option<FullSet>,
}

/// The present rows of one query of one node.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Of whom.
    pub node_id: NodeId,
    /// Of which query.
    pub query_name_id: i32,
    /// What holds.
    pub present: PresentRows,
}

/// Finds the present rows of (node, query) pairs; a pair of which nothing ever came has none.
///
/// # Errors
/// Postgres failed, or holds rows that cannot be read.
pub async fn find(conn: &mut Conn, pairs: &[(NodeId, i32)]) -> Result<Vec<Stored>> {
    let nodes: Vec<Uuid> = pairs.iter().map(|(node, _)| node.0).collect();
    let queries: Vec<i32> = pairs.iter().map(|(_, query)| *query).collect();
    let rows = sqlx::query!(
        r#"
        SELECT node_id, query_name_id, epoch::text AS "epoch!", counter, unix_time, instance_id, snapshot, stale,
            state AS "state: Json<State>", rows AS "rows: Packed"
        FROM present_rows
        JOIN unnest($1::uuid[], $2::integer[]) AS wanted (node_id, query_name_id) USING (node_id, query_name_id)
        "#,
        &nodes,
        &queries
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let corrupt = |what: String| Error::Corrupt(format!("present_rows: {what}"));
            let state = row.state.map(|Json(state)| state).unwrap_or_default();
            let series = Series {
                epoch: row
                    .epoch
                    .parse()
                    .map_err(|_| corrupt(format!("epoch {}", row.epoch)))?,
                counter: row.counter.cast_unsigned(),
                unix_time: row.unix_time,
                instance_id: row.instance_id,
                snapshot: row.snapshot,
                knowledge: state.knowledge,
                merging: state.merging,
                set: state.set,
            };
            let rows = match row.rows.0.as_str() {
                "" => RowSet::default(),
                json => RowSet::from_json(json).map_err(|error| corrupt(error.to_string()))?,
            };
            Ok(Stored {
                node_id: NodeId(row.node_id),
                query_name_id: row.query_name_id,
                present: PresentRows {
                    rows,
                    series: Some(series),
                    stale: row.stale,
                },
            })
        })
        .collect()
}

/// Writes the present rows of (node, query) pairs in one statement. Where the content is as before, the stored rows are not touched.
///
/// # Errors
/// Postgres failed.
pub async fn put(conn: &mut Conn, items: &[Stored], now: DateTime<Utc>) -> Result<()> {
    let default = Series::default();
    let series: Vec<&Series> = items
        .iter()
        .map(|item| item.present.series.as_ref().unwrap_or(&default))
        .collect();
    let nodes: Vec<Uuid> = items.iter().map(|item| item.node_id.0).collect();
    let queries: Vec<i32> = items.iter().map(|item| item.query_name_id).collect();
    let epochs: Vec<String> = series
        .iter()
        .map(|series| series.epoch.to_string())
        .collect();
    let counters: Vec<i64> = series
        .iter()
        .map(|series| series.counter.cast_signed())
        .collect();
    let times: Vec<i64> = series.iter().map(|series| series.unix_time).collect();
    let instances: Vec<&str> = series
        .iter()
        .map(|series| series.instance_id.as_str())
        .collect();
    let snapshots: Vec<bool> = series.iter().map(|series| series.snapshot).collect();
    let completes: Vec<bool> = series
        .iter()
        .map(|series| series.knowledge == Knowledge::Complete)
        .collect();
    let unsettled: Vec<Option<DateTime<Utc>>> = items
        .iter()
        .map(|item| {
            if item.present.is_settled() {
                None
            } else {
                Some(now)
            }
        })
        .collect();
    // As text: a detour by jsonb would parse and write all unseen rows once more.
    let states: Vec<String> = series
        .iter()
        .map(|series| State {
            knowledge: series.knowledge,
            merging: series.merging,
            set: series.set.clone(),
        })
        .map(|state| serde_json::to_string(&state).expect("rows are JSON"))
        .collect();
    let hashes: Vec<Vec<u8>> = items
        .iter()
        .map(|item| item.present.rows.content_hash().to_vec())
        .collect();
    let counts: Vec<i32> = items
        .iter()
        .map(|item| i32::try_from(item.present.rows.len()).unwrap_or(i32::MAX))
        .collect();
    let stale: Vec<bool> = items.iter().map(|item| item.present.stale).collect();
    let rows: Vec<Packed> = items
        .iter()
        .map(|item| Packed(item.present.rows.to_json()))
        .collect();
    sqlx::query!(
        r#"
        INSERT INTO present_rows AS p (node_id, query_name_id, epoch, counter, unix_time, instance_id, snapshot, complete, unsettled_at,
            state, content_hash, row_count, rows, changed_at, stale)
        SELECT node_id, query_name_id, epoch::numeric, counter, unix_time, instance_id, snapshot, complete, unsettled_at,
            state::json, content_hash, row_count, rows, $14, stale
        FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::boolean[], $8::boolean[],
            $9::timestamptz[], $10::text[], $11::bytea[], $12::integer[], $13::bytea[], $15::boolean[])
            AS new (node_id, query_name_id, epoch, counter, unix_time, instance_id, snapshot, complete, unsettled_at, state,
                content_hash, row_count, rows, stale)
        ON CONFLICT (node_id, query_name_id) DO UPDATE SET
            epoch = excluded.epoch, counter = excluded.counter, unix_time = excluded.unix_time,
            instance_id = excluded.instance_id, snapshot = excluded.snapshot, complete = excluded.complete,
            unsettled_at = excluded.unsettled_at, state = excluded.state, content_hash = excluded.content_hash,
            row_count = excluded.row_count, stale = excluded.stale,
            rows = CASE WHEN p.content_hash = excluded.content_hash THEN p.rows ELSE excluded.rows END,
            changed_at = CASE WHEN p.content_hash = excluded.content_hash THEN p.changed_at ELSE excluded.changed_at END
        "#,
        &nodes,
        &queries,
        &epochs,
        &counters,
        &times,
        &instances as &[&str],
        &snapshots,
        &completes,
        &unsettled as &[Option<DateTime<Utc>>],
        &states,
        &hashes,
        &counts,
        &rows as &[Packed],
        now,
        &stale
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A full set that came one row a line and of whose end nothing has told yet.
#[derive(Debug, Clone)]
pub struct Unsettled {
    /// What holds, the unseen rows still in it.
    pub stored: Stored,
    /// The query's name.
    pub query_name: String,
}

/// Pairs of these nodes whose latest set is not settled. The transaction must hold the nodes' locks.
///
/// # Errors
/// Postgres failed, or holds rows that cannot be read.
pub async fn find_unsettled(conn: &mut Conn, nodes: &[NodeId]) -> Result<Vec<Unsettled>> {
    let ids: Vec<Uuid> = nodes.iter().map(|node| node.0).collect();
    let pairs = sqlx::query!(
        r#"
        SELECT p.node_id, p.query_name_id, q.name FROM present_rows p JOIN query_names q ON q.id = p.query_name_id
        WHERE unsettled_at IS NOT NULL AND p.node_id = ANY($1)
        "#,
        &ids
    )
    .fetch_all(&mut *conn)
    .await?;
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<(NodeId, i32)> = pairs
        .iter()
        .map(|pair| (NodeId(pair.node_id), pair.query_name_id))
        .collect();
    let names: std::collections::HashMap<i32, String> = pairs
        .into_iter()
        .map(|pair| (pair.query_name_id, pair.name))
        .collect();
    let found = find(conn, &wanted).await?;
    Ok(found
        .into_iter()
        .map(|stored| Unsettled {
            query_name: names
                .get(&stored.query_name_id)
                .cloned()
                .unwrap_or_default(),
            stored,
        })
        .collect())
}
