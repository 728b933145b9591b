//! The audit log: who changed what. Entries are added and read, never changed; the database role may do no more.

use std::collections::BTreeSet;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ostiary_domain::fact;
use ostiary_domain::ids::UserId;
use serde_json::{Map, Value, json};

use crate::page::{Page, PageRequest};
use crate::reporting_nodes::OSTIARY;
use crate::{Conn, Result, log_batches};

/// An entry to be written. **Invariant:** `before` and `after` hold no secret.
#[derive(Debug, Clone, Default)]
pub struct NewEntry<'a> {
    /// Who, if it was a user.
    pub user_id: Option<UserId>,
    /// Their name, or what else did it ("command line").
    pub user_name: &'a str,
    /// `packs.update`, `session.sign_in`, …
    pub action: &'a str,
    /// `pack`, `node`, …; empty when nothing particular is meant.
    pub subject_kind: &'a str,
    /// Its id.
    pub subject_id: String,
    /// Its name.
    pub subject_name: &'a str,
    /// What it was.
    pub before: Option<Value>,
    /// What it is now.
    pub after: Option<Value>,
    /// Where the request came from.
    pub ip: Option<IpAddr>,
}

/// Writes an entry, in the transaction of the change itself, and tells rules of it.
///
/// # Errors
/// Postgres failed.
pub async fn insert(conn: &mut Conn, entry: &NewEntry<'_>, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO audit_entries (at, user_id, user_name, action, subject_kind, subject_id, subject_name, before, after, ip)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::inet)
        "#,
        now,
        entry.user_id.map(|id| id.0),
        entry.user_name,
        entry.action,
        entry.subject_kind,
        entry.subject_id,
        entry.subject_name,
        entry.before,
        entry.after,
        entry.ip.map(|ip| ip.to_string())
    )
    .execute(&mut *conn)
    .await?;
    let fact = fact::AUDIT.noted(json!({
        "action": entry.action, "user_name": entry.user_name, "subject_kind": entry.subject_kind, "subject_id": entry.subject_id,
        "subject_name": entry.subject_name, "changed": changed(entry), "ip": entry.ip.map(|ip| ip.to_string()),
    }));
    log_batches::insert_fact(conn, OSTIARY, &fact, now).await?;
    Ok(())
}

/// The names of what is another than before, joined by commas.
fn changed(entry: &NewEntry<'_>) -> String {
    let empty = Map::new();
    let keys = |value: &Option<Value>| value.as_ref().and_then(Value::as_object).cloned();
    let (before, after) = (keys(&entry.before), keys(&entry.after));
    let (before, after) = (
        before.as_ref().unwrap_or(&empty),
        after.as_ref().unwrap_or(&empty),
    );
    let names: BTreeSet<&str> = before
        .keys()
        .chain(after.keys())
        .filter(|name| before.get(*name) != after.get(*name))
        .map(String::as_str)
        .collect();
    names.into_iter().collect::<Vec<_>>().join(",")
}

/// An entry.
#[derive(Debug, Clone)]
pub struct EntryRecord {
    /// Orders them.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub user_name: String,
    /// What.
    pub action: String,
    /// To what kind of thing.
    pub subject_kind: String,
    /// To which.
    pub subject_id: String,
    /// Its name then.
    pub subject_name: String,
    /// What it was.
    pub before: Option<Value>,
    /// What it became.
    pub after: Option<Value>,
    /// From where.
    pub ip: Option<String>,
}

/// A page of entries, newest first; empty texts mean "any".
///
/// # Errors
/// Postgres failed.
pub async fn list(
    conn: &mut Conn,
    user: &str,
    action: &str,
    page: &PageRequest,
) -> Result<Page<EntryRecord>> {
    let limit = page.limit_within(100, 500);
    let after: Option<i64> = page.key::<1>().and_then(|[id]| id.parse().ok());
    let rows = sqlx::query_as!(
        EntryRecord,
        r#"
        SELECT id, at, user_name, action, subject_kind, subject_id, subject_name, before, after, host(ip) AS ip
        FROM audit_entries
        WHERE ($1 = '' OR lower(user_name) = lower($1)) AND ($2 = '' OR action = $2) AND ($3::bigint IS NULL OR id < $3)
        ORDER BY id DESC LIMIT $4::bigint + 1
        "#,
        user,
        action,
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| [row.id.to_string()]))
}

/// The actions that occur, sorted.
///
/// # Errors
/// Postgres failed.
pub async fn actions(conn: &mut Conn) -> Result<Vec<String>> {
    Ok(
        sqlx::query_scalar!("SELECT DISTINCT action FROM audit_entries ORDER BY 1")
            .fetch_all(conn)
            .await?,
    )
}
