//! How many nodes a target reaches now.

use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::conditions::Conditions;
use ostiary_domain::target::Target;
use ostiary_store::{Conn, node_lists};

use crate::error::Result;

/// The nodes of the moment, for counting several targets.
pub(super) struct Reach(Vec<(NodeId, NodeFacts)>);

impl Reach {
    pub(super) async fn load(conn: &mut Conn) -> Result<Self> {
        Ok(Self(node_lists::facts(conn).await?))
    }

    /// Nodes that the target chooses and that run what has these conditions; `None` when there is no condition.
    pub(super) fn count_running(&self, target: &str, conditions: Conditions<'_>) -> Option<usize> {
        let target = Target::parse(target).ok()?;
        let runs = |node: &NodeFacts| target.matches(node) && conditions.hold_on(node);
        let count = self.0.iter().filter(|(_, node)| runs(node)).count();
        conditions.are_any().then_some(count)
    }

    /// Nodes that the target chooses; `None` when it cannot be read.
    pub(super) fn count(&self, target: &str) -> Option<usize> {
        let target = Target::parse(target).ok()?;
        Some(
            self.0
                .iter()
                .filter(|(_, node)| target.matches(node))
                .count(),
        )
    }
}
