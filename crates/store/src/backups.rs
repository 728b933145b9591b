//! Backups and restores: what an operator's command asks the database, and what must be set right in one that comes from a backup.
//! Dumping itself is the business of `pg_dump`. Everything but the lists needs the owner of the database.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::NodeId;
use uuid::Uuid;

use crate::{Conn, Result, rollouts};

/// How long objects of carves are kept that a restored database does not know, if they are to go: a later backup may know them.
pub const ORPHANS_AFTER: TimeDelta = TimeDelta::days(7);

/// The three roles of our processes.
const ROLES: [&str; 3] = ["ostiary_api", "ostiary_manager", "ostiary_worker"];

/// Makes room for a dump: everything of ours is gone when the transaction commits that this begins.
/// Quietly: a line for each table would hide what went wrong.
pub const CLEAR: &str = "SET LOCAL client_min_messages = warning;\nDROP SCHEMA public CASCADE;\nCREATE SCHEMA public;\n";

/// Said of the schema from the moment when a dump lies in it until [`settle`] has set it right.
const UNSETTLED: &str = "Ostiary: a restore has not ended";

/// Ends the transaction that [`CLEAR`] begins: what was put back is not fit to be worked with yet.
pub const MARK_UNSETTLED: &str =
    "COMMENT ON SCHEMA public IS 'Ostiary: a restore has not ended';\n";

/// Does a dump lie in the database that was not set right yet?
///
/// # Errors
/// Postgres failed.
pub async fn is_unsettled(conn: &mut Conn) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT coalesce(obj_description(to_regnamespace('public')::oid, 'pg_namespace') = $1, false) AS "unsettled!""#,
        UNSETTLED
    )
    .fetch_one(conn)
    .await?)
}

/// Says that what was put back is fit to be worked with.
///
/// # Errors
/// Postgres failed.
pub async fn mark_settled(conn: &mut Conn) -> Result<()> {
    sqlx::query("COMMENT ON SCHEMA public IS NULL")
        .execute(conn)
        .await?;
    Ok(())
}

/// The version of the server, e.g. `15.18`, and its major number.
///
/// # Errors
/// Postgres failed.
pub async fn server_version(conn: &mut Conn) -> Result<(String, u32)> {
    let row = sqlx::query!(
        r#"
        SELECT split_part(current_setting('server_version'), ' ', 1) AS "version!",
            current_setting('server_version_num')::integer / 10000 AS "major!"
        "#
    )
    .fetch_one(conn)
    .await?;
    Ok((row.version, u32::try_from(row.major).unwrap_or_default()))
}

/// Migrations by their version, each with its checksum in hexadecimal.
pub type Migrations = BTreeMap<i64, String>;

/// The migrations that were applied; none in an empty database.
///
/// # Errors
/// Postgres failed.
pub async fn applied_migrations(conn: &mut Conn) -> Result<Migrations> {
    let present = sqlx::query_scalar!(
        r#"SELECT to_regclass('public._sqlx_migrations') IS NOT NULL AS "present!""#
    )
    .fetch_one(&mut *conn)
    .await?;
    if !present {
        return Ok(Migrations::new());
    }
    // Unchecked: the table is sqlx's own, and missing where statements are checked.
    let applied: Vec<(i64, String)> = sqlx::query_as(
        "SELECT version, encode(checksum, 'hex') FROM _sqlx_migrations WHERE success",
    )
    .fetch_all(conn)
    .await?;
    Ok(applied.into_iter().collect())
}

/// The migrations that this program knows.
#[must_use]
pub fn known_migrations() -> Migrations {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    crate::MIGRATIONS
        .iter()
        .map(|migration| (migration.version, hex(&migration.checksum)))
        .collect()
}

/// Does anything lie in the database?
///
/// # Errors
/// Postgres failed.
pub async fn is_empty(conn: &mut Conn) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p', 'v')) AS "empty!""#
    )
    .fetch_one(conn)
    .await?)
}

/// Our own processes that are connected to this database, by the names they give themselves.
///
/// # Errors
/// Postgres failed.
pub async fn connected_processes(conn: &mut Conn) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT DISTINCT coalesce(nullif(application_name, ''), usename::text, 'unknown') AS "name!" FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = ANY($1::text[]::name[])
        ORDER BY 1
        "#,
        &ROLES.map(String::from)
    )
    .fetch_all(conn)
    .await?)
}

