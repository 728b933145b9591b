//! Rules as they were after each change.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::RuleId;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::rule_edits::RuleValues;
use crate::{Conn, Error, Result};

/// A line of the history of a rule.
#[derive(Debug, Clone, Serialize)]
pub struct RevisionLine {
    /// From 1 on, without gaps.
    pub number: i32,
    /// When.
    pub made_at: DateTime<Utc>,
    /// By whom.
    pub user_name: String,
    /// What was done.
    pub what: String,
}

/// Who makes a revision, when, and by what.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// Who, if it is a user.
    pub user_id: Option<Uuid>,
    /// What they are called.
    pub user_name: &'a str,
    /// What was done, in words.
    pub what: &'a str,
    /// Now.
    pub at: DateTime<Utc>,
}

/// Keeps a rule as it is now. The transaction must have written the rule, so that two do not make the same number.
///
/// # Errors
/// Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: RuleId,
    values: &RuleValues,
    made: Made<'_>,
) -> Result<i32> {
    let content = serde_json::to_string(values).expect("values of a rule are JSON");
    Ok(sqlx::query_scalar!(
        r#"
        INSERT INTO rule_revisions (rule_id, number, made_at, user_id, user_name, what, content)
        SELECT $1, coalesce((SELECT max(number) FROM rule_revisions WHERE rule_id = $1), 0) + 1, $2, $3, $4, $5, $6::text::json
        RETURNING number
        "#,
        id.0,
        made.at,
        made.user_id,
        made.user_name,
        made.what,
        content
    )
    .fetch_one(conn)
    .await?)
}

/// The history of a rule, newest first; at most 100.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn, id: RuleId) -> Result<Vec<RevisionLine>> {
    Ok(sqlx::query_as!(
        RevisionLine,
        "SELECT number, made_at, user_name, what FROM rule_revisions WHERE rule_id = $1 ORDER BY number DESC LIMIT 100",
        id.0
    )
    .fetch_all(conn)
    .await?)
}

/// A rule as it was. Destinations that are gone by now are left out.
///
/// # Errors
/// Postgres failed, or holds what is no rule.
pub async fn find(conn: &mut Conn, id: RuleId, number: i32) -> Result<Option<RuleValues>> {
    let content = sqlx::query_scalar!(
        "SELECT content FROM rule_revisions WHERE rule_id = $1 AND number = $2",
        id.0,
        number
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(content) = content else {
        return Ok(None);
    };
    let mut values: RuleValues = serde_json::from_value::<RuleValues>(content)
        .map_err(|error| Error::Corrupt(format!("rule_revisions: {error}")))?;
    values.destinations = sqlx::query_scalar!(
        "SELECT id FROM destinations WHERE id = ANY($1)",
        &values.destinations
    )
    .fetch_all(conn)
    .await?;
    Ok(Some(values))
}

/// What a revision holds, as JSON.
///
/// # Errors
/// Postgres failed.
pub async fn find_json(conn: &mut Conn, id: RuleId, number: i32) -> Result<Option<Value>> {
    Ok(sqlx::query_scalar!(
        "SELECT content FROM rule_revisions WHERE rule_id = $1 AND number = $2",
        id.0,
        number
    )
    .fetch_optional(conn)
    .await?)
}
