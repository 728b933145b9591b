//! Fingerprints of the lines of the last posts per (node, log type), one tuple a post. What they mean: `domain::fingerprint`.

use chrono::{DateTime, Utc};
use ostiary_domain::fingerprint::{PostFingerprints, REMEMBERED_POSTS};
use ostiary_domain::ids::NodeId;
use uuid::Uuid;

use crate::{Conn, Result};

/// The remembered fingerprints of one post.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// Of whom.
    pub node_id: NodeId,
    /// `r` or `s`.
    pub log_type: u8,
    /// Which post.
    pub batch_id: i64,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// Its lines.
    pub lines: PostFingerprints,
}

/// The remembered posts of nodes, oldest first. A post in a format that this release cannot read counts as forgotten.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn, nodes: &[NodeId]) -> Result<Vec<Remembered>> {
    let nodes: Vec<Uuid> = nodes.iter().map(|node| node.0).collect();
    let rows = sqlx::query!(
        "SELECT node_id, log_type, batch_id, received_at, fingerprints FROM post_fingerprints WHERE node_id = ANY($1) ORDER BY batch_id",
        &nodes
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            Some(Remembered {
                node_id: NodeId(row.node_id),
                log_type: row.log_type.cast_unsigned(),
                batch_id: row.batch_id,
                received_at: row.received_at,
                lines: PostFingerprints::from_bytes(&row.fingerprints).ok()?,
            })
        })
        .collect())
}

/// Remembers posts, and forgets all but the last [`REMEMBERED_POSTS`] of each of their (node, log type).
///
/// # Errors
/// Postgres failed.
pub async fn remember(conn: &mut Conn, posts: &[Remembered]) -> Result<()> {
    let nodes: Vec<Uuid> = posts.iter().map(|post| post.node_id.0).collect();
    let types: Vec<i8> = posts
        .iter()
        .map(|post| post.log_type.cast_signed())
        .collect();
    let batches: Vec<i64> = posts.iter().map(|post| post.batch_id).collect();
    let times: Vec<DateTime<Utc>> = posts.iter().map(|post| post.received_at).collect();
    let lines: Vec<Vec<u8>> = posts.iter().map(|post| post.lines.to_bytes()).collect();
    sqlx::query!(
        r#"
        INSERT INTO post_fingerprints (node_id, log_type, batch_id, received_at, fingerprints)
        SELECT * FROM unnest($1::uuid[], $2::"char"[], $3::bigint[], $4::timestamptz[], $5::bytea[])
        ON CONFLICT DO NOTHING
        "#,
        &nodes,
        &types,
        &batches,
        &times,
        &lines
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        DELETE FROM post_fingerprints old
        USING (SELECT DISTINCT * FROM unnest($1::uuid[], $2::"char"[]) AS post (node_id, log_type)) post
        WHERE old.node_id = post.node_id AND old.log_type = post.log_type AND old.batch_id < (
            SELECT min(batch_id) FROM (
                SELECT batch_id FROM post_fingerprints kept
                WHERE kept.node_id = post.node_id AND kept.log_type = post.log_type
                ORDER BY batch_id DESC LIMIT $3) newest)
        "#,
        &nodes,
        &types,
        i64::try_from(REMEMBERED_POSTS).expect("a handful")
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets posts received before `before`. Gives how many.
///
/// # Errors
/// Postgres failed.
pub async fn delete_older(conn: &mut Conn, before: DateTime<Utc>) -> Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM post_fingerprints WHERE received_at < $1",
        before
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
