//! Bearer tokens of the REST interface, found by their SHA-256.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::UserId;
use uuid::Uuid;

use crate::{Conn, Result};

/// A token, without itself.
#[derive(Debug, Clone)]
pub struct TokenLine {
    /// Which.
    pub id: Uuid,
    /// What it is for.
    pub name: String,
    /// Whose rights it has.
    pub user_id: Uuid,
    /// Their name.
    pub user_name: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Refused from then on.
    pub expires_at: Option<DateTime<Utc>>,
    /// Latest use, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// Refused since then.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// The tokens of a user, or (`None`) of all, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn, user: Option<UserId>) -> Result<Vec<TokenLine>> {
    Ok(sqlx::query_as!(
        TokenLine,
        r#"
        SELECT t.id, t.name, t.user_id, u.name AS user_name, t.created_at, t.expires_at, t.last_used_at, t.revoked_at
        FROM api_tokens t JOIN users u ON u.id = t.user_id
        WHERE $1::uuid IS NULL OR t.user_id = $1 ORDER BY t.id DESC
        "#,
        user.map(|id| id.0)
    )
    .fetch_all(conn)
    .await?)
}

/// Stores a token.
///
/// # Errors
/// Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: Uuid,
    name: &str,
    sha256: &[u8],
    user: UserId,
    expires_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO api_tokens (id, name, token_sha256, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
        id,
        name,
        sha256,
        user.0,
        now,
        expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Who a token stands for.
#[derive(Debug, Clone)]
pub struct TokenOwner {
    /// The token.
    pub token_id: Uuid,
    /// Its user.
    pub user_id: Uuid,
    /// Their name.
    pub user_name: String,
    /// Their role.
    pub role: String,
    /// When its use was last noted.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// The owner of a token that is in force and whose user may sign in.
///
/// # Errors
/// Postgres failed.
pub async fn find_owner(
    conn: &mut Conn,
    sha256: &[u8],
    now: DateTime<Utc>,
) -> Result<Option<TokenOwner>> {
    Ok(sqlx::query_as!(
        TokenOwner,
        r#"
        SELECT t.id AS token_id, u.id AS user_id, u.name AS user_name, u.role, t.last_used_at
        FROM api_tokens t JOIN users u ON u.id = t.user_id
        WHERE t.token_sha256 = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $2)
            AND u.disabled_at IS NULL
        "#,
        sha256,
        now
    )
    .fetch_optional(conn)
    .await?)
}

/// Notes a use.
///
/// # Errors
/// Postgres failed.
pub async fn note_use(conn: &mut Conn, id: Uuid, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE api_tokens SET last_used_at = $2 WHERE id = $1",
        id,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Revokes a token, of this user only if one is given. Returns its name.
///
/// # Errors
/// Postgres failed.
pub async fn revoke(
    conn: &mut Conn,
    id: Uuid,
    of: Option<UserId>,
    now: DateTime<Utc>,
) -> Result<Option<String>> {
    Ok(sqlx::query_scalar!(
        r#"
        UPDATE api_tokens SET revoked_at = coalesce(revoked_at, $3) WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2)
        RETURNING name
        "#,
        id,
        of.map(|id| id.0),
        now
    )
    .fetch_optional(conn)
    .await?)
}
