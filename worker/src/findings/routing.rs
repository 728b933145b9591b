//! Which destinations are told that a finding was opened.

use ostiary_domain::alert_route::AlertRoute;
use ostiary_domain::finding::Severity;
use ostiary_domain::ids::DestinationId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::target::Target;
use ostiary_store::destinations::{self, StoredRoute};
use ostiary_store::rules::StoredRule;
use ostiary_store::{Conn, Result};

/// Those that the rule names and those that take all, as far as severity and node are what they want.
pub(super) async fn destinations_of(
    conn: &mut Conn,
    rule: &StoredRule,
    node: Option<&NodeFacts>,
) -> Result<Vec<DestinationId>> {
    let severity = Severity::parse(&rule.severity).unwrap_or(Severity::Critical);
    let stored = destinations::list_routes(conn).await?;
    let told = stored
        .iter()
        .filter(|route| read(route).wants(rule.destinations.contains(&route.id), severity, node));
    Ok(told.map(|route| route.id).collect())
}

/// What cannot be read keeps nothing back: better told once too often.
fn read(stored: &StoredRoute) -> AlertRoute {
    AlertRoute {
        min_severity: Severity::parse(&stored.min_severity).unwrap_or(Severity::Info),
        target: Target::parse(&stored.target).unwrap_or(Target::All),
        takes_all: stored.takes_all,
    }
}
