//! Log batches: what nodes post, stored whole and compressed, together with the pending work that each of them is.

use std::io::Write as _;

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
    zstd::bulk::compress(data, 1).expect(IN_MEMORY)
}

/// Up to this size data is compressed in one go, which writes its size into the frame; in bytes.
const AT_ONCE: usize = 256 * 1024;

/// Compresses the data of a batch while it arrives, so that no more than the outcome has to be held.
pub struct Compressor {
    plain: Vec<u8>,
    encoder: Option<zstd::stream::write::Encoder<'static, Vec<u8>>>,
    taken: usize,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor")
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

impl Default for Compressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Compressor {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            plain: Vec::new(),
            encoder: None,
            taken: 0,
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.taken += bytes.len();
        if let Some(encoder) = &mut self.encoder {
            encoder.write_all(bytes).expect(IN_MEMORY);
            return;
        }
        self.plain.extend_from_slice(bytes);
        if self.plain.len() > AT_ONCE {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect(IN_MEMORY);
            encoder
                .write_all(&std::mem::take(&mut self.plain))
                .expect(IN_MEMORY);
            self.encoder = Some(encoder);
        }
    }

    /// How many bytes were taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// How many bytes are held, about.
    #[must_use]
    pub fn held(&self) -> usize {
        self.plain.len()
            + self
                .encoder
                .as_ref()
                .map_or(0, |encoder| encoder.get_ref().len())
    }

    /// The data, compressed as by [`compress`].
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        match self.encoder {
            Some(encoder) => encoder.finish().expect(IN_MEMORY),
            None => compress(&self.plain),
        }
    }
}

const IN_MEMORY: &str = "zstd compresses anything into a buffer that grows";

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
