//! Tables that some nodes are never asked, and which tables the SQL of configs reads.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ostiary_domain::ids::TableDenialId;
use ostiary_domain::node_config::{Parts, TablesOfSql};
use ostiary_domain::table_denial::TableDenial;
use serde::Serialize;
use uuid::Uuid;

use crate::{Conn, Result};

/// A denial.
#[derive(Debug, Clone, Serialize)]
pub struct DenialRecord {
    /// Which.
    pub id: Uuid,
    /// What it says.
    #[serde(flatten)]
    pub values: TableDenial,
}

/// All of them, in the order of their targets.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<DenialRecord>> {
    let rows =
        sqlx::query!("SELECT id, target, tables, reason FROM table_denials ORDER BY target, id")
            .fetch_all(conn)
            .await?;
    let records = rows.into_iter().map(|row| DenialRecord {
        id: row.id,
        values: TableDenial {
            target: row.target,
            tables: row.tables,
            reason: row.reason,
        },
    });
    Ok(records.collect())
}

/// What all of them say.
///
/// # Errors
/// Postgres failed.
pub async fn list_values(conn: &mut Conn) -> Result<Vec<TableDenial>> {
    let all = list(conn).await?.into_iter();
    Ok(all.map(|record| record.values).collect())
}

/// One of them.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: TableDenialId) -> Result<Option<DenialRecord>> {
    let all = list(conn).await?;
    Ok(all.into_iter().find(|record| record.id == id.0))
}

/// Makes one.
///
/// # Errors
/// The target has one (`table_denials_target_key`), or Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: TableDenialId,
    values: &TableDenial,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO table_denials (id, target, tables, reason, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $5)
        "#,
        id.0,
        values.target,
        &values.tables,
        values.reason,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes one.
