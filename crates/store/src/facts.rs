//! Facts about nodes that nobody reports but that follow from what is missing: offline, silent. Each is noted once until the node is
//! back, together with the pending work by which rules see it. What follows from what is stored is in [`crate::noted_facts`].

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::HealthLimits;

use crate::{Conn, Result, api_uptime};

/// A node that became quiet, or is back.
#[derive(Debug, Clone)]
pub struct Quiet {
    /// Which.
    pub node_id: NodeId,
    /// Its last authenticated request.
    pub last_seen_at: DateTime<Utc>,
    /// When it last proved that its schedule runs.
    pub results_at: Option<DateTime<Utc>>,
    /// Its latest enrollment.
    pub enrolled_at: DateTime<Utc>,
}

/// A row of such a query.
struct QuietRow {
    id: uuid::Uuid,
    last_seen_at: DateTime<Utc>,
    results_at: Option<DateTime<Utc>>,
    enrolled_at: DateTime<Utc>,
}

impl From<QuietRow> for Quiet {
    fn from(row: QuietRow) -> Self {
        Self {
            node_id: NodeId(row.id),
            last_seen_at: row.last_seen_at,
            results_at: row.results_at,
            enrolled_at: row.enrolled_at,
        }
    }
}

fn quiet(rows: Vec<QuietRow>) -> Vec<Quiet> {
    rows.into_iter().map(Quiet::from).collect()
}

/// Notes nodes as offline that have not checked in for too long, and were not noted before; and again when that has lasted for each of
/// `again_after`. At most `limit` at a time.
///
/// While no api is there no node can check in; when one is back, and after a restore, whose backup knows no check-ins since it was made,
/// every node is given its time anew.
///
/// # Errors
/// Postgres failed.
pub async fn note_offline(
    conn: &mut Conn,
    (limits, again_after): (&HealthLimits, &[TimeDelta]),
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Quiet>> {
    let since = now - limits.offline_after;
    if !api_uptime::is_up_since(&mut *conn, since, now).await? {
        return Ok(Vec::new());
    }
    let after: Vec<i64> = [&limits.offline_after]
        .into_iter()
        .chain(again_after)
        .map(TimeDelta::num_seconds)
        .collect();
    let rows = sqlx::query_as!(
        QuietRow,
        r#"
        WITH quiet AS (
            SELECT n.id, c.last_seen_at, c.results_at
            FROM nodes n JOIN node_checkins c ON c.node_id = n.id
            WHERE c.last_seen_at < $1 AND n.disabled_at IS NULL
              AND EXISTS (
                SELECT FROM unnest($4::bigint[]) AS after (seconds)
                CROSS JOIN LATERAL (SELECT c.last_seen_at + make_interval(secs => after.seconds) AS at) crossed
                WHERE crossed.at < $2 AND (n.offline_noted_at IS NULL OR n.offline_noted_at <= crossed.at))
              AND NOT EXISTS (SELECT FROM restores WHERE restored_at > $1)
            LIMIT $3 FOR NO KEY UPDATE OF n SKIP LOCKED
        )
        UPDATE nodes n SET offline_noted_at = $2 FROM quiet WHERE n.id = quiet.id
        RETURNING n.id, quiet.last_seen_at AS "last_seen_at!", quiet.results_at, n.enrolled_at
        "#,
        since,
        now,
        limit,
        &after
    )
    .fetch_all(conn)
    .await?;
    Ok(quiet(rows))
}

/// Notes nodes as silent that check in, but whose results have been missing for too long, and were not noted before.
/// When an api is back, and after a restore, every node is given its time anew.
///
/// # Errors
/// Postgres failed.
pub async fn note_silent(
    conn: &mut Conn,
    limits: &HealthLimits,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Quiet>> {
    let since = now - limits.silent_after;
    if !api_uptime::is_up_since(&mut *conn, since, now).await? {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as!(
        QuietRow,
        r#"
        WITH quiet AS (
            SELECT n.id, c.last_seen_at, c.results_at
            FROM nodes n JOIN node_checkins c ON c.node_id = n.id
            WHERE c.last_seen_at >= $1 AND greatest(c.results_at, n.enrolled_at) < $2
              AND n.silent_noted_at IS NULL AND n.disabled_at IS NULL
              AND NOT EXISTS (SELECT FROM restores WHERE restored_at > $2)
            LIMIT $4 FOR NO KEY UPDATE OF n SKIP LOCKED
        )
        UPDATE nodes n SET silent_noted_at = $3 FROM quiet WHERE n.id = quiet.id
        RETURNING n.id, quiet.last_seen_at AS "last_seen_at!", quiet.results_at, n.enrolled_at
        "#,
        now - limits.offline_after,
        since,
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(quiet(rows))
}

/// Takes the note back from nodes that were offline and check in again; gives at most `limit` of them.
///
/// # Errors
/// Postgres failed.
pub async fn clear_offline(
    conn: &mut Conn,
    limits: &HealthLimits,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Quiet>> {
    let rows = sqlx::query_as!(
        QuietRow,
        r#"
        WITH back AS (
            SELECT n.id, c.last_seen_at, c.results_at
            FROM nodes n JOIN node_checkins c ON c.node_id = n.id
            WHERE n.offline_noted_at IS NOT NULL AND c.last_seen_at >= $1
            LIMIT $2 FOR NO KEY UPDATE OF n SKIP LOCKED
        )
        UPDATE nodes n SET offline_noted_at = NULL FROM back WHERE n.id = back.id
        RETURNING n.id, back.last_seen_at AS "last_seen_at!", back.results_at, n.enrolled_at
        "#,
        now - limits.offline_after,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(quiet(rows))
}

/// Takes the note back from nodes that were silent and send results again; gives at most `limit` of them.
///
/// # Errors
/// Postgres failed.
pub async fn clear_silent(
    conn: &mut Conn,
    limits: &HealthLimits,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Quiet>> {
    let rows = sqlx::query_as!(
        QuietRow,
        r#"
        WITH back AS (
            SELECT n.id, c.last_seen_at, c.results_at
            FROM nodes n JOIN node_checkins c ON c.node_id = n.id
            WHERE n.silent_noted_at IS NOT NULL AND greatest(c.results_at, n.enrolled_at) >= $1
            LIMIT $2 FOR NO KEY UPDATE OF n SKIP LOCKED
        )
        UPDATE nodes n SET silent_noted_at = NULL FROM back WHERE n.id = back.id
        RETURNING n.id, back.last_seen_at AS "last_seen_at!", back.results_at, n.enrolled_at
        "#,
        now - limits.silent_after,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(quiet(rows))
}
