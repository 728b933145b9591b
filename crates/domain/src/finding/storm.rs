//! When so many nodes have the same trouble that it is one matter of the fleet.

use chrono::TimeDelta;
use serde::Deserialize;

/// Settings `[storms]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StormLimits {
    /// A rule that opens findings on more than this share of the nodes within the window makes a storm: 0.2 is a fifth.
    pub share: f64,
    /// But not on fewer nodes than this.
    pub least_nodes: u32,
    /// And surely on more than this, however large the fleet is.
    pub most_nodes: u32,
    /// The window, in minutes; also for how long nothing more must open until a storm is over.
    pub window_minutes: u32,
    /// Inside of a storm, an entity that is on at most so many nodes is told of alone.
    pub rare_nodes: u32,
    /// How long it is waited for the same entity on more nodes before it is, in seconds.
    pub rare_after_seconds: u32,
}

impl StormLimits {
    /// On so many nodes, of all those of the fleet, a rule must have opened findings.
    #[must_use]
    pub fn threshold(&self, nodes: i64) -> i64 {
        let (least, most) = (i64::from(self.least_nodes), i64::from(self.most_nodes));
        // Node counts are far below 2^52.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "a count of nodes and a share of it are small"
        )]
        let share = (nodes.max(0) as f64 * self.share.clamp(0.0, 1.0)).floor() as i64 + 1;
        share.min(most.max(least)).max(least).max(1)
    }

    /// The window.
    #[must_use]
    pub fn window(&self) -> TimeDelta {
        TimeDelta::minutes(i64::from(self.window_minutes.max(1)))
    }

    /// How long it is waited before an entity counts as rare.
    #[must_use]
    pub fn rare_after(&self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.rare_after_seconds))
    }

    /// Is the rare worth telling alone, when so many nodes of a storm's have something rare? Where every node has an entity of its own
    /// (a serial number is part of it), rarity says nothing.
    #[must_use]
    pub fn stands_out(&self, nodes_with_rare: i64, nodes: i64) -> bool {
        nodes_with_rare > 0 && nodes_with_rare <= (nodes / 10).max(i64::from(self.rare_nodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: StormLimits = StormLimits {
        share: 0.2,
        least_nodes: 10,
        most_nodes: 100,
        window_minutes: 10,
        rare_nodes: 2,
        rare_after_seconds: 60,
    };

    #[test]
    fn a_storm_takes_more_than_a_share_within_bounds() {
        let thresholds = [0, 10, 49, 50, 60, 499, 500, 20_000].map(|n| LIMITS.threshold(n));
        assert_eq!(thresholds, [10, 10, 10, 11, 13, 100, 100, 100]);
        let odd = StormLimits {
            share: 7.0,
            least_nodes: 0,
            most_nodes: 0,
            ..LIMITS
        };
        assert_eq!(odd.threshold(-1), 1);
    }

    #[test]
    fn only_few_can_stand_out() {
        assert!(LIMITS.stands_out(2, 10));
        assert!(LIMITS.stands_out(20, 200));
        assert!(!LIMITS.stands_out(21, 200));
        assert!(!LIMITS.stands_out(10, 10));
        assert!(!LIMITS.stands_out(0, 10));
    }
}
