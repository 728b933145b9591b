//! Ending a finding because what its rule saw is no longer so.

use chrono::{DateTime, Utc};
use ostiary_boot::clock::new_id;
use ostiary_store::reporting_nodes::ReportingNode;
use ostiary_store::rules::StoredRule;
use ostiary_store::{Conn, Result, findings};
use serde_json::Value;

use crate::writes::Outcome;

/// Something that a rule saw on a node and that is over: whoever judges puts it into `Writes::recoveries`.
#[derive(Debug)]
pub(crate) struct Recovery<'k> {
    /// Which rule.
    pub(crate) rule: &'k StoredRule,
    /// Which node.
    pub(crate) node: &'k ReportingNode,
    /// About what: `Entity::hash`, as the matter had it.
    pub(crate) entity_hash: [u8; 32],
    /// Why it is over, in words, for the timeline and the alert: "the row is gone".
    pub(crate) reason: String,
    /// The evidence: the row that went.
    pub(crate) columns: Option<Value>,
}

/// Resolves the finding of this matter in the name of its rule, if one is open or acknowledged, and tells those who were told of it. The
/// reason and the row stand in its timeline. Nothing happens when none is open.
///
/// Within a group recoveries are written after matters: a matter that came and went leaves a resolved finding. What went and came again
/// must not be among the recoveries.
pub(crate) async fn recover(
    conn: &mut Conn,
    recovery: &Recovery<'_>,
    now: DateTime<Utc>,
    outcome: &mut Outcome,
) -> Result<()> {
    let over = findings::Recovery {
        rule_id: recovery.rule.id,
        node_id: recovery.node.id,
        node_name: &recovery.node.facts.name,
        entity_hash: &recovery.entity_hash,
        reason: &recovery.reason,
        columns: recovery.columns.as_ref(),
        at: now,
    };
    if let Some((_, deliveries)) = findings::recover(conn, &over, new_id).await? {
        outcome.recovered += 1;
        outcome.deliveries.extend(deliveries);
    }
    Ok(())
}
