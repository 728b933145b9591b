//! What nodes may still carry though it is no part of configs any more; see `domain::node_config::Leftover`.

use chrono::{DateTime, Utc};
use ostiary_domain::node_config::{Leftover, LeftoverKind};
use ostiary_domain::target::TargetText;

use crate::{Conn, Error, Result};

fn word(kind: LeftoverKind) -> &'static str {
    match kind {
        LeftoverKind::Option => "option",
        LeftoverKind::ExcludePaths => "exclude_paths",
    }
}

/// All of them.
///
/// # Errors
/// A stored target cannot be read, or Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<Leftover>> {
    let rows = sqlx::query!(
        "SELECT kind, name, target, since FROM config_leftovers ORDER BY kind, name, target"
    )
    .fetch_all(conn)
    .await?;
    let leftovers = rows.into_iter().map(|row| {
        Ok(Leftover {
            kind: if row.kind == word(LeftoverKind::Option) {
                LeftoverKind::Option
            } else {
                LeftoverKind::ExcludePaths
            },
            name: row.name,
            target: TargetText::parse(&row.target).map_err(|error| {
                Error::Corrupt(format!("the target \"{}\": {error}", row.target))
            })?,
            since: row.since,
        })
    });
    leftovers.collect()
}

/// Notes that nodes of this target had something that is gone now.
///
/// # Errors
/// Postgres failed.
pub async fn put(
    conn: &mut Conn,
    kind: LeftoverKind,
    name: &str,
    target: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO config_leftovers (kind, name, target, since) VALUES ($1, $2, $3, $4)
        ON CONFLICT ON CONSTRAINT config_leftovers_pkey DO UPDATE SET since = excluded.since
        "#,
        word(kind),
        name,
        target,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets one. Says whether there was one.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, kind: LeftoverKind, name: &str, target: &str) -> Result<bool> {
    let done = sqlx::query!(
        "DELETE FROM config_leftovers WHERE kind = $1 AND name = $2 AND target = $3",
        word(kind),
        name,
        target
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}
