//! Revisions: every config object as it was after each change, and the way back to them.
//!
//! Objects are read and written as whole rows, whatever their columns, so that a column that a later release adds needs no word here.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use ostiary_domain::revision::{Object, Objects};
use serde_json::{Map, Value};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::packed::Packed;
use crate::page::{Page, PageRequest};
use crate::{Conn, Error, Result};

/// A table of config objects.
struct Table {
    name: &'static str,
    /// What is shipped with Ostiary belongs to its release, not to a revision.
    own: &'static str,
    /// A text that is unique, so that two objects may exchange theirs.
    unique: &'static str,
}

/// Parents before their children. What nodes may still carry (`config_leftovers`) is no object: it is the past, which a return does not
/// undo.
const TABLES: [Table; 6] = [
    Table {
        name: "packs",
        own: "NOT built_in",
        unique: "name",
    },
    Table {
        name: "queries",
        own: "pack_id IS NULL OR pack_id NOT IN (SELECT id FROM packs WHERE built_in)",
        unique: "name",
    },
    Table {
        name: "file_paths",
        own: "true",
        unique: "category",
    },
    Table {
        name: "decorators",
        own: "true",
        unique: "name",
    },
    Table {
        name: "options",
        own: "true",
        unique: "target",
    },
    Table {
        name: "config_sections",
        own: "true",
        unique: "name",
    },
];

const TIMES: [&str; 2] = ["created_at", "updated_at"];

/// Sets the lock of config changes apart from other advisory locks.
const LOCK: i64 = 0x0063_6f6e_6669_6773;

/// Waits for the turn to change config objects; it is given back at the end of the transaction. What is read afterwards is what the
/// one before left.
///
/// # Errors
/// Postgres failed.
pub async fn lock(conn: &mut Conn) -> Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", LOCK)
        .execute(conn)
        .await?;
    Ok(())
}

/// Every config object, as the transaction sees it.
///
/// # Errors
/// Postgres failed.
pub async fn objects(conn: &mut Conn) -> Result<Objects> {
    let mut objects = Objects::default();
    for table in &TABLES {
        let sql = format!(
            "SELECT coalesce(json_agg(t), '[]')::text FROM (SELECT * FROM {} WHERE {}) t",
            table.name, table.own
        );
        let text: String = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut *conn)
            .await?;
        let rows: Vec<Object> = serde_json::from_str(&text)
            .map_err(|error| Error::Corrupt(format!("{}: {error}", table.name)))?;
        let mut by_id = BTreeMap::new();
        for mut row in rows {
            for time in TIMES {
                row.shift_remove(time);
            }
            if let Some(id) = id_of(&row) {
                by_id.insert(id, row);
            }
        }
        objects.0.insert(table.name.to_owned(), by_id);
    }
    Ok(objects)
}

fn id_of(row: &Object) -> Option<Uuid> {
    row.get("id")?.as_str()?.parse().ok()
}

/// Makes the config objects those of `wanted`. What is equal is not touched; ids are kept.
///
/// # Errors
/// Postgres failed, e.g. since another object (a built-in one) has taken a name meanwhile.
pub async fn restore(conn: &mut Conn, wanted: &Objects, now: DateTime<Utc>) -> Result<()> {
    let present = objects(conn).await?;
    let none = BTreeMap::new();
    for table in TABLES.iter().rev() {
        let kept = wanted.0.get(table.name).unwrap_or(&none);
        let gone: Vec<Uuid> = (present.0.get(table.name).unwrap_or(&none).keys())
            .filter(|id| !kept.contains_key(id))
            .copied()
            .collect();
        if !gone.is_empty() {
            let sql = format!("DELETE FROM {} WHERE id = ANY($1)", table.name);
            sqlx::query(AssertSqlSafe(sql))
                .bind(gone)
                .execute(&mut *conn)
                .await?;
        }
    }
    for table in &TABLES {
        let known = present.0.get(table.name).unwrap_or(&none);
        let changed: Vec<&Object> = (wanted.0.get(table.name).unwrap_or(&none).iter())
            .filter(|(id, row)| known.get(id) != Some(row))
            .map(|(_, row)| row)
            .collect();
        if !changed.is_empty() {
            put(conn, table, &changed, now).await?;
        }
    }
    Ok(())
}

