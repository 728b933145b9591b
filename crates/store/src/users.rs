//! People of the manager.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::UserId;
use serde::Serialize;
use uuid::Uuid;

use crate::{Conn, Result};

/// A user, without the password.
#[derive(Debug, Clone, Serialize)]
pub struct UserRecord {
    /// Which.
    pub id: Uuid,
    /// Unique without regard to case.
    pub name: String,
    /// Where to reach them.
    pub email: Option<String>,
    /// `admin`, `editor` or `viewer`.
    pub role: String,
    /// May not sign in since then.
    pub disabled_at: Option<DateTime<Utc>>,
    /// When they were made.
    pub created_at: DateTime<Utc>,
    /// Newest sign-in that is kept, or newest use of a token.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// API tokens in force.
    pub tokens: i64,
}

/// All users, in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<UserRecord>> {
    select(conn, None).await
}

/// One user.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: UserId) -> Result<Option<UserRecord>> {
    Ok(select(conn, Some(id.0)).await?.pop())
}

async fn select(conn: &mut Conn, id: Option<Uuid>) -> Result<Vec<UserRecord>> {
    Ok(sqlx::query_as!(
        UserRecord,
        r#"
        SELECT id, name, email, role, disabled_at, created_at,
            greatest((SELECT max(created_at) FROM sessions s WHERE s.user_id = u.id),
                (SELECT max(last_used_at) FROM api_tokens t WHERE t.user_id = u.id)) AS last_seen_at,
            (SELECT count(*) FROM api_tokens t WHERE t.user_id = u.id AND t.revoked_at IS NULL) AS "tokens!"
        FROM users u WHERE $1::uuid IS NULL OR id = $1 ORDER BY lower(name)
        "#,
        id
    )
    .fetch_all(conn)
    .await?)
}

/// What sign-in needs.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Which.
    pub id: Uuid,
    /// As it is spelt.
    pub name: String,
    /// PHC string; `None` when the user has no password.
    pub password_hash: Option<String>,
    /// May not sign in since then.
    pub disabled_at: Option<DateTime<Utc>>,
}

/// What sign-in needs of the user of this name.
///
/// # Errors
/// Postgres failed.
pub async fn find_credentials(conn: &mut Conn, name: &str) -> Result<Option<Credentials>> {
    Ok(sqlx::query_as!(
        Credentials,
        "SELECT id, name, password_hash, disabled_at FROM users WHERE lower(name) = lower($1)",
        name
    )
    .fetch_optional(conn)
    .await?)
}

/// Makes a user.
///
/// # Errors
/// The name is taken (`users_name_key`), or Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: UserId,
    name: &str,
    email: Option<&str>,
    role: &str,
    password_hash: Option<&str>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO users (id, name, email, role, password_hash, created_at, password_changed_at)
        VALUES ($1, $2, $3, $4, $5, $6, $6)
        "#,
        id.0,
        name,
        email,
        role,
        password_hash,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes name, address and role. Says whether the user exists.
///
/// # Errors
/// The name is taken (`users_name_key`), or Postgres failed.
pub async fn update(
    conn: &mut Conn,
    id: UserId,
    name: &str,
    email: Option<&str>,
    role: &str,
) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE users SET name = $2, email = $3, role = $4 WHERE id = $1",
        id.0,
        name,
        email,
        role
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Sets the password.
///
/// # Errors
/// Postgres failed.
pub async fn set_password(
    conn: &mut Conn,
    id: UserId,
    hash: &str,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE users SET password_hash = $2, password_changed_at = $3 WHERE id = $1",
        id.0,
        hash,
        now
    )
    .execute(conn);
    Ok(done.await?.rows_affected() > 0)
}

/// Bars (`Some`) or admits a user. Says whether the user exists.
///
/// # Errors
/// Postgres failed.
pub async fn set_disabled(conn: &mut Conn, id: UserId, at: Option<DateTime<Utc>>) -> Result<bool> {
    let done = sqlx::query!("UPDATE users SET disabled_at = $2 WHERE id = $1", id.0, at)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a user with sessions and tokens; what they did stays in the audit log.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: UserId) -> Result<bool> {
    Ok(sqlx::query!("DELETE FROM users WHERE id = $1", id.0)
        .execute(conn)
        .await?
        .rows_affected()
        > 0)
}

/// Locks all admins that may sign in, and counts them: the last one must stay.
///
/// # Errors
/// Postgres failed.
pub async fn lock_admins(conn: &mut Conn) -> Result<Vec<UserId>> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM users WHERE role = 'admin' AND disabled_at IS NULL ORDER BY id FOR UPDATE"
    );
    Ok(ids.fetch_all(conn).await?.into_iter().map(UserId).collect())
}
