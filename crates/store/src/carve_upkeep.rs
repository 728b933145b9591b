//! Carves in the worker's hands: joined, given up, deleted. Nothing here speaks with the storage of objects.

use chrono::{DateTime, Utc};
use ostiary_domain::carve::Shape;
use ostiary_domain::ids::{CarveId, LiveQueryId, NodeId};
use uuid::Uuid;

use crate::carves::shape;
use crate::{Conn, Result};

/// A carve that is to be joined.
#[derive(Debug, Clone)]
pub struct ToJoin {
    /// Which.
    pub id: CarveId,
    /// The node's name for it, which is also in the names of its files.
    pub carve_id: String,
    /// Its blocks.
    pub shape: Option<Shape>,
    /// How often joining failed.
    pub attempts: i32,
    /// By this whoever joins it proves that nobody else has taken it up meanwhile.
    pub lease: Uuid,
}

/// Claims a carve all of whose blocks are there, until `lease_until`. Everything that is said of it later is heard only with this
/// `lease`, a fresh id.
///
/// # Errors
/// Postgres failed.
pub async fn take_received(
    conn: &mut Conn,
    lease: Uuid,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
) -> Result<Option<ToJoin>> {
    let row = sqlx::query!(
        r#"
        UPDATE carves SET due_at = $2, lease = $3 WHERE id = (
            SELECT id FROM carves WHERE state = 'received' AND due_at <= $1
            ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING id, carve_id, block_count, block_size, carve_size, attempts
        "#,
        now,
        lease_until,
        lease
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| ToJoin {
        id: CarveId(row.id),
        carve_id: row.carve_id,
        shape: shape(row.block_count, row.block_size, row.carve_size),
        attempts: row.attempts,
        lease,
    }))
}

/// Goes on holding a claimed carve. `false`: it is held no more.
///
/// # Errors
/// Postgres failed.
pub async fn hold(conn: &mut Conn, carve: &ToJoin, lease_until: DateTime<Utc>) -> Result<bool> {
    let held = sqlx::query!(
        "UPDATE carves SET due_at = $3 WHERE id = $1 AND lease = $2 AND state = 'received'",
        carve.id.0,
        carve.lease,
        lease_until
    )
    .execute(conn)
    .await?;
    Ok(held.rows_affected() > 0)
}

/// The bytes of one block.
///
/// # Errors
/// Postgres failed.
pub async fn read_block(conn: &mut Conn, id: CarveId, block: u32) -> Result<Option<Vec<u8>>> {
    Ok(sqlx::query_scalar!(
        "SELECT data FROM carve_blocks WHERE carve_id = $1 AND block_id = $2",
        id.0,
        i32::try_from(block).unwrap_or(i32::MAX)
    )
    .fetch_optional(conn)
    .await?)
}

/// What came out of joining.
#[derive(Debug, Clone)]
pub struct Joined {
    /// SHA-256 of the whole, in hexadecimal digits.
    pub sha256: String,
    /// `tar`, `tar.zst` or `unknown`.
    pub format: &'static str,
    /// The files, as many as are listed.
    pub files: Vec<JoinedFile>,
    /// How many there are; `None` when the archive cannot be listed.
    pub file_count: Option<i32>,
    /// Why it cannot be listed, or not to its end; empty if it can.
    pub problem: String,
}

/// A file in a carve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedFile {
    /// Its path on the node, without NUL.
    pub path: String,
    /// In bytes.
    pub size: i64,
    /// As the archive says.
    pub modified_at: Option<DateTime<Utc>>,
    /// Where its bytes begin in the unpacked archive; `None` when it is no plain file.
    pub data_at: Option<i64>,
}

/// Stores that a carve lies in the storage, lists its files and drops its blocks. `false`: it is held no more, and nothing was done.
///
/// # Errors
/// Postgres failed.
pub async fn put_joined(
    conn: &mut Conn,
    carve: &ToJoin,
    joined: &Joined,
    now: DateTime<Utc>,
) -> Result<bool> {
    let updated = sqlx::query!(
        r#"
        UPDATE carves SET state = 'stored', ended_at = $2, sha256 = $3, format = $4, file_count = $5, problem = $6, due_at = NULL,
            lease = NULL
        WHERE id = $1 AND lease = $7 AND state = 'received'
        "#,
        carve.id.0,
        now,
        joined.sha256,
        joined.format,
        joined.file_count,
        joined.problem,
        carve.lease
    )
    .execute(&mut *conn)
    .await?;
    if updated.rows_affected() == 0 {
        return Ok(false);
    }
    let paths: Vec<&str> = joined.files.iter().map(|file| file.path.as_str()).collect();
    let sizes: Vec<i64> = joined.files.iter().map(|file| file.size).collect();
    let times: Vec<Option<DateTime<Utc>>> =
        joined.files.iter().map(|file| file.modified_at).collect();
    let places: Vec<Option<i64>> = joined.files.iter().map(|file| file.data_at).collect();
    sqlx::query!(
        r#"
        INSERT INTO carve_files (carve_id, position, path, size, modified_at, data_at)
        SELECT $1, f.position::integer, f.path, f.size, f.modified_at, f.data_at
        FROM unnest($2::text[], $3::bigint[], $4::timestamptz[], $5::bigint[])
            WITH ORDINALITY AS f (path, size, modified_at, data_at, position)
        "#,
        carve.id.0,
        &paths as &[&str],
        &sizes,
        &times as &[Option<DateTime<Utc>>],
        &places as &[Option<i64>]
    )
    .execute(&mut *conn)
    .await?;
    delete_blocks(conn, &[carve.id.0]).await?;
    Ok(true)
}

