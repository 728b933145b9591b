//! Findings that end by themselves: what the rule saw is no longer so.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{DeliveryId, FindingId, NodeId, RuleId};
use serde_json::Value;
use uuid::Uuid;

use super::entries::{Entry, EntryKind, insert_entry};
use super::{By, FollowUp, follow_up};
use crate::reporting_nodes::OSTIARY;
use crate::{Conn, Result};

/// What a rule matched on a node about an entity, and what is over.
#[derive(Debug)]
pub struct Recovery<'a> {
    /// Which rule.
    pub rule_id: RuleId,
    /// Which node.
    pub node_id: NodeId,
    /// What people call it.
    pub node_name: &'a str,
    /// What on the node it is about: [`ostiary_domain::finding::Entity::hash`].
    pub entity_hash: &'a [u8],
    /// Why it is over, in words: "the row is gone", "the node checks in again".
    pub reason: &'a str,
    /// The evidence: the row that went, or that came in its place.
    pub columns: Option<&'a Value>,
    /// By the server's clock.
    pub at: DateTime<Utc>,
}

/// Resolves the finding of this matter, if one is open or acknowledged, in the name of its rule; tells those who were told of it. Gives the
/// finding and the deliveries to ring for after the commit, `None` when nothing was open. The transaction must hold the node's lock.
///
/// # Errors
/// Postgres failed.
pub async fn recover(
    conn: &mut Conn,
    recovery: &Recovery<'_>,
    new_id: fn() -> Uuid,
) -> Result<Option<(FindingId, Vec<DeliveryId>)>> {
    let is_own = recovery.node_id == OSTIARY;
    let resolved = sqlx::query_scalar!(
        r#"
        UPDATE findings SET state = 'resolved', resolved_at = $4, resolved_by = NULL
        WHERE rule_id = $1 AND entity_hash = $3 AND state <> 'resolved' AND NOT on_fleet
            AND (node_id = $2 OR ($5 AND node_id IS NULL AND node_name = $6))
        RETURNING id
        "#,
        recovery.rule_id.0,
        recovery.node_id.0,
        recovery.entity_hash,
        recovery.at,
        is_own,
        recovery.node_name
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(finding_id) = resolved.map(FindingId) else {
        return Ok(None);
    };
    insert_entry(
        conn,
        &Entry {
            finding_id,
            at: recovery.at,
            kind: EntryKind::Resolved,
            by: By::RULE,
            text: recovery.reason,
            columns: recovery.columns,
        },
    )
    .await?;
    let change = FollowUp {
        finding_id,
        kind: "resolved",
        by: By::RULE,
        reason: recovery.reason,
        at: recovery.at,
    };
    let deliveries = follow_up(conn, &change, new_id).await?;
    Ok(Some((finding_id, deliveries)))
}
