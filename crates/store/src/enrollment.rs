//! Enroll secrets as `/enroll` needs them: found by HMAC, used up atomically. People manage them in `enroll_secrets`.

use chrono::{DateTime, Utc};
use ostiary_domain::enrollment::Approval;
use ostiary_domain::ids::EnrollSecretId;
use uuid::Uuid;

use crate::{Conn, Error, Result};

/// What an enroll secret permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollSecret {
    /// Which.
    pub id: EnrollSecretId,
    /// Its name; the secret itself is not known here.
    pub name: String,
    /// Tags that a node gets with it.
    pub tags: Vec<String>,
    /// Which enrollments by it wait for an admin.
    pub approval: Approval,
    /// Not valid from then on.
    pub expires_at: Option<DateTime<Utc>>,
    /// How many nodes it may bring in.
    pub use_limit: Option<i32>,
    /// How many it has brought in.
    pub uses: i32,
    /// Withdrawn.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// The secret with this HMAC, valid or not.
///
/// # Errors
/// Postgres failed.
pub async fn find_secret(conn: &mut Conn, hmac: &[u8]) -> Result<Option<EnrollSecret>> {
    let row = sqlx::query!(
        r#"
        SELECT id, name, tags, approval, expires_at, use_limit, uses, revoked_at
        FROM enroll_secrets
        WHERE secret_hmac = $1
        "#,
        hmac
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let approval = Approval::from_str_opt(&row.approval)
            .ok_or_else(|| Error::Corrupt(format!("unknown approval {:?}", row.approval)))?;
        Ok(EnrollSecret {
            id: EnrollSecretId(row.id),
            name: row.name,
            tags: row.tags,
            approval,
            expires_at: row.expires_at,
            use_limit: row.use_limit,
            uses: row.uses,
            revoked_at: row.revoked_at,
        })
    })
    .transpose()
}

/// The HMACs of the secrets that are in force.
///
/// # Errors
/// Postgres failed.
pub async fn list_good_secrets(conn: &mut Conn, now: DateTime<Utc>) -> Result<Vec<[u8; 32]>> {
    let rows = sqlx::query_scalar!(
        r#"
        SELECT secret_hmac FROM enroll_secrets
        WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)
        "#,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|hmac| hmac.try_into().ok())
        .collect())
}

/// Counts a use of the secret. `false` when it may not be used any more; the row stays locked until the transaction ends, so two
/// nodes never share the last use.
///
/// # Errors
/// Postgres failed.
pub async fn take_use(conn: &mut Conn, id: EnrollSecretId, now: DateTime<Utc>) -> Result<bool> {
    let updated = sqlx::query!(
        r#"
        UPDATE enroll_secrets SET uses = uses + 1
        WHERE id = $1
          AND revoked_at IS NULL
          AND (expires_at IS NULL OR expires_at > $2)
          AND (use_limit IS NULL OR uses < use_limit)
        "#,
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Notes that a node is given these tags by a secret; gives those, in lower case, that no secret gave it before.
///
/// # Errors
/// Postgres failed.
pub async fn note_given(conn: &mut Conn, node_id: Uuid, names: &[String]) -> Result<Vec<String>> {
    let names: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    Ok(sqlx::query_scalar!(
        r#"
        INSERT INTO tags_given (node_id, name) SELECT DISTINCT $1::uuid, name FROM unnest($2::text[]) AS given (name)
        ON CONFLICT ON CONSTRAINT tags_given_pkey DO NOTHING
        RETURNING name
        "#,
        node_id,
        &names
    )
    .fetch_all(conn)
    .await?)
}

/// Makes tags that do not exist yet, and gives the node all of them. `new_ids` holds one fresh id a name.
///
/// # Errors
/// Postgres failed.
pub async fn give_tags(
    conn: &mut Conn,
    node_id: Uuid,
    names: &[String],
    new_ids: &[Uuid],
    now: DateTime<Utc>,
) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"
        INSERT INTO tags (id, name, created_at)
        SELECT id, name, $3 FROM unnest($1::uuid[], $2::text[]) AS new (id, name)
        ORDER BY name
        ON CONFLICT (lower(name)) DO NOTHING
        "#,
        new_ids,
        names,
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        INSERT INTO node_tags (node_id, tag_id)
        SELECT $1, id FROM tags WHERE lower(name) IN (SELECT lower(given) FROM unnest($2::text[]) AS given)
        ON CONFLICT ON CONSTRAINT node_tags_pkey DO NOTHING
        "#,
        node_id,
        names
    )
    .execute(conn)
    .await?;
    Ok(())
}
