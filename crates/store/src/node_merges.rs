//! Merging one node into another. Nothing of either is lost:
//!
//! * In one transaction go keys (those of both go on to work), identifiers, tags, findings, tasks of live queries, carves, present rows,
//!   fingerprints of posts, what waits for a worker, what rules have counted (`rule_merges`), and whatever else refers to the node by a
//!   foreign key.
//! * Events, status logs and unreadable data follow in slices ([`move_history`]).
//! * A post that a process takes for the old node a moment later is worked for the one that is left ([`follow`]).
//!
//! Raw posts (`log_batches`) keep the id under which they came, for the days that they are kept.

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::{FindingId, NodeId, UserId};
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use crate::findings::{self, By, Decision, Stated};
use crate::rule_merges::{self, Pair};
use crate::{Conn, Result, node_conflicts, pending};

/// How much of the history moves in one step.
const SLICE: TimeDelta = TimeDelta::hours(6);

/// For so long an api may still take posts for the node that is gone.
const STRAGGLERS_FOR: TimeDelta = TimeDelta::minutes(10);

/// Merges one node into another.
#[derive(Debug, Clone, Copy)]
pub struct Merge {
    /// The node that ends.
    pub gone: NodeId,
    /// The node that stays.
    pub kept: NodeId,
    /// Its identity is the same by an admin's word only: mark it as re-established.
    pub reestablished: bool,
    /// Who says so.
    pub by: Option<UserId>,
    /// When.
    pub at: DateTime<Utc>,
}

/// What was moved: the number of rows by table, none that are 0.
pub type Moved = Vec<(String, i64)>;

/// Merges two nodes; `None` if one of them does not exist. The caller's transaction holds both from then on.
///
/// What is kept once per node (what it said when it enrolled, check-ins, the config that it fetched, present rows of one query) is that
/// of the node that was seen last. A finding that is open on both goes on as the kept node's; the other one is resolved.
///
/// # Errors
/// Postgres failed.
pub async fn merge(conn: &mut Conn, merge: &Merge) -> Result<Option<Moved>> {
    pending::wait_for_nodes(conn, &[merge.gone, merge.kept]).await?;
    let (gone, kept) = (merge.gone.0, merge.kept.0);
    let found = sqlx::query!(
        r#"
        SELECT n.id, coalesce(nullif(display_name, ''), nullif(hostname, ''), host_identifier) AS "name!",
            c.last_seen_at AS "last_seen_at?", n.enrolled_at
        FROM nodes n LEFT JOIN node_checkins c ON c.node_id = n.id
        WHERE n.id IN ($1, $2)
        ORDER BY n.id
        FOR UPDATE OF n
        "#,
        gone,
        kept
    )
    .fetch_all(&mut *conn)
    .await?;
    let of = |id: Uuid| found.iter().find(|node| node.id == id);
    let (Some(gone_node), Some(kept_node)) = (of(gone), of(kept)) else {
        return Ok(None);
    };
    let gone_is_living = (gone_node.last_seen_at, gone_node.enrolled_at)
        > (kept_node.last_seen_at, kept_node.enrolled_at);
    resolve_doubles(conn, merge).await?;
    let pair = Pair {
        gone: merge.gone,
        kept: merge.kept,
        loser: if gone_is_living {
            merge.kept
        } else {
            merge.gone
        },
    };
    rule_merges::merge(conn, pair).await?;
    let moved = sqlx::query!(
        r#"
        SELECT table_name AS "table_name!", sum(rows_moved)::bigint AS "rows!"
        FROM merge_nodes($1, $2, $3) GROUP BY 1 HAVING sum(rows_moved) > 0 ORDER BY 1
        "#,
        gone,
        kept,
        gone_is_living
    )
    .fetch_all(&mut *conn)
    .await?;
    take_over(conn, merge, gone_is_living).await?;
    sqlx::query!(
        "INSERT INTO node_merges (gone_id, gone_name, kept_id, merged_at) VALUES ($1, $2, $3, $4)",
        gone,
        gone_node.name,
        kept,
        merge.at
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM nodes WHERE id = $1", gone)
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        r#"
        UPDATE findings f SET node_name = coalesce(nullif(display_name, ''), nullif(hostname, ''), host_identifier)
        FROM nodes n WHERE n.id = $1 AND f.node_id = n.id AND f.state <> 'resolved'
        "#,
        kept
    )
    .execute(&mut *conn)
    .await?;
    // What sinks have yet to tell of its findings is of a node that they find.
    sqlx::query!(
        "UPDATE finding_changes SET node_id = $2 WHERE node_id = $1",
        gone,
        kept
    )
    .execute(&mut *conn)
    .await?;
    // What was noted of it ends where its findings are now. Of what holds on both nodes, one note is enough.
    sqlx::query!(
        r#"
        WITH gone AS (DELETE FROM noted_facts WHERE node_id = $1 RETURNING *)
        INSERT INTO noted_facts (node_id, name, entity, noted_at, columns)
        SELECT $2, name, entity, noted_at, columns FROM gone
        ON CONFLICT (name, node_id, entity) DO NOTHING
        "#,
        gone,
        kept
    )
    .execute(&mut *conn)
    .await?;
    node_conflicts::refresh_flags(conn, &[merge.kept]).await?;
    Ok(Some(
        moved
            .into_iter()
            .map(|row| (row.table_name, row.rows))
            .collect(),
    ))
}

