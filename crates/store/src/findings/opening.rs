//! Findings as rules open them and count on them.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{FindingId, NodeId, RuleId, SilenceId};
use serde_json::Value;
use uuid::Uuid;

use super::entries::{By, Entry, EntryKind, count_matches, insert_entry};
use crate::reporting_nodes::OSTIARY;
use crate::{Conn, Result};

/// How many of the latest matches are kept beside the first.
pub const LATEST_KEPT: i64 = 20;

/// Rows that matched one rule on one node about one entity, in one post.
#[derive(Debug)]
pub struct Matched<'a> {
    /// The id it gets if it opens.
    pub id: FindingId,
    /// Which rule.
    pub rule_id: RuleId,
    /// Its name.
    pub rule_name: &'a str,
    /// Its severity.
    pub severity: &'a str,
    /// Which node.
    pub node_id: NodeId,
    /// What people call it.
    pub node_name: &'a str,
    /// What on the node it is about, for people.
    pub entity: &'a str,
    /// The same, for machines.
    pub entity_hash: &'a [u8],
    /// The rows, never none, in order; of very many the first and the latest will do.
    pub matches: &'a [Match],
    /// How many there were.
    pub count: i64,
    /// By the server's clock.
    pub matched_at: DateTime<Utc>,
    /// The post; `None` for facts.
    pub batch_id: Option<i64>,
    /// The silence under which it opens, if it opens.
    pub silence_id: Option<SilenceId>,
}

/// A row that matched, copied: events go with their partition.
#[derive(Debug, Clone)]
pub struct Match {
    /// The query, as the node names it.
    pub query_name: String,
    /// `added`, `removed`, `snapshot` or `triggered`.
    pub action: &'static str,
    /// The row.
    pub columns: Value,
    /// What the same change took away or brought in its place: what was before a row that came, what is after one that went.
    pub counterpart: Option<Value>,
    /// When, by the node's clock, clamped.
    pub occurred_at: DateTime<Utc>,
}

/// What matches have led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upserted {
    /// A new finding.
    Opened(FindingId),
    /// They were counted on one that was open.
    Counted {
        /// That one.
        id: FindingId,
        /// The silence under which it was opened, if nobody was told of it since.
        silence_id: Option<SilenceId>,
    },
    /// The rule is gone or off by now.
    RuleGone,
}

/// Counts on a finding about Ostiary itself that is open. It has no node, and the index that keeps others apart passes over it; the
/// transaction must hold the lock of [`OSTIARY`], as it holds that of a node.
async fn count_on_own(
    conn: &mut Conn,
    matched: &Matched<'_>,
) -> Result<Option<(Uuid, Option<Uuid>)>> {
    let row = sqlx::query!(
        r#"
        UPDATE findings SET last_matched_at = greatest(last_matched_at, $4), match_count = match_count + $5
        WHERE rule_id = $1 AND node_id IS NULL AND node_name = $2 AND entity_hash = $3 AND state <> 'resolved' AND NOT on_fleet
        RETURNING id, silence_id
        "#,
        matched.rule_id.0,
        matched.node_name,
        matched.entity_hash,
        matched.matched_at,
        matched.count
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.id, row.silence_id)))
}

/// Opens a finding, or counts on the one that is open. The first match and the latest 20 are kept. One that opens knows the last one
/// about the same matter.
///
/// # Errors
/// Postgres failed.
///
/// # Panics
/// There are no matches.
pub async fn upsert(conn: &mut Conn, matched: &Matched<'_>) -> Result<Upserted> {
    let is_own = matched.node_id == OSTIARY;
    let counted = if is_own {
        count_on_own(&mut *conn, matched).await?
    } else {
        None
    };
    let (id, silence_id) = match counted {
        Some(counted) => counted,
        None => match insert_or_count(&mut *conn, matched, is_own).await? {
            Some(upserted) => upserted,
            None => return Ok(Upserted::RuleGone),
        },
    };
    insert_matches(conn, id, matched).await?;
    let id = FindingId(id);
    if id != matched.id {
        count_matches(conn, id, matched.count, matched.matched_at).await?;
        return Ok(Upserted::Counted {
            id,
            silence_id: silence_id.map(SilenceId),
        });
    }
    let opened = Entry {
        finding_id: id,
        at: matched.matched_at,
        kind: EntryKind::Opened,
        by: By::RULE,
        text: "",
        columns: None,
    };
    insert_entry(conn, &opened).await?;
    if matched.count > 1 {
        count_matches(conn, id, matched.count - 1, matched.matched_at).await?;
    }
    Ok(Upserted::Opened(id))
}

