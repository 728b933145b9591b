//! Findings of the fleet: one rule opens findings on very many nodes, and one finding takes them in.
//!
//! **Invariant:** whoever opens a finding holds its rule's row before it looks for a storm, so that workers which open at the same time
//! see each other's findings, and one storm begins once. A finding of the fleet is locked before its storm is.

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::{FindingId, NodeId, RuleId};
use uuid::Uuid;

use super::By;
use super::entries::{Entry, EntryKind, count_matches, insert_entry};
use crate::{Conn, Result};

/// A finding that was just opened on a node.
#[derive(Debug, Clone, Copy)]
pub struct JustOpened<'a> {
    /// Which.
    pub finding_id: FindingId,
    /// By which rule.
    pub rule_id: RuleId,
    /// Its name.
    pub rule_name: &'a str,
    /// Its severity.
    pub severity: &'a str,
    /// When; now.
    pub at: DateTime<Utc>,
    /// How far back findings count, and how long a storm lasts after the last one.
    pub window: TimeDelta,
    /// On so many nodes they make a storm.
    pub threshold: i64,
    /// The id that a finding of the fleet gets if one opens.
    pub new_id: FindingId,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenIn {
    /// There is no storm: it is told alone.
    Alone,
    /// With it a storm has begun, and a finding of the fleet was opened.
    Began(FindingId),
    /// A storm goes on, and its finding has taken it in.
    Into(FindingId),
}