/// Resolves findings of the node that ends whose matter is open on the other one, too.
async fn resolve_doubles(conn: &mut Conn, merge: &Merge) -> Result<()> {
    let doubles = sqlx::query!(
        r#"
        SELECT g.id, k.id AS kept_id, g.match_count, g.last_matched_at
        FROM findings g JOIN findings k ON k.rule_id = g.rule_id AND k.entity_hash = g.entity_hash
        WHERE g.node_id = $1 AND k.node_id = $2 AND g.state <> 'resolved' AND k.state <> 'resolved'
        "#,
        merge.gone.0,
        merge.kept.0
    )
    .fetch_all(&mut *conn)
    .await?;
    if doubles.is_empty() {
        return Ok(());
    }
    let name = match merge.by {
        Some(user) => {
            sqlx::query_scalar!("SELECT name FROM users WHERE id = $1", user.0)
                .fetch_optional(&mut *conn)
                .await?
        }
        None => None,
    };
    let stated = Stated {
        by: By {
            user_id: merge.by,
            name: name.as_deref().unwrap_or_default(),
        },
        text: "its node became another one, where the same is open",
        at: merge.at,
    };
    for double in doubles {
        findings::decide(conn, FindingId(double.id), Decision::Resolve, stated).await?;
        sqlx::query!(
            "UPDATE findings SET match_count = match_count + $2, last_matched_at = greatest(last_matched_at, $3) WHERE id = $1",
            double.kept_id,
            double.match_count,
            double.last_matched_at
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Writes into the kept node what the other one said of itself, if that was seen last; and what adds up in any case.
async fn take_over(conn: &mut Conn, merge: &Merge, gone_is_living: bool) -> Result<()> {
    sqlx::query!(
        r#"
        UPDATE nodes k SET
            host_identifier = CASE WHEN $3 THEN g.host_identifier ELSE k.host_identifier END,
            hostname = CASE WHEN $3 THEN coalesce(nullif(g.hostname, ''), k.hostname) ELSE k.hostname END,
            platform = CASE WHEN $3 THEN coalesce(nullif(g.platform, ''), k.platform) ELSE k.platform END,
            os_name = CASE WHEN $3 THEN coalesce(nullif(g.os_name, ''), k.os_name) ELSE k.os_name END,
            os_version = CASE WHEN $3 THEN coalesce(nullif(g.os_version, ''), k.os_version) ELSE k.os_version END,
            osquery_version = CASE WHEN $3 THEN coalesce(nullif(g.osquery_version, ''), k.osquery_version) ELSE k.osquery_version END,
            hardware_uuid = CASE WHEN $3 THEN coalesce(nullif(g.hardware_uuid, ''), k.hardware_uuid) ELSE k.hardware_uuid END,
            hardware_serial = CASE WHEN $3 THEN coalesce(nullif(g.hardware_serial, ''), k.hardware_serial) ELSE k.hardware_serial END,
            hardware_model = CASE WHEN $3 THEN coalesce(nullif(g.hardware_model, ''), k.hardware_model) ELSE k.hardware_model END,
            instance_id = CASE WHEN $3 THEN coalesce(nullif(g.instance_id, ''), k.instance_id) ELSE k.instance_id END,
            host_details = CASE WHEN $3 THEN g.host_details ELSE k.host_details END,
            vitals = CASE WHEN $3 AND g.vitals::text <> '{}' THEN g.vitals ELSE k.vitals END,
            config_hash = CASE WHEN $3 THEN coalesce(nullif(g.config_hash, ''), k.config_hash) ELSE k.config_hash END,
            enroll_secret_id = CASE WHEN $3 THEN g.enroll_secret_id ELSE k.enroll_secret_id END,
            enrolled_at = greatest(g.enrolled_at, k.enrolled_at),
            first_enrolled_at = least(g.first_enrolled_at, k.first_enrolled_at),
            display_name = coalesce(nullif(k.display_name, ''), g.display_name),
            lines_lost = k.lines_lost + g.lines_lost,
            identity_reestablished_at = CASE WHEN $4 THEN $5::timestamptz
                ELSE coalesce(k.identity_reestablished_at, g.identity_reestablished_at) END
        FROM nodes g
        WHERE g.id = $1 AND k.id = $2
        "#,
        merge.gone.0,
        merge.kept.0,
        gone_is_living,
        merge.reestablished,
        merge.at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives pending work of nodes that were merged to those that they became; returns how much there was. The transaction holds the locks
/// of these nodes.
///
/// # Errors
/// Postgres failed.
pub async fn follow(conn: &mut Conn, nodes: &[NodeId]) -> Result<u64> {
    let ids: Vec<Uuid> = nodes.iter().map(|id| id.0).collect();
    // Nearly always there is none: the look costs one probe of an index.
    let merged = sqlx::query_scalar!(
        "SELECT gone_id FROM node_merges WHERE gone_id = ANY ($1)",
        &ids
    )
    .fetch_all(&mut *conn)
    .await?;
    if merged.is_empty() {
        return Ok(0);
    }
    let done = sqlx::query!(
        r#"
        UPDATE pending p SET node_id = m.kept_id FROM node_merges m
        WHERE p.node_id = ANY ($1) AND m.gone_id = p.node_id
        "#,
        &merged
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Merged nodes whose history has not moved whole, the oldest merge first.
///
/// # Errors
/// Postgres failed.
pub async fn list_unmoved(conn: &mut Conn, limit: i64) -> Result<Vec<NodeId>> {
    let ids = sqlx::query_scalar!(
        "SELECT gone_id FROM node_merges WHERE history_moved_at IS NULL ORDER BY merged_at LIMIT $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(NodeId).collect())
}

/// Moves the oldest slice of a merged node's history; returns how many tuples. When none is left and none can come any more, the merge
/// is noted as done.
///
/// # Errors
/// Postgres failed.
pub async fn move_history(conn: &mut Conn, gone: NodeId, now: DateTime<Utc>) -> Result<i64> {
    let span = PgInterval {
        months: 0,
        days: 0,
        microseconds: SLICE.num_microseconds().unwrap_or(i64::MAX),
    };
    let moved = sqlx::query_scalar!(r#"SELECT move_history($1, $2) AS "moved!""#, gone.0, span)
        .fetch_one(&mut *conn)
        .await?;
    if moved == 0 {
        sqlx::query!(
            "UPDATE node_merges SET history_moved_at = $2 WHERE gone_id = $1 AND merged_at < $3",
            gone.0,
            now,
            now - STRAGGLERS_FOR
        )
        .execute(conn)
        .await?;
    }
    Ok(moved)
}

/// Nodes whose history is still on its way to this one: their names.
///
/// # Errors
/// Postgres failed.
pub async fn list_moving_to(
    conn: &mut Conn,
    kept: NodeId,
    now: DateTime<Utc>,
) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT gone_name FROM node_merges
        WHERE kept_id = $1 AND history_moved_at IS NULL AND merged_at > $2 ORDER BY merged_at
        "#,
        kept.0,
        now - STRAGGLERS_FOR
    )
    .fetch_all(conn)
    .await?)
}
