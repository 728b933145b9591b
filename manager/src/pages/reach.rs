//! How many nodes a target reaches now.

use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::target::Target;
use ostiary_store::{Conn, node_lists};

use crate::error::Result;

/// The nodes of the moment, for counting several targets.
pub(super) struct Reach(Vec<(NodeId, NodeFacts)>);

impl Reach {
    pub(super) async fn load(conn: &mut Conn) -> Result<Self> {
        Ok(Self(node_lists::facts(conn).await?))
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
