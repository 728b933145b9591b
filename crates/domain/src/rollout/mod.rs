//! Staged roll-outs of configs: which nodes get a change first, and whether it may go on. Who gets which part is `node_config`'s.
//!
//! A roll-out keeps what configs were made of before it (its base). Every node has a fixed position in it, a hash; nodes up to a
//! threshold get the new config, the others go on with the base. The threshold is moved stage by stage, and only when the nodes so
//! far have taken the change up and bear it.

mod judge;
mod share;

pub use judge::{Kind, Limits, Present, Trouble, Verdict, Watched, judge};
pub(crate) use share::Kinds;
pub use share::{EVERYBODY, Inside, Move, changed_nodes, inside, position};

use chrono::TimeDelta;
use serde::Deserialize;

use crate::node::HealthLimits;
use crate::node_config::Parts;

/// Settings `[rollouts]`, read by the manager (which begins roll-outs) and by the worker (which moves them on).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Is "in stages" what a form proposes?
    pub save_in_stages: bool,
    /// Shares of the nodes concerned, in percent, rising, the last 100.
    pub stages: Vec<i16>,
    /// A stage lasts at least so many seconds.
    pub stage_seconds: i64,
    /// A stage whose nodes have not taken the change up after so many seconds halts the roll-out.
    pub take_up_seconds: i64,
    /// Share of a stage's nodes, in percent, that must have taken the change up before the next stage.
    pub enough_percent: u8,
    /// A node that got the change and then is not heard of, or reports no results, for so many seconds is in trouble.
    pub quiet_seconds: i64,
    /// Share of the nodes with the change, in percent, that may be quiet: people close their laptops.
    pub quiet_percent: u8,
    /// Revisions of configs that are kept; older ones are deleted.
    pub keep_revisions: i64,
}

impl Plan {
    /// The stages as they are used: rising shares from 1 to 100, whatever the settings say.
    #[must_use]
    pub fn shares(&self) -> Vec<i16> {
        let mut shares: Vec<i16> = (self.stages.iter().copied())
            .filter(|share| (1..100).contains(share))
            .collect();
        shares.sort_unstable();
        shares.dedup();
        shares.push(100);
        shares
    }

    /// A node that checked in within this time is waited for.
    #[must_use]
    pub fn online_within(&self) -> TimeDelta {
        HealthLimits::default()
            .offline_after
            .min(TimeDelta::seconds(self.quiet_seconds))
    }

    /// How far back a message makes a later one of the same words no news. A query that always fails says so only as often as it runs.
    #[must_use]
    pub fn look_back(parts: &Parts) -> TimeDelta {
        let packed = parts.packs.iter().flat_map(|pack| &pack.queries);
        let intervals = packed
            .chain(&parts.queries)
            .map(|query| query.interval_seconds);
        let longest = intervals.max().map_or(0, i64::from);
        TimeDelta::seconds(2 * longest).max(TimeDelta::hours(24))
    }

    /// The limits by which a stage is judged.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            stage_seconds: self.stage_seconds,
            take_up_seconds: self.take_up_seconds.max(self.stage_seconds),
            enough_percent: usize::from(self.enough_percent.clamp(1, 100)),
            quiet_seconds: self.quiet_seconds,
            quiet_percent: usize::from(self.quiet_percent.min(100)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_always_rise_and_end_with_everybody() {
        let plan = |stages: &[i16]| Plan {
            save_in_stages: false,
            stages: stages.to_vec(),
            stage_seconds: 1,
            take_up_seconds: 0,
            enough_percent: 0,
            quiet_seconds: 1,
            quiet_percent: 200,
            keep_revisions: 1,
        };
        assert_eq!(plan(&[1, 10, 100]).shares(), [1, 10, 100]);
        assert_eq!(plan(&[50, 5, 5, 0, -3, 900]).shares(), [5, 50, 100]);
        assert_eq!(plan(&[]).shares(), [100]);
        let limits = plan(&[]).limits();
        assert_eq!((limits.take_up_seconds, limits.enough_percent), (1, 1));
        assert_eq!(limits.quiet_percent, 100);
    }
}
