//! Who is among the first: positions and thresholds.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::ids::NodeId;
use crate::node::NodeFacts;
use crate::node_config::{Parts, Selection, Selector, to_bytes};

/// The threshold below which every position lies.
pub const EVERYBODY: i64 = i64::MAX;

/// Where a node stands in a roll-out: from 0 to below [`EVERYBODY`], evenly spread, and another in every roll-out, so that not the
/// same nodes are always the first.
#[must_use]
pub fn position(rollout: Uuid, node: NodeId) -> i64 {
    let hash = Sha256::new()
        .chain_update(rollout.as_bytes())
        .chain_update(node.0.as_bytes())
        .finalize();
    let bytes = hash.first_chunk::<8>().expect("SHA-256 has 32 bytes");
    // Two bits less than 64: never negative, never EVERYBODY.
    (u64::from_be_bytes(*bytes) >> 2).cast_signed()
}

/// The threshold up to which `share` percent of these nodes lie, at least one. Of `candidates` (nodes that check in, and for which
/// something changes) it is measured; without any it is measured of nobody, and the smallest share of all positions is taken.
#[must_use]
fn threshold(rollout: Uuid, candidates: &[NodeId], share: i16) -> i64 {
    if share >= 100 {
        return EVERYBODY;
    }
    let share = usize::try_from(share.max(0)).unwrap_or(0);
    let mut positions: Vec<i64> = candidates
        .iter()
        .map(|node| position(rollout, *node))
        .collect();
    positions.sort_unstable();
    let count = (positions.len() * share).div_ceil(100).max(1);
    match positions.get(count - 1) {
        Some(last) => *last,
        None => (1_i64 << 62) / 100 * i64::try_from(share).unwrap_or(0),
    }
}

/// The nodes that are inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Nodes up to this position.
    pub threshold: i64,
    /// Those of the nodes concerned, and whether each is waited for.
    pub nodes: Vec<(NodeId, bool)>,
}

/// Who is inside when `share` percent are: measured of the nodes concerned that check in (`seen`), since nobody learns anything from
/// the others. Those come in by their position, too, and are not waited for. Up to `least` nodes are inside already, and stay.
#[must_use]
pub fn inside(
    rollout: Uuid,
    concerned: &[NodeId],
    seen: &HashSet<NodeId>,
    share: i16,
    least: i64,
) -> Inside {
    let candidates: Vec<NodeId> = (concerned.iter())
        .filter(|id| seen.contains(id))
        .copied()
        .collect();
    let threshold = threshold(rollout, &candidates, share).max(least);
    let nodes = (concerned.iter())
        .filter(|id| position(rollout, **id) <= threshold)
        .map(|id| (*id, seen.contains(id)))
        .collect();
    Inside { threshold, nodes }
}

/// What a node is sent now and what it would be sent. Parts are [`sorted`](Parts::sorted).
#[derive(Debug, Clone, Copy)]
pub struct Move<'a> {
    /// Which.
    pub node: NodeId,
    /// What its config is made of now.
    pub before: &'a Parts,
    /// Outside of a roll-out that is under way: what that brings it anyway.
    pub coming: Option<&'a Parts>,
    /// What targets ask of it now.
    pub was: &'a NodeFacts,
    /// What its config would be made of.
    pub after: &'a Parts,
    /// What targets would ask of it.
    pub becomes: &'a NodeFacts,
}

impl<'a> Move<'a> {
    /// All these nodes, the same before and after, from some parts to others.
    pub fn all(
        before: &'a Parts,
        after: &'a Parts,
        nodes: impl IntoIterator<Item = (NodeId, &'a NodeFacts)>,
    ) -> impl Iterator<Item = Self> {
        nodes.into_iter().map(move |(node, facts)| Self {
            node,
            before,
            coming: None,
            was: facts,
            after,
            becomes: facts,
        })
    }
}

/// Tells apart moves from different documents, or to different ones.
#[derive(Default)]
pub(crate) struct Kinds<'a> {
    /// By the address of the parts, which live as long as this does.
    selectors: HashMap<*const Parts, Selector<'a>>,
}