/// Makes the roles that are missing, without a password: a dump grants rights to them, but does not hold them.
///
/// # Errors
/// Postgres failed, or the login may not make roles.
pub async fn ensure_roles(conn: &mut Conn) -> Result<Vec<&'static str>> {
    let mut made = Vec::new();
    for role in ROLES {
        let known = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS "known!""#,
            role
        )
        .fetch_one(&mut *conn)
        .await?;
        if !known {
            // A name of our own, so no quoting is needed.
            sqlx::query(sqlx::AssertSqlSafe(format!("CREATE ROLE {role} LOGIN")))
                .execute(&mut *conn)
                .await?;
            made.push(role);
        }
    }
    Ok(made)
}

/// Keeps our processes out of the database, or lets them in again. A restore that is not finished must not be worked with: its nodes
/// were not yet asked to send everything again. Grants on a database itself are in no dump either.
///
/// # Errors
/// Postgres failed.
pub async fn admit_processes(conn: &mut Conn, admitted: bool) -> Result<()> {
    let database = sqlx::query_scalar!(r#"SELECT quote_ident(current_database()) AS "name!""#)
        .fetch_one(&mut *conn)
        .await?;
    let roles = ROLES.join(", ");
    let public = format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC");
    let own = if admitted {
        format!("GRANT CONNECT ON DATABASE {database} TO {roles}")
    } else {
        format!("REVOKE CONNECT ON DATABASE {database} FROM {roles}")
    };
    for statement in [public, own] {
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// When its dump was begun.
    pub made_at: DateTime<Utc>,
    /// Where it was written.
    pub file: String,
    /// Its size.
    pub bytes: i64,
    /// Was it encrypted?
    pub encrypted: bool,
}

/// Remembers a backup.
///
/// # Errors
/// Postgres failed.
pub async fn insert(conn: &mut Conn, id: Uuid, backup: &Backup) -> Result<()> {
    sqlx::query!(
        "INSERT INTO backups (id, made_at, file, bytes, encrypted) VALUES ($1, $2, $3, $4, $5)",
        id,
        backup.made_at,
        backup.file,
        backup.bytes,
        backup.encrypted
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The latest backup.
///
/// # Errors
/// Postgres failed.
pub async fn find_latest(conn: &mut Conn) -> Result<Option<Backup>> {
    Ok(sqlx::query_as!(
        Backup,
        "SELECT made_at, file, bytes, encrypted FROM backups ORDER BY made_at DESC LIMIT 1"
    )
    .fetch_optional(conn)
    .await?)
}

/// What was set right after a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Sets of present rows that count as old.
    pub stale_sets: u64,
    /// Live queries that were cancelled.
    pub live_queries: u64,
    /// Carves of which blocks were still to come.
    pub carves: u64,
    /// Was a roll-out under way? It is halted.
    pub rollout: bool,
}

/// Why something that was under way has ended.
const RESTORED: &str = "A backup was restored while this was under way.";

/// Sets right what a backup cannot know, in the transaction that also asks all nodes to send everything again:
/// - Present rows are old: differences since are gone. They stay until the node sends a new set, which then is no drift.
/// - Live queries had their answers since, or nobody waits for them any more: cancelled, with what was handed out of them.
/// - Carves of which blocks were still to come failed: their sessions are of before, and nodes do not send a block twice.
/// - A roll-out is halted: what was measured of it since is gone. People go on, or return.
/// - Sessions and failed sign-ins are forgotten, should the dump hold any.
/// - Generations jump beyond all that a process may have seen.
///
/// # Errors
/// Postgres failed.
pub async fn settle(conn: &mut Conn, now: DateTime<Utc>) -> Result<Settled> {
    sqlx::query!("DELETE FROM sessions")
        .execute(&mut *conn)
        .await?;
    sqlx::query!("DELETE FROM sign_in_attempts")
        .execute(&mut *conn)
        .await?;
    let stale = sqlx::query!(
        "UPDATE present_rows SET stale = true, complete = false, unsettled_at = NULL, state = NULL"
    )
    .execute(&mut *conn)
    .await?;
    let cancelled = sqlx::query!(
        "UPDATE live_queries SET cancelled_at = $1 WHERE cancelled_at IS NULL AND expires_at > $1",
        now
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE live_query_tasks SET state = 'expired', finished_at = $1, message = $2 WHERE state = 'offered'",
        now,
        RESTORED
    )
    .execute(&mut *conn)
    .await?;
    let carves = fail_carves(&mut *conn, now).await?;
    let rollout = rollouts::find_active(&mut *conn).await?;
    if let Some(active) = rollout.as_ref().filter(|active| active.is_running()) {
        rollouts::halt(&mut *conn, active.id, RESTORED).await?;
    }
    sqlx::query!(
        "UPDATE generations SET generation = greatest(generation + 1, extract(epoch FROM $1::timestamptz)::bigint)",
        now
    )
    .execute(&mut *conn)
    .await?;
    Ok(Settled {
        stale_sets: stale.rows_affected(),
        live_queries: cancelled.rows_affected(),
        carves,
        rollout: rollout.is_some(),
    })
}

async fn fail_carves(conn: &mut Conn, now: DateTime<Utc>) -> Result<u64> {
    let failed = sqlx::query!(
        "UPDATE carves SET state = 'failed', ended_at = $1, problem = $2 WHERE state = 'receiving'",
        now,
        RESTORED
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM carve_blocks b USING carves c WHERE c.id = b.carve_id AND c.state = 'failed'"
    )
    .execute(conn)
    .await?;
    Ok(failed.rows_affected())
}

/// The latest restore before `before` of which it was not seen to yet that the storage holds objects of carves which the database
/// does not know any more: when it was.
///
/// # Errors
/// Postgres failed.
pub async fn find_uncleared(
    conn: &mut Conn,
    before: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar!(
        "SELECT max(restored_at) FROM restores WHERE restored_at < $1 AND orphans_cleared_at IS NULL",
        before
    )
    .fetch_one(conn)
    .await?)
}

/// Notes that this was seen to, up to this restore: such objects were deleted, or are to stay.
///
/// # Errors
/// Postgres failed.
pub async fn note_cleared(
    conn: &mut Conn,
    restored_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE restores SET orphans_cleared_at = $2 WHERE restored_at <= $1 AND orphans_cleared_at IS NULL",
        restored_at,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Those of these objects that belong to no carve.
///
/// # Errors
/// Postgres failed.
pub async fn orphans_among(conn: &mut Conn, objects: &[Uuid]) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar!(
        r#"SELECT o.id AS "id!" FROM unnest($1::uuid[]) AS o (id) WHERE NOT EXISTS (SELECT FROM carves c WHERE c.id = o.id)"#,
        objects
    )
    .fetch_all(conn)
    .await?)
}

/// Notes that a backup was restored.
///
/// # Errors
/// Postgres failed.
pub async fn insert_restore(
    conn: &mut Conn,
    id: Uuid,
    now: DateTime<Utc>,
    backup_made_at: DateTime<Utc>,
    schedule_epoch: u64,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO restores (id, restored_at, backup_made_at, schedule_epoch) VALUES ($1, $2, $3, $4::text::numeric)",
        id,
        now,
        backup_made_at,
        schedule_epoch.to_string()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gathers statistics for the planner, which a dump does not hold.
///
/// # Errors
/// Postgres failed.
pub async fn analyze(conn: &mut Conn) -> Result<()> {
    sqlx::query("ANALYZE").execute(conn).await?;
    Ok(())
}

/// Nodes that have fetched a config since the latest restore and still have old rows, at most `limit`. All their queries run in a
/// new epoch from now on.
///
/// # Errors
/// Postgres failed.
pub async fn list_nodes_back(conn: &mut Conn, limit: i64) -> Result<Vec<NodeId>> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT c.node_id FROM node_configs c
        WHERE c.fetched_at > (SELECT max(restored_at) FROM restores)
          AND EXISTS (SELECT FROM present_rows p WHERE p.node_id = c.node_id AND p.stale)
        LIMIT $1
        "#,
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(NodeId)
    .collect())
}

/// Forgets the old rows of nodes that are back: each query sends all its rows anew, and one that has none now says nothing. The
/// transaction must hold the nodes' locks. Gives the number of sets.
///
/// # Errors
/// Postgres failed.
pub async fn delete_stale(conn: &mut Conn, nodes: &[NodeId]) -> Result<u64> {
    let ids: Vec<Uuid> = nodes.iter().map(|node| node.0).collect();
    let done = sqlx::query!(
        "DELETE FROM present_rows WHERE node_id = ANY($1) AND stale",
        &ids
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
