//! Uploads between the page that shows what they would do and the click that does it.

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::UserId;
use serde_json::Value;
use uuid::Uuid;

use crate::{Conn, Result};

/// How long one is kept.
pub const KEPT_FOR: TimeDelta = TimeDelta::hours(1);

/// How many of one user are kept; an older one makes room.
pub const KEPT_PER_USER: i64 = 5;

/// An upload as it was read.
#[derive(Debug)]
pub struct NewUpload<'a> {
    /// Which.
    pub id: Uuid,
    /// Who sent it.
    pub user: UserId,
    /// `config` or `node_keys`.
    pub kind: &'a str,
    /// What was read. **Invariant:** no secret and no node key is in it.
    pub content: &'a Value,
}

/// Keeps one, and forgets those whose time is over.
///
/// # Errors
/// Postgres failed.
pub async fn insert(conn: &mut Conn, upload: &NewUpload<'_>, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        r#"
        DELETE FROM uploads
        WHERE expires_at <= $2 OR id IN (
            SELECT id FROM uploads WHERE user_id = $1 ORDER BY created_at DESC, id DESC OFFSET $3)
        "#,
        upload.user.0,
        now,
        KEPT_PER_USER - 1
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO uploads (id, user_id, kind, content, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
        upload.id,
        upload.user.0,
        upload.kind,
        upload.content,
        now,
        now + KEPT_FOR
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// One of this user's and of this kind, unless its time is over.
///
/// # Errors
/// Postgres failed.
pub async fn find(
    conn: &mut Conn,
    id: Uuid,
    user: UserId,
    kind: &str,
    now: DateTime<Utc>,
) -> Result<Option<Value>> {
    let content = sqlx::query_scalar!(
        "SELECT content FROM uploads WHERE id = $1 AND user_id = $2 AND kind = $3 AND expires_at > $4",
        id,
        user.0,
        kind,
        now
    );
    Ok(content.fetch_optional(conn).await?)
}

/// Forgets one: it was applied, or is not wanted.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: Uuid, user: UserId) -> Result<()> {
    sqlx::query!(
        "DELETE FROM uploads WHERE id = $1 AND user_id = $2",
        id,
        user.0
    )
    .execute(conn)
    .await?;
    Ok(())
}