/// Puts a carve off that could not be joined now. `false`: it is held no more, and nothing was done.
///
/// # Errors
/// Postgres failed.
pub async fn put_off(
    conn: &mut Conn,
    carve: &ToJoin,
    problem: &str,
    due_at: DateTime<Utc>,
) -> Result<bool> {
    let put_off = sqlx::query!(
        r#"
        UPDATE carves SET attempts = attempts + 1, problem = $3, due_at = $4, lease = NULL
        WHERE id = $1 AND lease = $2 AND state = 'received'
        "#,
        carve.id.0,
        carve.lease,
        problem,
        due_at
    )
    .execute(conn)
    .await?;
    Ok(put_off.rows_affected() > 0)
}

/// Gives a carve up that can never be joined. `false`: it is held no more, and nothing was done.
///
/// # Errors
/// Postgres failed.
pub async fn fail(
    conn: &mut Conn,
    carve: &ToJoin,
    problem: &str,
    now: DateTime<Utc>,
) -> Result<bool> {
    let failed = sqlx::query!(
        r#"
        UPDATE carves SET state = 'failed', ended_at = $4, problem = $3, due_at = NULL, lease = NULL
        WHERE id = $1 AND lease = $2 AND state = 'received'
        "#,
        carve.id.0,
        carve.lease,
        problem,
        now
    )
    .execute(&mut *conn)
    .await?;
    if failed.rows_affected() == 0 {
        return Ok(false);
    }
    delete_blocks(conn, &[carve.id.0]).await?;
    Ok(true)
}

/// Gives up carves of which no block has come since `before`: says which blocks are missing, and drops the others. Gives their ids.
///
/// # Errors
/// Postgres failed.
pub async fn expire(
    conn: &mut Conn,
    before: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<CarveId>> {
    let stale = sqlx::query!(
        r#"
        SELECT id, block_count, block_size, carve_size FROM carves
        WHERE state = 'receiving' AND coalesce(last_block_at, started_at) < $1
        ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED
        "#,
        before
    )
    .fetch_all(&mut *conn)
    .await?;
    for carve in &stale {
        let there: Vec<u32> = sqlx::query_scalar!(
            "SELECT block_id FROM carve_blocks WHERE carve_id = $1 ORDER BY block_id",
            carve.id
        )
        .fetch_all(&mut *conn)
        .await?
        .into_iter()
        .filter_map(|block| block.try_into().ok())
        .collect();
        let missing = shape(carve.block_count, carve.block_size, carve.carve_size)
            .map_or_else(String::new, |shape| shape.missing(&there));
        sqlx::query!(
            "UPDATE carves SET state = 'expired', ended_at = $2, problem = $3 WHERE id = $1",
            carve.id,
            now,
            format!("Blocks never came: {missing}.")
        )
        .execute(&mut *conn)
        .await?;
    }
    let ids: Vec<Uuid> = stale.iter().map(|carve| carve.id).collect();
    delete_blocks(conn, &ids).await?;
    Ok(ids.into_iter().map(CarveId).collect())
}

/// How a carve ended.
#[derive(Debug)]
pub struct Ended {
    /// Whose it is.
    pub node_id: NodeId,
    /// `stored`, `expired` or `failed`.
    pub state: String,
    /// The path that was asked for, if it is known by now.
    pub path: String,
    /// Files in the archive, if it could be listed.
    pub file_count: Option<i32>,
    /// Its size, as the node said.
    pub carve_size: i64,
    /// Of the archive, by us.
    pub sha256: Option<String>,
    /// Why it ended so; empty when all is well.
    pub problem: String,
}

/// How a carve ended; `None` when it has not, or its node is gone.
///
/// # Errors
/// Postgres failed.
pub async fn find_ended(conn: &mut Conn, id: CarveId) -> Result<Option<Ended>> {
    Ok(sqlx::query_as!(
        Ended,
        r#"
        SELECT node_id AS "node_id!: Uuid", state, path, file_count, carve_size, sha256, problem
        FROM carves WHERE id = $1 AND ended_at IS NOT NULL AND node_id IS NOT NULL
        "#,
        id.0
    )
    .fetch_optional(conn)
    .await?)
}

async fn delete_blocks(conn: &mut Conn, carves: &[Uuid]) -> Result<()> {
    sqlx::query!("DELETE FROM carve_blocks WHERE carve_id = ANY ($1)", carves)
        .execute(conn)
        .await?;
    Ok(())
}

/// Ends the sessions of carves that have ended before `before`.
///
/// # Errors
/// Postgres failed.
pub async fn end_sessions(conn: &mut Conn, before: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "DELETE FROM carve_sessions s USING carves c WHERE c.id = s.carve_id AND c.ended_at < $1",
        before
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Carves that are past their time, or whose node is gone.
///
/// # Errors
/// Postgres failed.
pub async fn list_old(conn: &mut Conn, before: DateTime<Utc>, limit: i64) -> Result<Vec<CarveId>> {
    Ok(sqlx::query_scalar!(
        "SELECT id FROM carves WHERE started_at < $1 OR node_id IS NULL ORDER BY started_at LIMIT $2",
        before,
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(CarveId)
    .collect())
}

/// Is this carve still known?
///
/// # Errors
/// Postgres failed.
pub async fn exists(conn: &mut Conn, id: CarveId) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM carves WHERE id = $1) AS "exists!""#,
        id.0
    )
    .fetch_one(conn)
    .await?)
}