async fn put(conn: &mut Conn, table: &Table, rows: &[&Object], now: DateTime<Utc>) -> Result<()> {
    let name = table.name;
    let ids: Vec<Uuid> = rows.iter().filter_map(|row| id_of(row)).collect();
    let sql = format!(
        "UPDATE {name} SET {} = id::text WHERE id = ANY($1)",
        table.unique
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(ids)
        .execute(&mut *conn)
        .await?;
    let columns = columns(conn, name, rows).await?;
    let list = columns.join(", ");
    let updates: Vec<String> = columns
        .iter()
        .filter(|column| *column != "id" && *column != "created_at")
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    let sql = format!(
        "INSERT INTO {name} ({list}) SELECT {list} FROM json_populate_recordset(NULL::{name}, $1::text::json) \
         ON CONFLICT ON CONSTRAINT {name}_pkey DO UPDATE SET {}",
        updates.join(", ")
    );
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut row: Map<String, Value> = (*row).clone();
            for time in TIMES {
                row.insert(time.to_owned(), now.to_rfc3339().into());
            }
            Value::Object(row)
        })
        .collect();
    sqlx::query(AssertSqlSafe(sql))
        .bind(Value::Array(rows).to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Columns that both the rows and the table have: a revision of an older release lacks new ones, which then get their default.
async fn columns(conn: &mut Conn, table: &str, rows: &[&Object]) -> Result<Vec<String>> {
    let said: BTreeSet<&str> = (rows.iter())
        .flat_map(|row| row.keys().map(String::as_str))
        .chain(TIMES)
        .collect();
    let known = sqlx::query_scalar!(
        r#"SELECT column_name::text AS "name!" FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name::text = $1 ORDER BY ordinal_position"#,
        table
    )
    .fetch_all(conn)
    .await?;
    Ok(known
        .into_iter()
        .filter(|column| said.contains(column.as_str()))
        .collect())
}

/// A revision that is to be kept.
#[derive(Debug)]
pub struct NewRevision<'a> {
    /// Who; `None` for a command.
    pub user_id: Option<Uuid>,
    /// Their name.
    pub user_name: &'a str,
    /// What was done, in words.
    pub what: &'a str,
    /// Everything after it.
    pub objects: &'a Objects,
}

/// Keeps a revision; gives its number. The caller holds the [`lock`].
///
/// # Errors
/// Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    revision: &NewRevision<'_>,
    now: DateTime<Utc>,
) -> Result<i64> {
    let text = serde_json::to_string(revision.objects).expect("rows are JSON");
    let hash = revision.objects.hash();
    Ok(sqlx::query_scalar!(
        r#"
        INSERT INTO config_revisions (number, made_at, user_id, user_name, what, content_hash, objects)
        VALUES ((SELECT coalesce(max(number), 0) + 1 FROM config_revisions), $1, $2, $3, $4, $5, $6)
        RETURNING number
        "#,
        now,
        revision.user_id,
        revision.user_name,
        revision.what,
        hash.as_slice(),
        Packed(text) as Packed
    )
    .fetch_one(conn)
    .await?)
}

/// A revision in a list.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RevisionLine {
    /// Counted from 1.
    pub number: i64,
    /// When.
    pub made_at: DateTime<Utc>,
    /// By whom.
    pub user_name: String,
    /// What was done.
    pub what: String,
    /// SHA-256 of the objects.
    #[serde(skip)]
    pub content_hash: Vec<u8>,
}

/// The newest revision.
///
/// # Errors
/// Postgres failed.
pub async fn newest(conn: &mut Conn) -> Result<Option<RevisionLine>> {
    Ok(sqlx::query_as!(
        RevisionLine,
        "SELECT number, made_at, user_name, what, content_hash FROM config_revisions ORDER BY number DESC LIMIT 1"
    )
    .fetch_optional(conn)
    .await?)
}

/// Revisions, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn, page: &PageRequest) -> Result<Page<RevisionLine>> {
    let limit = page.limit_within(50, 200);
    let before: Option<i64> = (page.key::<1>()).and_then(|[number]| number.parse().ok());
    let rows = sqlx::query_as!(
        RevisionLine,
        r#"
        SELECT number, made_at, user_name, what, content_hash FROM config_revisions
        WHERE $1::bigint IS NULL OR number < $1 ORDER BY number DESC LIMIT $2::bigint + 1
        "#,
        before,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| [row.number.to_string()]))
}

/// The revisions after this one, oldest first, at most so many.
///
/// # Errors
/// Postgres failed.
pub async fn list_after(conn: &mut Conn, number: i64, most: i64) -> Result<Vec<RevisionLine>> {
    Ok(sqlx::query_as!(
        RevisionLine,
        r#"
        SELECT number, made_at, user_name, what, content_hash FROM config_revisions
        WHERE number > $1 ORDER BY number LIMIT $2
        "#,
        number,
        most
    )
    .fetch_all(conn)
    .await?)
}

/// A revision with its objects.
///
/// # Errors
/// What is kept cannot be read, or Postgres failed.
pub async fn find(conn: &mut Conn, number: i64) -> Result<Option<(RevisionLine, Objects)>> {
    let row = sqlx::query!(
        r#"SELECT number, made_at, user_name, what, content_hash, objects AS "objects: Packed" FROM config_revisions WHERE number = $1"#,
        number
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let objects = serde_json::from_str(&row.objects)
            .map_err(|error| Error::Corrupt(format!("revision {}: {error}", row.number)))?;
        let line = RevisionLine {
            number: row.number,
            made_at: row.made_at,
            user_name: row.user_name,
            what: row.what,
            content_hash: row.content_hash,
        };
        Ok((line, objects))
    })
    .transpose()
}

/// Deletes the oldest revisions beyond `keep`, but none that a roll-out begins from. Gives how many.
///
/// # Errors
/// Postgres failed.
pub async fn delete_old(conn: &mut Conn, keep: i64) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        DELETE FROM config_revisions r
        WHERE number <= (SELECT max(number) FROM config_revisions) - $1
            AND NOT EXISTS (SELECT FROM rollouts o WHERE o.base_revision = r.number)
        "#,
        keep
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
