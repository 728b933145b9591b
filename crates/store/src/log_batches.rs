//! Log batches: what nodes post, stored whole and compressed, together with the pending work that each of them is.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;
use uuid::Uuid;

use crate::{Conn, Result};

/// One post.
#[derive(Debug, Clone)]
pub struct NewBatch {
    /// Of whom.
    pub node_id: NodeId,
    /// `r`esult, `s`tatus, or `x` for a type that we do not know.
    pub log_type: u8,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// Version of osquery in the `User-Agent`.
    pub client_version: String,
    /// The JSON of `data`, compressed by [`compress`].
    pub data: Vec<u8>,
}

/// Compresses the data of a batch (zstd, level 1: logs shrink to a tenth, and an api has better things to do than to look longer).
#[must_use]
pub fn compress(data: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(data, 1).expect("zstd compresses anything into a buffer that grows")
}

/// Stores posts, in order, and the pending work of each, in one statement. Gives the ids of the pending rows.
///
/// # Errors
/// [`NoPartition`](crate::Error::NoPartition) when the day's partition is missing: call [`ensure_partition`] and try again. Else
/// Postgres failed.
pub async fn insert(conn: &mut Conn, batches: &[NewBatch]) -> Result<Vec<i64>> {
    let node_ids: Vec<Uuid> = batches.iter().map(|batch| batch.node_id.0).collect();
    let log_types: Vec<i8> = batches
        .iter()
        .map(|batch| batch.log_type.cast_signed())
        .collect();
    let times: Vec<DateTime<Utc>> = batches.iter().map(|batch| batch.received_at).collect();
    let versions: Vec<&str> = batches
        .iter()
        .map(|batch| batch.client_version.as_str())
        .collect();
    let data: Vec<&[u8]> = batches.iter().map(|batch| batch.data.as_slice()).collect();
    let ids = sqlx::query_scalar!(
        r#"
        WITH stored AS (
            INSERT INTO log_batches (node_id, log_type, received_at, client_version, data)
            SELECT node_id, log_type, received_at, client_version, data
            FROM unnest($1::uuid[], $2::"char"[], $3::timestamptz[], $4::text[], $5::bytea[])
                WITH ORDINALITY AS posted (node_id, log_type, received_at, client_version, data, position)
            ORDER BY position
            RETURNING id, node_id, received_at
        )
        INSERT INTO pending (node_id, kind, batch_id, received_at, due_at)
        SELECT node_id, 'b', id, received_at, received_at FROM stored ORDER BY id
        RETURNING id
        "#,
        &node_ids,
        &log_types,
        &times,
        &versions as &[&str],
        &data as &[&[u8]]
    )
    .fetch_all(conn)
    .await?;
    Ok(ids)
}

/// Makes the partition of a day of log batches, if it is missing.
///
/// # Errors
/// The day is too far away, or Postgres failed.
pub async fn ensure_partition(conn: &mut Conn, at: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "SELECT ensure_partition('log_batches', $1)",
        at.date_naive()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds a fact about a node to the pending work, e.g. that it has enrolled. Gives the id of the pending row.
///
/// # Errors
/// Postgres failed.
pub async fn insert_fact(
    conn: &mut Conn,
    node_id: NodeId,
    fact: &serde_json::Value,
    now: DateTime<Utc>,
) -> Result<i64> {
    let id = sqlx::query_scalar!(
        "INSERT INTO pending (node_id, kind, received_at, fact, due_at) VALUES ($1, 'f', $2, $3, $2) RETURNING id",
        node_id.0,
        now,
        fact
    );
    Ok(id.fetch_one(conn).await?)
}

/// What could not be understood.
#[derive(Debug)]
pub struct Unreadable<'a> {
    /// Id of the row.
    pub id: Uuid,
    /// Of whom.
    pub node_id: NodeId,
    /// The wire's name of the log, or the endpoint.
    pub log_type: &'a str,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// Why.
    pub reason: &'a str,
    /// As it was sent, compressed by [`compress`].
    pub data: &'a [u8],
}

/// Keeps what could not be understood.
///
/// # Errors
/// Postgres failed.
pub async fn insert_unreadable(conn: &mut Conn, unreadable: &Unreadable<'_>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO unreadable (id, node_id, log_type, received_at, reason, data) VALUES ($1, $2, $3, $4, $5, $6)",
        unreadable.id,
        unreadable.node_id.0,
        unreadable.log_type,
        unreadable.received_at,
        unreadable.reason,
        unreadable.data
    )
    .execute(conn)
    .await?;
    Ok(())
}
