//! Config documents by their hash, and which of them each node last fetched. What they are made of is in `config_parts`.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::NodeId;

use crate::{Conn, Result};

/// SHA-256 of a document's exact bytes.
pub type DocumentHash = [u8; 32];

/// Keeps a document.
///
/// # Errors
/// Postgres failed.
pub async fn put_document(
    conn: &mut Conn,
    hash: &DocumentHash,
    document: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO config_documents (hash, document, created_at) VALUES ($1, $2, $3)
        ON CONFLICT ON CONSTRAINT config_documents_pkey DO UPDATE SET created_at = excluded.created_at
        "#,
        hash.as_slice(),
        document,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A document that some node fetched; `None` if it is gone.
///
/// # Errors
/// Postgres failed.
pub async fn find_document(conn: &mut Conn, hash: &[u8]) -> Result<Option<String>> {
    let found = sqlx::query_scalar!(
        "SELECT document FROM config_documents WHERE hash = $1",
        hash
    );
    Ok(found.fetch_optional(conn).await?)
}

/// Notes what nodes fetched. Their documents were put before; nodes that were deleted meanwhile are left out.
///
/// # Errors
/// Postgres failed, or a document is not there.
pub async fn put_fetched(
    conn: &mut Conn,
    fetched: &[(NodeId, DocumentHash, DateTime<Utc>)],
) -> Result<()> {
    let mut sorted: Vec<_> = fetched.iter().collect();
    sorted.sort_by_key(|(id, _, _)| *id);
    let ids: Vec<uuid::Uuid> = sorted.iter().map(|(id, _, _)| id.0).collect();
    let hashes: Vec<Vec<u8>> = sorted.iter().map(|(_, hash, _)| hash.to_vec()).collect();
    let times: Vec<DateTime<Utc>> = sorted.iter().map(|(_, _, at)| *at).collect();
    sqlx::query!(
        r#"
        INSERT INTO node_configs (node_id, document_hash, fetched_at)
        SELECT u.node_id, u.hash, u.at
        FROM unnest($1::uuid[], $2::bytea[], $3::timestamptz[]) AS u (node_id, hash, at)
        JOIN nodes n ON n.id = u.node_id
        ORDER BY u.node_id
        ON CONFLICT ON CONSTRAINT node_configs_pkey DO UPDATE SET
            document_hash = excluded.document_hash,
            fetched_at = excluded.fetched_at
        "#,
        &ids,
        &hashes,
        &times
    )
    .execute(conn)
    .await?;
    Ok(())
}
