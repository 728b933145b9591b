//! Enroll secrets as admins see them. They are sealed; only a key of the settings opens them.

use chrono::{DateTime, Utc};
use ostiary_domain::enrollment::Approval;
use ostiary_domain::ids::{EnrollSecretId, UserId};
use serde::Serialize;
use uuid::Uuid;

use crate::{Conn, Result};

/// A secret, without itself.
#[derive(Debug, Clone, Serialize)]
pub struct SecretLine {
    /// Which.
    pub id: Uuid,
    /// Unique.
    pub name: String,
    /// Given to nodes that enroll with it.
    pub tags: Vec<String>,
    /// Which enrollments by it wait for an admin: `none`, `reestablished` or `all`.
    pub approval: String,
    /// How often it was used.
    pub uses: i32,
    /// How often it may be used.
    pub use_limit: Option<i32>,
    /// Refused from then on.
    pub expires_at: Option<DateTime<Utc>>,
    /// Refused since then.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Who made it, while that user exists.
    pub created_by: Option<String>,
    /// Nodes whose latest enrollment was by it: they know no other.
    pub nodes: i64,
}

/// A secret to be stored.
#[derive(Debug)]
pub struct NewSecret<'a> {
    /// Which.
    pub id: EnrollSecretId,
    /// Unique.
    pub name: &'a str,
    /// By which the api finds it.
    pub hmac: &'a [u8],
    /// Itself, sealed.
    pub sealed: &'a [u8],
    /// Given to nodes that enroll with it.
    pub tags: &'a [String],
    /// Which enrollments by it wait for an admin.
    pub approval: Approval,
    /// Refused from then on.
    pub expires_at: Option<DateTime<Utc>>,
    /// How often it may be used.
    pub use_limit: Option<i32>,
    /// Who makes it; `None` for a command.
    pub created_by: Option<UserId>,
}

/// All secrets, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<SecretLine>> {
    Ok(sqlx::query_as!(
        SecretLine,
        r#"
        SELECT s.id, s.name, tags, approval, uses, use_limit, expires_at, revoked_at, s.created_at, u.name AS "created_by?",
            (SELECT count(*) FROM nodes n WHERE n.enroll_secret_id = s.id) AS "nodes!"
        FROM enroll_secrets s LEFT JOIN users u ON u.id = s.created_by
        ORDER BY s.created_at DESC, s.id
        "#
    )
    .fetch_all(conn)
    .await?)
}

/// One secret.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: EnrollSecretId) -> Result<Option<SecretLine>> {
    Ok(list(conn)
        .await?
        .into_iter()
        .find(|secret| secret.id == id.0))
}

/// A node that could not come again without the secret by which it came.
#[derive(Debug, Clone, Serialize)]
pub struct DependentNode {
    /// Which.
    pub id: Uuid,
    /// Display name, else host name, else host identifier.
    pub name: String,
    /// Its latest request.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// Node keys in force: while it holds one, it need not come again.
    pub keys: i64,
}

/// Nodes whose latest enrollment was by this secret, the latest seen first; at most `limit`.
///
/// # Errors
/// Postgres failed.
pub async fn list_dependent_nodes(
    conn: &mut Conn,
    id: EnrollSecretId,
    limit: i64,
) -> Result<Vec<DependentNode>> {
    Ok(sqlx::query_as!(
        DependentNode,
        r#"
        SELECT n.id, coalesce(nullif(display_name, ''), nullif(hostname, ''), host_identifier) AS "name!",
            c.last_seen_at AS "last_seen_at?",
            (SELECT count(*) FROM node_keys k WHERE k.node_id = n.id AND k.revoked_at IS NULL) AS "keys!"
        FROM nodes n LEFT JOIN node_checkins c ON c.node_id = n.id
        WHERE n.enroll_secret_id = $1
        ORDER BY c.last_seen_at DESC NULLS LAST, n.id
        LIMIT $2
        "#,
        id.0,
        limit
    )
    .fetch_all(conn)
    .await?)
}

/// What may be changed of a secret.
#[derive(Debug, Clone, Copy)]
pub struct SecretTerms {
    /// Which enrollments by it wait for an admin.
    pub approval: Approval,
    /// Refused from then on.
    pub expires_at: Option<DateTime<Utc>>,
    /// How often it may be used.
    pub use_limit: Option<i32>,
}

/// Changes on what terms a secret is taken. Says whether it exists.
///
/// # Errors
/// Postgres failed.
pub async fn update(conn: &mut Conn, id: EnrollSecretId, terms: &SecretTerms) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE enroll_secrets SET approval = $2, expires_at = $3, use_limit = $4 WHERE id = $1",
        id.0,
        terms.approval.as_str(),
        terms.expires_at,
        terms.use_limit
    )
    .execute(conn);
    Ok(done.await?.rows_affected() > 0)
}

/// Stores a secret.
///
/// # Errors
/// The name (`enroll_secrets_name_key`) or the secret (`enroll_secrets_secret_hmac_key`) is taken, or Postgres failed.
pub async fn insert(conn: &mut Conn, secret: &NewSecret<'_>, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO enroll_secrets (id, name, secret_hmac, secret_sealed, tags, expires_at, use_limit, created_by, created_at, approval)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        "#,
        secret.id.0,
        secret.name,
        secret.hmac,
        secret.sealed,
        secret.tags,
        secret.expires_at,
        secret.use_limit,
        secret.created_by.map(|id| id.0),
        now,
        secret.approval.as_str()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The name and the sealed secret.
///
/// # Errors
/// Postgres failed.
pub async fn find_sealed(conn: &mut Conn, id: EnrollSecretId) -> Result<Option<(String, Vec<u8>)>> {
    let row = sqlx::query!(
        "SELECT name, secret_sealed FROM enroll_secrets WHERE id = $1",
        id.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.name, row.secret_sealed)))
}

/// Is there a secret of this name?
///
/// # Errors
/// Postgres failed.
pub async fn exists(conn: &mut Conn, name: &str) -> Result<bool> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM enroll_secrets WHERE name = $1) AS "found!""#,
        name
    );
    Ok(found.fetch_one(conn).await?)
}

/// Revokes a secret: nobody enrolls with it any more, nodes that did keep their keys. Returns its name.
///
/// # Errors
/// Postgres failed.
pub async fn revoke(
    conn: &mut Conn,
    id: EnrollSecretId,
    now: DateTime<Utc>,
) -> Result<Option<String>> {
    Ok(sqlx::query_scalar!(
        "UPDATE enroll_secrets SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1 RETURNING name",
        id.0,
        now
    )
    .fetch_optional(conn)
    .await?)
}

/// Renames a tag in all secrets that give it, and in what they gave: who lost it since does not get it back under its new name. Returns
/// how many secrets give it.
///
/// # Errors
/// Postgres failed.
pub async fn rename_tag(conn: &mut Conn, from: &str, to: &str) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        UPDATE enroll_secrets SET tags = ARRAY(
            SELECT CASE WHEN lower(given) = lower($1) THEN $2 ELSE given END
            FROM unnest(tags) WITH ORDINALITY AS each (given, position) ORDER BY position)
        WHERE EXISTS (SELECT FROM unnest(tags) AS given WHERE lower(given) = lower($1))
        "#,
        from,
        to
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        WITH gone AS (DELETE FROM tags_given WHERE name = lower($1) AND lower($1) <> lower($2) RETURNING node_id)
        INSERT INTO tags_given (node_id, name) SELECT node_id, lower($2) FROM gone
        ON CONFLICT ON CONSTRAINT tags_given_pkey DO NOTHING
        "#,
        from,
        to
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