/// Looks whether a finding belongs to a storm, and lets it be taken in.
///
/// # Errors
/// Postgres failed.
pub async fn take_in(conn: &mut Conn, opened: &JustOpened<'_>) -> Result<TakenIn> {
    sqlx::query!(
        "SELECT id FROM rules WHERE id = $1 FOR NO KEY UPDATE",
        opened.rule_id.0
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(fleet) = find_storm(&mut *conn, opened).await? {
        join(&mut *conn, opened, fleet).await?;
        return Ok(TakenIn::Into(fleet));
    }
    let nodes = sqlx::query_scalar!(
        r#"
        SELECT count(*) AS "n!" FROM (
            SELECT DISTINCT node_id FROM findings
            WHERE rule_id = $1 AND opened_at > $2 AND NOT on_fleet AND node_id IS NOT NULL AND silence_id IS NULL
                AND fleet_finding_id IS NULL
            LIMIT $3) met
        "#,
        opened.rule_id.0,
        opened.at - opened.window,
        opened.threshold
    )
    .fetch_one(&mut *conn)
    .await?;
    if nodes < opened.threshold {
        return Ok(TakenIn::Alone);
    }
    begin(conn, opened).await
}

/// The finding of the fleet whose storm goes on; it is locked from then on.
async fn find_storm(conn: &mut Conn, opened: &JustOpened<'_>) -> Result<Option<FindingId>> {
    let found = sqlx::query_scalar!(
        r#"
        SELECT f.id FROM findings f
        WHERE f.rule_id = $1 AND f.on_fleet AND f.state <> 'resolved'
            AND EXISTS (SELECT FROM storms s WHERE s.finding_id = f.id AND s.last_opened_at > $2)
        FOR NO KEY UPDATE OF f
        "#,
        opened.rule_id.0,
        opened.at - opened.window
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.map(FindingId))
}

async fn join(conn: &mut Conn, opened: &JustOpened<'_>, fleet: FindingId) -> Result<()> {
    sqlx::query!(
        "UPDATE findings SET fleet_finding_id = $2 WHERE id = $1",
        opened.finding_id.0,
        fleet.0
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE findings SET match_count = match_count + 1, last_matched_at = greatest(last_matched_at, $2) WHERE id = $1",
        fleet.0,
        opened.at
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE storms SET last_opened_at = greatest(last_opened_at, $2) WHERE rule_id = $1",
        opened.rule_id.0,
        opened.at
    )
    .execute(&mut *conn)
    .await?;
    count_matches(&mut *conn, fleet, 1, opened.at).await?;
    note(conn, opened.finding_id, opened.at, EntryKind::TakenIn).await
}

/// Begins a storm: on the finding of the fleet that is open still, or on a new one. All that make the storm are taken in.
async fn begin(conn: &mut Conn, opened: &JustOpened<'_>) -> Result<TakenIn> {
    let fleet = sqlx::query_scalar!(
        r#"
        INSERT INTO findings AS f (id, rule_id, rule_name, node_id, node_name, entity_hash, entity, severity, state, opened_at,
            last_matched_at, match_count, on_fleet, former_id)
        VALUES ($1, $2, $3, NULL, 'The fleet', '\x', 'many nodes at once', $4, 'open', $5, $5, 0, true,
            (SELECT id FROM findings WHERE rule_id = $2 AND on_fleet AND state = 'resolved' ORDER BY opened_at DESC LIMIT 1))
        ON CONFLICT (rule_id) WHERE on_fleet AND state <> 'resolved' DO UPDATE SET last_matched_at = $5
        RETURNING id
        "#,
        opened.new_id.0,
        opened.rule_id.0,
        opened.rule_name,
        opened.severity,
        opened.at
    )
    .fetch_one(&mut *conn)
    .await?;
    let taken = sqlx::query_scalar!(
        r#"
        UPDATE findings SET fleet_finding_id = $3
        WHERE rule_id = $1 AND (opened_at > $2 OR id = $4) AND NOT on_fleet AND node_id IS NOT NULL AND silence_id IS NULL
            AND fleet_finding_id IS NULL
        RETURNING id
        "#,
        opened.rule_id.0,
        opened.at - opened.window,
        fleet,
        opened.finding_id.0
    )
    .fetch_all(&mut *conn)
    .await?;
    let fleet = FindingId(fleet);
    sqlx::query!(
        "UPDATE findings SET match_count = match_count + $2 WHERE id = $1",
        fleet.0,
        i64::try_from(taken.len()).unwrap_or(i64::MAX)
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        INSERT INTO storms (rule_id, finding_id, began_at, last_opened_at) VALUES ($1, $2, $3, $3)
        ON CONFLICT (rule_id) DO UPDATE SET finding_id = $2, began_at = $3, last_opened_at = $3
        "#,
        opened.rule_id.0,
        fleet.0,
        opened.at
    )
    .execute(&mut *conn)
    .await?;
    let is_new = fleet == opened.new_id;
    if is_new {
        note(&mut *conn, fleet, opened.at, EntryKind::Opened).await?;
    }
    count_matches(
        &mut *conn,
        fleet,
        i64::try_from(taken.len()).unwrap_or(i64::MAX),
        opened.at,
    )
    .await?;
    for member in taken {
        note(&mut *conn, FindingId(member), opened.at, EntryKind::TakenIn).await?;
    }
    Ok(if is_new {
        TakenIn::Began(fleet)
    } else {
        TakenIn::Into(fleet)
    })
}

async fn note(
    conn: &mut Conn,
    finding_id: FindingId,
    at: DateTime<Utc>,
    kind: EntryKind,
) -> Result<()> {
    let entry = Entry {
        finding_id,
        at,
        kind,
        by: By::RULE,
        text: "",
        columns: None,
    };
    insert_entry(conn, &entry).await
}

/// Ends storms in which nothing more has opened since `calm_since`; gives their findings, which stay open. Their timelines say so.
///
/// # Errors
/// Postgres failed.
pub async fn end_calm(
    conn: &mut Conn,
    calm_since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<FindingId>> {
    let over: Vec<FindingId> = sqlx::query_scalar!(
        r#"
        DELETE FROM storms s USING findings f
        WHERE f.id = s.finding_id AND (s.last_opened_at <= $1 OR f.state = 'resolved')
        RETURNING s.finding_id
        "#,
        calm_since
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(FindingId)
    .collect();
    for finding in &over {
        note(&mut *conn, *finding, now, EntryKind::Calm).await?;
    }
    Ok(over)
}

/// How much of the fleet there is to be in a storm.
///
/// # Errors
/// Postgres failed.
pub async fn count_nodes(conn: &mut Conn) -> Result<i64> {
    Ok(
        sqlx::query_scalar!(r#"SELECT count(*) AS "n!" FROM nodes WHERE disabled_at IS NULL"#)
            .fetch_one(conn)
            .await?,
    )
}

/// What a storm has to do with.
#[derive(Debug, Clone)]
pub struct Storm {
    /// Its finding of the fleet.
    pub finding_id: FindingId,
    /// Its rule.
    pub rule_id: RuleId,
    /// On how many nodes its findings are.
    pub nodes: i64,
    /// Findings inside of it about entities that few nodes have, that were never told alone, and old enough for it.
    pub rare: Vec<Rare>,
    /// On how many nodes rare entities are, told or not.
    pub nodes_with_rare: i64,
}

/// A finding that may stand out of its storm.
#[derive(Debug, Clone)]
pub struct Rare {
    /// Which.
    pub finding_id: FindingId,
    /// Of which node.
    pub node_id: NodeId,
    /// What it is about.
    pub entity: String,
    /// When it was opened.
    pub opened_at: DateTime<Utc>,
}

/// The storms that go on, with what is rare in them: an entity on at most `rare_nodes` nodes of the storm.
///
/// # Errors
/// Postgres failed.
pub async fn list(
    conn: &mut Conn,
    rare_nodes: i64,
    opened_before: DateTime<Utc>,
) -> Result<Vec<Storm>> {
    let storms = sqlx::query!(
        r#"
        SELECT s.rule_id, s.finding_id, (
            SELECT count(DISTINCT node_id) FROM findings m WHERE m.fleet_finding_id = s.finding_id) AS "nodes!"
        FROM storms s ORDER BY s.rule_id
        "#
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut found = Vec::new();
    for storm in storms {
        let rare = sqlx::query!(
            r#"
            WITH members AS (
                SELECT id, node_id, entity, opened_at, state, stands_out_at, count(*) OVER (PARTITION BY entity_hash) AS nodes
                FROM findings WHERE fleet_finding_id = $1)
            SELECT id, node_id AS "node_id!", entity, opened_at, (
                opened_at <= $3 AND state <> 'resolved' AND stands_out_at IS NULL
                AND NOT EXISTS (SELECT FROM alerts a WHERE a.finding_id = members.id)) AS "is_untold!"
            FROM members WHERE nodes <= $2 AND node_id IS NOT NULL ORDER BY node_id, id
            "#,
            storm.finding_id,
            rare_nodes,
            opened_before
        )
        .fetch_all(&mut *conn)
        .await?;
        let mut nodes: Vec<Uuid> = rare.iter().map(|one| one.node_id).collect();
        nodes.dedup();
        found.push(Storm {
            finding_id: FindingId(storm.finding_id),
            rule_id: RuleId(storm.rule_id),
            nodes: storm.nodes,
            nodes_with_rare: i64::try_from(nodes.len()).unwrap_or(i64::MAX),
            rare: rare
                .iter()
                .filter(|one| one.is_untold)
                .map(|one| Rare {
                    finding_id: FindingId(one.id),
                    node_id: NodeId(one.node_id),
                    entity: one.entity.clone(),
                    opened_at: one.opened_at,
                })
                .collect(),
        });
    }
    Ok(found)
}

/// Notes that a finding is told alone although it was taken in. `false` if it was noted before, or is resolved.
///
/// # Errors
/// Postgres failed.
pub async fn stand_out(conn: &mut Conn, id: FindingId, now: DateTime<Utc>) -> Result<bool> {
    let noted = sqlx::query!(
        "UPDATE findings SET stands_out_at = $2 WHERE id = $1 AND stands_out_at IS NULL AND state <> 'resolved'",
        id.0,
        now
    )
    .execute(&mut *conn)
    .await?;
    if noted.rows_affected() == 0 {
        return Ok(false);
    }
    note(conn, id, now, EntryKind::StoodOut).await?;
    Ok(true)
}
