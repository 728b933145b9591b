//! What rules that count have seen: values with their nodes, and times on a node. What the counts mean is decided in `domain::rule`.

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::{NodeId, RuleId};
use ostiary_domain::rule::COUNTED_NODES;
use uuid::Uuid;

use crate::{Conn, Result};

/// Bytes of an entity's hash that name a value: 2^64 values would have to come before two are taken for one.
const VALUE_BYTES: usize = 16;

/// Values are looked after so many at a time.
const AT_ONCE: usize = 1_000;

/// A value on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting<'a> {
    /// Which rule.
    pub rule_id: RuleId,
    /// `domain::finding::Entity::hash`.
    pub entity_hash: &'a [u8; 32],
    /// Where.
    pub node_id: NodeId,
    /// When, by the node's clock, clamped.
    pub seen_at: DateTime<Utc>,
}

pub(crate) fn short(hash: &[u8; 32]) -> &[u8] {
    &hash[..VALUE_BYTES]
}

/// Notes values on nodes. The transaction then holds the rows of those that are new on their node until it ends: what others see waits.
///
/// # Errors
/// Postgres failed.
pub async fn see(conn: &mut Conn, sightings: &[Sighting<'_>]) -> Result<()> {
    let mut sorted: Vec<&Sighting<'_>> = sightings.iter().collect();
    // One order for all, so that nobody waits in a circle; of a value that a node has twice, the latest time stays.
    sorted.sort_unstable_by(|one, other| {
        (
            one.rule_id,
            short(one.entity_hash),
            one.node_id,
            other.seen_at,
        )
            .cmp(&(
                other.rule_id,
                short(other.entity_hash),
                other.node_id,
                one.seen_at,
            ))
    });
    sorted.dedup_by_key(|one| (one.rule_id, short(one.entity_hash), one.node_id));
    for part in sorted.chunks(AT_ONCE) {
        see_some(conn, part).await?;
    }
    Ok(())
}

async fn see_some(conn: &mut Conn, sightings: &[&Sighting<'_>]) -> Result<()> {
    let rules: Vec<Uuid> = sightings.iter().map(|one| one.rule_id.0).collect();
    let values: Vec<&[u8]> = sightings.iter().map(|one| short(one.entity_hash)).collect();
    let nodes: Vec<Uuid> = sightings.iter().map(|one| one.node_id.0).collect();
    let times: Vec<DateTime<Utc>> = sightings.iter().map(|one| one.seen_at).collect();
    // A value that becomes new for a node is locked by writing it as it is: a rule may be gone by now.
    sqlx::query!(
        r#"
        INSERT INTO rule_values AS v (rule_id, value_hash)
        SELECT DISTINCT s.rule_id, s.value_hash FROM unnest($1::uuid[], $2::bytea[], $3::uuid[]) AS s (rule_id, value_hash, node_id)
        WHERE EXISTS (SELECT FROM rules r WHERE r.id = s.rule_id)
            AND NOT EXISTS (SELECT FROM rule_value_nodes n
                WHERE n.rule_id = s.rule_id AND n.value_hash = s.value_hash AND n.node_id = s.node_id)
        ORDER BY 1, 2
        ON CONFLICT (rule_id, value_hash) DO UPDATE SET is_common = v.is_common
        "#,
        &rules,
        &values as &[&[u8]],
        &nodes
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        INSERT INTO rule_value_nodes AS n (rule_id, value_hash, node_id, seen_at)
        SELECT s.rule_id, s.value_hash, s.node_id, s.seen_at
        FROM unnest($1::uuid[], $2::bytea[], $3::uuid[], $4::timestamptz[]) AS s (rule_id, value_hash, node_id, seen_at)
        JOIN rule_values v ON v.rule_id = s.rule_id AND v.value_hash = s.value_hash AND NOT v.is_common
        ON CONFLICT (rule_id, value_hash, node_id) DO UPDATE SET seen_at = greatest(n.seen_at, excluded.seen_at)
            WHERE excluded.seen_at > n.seen_at + interval '1 second'
        "#,
        &rules,
        &values as &[&[u8]],
        &nodes,
        &times
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Which of these values nobody has seen yet. To be asked before [`see`], and only of value and rule.
///
/// # Errors
/// Postgres failed.
pub async fn are_known(conn: &mut Conn, sightings: &[Sighting<'_>]) -> Result<Vec<bool>> {
    let rules: Vec<Uuid> = sightings.iter().map(|one| one.rule_id.0).collect();
    let values: Vec<&[u8]> = sightings.iter().map(|one| short(one.entity_hash)).collect();
    Ok(sqlx::query_scalar!(
        r#"
        SELECT EXISTS (SELECT FROM rule_values v WHERE v.rule_id = s.rule_id AND v.value_hash = s.value_hash) AS "known!"
        FROM unnest($1::uuid[], $2::bytea[]) WITH ORDINALITY AS s (rule_id, value_hash, position) ORDER BY position
        "#,
        &rules,
        &values as &[&[u8]]
    )
    .fetch_all(conn)
    .await?)
}

/// On how many nodes a value is, of those seen from `since` on; `None` if it is common. The transaction must have seen it ([`see`]).
///
/// # Errors
/// Postgres failed.
pub async fn count_nodes(
    conn: &mut Conn,
    rule_id: RuleId,
    entity_hash: &[u8; 32],
    since: Option<DateTime<Utc>>,
) -> Result<Option<i64>> {
    let row = sqlx::query!(
        r#"
        SELECT is_common, (SELECT count(*) FROM rule_value_nodes n
            WHERE n.rule_id = v.rule_id AND n.value_hash = v.value_hash AND ($3::timestamptz IS NULL OR n.seen_at >= $3)) AS "nodes!"
        FROM rule_values v WHERE v.rule_id = $1 AND v.value_hash = $2
        "#,
        rule_id.0,
        short(entity_hash),
        since
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if since.is_none() && !row.is_common && row.nodes > i64::from(COUNTED_NODES) {
        sqlx::query!(
            "UPDATE rule_values SET is_common = true WHERE rule_id = $1 AND value_hash = $2",
            rule_id.0,
            short(entity_hash)
        )
        .execute(conn)
        .await?;
        return Ok(None);
    }
    Ok((!row.is_common).then_some(row.nodes))
}

/// A node no longer has these values.
///
/// # Errors
/// Postgres failed.
pub async fn forget(conn: &mut Conn, sightings: &[Sighting<'_>]) -> Result<()> {
    let rules: Vec<Uuid> = sightings.iter().map(|one| one.rule_id.0).collect();
    let values: Vec<&[u8]> = sightings.iter().map(|one| short(one.entity_hash)).collect();
    let nodes: Vec<Uuid> = sightings.iter().map(|one| one.node_id.0).collect();
    sqlx::query!(
        r#"
        DELETE FROM rule_value_nodes n USING unnest($1::uuid[], $2::bytea[], $3::uuid[]) AS s (rule_id, value_hash, node_id)
        WHERE n.rule_id = s.rule_id AND n.value_hash = s.value_hash AND n.node_id = s.node_id
        "#,
        &rules,
        &values as &[&[u8]],
        &nodes
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// When rows matched a rule on so-many-times.
#[derive(Debug, Clone)]
pub struct Times<'a> {
    /// Which rule.
    pub rule_id: RuleId,
    /// On which node; the transaction holds its lock.
    pub node_id: NodeId,
    /// About what.
    pub entity_hash: &'a [u8; 32],
    /// As many of them as the rule wants; the latest stay.
    pub times: &'a [DateTime<Utc>],
    /// How many the rule wants.
    pub wanted: u32,
}

/// Adds times to those remembered, and gives the latest that are remembered then, oldest first.
///
/// # Errors
/// Postgres failed.
pub async fn add_times(conn: &mut Conn, times: &Times<'_>) -> Result<Vec<DateTime<Utc>>> {
    Ok(sqlx::query_scalar!(
        r#"
        INSERT INTO rule_times AS t (rule_id, node_id, entity_hash, times, latest_at)
        SELECT id, $2, $3, $4, (SELECT max(new) FROM unnest($4::timestamptz[]) AS new) FROM rules WHERE id = $1
        ON CONFLICT (rule_id, node_id, entity_hash) DO UPDATE SET
            times = ARRAY(SELECT one FROM (
                SELECT one FROM unnest(t.times || excluded.times) AS one ORDER BY one DESC LIMIT $5) AS latest ORDER BY one),
            latest_at = greatest(t.latest_at, excluded.latest_at)
        RETURNING times
        "#,
        times.rule_id.0,
        times.node_id.0,
        &times.entity_hash[..],
        times.times,
        i64::from(times.wanted)
    )
    .fetch_optional(conn)
    .await?
    .unwrap_or_default())
}

/// Forgets what can count no more: times and sightings beyond the longest span, and what belongs to nodes or watches that are gone.
///
/// # Errors
/// Postgres failed.
pub async fn prune(conn: &mut Conn, now: DateTime<Utc>, longest: TimeDelta) -> Result<()> {
    sqlx::query!("DELETE FROM rule_times WHERE latest_at < $1", now - longest)
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        r#"
        DELETE FROM rule_value_nodes n USING rules r
        WHERE r.id = n.rule_id AND ((r.watch = 'nodes' AND n.seen_at < $1) OR NOT EXISTS (SELECT FROM nodes WHERE id = n.node_id))
        "#,
        now - longest
    )
    .execute(conn)
    .await?;
    Ok(())
}
