//! Reading the database of a Doorman (github.com/mwielgoszewski/doorman, Alembic head `a76be8b92780`), whose fleet moves here.
//!
//! Its schema is not ours, so these statements are not checked when we compile. Some of its columns have a dot in their names.
//! Nothing is written there.

use std::collections::HashMap;

use chrono::NaiveDateTime;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::{FromRow, Row as _};

use crate::node_keys::KeyHash;
use crate::{Conn, Result};

/// A node. Its key is hashed as it is read, and goes no further.
#[derive(Debug, Clone)]
pub struct DoormanNode {
    /// As in Doorman.
    pub id: i32,
    /// SHA-256 of its node key.
    pub key_hash: KeyHash,
    /// Does it have an enroll secret of its own?
    pub has_own_secret: bool,
    /// UTC; `None` for a node that was prepared and never came.
    pub enrolled_on: Option<NaiveDateTime>,
    /// May be missing.
    pub host_identifier: Option<String>,
    /// What Doorman has learnt of it, by column.
    pub node_info: Value,
    /// Not switched off.
    pub is_active: bool,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A query; its name is not unique.
#[derive(Debug, Clone, FromRow)]
#[expect(missing_docs, reason = "the fields are Doorman's columns")]
pub struct DoormanQuery {
    pub id: i32,
    pub name: String,
    pub sql: String,
    pub interval: Option<i32>,
    pub platform: Option<String>,
    pub version: Option<String>,
    pub description: Option<String>,
    pub value: Option<String>,
    pub removed: bool,
    pub shard: Option<i32>,
    #[sqlx(skip)]
    pub tags: Vec<String>,
}

/// A pack, with the ids of its queries.
#[derive(Debug, Clone, FromRow)]
#[expect(missing_docs, reason = "the fields are Doorman's columns")]
pub struct DoormanPack {
    pub id: i32,
    pub name: String,
    pub platform: Option<String>,
    pub version: Option<String>,
    pub description: Option<String>,
    pub shard: Option<i32>,
    #[sqlx(skip)]
    pub tags: Vec<String>,
    #[sqlx(skip)]
    pub queries: Vec<i32>,
}

/// A category of files.
#[derive(Debug, Clone)]
pub struct DoormanFilePath {
    /// Unique.
    pub category: String,
    /// Patterns; stored joined with `!!`.
    pub globs: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A rule; its name is not unique.
#[derive(Debug, Clone, FromRow)]
#[expect(missing_docs, reason = "the fields are Doorman's columns")]
pub struct DoormanRule {
    pub id: i32,
    pub name: String,
    pub alerters: Vec<String>,
    pub description: Option<String>,
    pub conditions: Option<Value>,
}

/// A user, without the password's hash: it is bcrypt, and is not taken over.
#[derive(Debug, Clone, FromRow)]
#[expect(missing_docs, reason = "the fields are Doorman's columns")]
pub struct DoormanUser {
    pub username: String,
    pub email: Option<String>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the fields are Doorman's tables")]
pub struct DoormanDatabase {
    pub tags: Vec<String>,
    pub nodes: Vec<DoormanNode>,
    pub queries: Vec<DoormanQuery>,
    pub packs: Vec<DoormanPack>,
    pub file_paths: Vec<DoormanFilePath>,
    pub rules: Vec<DoormanRule>,
    pub users: Vec<DoormanUser>,
}

/// Reads everything, in one transaction that sees one moment.
///
/// # Errors
/// It is no Doorman's database, or Postgres failed.
pub async fn read(conn: &mut Conn) -> Result<DoormanDatabase> {
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .execute(&mut *conn)
        .await?;
    Ok(DoormanDatabase {
        tags: sqlx::query_scalar("SELECT value FROM tag ORDER BY value")
            .fetch_all(&mut *conn)
            .await?,
        nodes: read_nodes(conn).await?,
        queries: read_queries(conn).await?,
        packs: read_packs(conn).await?,
        file_paths: read_file_paths(conn).await?,
        rules: sqlx::query_as(
            "SELECT id, name, alerters, description, conditions FROM rule ORDER BY id",
        )
        .fetch_all(&mut *conn)
        .await?,
        users: sqlx::query_as(r#"SELECT username, email FROM "user" ORDER BY username"#)
            .fetch_all(&mut *conn)
            .await?,
    })
}

async fn read_nodes(conn: &mut Conn) -> Result<Vec<DoormanNode>> {
    let mut tags = tags_of(
        conn,
        r#"SELECT nt."node.id" AS of, t.value FROM node_tags nt JOIN tag t ON t.id = nt."tag.id""#,
    )
    .await?;
    let rows = sqlx::query(
        r#"
        SELECT id, node_key, coalesce(enroll_secret, '') <> '' AS has_own_secret, enrolled_on, host_identifier, node_info, is_active
        FROM node ORDER BY id
        "#,
    )
    .fetch_all(conn)
    .await?;
    let nodes = rows.into_iter().map(|row| {
        let id = row.try_get("id")?;
        let key: &str = row.try_get("node_key")?;
        Ok(DoormanNode {
            id,
            key_hash: Sha256::digest(key.as_bytes()).into(),
            has_own_secret: row.try_get("has_own_secret")?,
            enrolled_on: row.try_get("enrolled_on")?,
            host_identifier: row.try_get("host_identifier")?,
            node_info: row.try_get("node_info")?,
            is_active: row.try_get("is_active")?,
            tags: tags.remove(&id).unwrap_or_default(),
        })
    });
    nodes.collect()
}

async fn read_queries(conn: &mut Conn) -> Result<Vec<DoormanQuery>> {
    let mut tags = tags_of(
        conn,
        r#"SELECT qt."query.id" AS of, t.value FROM query_tags qt JOIN tag t ON t.id = qt."tag.id""#,
    )
    .await?;
    let mut queries: Vec<DoormanQuery> = sqlx::query_as(
        "SELECT id, name, sql, interval, platform, version, description, value, removed, shard FROM query ORDER BY id",
    )
    .fetch_all(conn)
    .await?;
    for query in &mut queries {
        query.tags = tags.remove(&query.id).unwrap_or_default();
    }
    Ok(queries)
}

async fn read_packs(conn: &mut Conn) -> Result<Vec<DoormanPack>> {
    let mut tags = tags_of(
        conn,
        r#"SELECT pt."pack.id" AS of, t.value FROM pack_tags pt JOIN tag t ON t.id = pt."tag.id""#,
    )
    .await?;
    let mut packs: Vec<DoormanPack> = sqlx::query_as(
        "SELECT id, name, platform, version, description, shard FROM pack ORDER BY id",
    )
    .fetch_all(&mut *conn)
    .await?;
    let links: Vec<(i32, i32)> = sqlx::query_as(
        r#"SELECT DISTINCT "pack.id", "query.id" FROM query_packs WHERE "pack.id" IS NOT NULL AND "query.id" IS NOT NULL ORDER BY 1, 2"#,
    )
    .fetch_all(conn)
    .await?;
    for pack in &mut packs {
        pack.tags = tags.remove(&pack.id).unwrap_or_default();
        pack.queries = (links.iter())
            .filter(|(of, _)| *of == pack.id)
            .map(|(_, query)| *query)
            .collect();
    }
    Ok(packs)
}

async fn read_file_paths(conn: &mut Conn) -> Result<Vec<DoormanFilePath>> {
    let mut tags = tags_of(
        conn,
        r#"SELECT ft."file_path.id" AS of, t.value FROM file_path_tags ft JOIN tag t ON t.id = ft."tag.id""#,
    )
    .await?;
    let rows: Vec<(i32, String, Option<String>)> =
        sqlx::query_as("SELECT id, category, target_paths FROM file_path ORDER BY id")
            .fetch_all(conn)
            .await?;
    let paths = rows
        .into_iter()
        .map(|(id, category, globs)| DoormanFilePath {
            category,
            globs: (globs.unwrap_or_default().split("!!"))
                .filter(|glob| !glob.is_empty())
                .map(ToOwned::to_owned)
                .collect(),
            tags: tags.remove(&id).unwrap_or_default(),
        });
    Ok(paths.collect())
}

async fn tags_of(conn: &mut Conn, sql: &'static str) -> Result<HashMap<i32, Vec<String>>> {
    let rows: Vec<(i32, String)> = sqlx::query_as(sql).fetch_all(conn).await?;
    let mut tags: HashMap<i32, Vec<String>> = HashMap::new();
    for (of, value) in rows {
        let list = tags.entry(of).or_default();
        if !list.contains(&value) {
            list.push(value);
        }
    }
    for list in tags.values_mut() {
        list.sort();
    }
    Ok(tags)
}