/// See [`Kinds`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    parts: (*const Parts, *const Parts),
    selections: (Selection, Selection),
    coming: Option<Selection>,
}

impl<'a> Kinds<'a> {
    /// Equal for moves from the same document to the same document.
    pub(crate) fn of(&mut self, each: &Move<'a>) -> Kind {
        Kind {
            parts: (
                std::ptr::from_ref(each.before),
                std::ptr::from_ref(each.after),
            ),
            selections: (
                self.select(each.before, each.was),
                self.select(each.after, each.becomes),
            ),
            coming: each.coming.map(|coming| self.select(coming, each.was)),
        }
    }

    fn select(&mut self, parts: &'a Parts, node: &NodeFacts) -> Selection {
        let selector = self.selectors.entry(std::ptr::from_ref(parts));
        selector.or_insert_with(|| parts.selector()).select(node)
    }
}

/// The nodes that would get another document.
#[must_use]
pub fn changed_nodes<'a>(moves: impl IntoIterator<Item = Move<'a>>) -> Vec<NodeId> {
    let mut kinds = Kinds::default();
    let mut known: HashMap<Kind, bool> = HashMap::new();
    let changed = moves.into_iter().filter(|each| {
        let kind = kinds.of(each);
        let (from, to) = kind.selections.clone();
        *known.entry(kind).or_insert_with(|| {
            to_bytes(&each.before.assemble_selection(&from))
                != to_bytes(&each.after.assemble_selection(&to))
        })
    });
    changed.map(|each| each.node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u128) -> Vec<NodeId> {
        (0..count)
            .map(|n| NodeId(Uuid::from_u128(n * 7919)))
            .collect()
    }

    fn first(rollout: Uuid, nodes: &[NodeId], threshold: i64) -> Vec<NodeId> {
        let first = |node: &&NodeId| position(rollout, **node) <= threshold;
        nodes.iter().filter(first).copied().collect()
    }

    #[test]
    fn a_stage_holds_its_share_and_at_least_one_node() {
        let rollout = Uuid::from_u128(42);
        for (count, share, expected) in [
            (1000, 1, 10),
            (1000, 10, 100),
            (1000, 100, 1000),
            (1001, 1, 11),
            (5, 1, 1),
            (1, 1, 1),
            (1, 10, 1),
        ] {
            let nodes = nodes(count);
            let threshold = threshold(rollout, &nodes, share);
            assert_eq!(
                first(rollout, &nodes, threshold).len(),
                expected,
                "{share} % of {count}"
            );
        }
    }

    #[test]
    fn later_stages_hold_the_earlier_ones_and_other_rollouts_begin_elsewhere() {
        let nodes = nodes(500);
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let early = first(one, &nodes, threshold(one, &nodes, 2));
        let second = first(one, &nodes, threshold(one, &nodes, 20));
        assert!(early.iter().all(|node| second.contains(node)));
        assert_ne!(early, first(other, &nodes, threshold(other, &nodes, 2)));
    }

    #[test]
    fn nodes_that_do_not_check_in_are_neither_measured_nor_waited_for() {
        let rollout = Uuid::from_u128(9);
        let nodes = nodes(200);
        let seen: HashSet<NodeId> = nodes.iter().copied().take(50).collect();
        let some = inside(rollout, &nodes, &seen, 10, 0);
        let counted = some.nodes.iter().filter(|(_, counted)| *counted).count();
        assert_eq!(counted, 5);
        assert!(some.nodes.len() > counted);
        // Who is inside stays inside, however few the share is of.
        let again = inside(rollout, &nodes, &seen, 1, some.threshold);
        assert_eq!(again, some);
    }

    #[test]
    fn without_candidates_few_positions_are_inside() {
        let rollout = Uuid::from_u128(3);
        let late = nodes(2000);
        let share = first(rollout, &late, threshold(rollout, &[], 10)).len();
        assert!((150..=250).contains(&share), "{share}");
        assert!(position(rollout, late[0]) < EVERYBODY);
    }
}
