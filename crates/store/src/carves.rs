//! Carves as nodes hand them over: begun, and taken block by block. Joining the blocks is in `carve_upkeep`, people's view in
//! `carve_lists`.
//!
//! **Invariant:** a block is counted in the transaction that stores it, so a carve whose count is full has every byte.

use chrono::{DateTime, Utc};
use ostiary_domain::carve::{CarveUse, Shape};
use ostiary_domain::ids::{CarveId, NodeId};
use uuid::Uuid;

use crate::node_keys::{self, KeyHash, KnownNode};
use crate::{Conn, Result};

/// SHA-256 of a session id: the id itself is kept nowhere.
pub type SessionHash = [u8; 32];

/// Sets the lock on starts apart from our other locks.
const LOCK_CLASS: i32 = 0x0051_1eed;
const LOCK_STARTS: i32 = 3;

/// Sessions of one carve that stay valid: a start that was answered into a broken connection comes again.
const SESSIONS: i64 = 8;

/// What has become of a carve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarveState {
    /// Blocks are awaited.
    Receiving,
    /// All blocks are there; the worker is to join them.
    Received,
    /// It lies in the storage.
    Stored,
    /// Blocks were missing for too long.
    Expired,
    /// It could not be kept.
    Failed,
}

impl CarveState {
    /// The state of its word in the table.
    #[must_use]
    pub fn of(word: &str) -> Self {
        match word {
            "receiving" => Self::Receiving,
            "received" => Self::Received,
            "stored" => Self::Stored,
            "expired" => Self::Expired,
            _ => Self::Failed,
        }
    }
}

/// A carve that was begun before.
#[derive(Debug, Clone)]
pub struct Begun {
    /// Which.
    pub id: CarveId,
    /// What has become of it.
    pub state: CarveState,
    /// As it was announced; `None` never, unless somebody wrote into the table.
    pub shape: Option<Shape>,
}

/// Lets only one carve begin at a time, until the transaction ends: what is under way is counted before it is added to.
///
/// # Errors
/// Postgres failed.
pub async fn lock_starts(conn: &mut Conn) -> Result<()> {
    sqlx::query!(
        r#"SELECT pg_advisory_xact_lock($1, $2)::text AS "locked!""#,
        LOCK_CLASS,
        LOCK_STARTS
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// The carve to which this node gave this name.
///
/// # Errors
/// Postgres failed.
pub async fn find_begun(conn: &mut Conn, node: NodeId, carve_id: &str) -> Result<Option<Begun>> {
    let row = sqlx::query!(
        "SELECT id, state, block_count, block_size, carve_size FROM carves WHERE node_id = $1 AND carve_id = $2",
        node.0,
        carve_id
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Begun {
        id: CarveId(row.id),
        state: CarveState::of(&row.state),
        shape: shape(row.block_count, row.block_size, row.carve_size),
    }))
}

/// What is under way, without this carve; `since` begins the day.
///
/// # Errors
/// Postgres failed.
pub async fn count_use(
    conn: &mut Conn,
    node: NodeId,
    without: Option<CarveId>,
    since: DateTime<Utc>,
) -> Result<CarveUse> {
    let row = sqlx::query!(
        r#"
        SELECT count(*) FILTER (WHERE state IN ('receiving', 'received')) AS "open_in_all!",
            count(*) FILTER (WHERE state IN ('receiving', 'received') AND node_id = $1) AS "open_of_node!",
            coalesce(sum(carve_size) FILTER (WHERE node_id = $1 AND started_at > $3), 0)::bigint AS "bytes_of_day!"
        FROM carves
        WHERE (state IN ('receiving', 'received') OR started_at > $3) AND id IS DISTINCT FROM $2
        "#,
        node.0,
        without.map(|id| id.0),
        since
    )
    .fetch_one(conn)
    .await?;
    Ok(CarveUse {
        open_of_node: u32::try_from(row.open_of_node).unwrap_or(u32::MAX),
        open_in_all: u32::try_from(row.open_in_all).unwrap_or(u32::MAX),
        bytes_of_day: u64::try_from(row.bytes_of_day).unwrap_or(0),
    })
}

/// A carve that begins.
#[derive(Debug)]
pub struct NewCarve<'a> {
    /// Which.
    pub id: CarveId,
    /// Whose files.
    pub node: NodeId,
    /// The node's name for it.
    pub carve_id: &'a str,
    /// As the node said.
    pub request_id: &'a str,
    /// Its blocks.
    pub shape: Shape,
    /// Of the node's User-Agent.
    pub client_version: &'a str,
}

