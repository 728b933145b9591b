//! What nodes are sent at one moment: during a roll-out one thing inside of it and another outside.

use std::collections::HashMap;

use ostiary_domain::ids::NodeId;
use ostiary_domain::node::NodeFacts;
use ostiary_domain::node_config::Parts;
use ostiary_domain::rollout::{Move, position};
use ostiary_store::rollouts::{self, Split};
use ostiary_store::{Conn, node_lists};

use crate::error::Result;

/// See above.
pub(super) struct Sent {
    /// What there is; without what nodes may not be asked.
    pub(super) parts: Parts,
    /// The roll-out that is under way.
    pub(super) split: Option<Split>,
    nodes: HashMap<NodeId, NodeFacts>,
}

impl Sent {
    pub(super) async fn load(conn: &mut Conn, parts: Parts) -> Result<Self> {
        Ok(Self {
            parts,
            split: rollouts::find_split(conn).await?,
            nodes: node_lists::facts(conn).await?.into_iter().collect(),
        })
    }

    /// Does a roll-out keep what there is from this node?
    pub(super) fn is_outside(&self, node: NodeId) -> bool {
        let split = self.split.as_ref();
        split.is_some_and(|split| position(split.rollout, node) > split.threshold)
    }

    /// What would be sent instead, for each of these nodes.
    pub(super) fn moves<'a>(
        &'a self,
        after: &'a Parts,
        nodes: &'a [(NodeId, NodeFacts)],
    ) -> impl Iterator<Item = Move<'a>> {
        nodes.iter().map(move |(node, becomes)| {
            let outside = self.split.as_ref().filter(|_| self.is_outside(*node));
            Move {
                node: *node,
                before: outside.map_or(&self.parts, |split| &split.base),
                coming: outside.map(|_| &self.parts),
                was: self.nodes.get(node).unwrap_or(becomes),
                after,
                becomes,
            }
        })
    }
}