async fn insert_or_count(
    conn: &mut Conn,
    matched: &Matched<'_>,
    is_own: bool,
) -> Result<Option<(Uuid, Option<Uuid>)>> {
    let first = matched.matches.first().expect("a finding needs a match");
    let row = sqlx::query!(
        r#"
        WITH rule AS (SELECT id FROM rules WHERE id = $2 AND enabled FOR KEY SHARE)
        INSERT INTO findings AS f (id, rule_id, rule_name, node_id, node_name, entity_hash, entity, severity, state, query_name,
            opened_at, last_matched_at, match_count, last_batch_id, silence_id, former_id)
        SELECT $1, rule.id, $3, $4, $5, $6, $7, $8, 'open', $9, $10, $10, $11, $12, $13, (
            SELECT former.id FROM findings former
            WHERE former.rule_id = $2 AND former.node_id = $4 AND former.entity_hash = $6 AND former.state = 'resolved'
            ORDER BY former.opened_at DESC LIMIT 1)
        FROM rule
        ON CONFLICT (rule_id, node_id, entity_hash) WHERE state <> 'resolved' DO UPDATE SET
            last_matched_at = greatest(f.last_matched_at, excluded.last_matched_at),
            match_count = f.match_count + excluded.match_count,
            last_batch_id = excluded.last_batch_id
        RETURNING id, silence_id
        "#,
        matched.id.0,
        matched.rule_id.0,
        matched.rule_name,
        (!is_own).then_some(matched.node_id.0),
        matched.node_name,
        matched.entity_hash,
        matched.entity,
        matched.severity,
        first.query_name,
        matched.matched_at,
        matched.count,
        matched.batch_id,
        matched.silence_id.map(|id| id.0)
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.id, row.silence_id)))
}

async fn insert_matches(conn: &mut Conn, finding: Uuid, matched: &Matched<'_>) -> Result<()> {
    // Of thousands at once nobody reads more than are kept.
    let most = usize::try_from(LATEST_KEPT).expect("a handful");
    let skipped = matched.matches.len().saturating_sub(most).max(1);
    let kept = matched.matches[..1]
        .iter()
        .chain(matched.matches.get(skipped..).unwrap_or_default());
    let kept: Vec<&Match> = kept.collect();
    let names: Vec<&str> = kept.iter().map(|one| one.query_name.as_str()).collect();
    let actions: Vec<&str> = kept.iter().map(|one| one.action).collect();
    // As text: a detour by jsonb would reorder the columns.
    let columns: Vec<String> = kept.iter().map(|one| one.columns.to_string()).collect();
    let counterparts: Vec<Option<String>> = kept
        .iter()
        .map(|one| one.counterpart.as_ref().map(ToString::to_string))
        .collect();
    let times: Vec<DateTime<Utc>> = kept.iter().map(|one| one.occurred_at).collect();
    sqlx::query!(
        r#"
        INSERT INTO finding_matches (finding_id, matched_at, occurred_at, query_name, action, columns, counterpart, batch_id)
        SELECT $1, $2, occurred_at, query_name, action, columns::json, counterpart::json, $3
        FROM unnest($4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::text[]) WITH ORDINALITY
            AS new (occurred_at, query_name, action, columns, counterpart, position)
        ORDER BY position
        "#,
        finding,
        matched.matched_at,
        matched.batch_id,
        &times,
        &names as &[&str],
        &actions as &[&str],
        &columns,
        &counterparts as &[Option<String>]
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        DELETE FROM finding_matches WHERE finding_id = $1
            AND id > (SELECT min(id) FROM finding_matches WHERE finding_id = $1)
            AND id < (SELECT min(id) FROM (
                SELECT id FROM finding_matches WHERE finding_id = $1 ORDER BY id DESC LIMIT $2) latest)
        "#,
        finding,
        LATEST_KEPT
    )
    .execute(conn)
    .await?;
    Ok(())
}