///
/// # Errors
/// As of [`insert`].
pub async fn update(
    conn: &mut Conn,
    id: TableDenialId,
    values: &TableDenial,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE table_denials SET target = $2, tables = $3, reason = $4, updated_at = $5 WHERE id = $1",
        id.0,
        values.target,
        &values.tables,
        values.reason,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes one.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: TableDenialId) -> Result<()> {
    sqlx::query!("DELETE FROM table_denials WHERE id = $1", id.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// What a look at a piece of SQL found out: the tables that it reads, or a sentence why nobody can say.
pub type SqlReads = std::result::Result<Vec<String>, String>;

/// Remembers which tables a piece of SQL reads.
///
/// # Errors
/// Postgres failed.
pub async fn note_sql(
    conn: &mut Conn,
    sql: &str,
    reads: &SqlReads,
    now: DateTime<Utc>,
) -> Result<()> {
    let (tables, problem) = match reads {
        Ok(tables) => (tables.as_slice(), ""),
        Err(problem) => (&[][..], problem.as_str()),
    };
    sqlx::query!(
        r#"
        INSERT INTO checked_sql (sql_sha256, tables, problem, checked_at) VALUES (sha256(convert_to($1, 'UTF8')), $2, $3, $4)
        ON CONFLICT ON CONSTRAINT checked_sql_pkey DO UPDATE
            SET tables = excluded.tables, problem = excluded.problem, checked_at = excluded.checked_at
        WHERE checked_sql.tables <> excluded.tables OR checked_sql.problem <> excluded.problem
        "#,
        sql,
        tables,
        problem,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What was found out about these pieces of SQL, of those that were looked at.
///
/// # Errors
/// Postgres failed.
pub async fn reads_of(conn: &mut Conn, sql: &[String]) -> Result<BTreeMap<String, SqlReads>> {
    let rows = sqlx::query!(
        r#"
        SELECT q.sql AS "sql!", c.tables, c.problem
        FROM unnest($1::text[]) AS q (sql) JOIN checked_sql c ON c.sql_sha256 = sha256(convert_to(q.sql, 'UTF8'))
        "#,
        sql
    )
    .fetch_all(conn)
    .await?;
    let reads = rows.into_iter().map(|row| {
        let reads = if row.problem.is_empty() {
            Ok(row.tables)
        } else {
            Err(row.problem)
        };
        (row.sql, reads)
    });
    Ok(reads.collect())
}

/// Which tables these pieces of SQL read, of those of which that is known.
///
/// # Errors
/// Postgres failed.
pub async fn tables_of(conn: &mut Conn, sql: &[String]) -> Result<TablesOfSql> {
    let reads = reads_of(conn, sql).await?.into_iter();
    Ok(reads
        .filter_map(|(sql, reads)| Some((sql, reads.ok()?)))
        .collect())
}

/// Lets what is assembled for nodes be made anew, because something else is known of its SQL.
///
/// # Errors
/// Postgres failed.
pub async fn announce(conn: &mut Conn) -> Result<()> {
    sqlx::query!("SELECT announce_checked_sql()")
        .fetch_one(conn)
        .await?;
    Ok(())
}

/// Forgets SQL that was looked at before `before` and is not among `kept`. Gives how many.
///
/// # Errors
/// Postgres failed.
pub async fn forget_sql(conn: &mut Conn, kept: &[String], before: DateTime<Utc>) -> Result<u64> {
    let gone = sqlx::query!(
        r#"
        DELETE FROM checked_sql WHERE checked_at < $2
            AND sql_sha256 NOT IN (SELECT sha256(convert_to(q.sql, 'UTF8')) FROM unnest($1::text[]) AS q (sql))
        "#,
        kept,
        before
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

/// The parts, less what nodes may not be asked: what configs for nodes are to be made of.
///
/// # Errors
/// Postgres failed.
pub async fn withhold(conn: &mut Conn, parts: Parts) -> Result<Parts> {
    let denials = list_values(conn).await?;
    if denials.is_empty() {
        return Ok(parts);
    }
    let tables = tables_of(conn, &parts.sql()).await?;
    Ok(parts.withhold(&denials, &tables))
}

/// A column as a node reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct KnownColumn {
    /// Its name.
    pub name: String,
    /// Is it left out of `*`?
    pub hidden: bool,
}

/// A table that nodes reported and osquery does not ship.
#[derive(Debug, Clone, Serialize)]
pub struct KnownTable {
    /// `linux`, `darwin` or `windows`.
    pub platform: String,
    /// Its name.
    pub name: String,
    /// In its order.
    pub columns: Vec<KnownColumn>,
    /// When a node reported it last.
    pub last_reported_at: DateTime<Utc>,
}

/// All of them.
///
/// # Errors
/// Postgres failed.
pub async fn list_known(conn: &mut Conn) -> Result<Vec<KnownTable>> {
    let rows = sqlx::query!(
        r#"
        SELECT platform, name, columns AS "columns: sqlx::types::Json<Vec<KnownColumn>>", last_reported_at
        FROM known_tables ORDER BY name, platform
        "#
    )
    .fetch_all(conn)
    .await?;
    let tables = rows.into_iter().map(|row| KnownTable {
        platform: row.platform,
        name: row.name,
        columns: row.columns.0,
        last_reported_at: row.last_reported_at,
    });
    Ok(tables.collect())
}

/// How many tables are remembered for a platform: a node could report any number.
pub const MAX_KNOWN: i64 = 500;

/// Remembers a table that a node reported. Beyond [`MAX_KNOWN`] no new one is taken; says whether it is known now.
///
/// # Errors
/// Postgres failed.
pub async fn put_known(conn: &mut Conn, table: &KnownTable, node: Uuid) -> Result<bool> {
    let put = sqlx::query!(
        r#"
        INSERT INTO known_tables (platform, name, columns, first_reported_at, last_reported_at, node_id)
        SELECT $1, $2, $3, $4, $4, $5
        WHERE (SELECT count(*) FROM known_tables WHERE platform = $1) < $6
            OR EXISTS (SELECT FROM known_tables WHERE platform = $1 AND name = $2)
        ON CONFLICT ON CONSTRAINT known_tables_pkey DO UPDATE SET
            columns = excluded.columns, last_reported_at = excluded.last_reported_at, node_id = excluded.node_id
        "#,
        table.platform,
        table.name,
        sqlx::types::Json(&table.columns) as _,
        table.last_reported_at,
        node,
        MAX_KNOWN
    )
    .execute(conn)
    .await?;
    Ok(put.rows_affected() > 0)
}

/// Forgets a table that nodes reported.
///
/// # Errors
/// Postgres failed.
pub async fn forget_known(conn: &mut Conn, name: &str) -> Result<bool> {
    let gone = sqlx::query!("DELETE FROM known_tables WHERE name = $1", name)
        .execute(conn)
        .await?;
    Ok(gone.rows_affected() > 0)
}