/// Deletes a carve whose object is deleted already.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: CarveId) -> Result<()> {
    sqlx::query!("DELETE FROM carves WHERE id = $1", id.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// A carve of which results of live queries may tell more.
#[derive(Debug, Clone)]
pub struct ToExplain {
    /// Which.
    pub id: CarveId,
    /// Whose.
    pub node: NodeId,
    /// The node's name for it.
    pub carve_id: String,
}

/// Carves begun since then of which it is not known yet who asked, or what SHA-256 the node gives them: those that nobody has looked at,
/// and those whose node has answered since.
///
/// # Errors
/// Postgres failed.
pub async fn list_unexplained(
    conn: &mut Conn,
    since: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<ToExplain>> {
    Ok(sqlx::query!(
        r#"
        SELECT id, node_id AS "node_id!", carve_id FROM carves c
        WHERE started_at > $1 AND node_id IS NOT NULL AND (live_query_id IS NULL OR node_sha256 IS NULL)
            AND (looked_at IS NULL OR EXISTS (
                SELECT FROM live_query_tasks t JOIN live_queries q ON q.id = t.live_query_id
                WHERE t.node_id = c.node_id AND q.sql ILIKE '%carve%' AND t.row_count > 0
                    -- the api has a clock of its own
                    AND t.finished_at > c.looked_at - interval '1 minute'))
        ORDER BY started_at DESC LIMIT $2
        "#,
        since,
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(|row| ToExplain {
        id: CarveId(row.id),
        node: NodeId(row.node_id),
        carve_id: row.carve_id,
    })
    .collect())
}

/// Notes that all was told of a carve that its node had answered until then.
///
/// # Errors
/// Postgres failed.
pub async fn note_looked(conn: &mut Conn, id: CarveId, until: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE carves SET looked_at = $2 WHERE id = $1",
        id.0,
        until
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Results of live queries on carves in which this one occurs, oldest first: the query and its rows.
///
/// # Errors
/// Postgres failed.
pub async fn list_mentions(
    conn: &mut Conn,
    carve: &ToExplain,
) -> Result<Vec<(LiveQueryId, String)>> {
    Ok(sqlx::query!(
        r#"
        SELECT t.live_query_id, t.rows
        FROM live_query_tasks t JOIN live_queries q ON q.id = t.live_query_id
        WHERE t.node_id = $1 AND q.sql ILIKE '%carve%' AND strpos(t.rows, $2) > 0
        ORDER BY t.live_query_id LIMIT 10
        "#,
        carve.node.0,
        carve.carve_id
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(|row| (LiveQueryId(row.live_query_id), row.rows))
    .collect())
}

/// Notes what a result of live queries tells of a carve, and `asker`, if that is the query that asked for it; what is known already stays.
///
/// # Errors
/// Postgres failed.
pub async fn explain(
    conn: &mut Conn,
    id: CarveId,
    asker: Option<LiveQueryId>,
    path: &str,
    node_sha256: Option<&str>,
) -> Result<()> {
    sqlx::query!(
        r#"
        UPDATE carves SET live_query_id = coalesce(live_query_id, $2), node_sha256 = coalesce($4, node_sha256),
            path = CASE WHEN path = '' THEN $3 ELSE path END
        WHERE id = $1
        "#,
        id.0,
        asker.map(|id| id.0),
        path,
        node_sha256
    )
    .execute(conn)
    .await?;
    Ok(())
}
