//! Which destinations are told that a finding was opened.

use ostiary_domain::ids::DestinationId;
use ostiary_domain::node::NodeFacts;
use ostiary_store::rules::StoredRule;
use ostiary_store::{Conn, Result};

/// Those that the rule names.
pub(super) async fn destinations_of(
    _conn: &mut Conn,
    rule: &StoredRule,
    _node: Option<&NodeFacts>,
) -> Result<Vec<DestinationId>> {
    Ok(rule.destinations.clone())
}