/// Stores that a carve begins.
///
/// # Errors
/// Postgres failed.
pub async fn insert(conn: &mut Conn, carve: &NewCarve<'_>, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO carves (id, node_id, carve_id, request_id, block_count, block_size, carve_size, started_at, client_version)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        "#,
        carve.id.0,
        carve.node.0,
        carve.carve_id,
        carve.request_id,
        i32::try_from(carve.shape.block_count()).unwrap_or(i32::MAX),
        i32::try_from(carve.shape.block_size()).unwrap_or(i32::MAX),
        i64::try_from(carve.shape.carve_size()).unwrap_or(i64::MAX),
        now,
        carve.client_version
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Begins a carve anew that was given up; its blocks are gone.
///
/// # Errors
/// Postgres failed.
pub async fn begin_again(conn: &mut Conn, id: CarveId, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        r#"
        UPDATE carves SET state = 'receiving', received_blocks = 0, started_at = $2, last_block_at = NULL, ended_at = NULL,
            problem = ''
        WHERE id = $1 AND state = 'expired'
        "#,
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives a carve a further session, good as long as this key of its node. Earlier ones stay valid, but for the oldest.
///
/// # Errors
/// Postgres failed.
pub async fn add_session(
    conn: &mut Conn,
    id: CarveId,
    session: &SessionHash,
    key: &KeyHash,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO carve_sessions (session_sha256, carve_id, key_sha256, created_at) VALUES ($1, $2, $3, $4)",
        session.as_slice(),
        id.0,
        key.as_slice(),
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        DELETE FROM carve_sessions WHERE carve_id = $1 AND session_sha256 NOT IN (
            SELECT session_sha256 FROM carve_sessions WHERE carve_id = $1
            ORDER BY created_at DESC, session_sha256 LIMIT $2)
        "#,
        id.0,
        SESSIONS
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The carve that a session belongs to.
#[derive(Debug, Clone)]
pub struct SessionOf {
    /// Which.
    pub id: CarveId,
    /// The node that began it, as it stands now.
    pub node: KnownNode,
    /// The key by which it began has not been revoked.
    pub key_in_force: bool,
    /// What has become of it.
    pub state: CarveState,
    /// Its blocks.
    pub shape: Option<Shape>,
}

/// Finds a carve by its session. `None` also when its node is gone.
///
/// # Errors
/// Postgres failed.
pub async fn find_session(conn: &mut Conn, session: &SessionHash) -> Result<Option<SessionOf>> {
    let row = sqlx::query!(
        r#"
        SELECT c.id, c.node_id AS "node_id!", c.state, c.block_count, c.block_size, c.carve_size, EXISTS (
                SELECT FROM node_keys k
                WHERE k.node_id = c.node_id AND k.revoked_at IS NULL AND k.key_sha256 = coalesce(s.key_sha256, k.key_sha256)
            ) AS "key_in_force!"
        FROM carve_sessions s
        JOIN carves c ON c.id = s.carve_id
        WHERE s.session_sha256 = $1 AND c.node_id IS NOT NULL
        "#,
        session.as_slice()
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let node = node_keys::find_node(conn, NodeId(row.node_id)).await?;
    Ok(node.map(|node| SessionOf {
        id: CarveId(row.id),
        node,
        key_in_force: row.key_in_force,
        state: CarveState::of(&row.state),
        shape: shape(row.block_count, row.block_size, row.carve_size),
    }))
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutBlock {
    /// It is stored.
    Stored,
    /// It is stored, and was the last one missing.
    Completed,
    /// It was stored before, with the same bytes.
    Repeated,
    /// It was stored before, with other bytes.
    OtherBytes,
    /// The carve does not await blocks: roll back.
    NotAwaited,
}

/// A block.
#[derive(Debug)]
pub struct Block<'a> {
    /// Of which carve.
    pub carve: CarveId,
    /// Which, from 0 on.
    pub number: u32,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
    /// The bytes.
    pub data: &'a [u8],
}

/// Stores a block, and counts it. The caller commits before it acknowledges.
///
/// # Errors
/// Postgres failed.
pub async fn put_block(conn: &mut Conn, block: &Block<'_>, now: DateTime<Utc>) -> Result<PutBlock> {
    let number = i32::try_from(block.number).unwrap_or(i32::MAX);
    let inserted = sqlx::query!(
        r#"
        INSERT INTO carve_blocks (carve_id, block_id, block_sha256, data) VALUES ($1, $2, $3, $4)
        ON CONFLICT (carve_id, block_id) DO NOTHING
        "#,
        block.carve.0,
        number,
        block.sha256.as_slice(),
        block.data
    )
    .execute(&mut *conn)
    .await?;
    if inserted.rows_affected() == 0 {
        let same = is_same(conn, block.carve.0, number, &block.sha256).await?;
        return Ok(match same {
            Some(false) => PutBlock::OtherBytes,
            _ => PutBlock::Repeated,
        });
    }
    let state = sqlx::query_scalar!(
        r#"
        UPDATE carves SET received_blocks = received_blocks + 1, last_block_at = $2::timestamptz,
            state = CASE WHEN received_blocks + 1 = block_count THEN 'received' ELSE state END,
            due_at = CASE WHEN received_blocks + 1 = block_count THEN $2::timestamptz END
        WHERE id = $1 AND state = 'receiving'
        RETURNING state
        "#,
        block.carve.0,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(match state.as_deref().map(CarveState::of) {
        Some(CarveState::Receiving) => PutBlock::Stored,
        Some(_) => PutBlock::Completed,
        None => PutBlock::NotAwaited,
    })
}

/// Has a block, if it is still there, these bytes?
///
/// # Errors
/// Postgres failed.
pub async fn is_same_block(conn: &mut Conn, block: &Block<'_>) -> Result<Option<bool>> {
    let number = i32::try_from(block.number).unwrap_or(i32::MAX);
    is_same(conn, block.carve.0, number, &block.sha256).await
}

async fn is_same(conn: &mut Conn, carve: Uuid, number: i32, sha256: &[u8]) -> Result<Option<bool>> {
    let stored = sqlx::query_scalar!(
        "SELECT block_sha256 FROM carve_blocks WHERE carve_id = $1 AND block_id = $2",
        carve,
        number
    )
    .fetch_optional(conn)
    .await?;
    Ok(stored.map(|stored| stored == sha256))
}

pub(crate) fn shape(block_count: i32, block_size: i32, carve_size: i64) -> Option<Shape> {
    Shape::new(
        block_count.try_into().ok()?,
        block_size.try_into().ok()?,
        carve_size.try_into().ok()?,
    )
}
