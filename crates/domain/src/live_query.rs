//! Live queries: ad-hoc SQL, each node's share of it (a task), and which of them a poll gets.
//!
//! A task is `new` while it has no row; handing it out makes it `offered`. The answer of a read may be lost and a node may die, so
//! an offer that brought nothing is made again; writes may come late and twice.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{LiveQueryId, NodeId, UserId};
use crate::node::NodeFacts;
use crate::target::Target;

/// An offer that is not answered within this time is made again: longer than three polls at osquery's default interval of 60 s.
pub const OFFER_AGAIN_AFTER: TimeDelta = TimeDelta::minutes(3);

/// A query that was handed out this often without an answer probably kills the worker that runs it: it is not offered again.
pub const MAX_OFFERS: i32 = 5;

/// The state of one node's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Not handed out yet.
    New,
    /// Handed out, not answered.
    Offered,
    /// Answered with rows, maybe none.
    Done,
    /// Answered with an error.
    Failed,
    /// Never answered in time.
    Expired,
}

impl TaskState {
    /// As it stands in `live_query_tasks.state`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Offered => "offered",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    /// May an answer still be taken? A finished task keeps its first answer, a late one is better than none.
    #[must_use]
    pub fn takes_answer(self) -> bool {
        matches!(self, Self::New | Self::Offered | Self::Expired)
    }
}

/// An ad-hoc query.
#[derive(Debug, Clone)]
pub struct LiveQuery {
    /// Which.
    pub id: LiveQueryId,
    /// Its id on the wire: no dots (osquery 2.x splits there), short, unique.
    pub wire_id: String,
    /// What nodes run.
    pub sql: String,
    /// What it is for.
    pub description: String,
    /// Nodes by expression; `None` when it goes to named nodes only.
    pub target: Option<Target>,
    /// Nodes by name, in addition.
    pub node_ids: Vec<NodeId>,
    /// Who asked.
    pub created_by: Option<UserId>,
    /// When.
    pub created_at: DateTime<Utc>,
    /// From then on it is not handed out.
    pub expires_at: DateTime<Utc>,
    /// An admin has stopped it.
    pub cancelled_at: Option<DateTime<Utc>>,
}

impl LiveQuery {
    /// Is it still handed out?
    #[must_use]
    pub fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.cancelled_at.is_none() && now < self.expires_at
    }

    /// Does it ask this node?
    #[must_use]
    pub fn asks(&self, id: NodeId, node: &NodeFacts) -> bool {
        self.node_ids.contains(&id)
            || self
                .target
                .as_ref()
                .is_some_and(|target| target.matches(node))
    }
}

/// Should a task be handed out at this poll? `offered_at` and `offers` tell of earlier offers.
#[must_use]
pub fn is_due(
    state: TaskState,
    offered_at: Option<DateTime<Utc>>,
    offers: i32,
    now: DateTime<Utc>,
) -> bool {
    match state {
        TaskState::New => true,
        TaskState::Offered => {
            offers < MAX_OFFERS
                && offered_at.is_none_or(|offered| now - offered >= OFFER_AGAIN_AFTER)
        }
        TaskState::Done | TaskState::Failed | TaskState::Expired => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_that_brought_nothing_is_made_again_but_not_for_ever() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert!(is_due(TaskState::New, None, 0, now));
        assert!(!is_due(
            TaskState::Offered,
            Some(now - TimeDelta::seconds(60)),
            1,
            now
        ));
        assert!(is_due(
            TaskState::Offered,
            Some(now - OFFER_AGAIN_AFTER),
            1,
            now
        ));
        assert!(!is_due(
            TaskState::Offered,
            Some(now - TimeDelta::hours(1)),
            MAX_OFFERS,
            now
        ));
        for finished in [TaskState::Done, TaskState::Failed, TaskState::Expired] {
            assert!(!is_due(finished, None, 0, now));
        }
    }

    #[test]
    fn a_late_answer_is_taken_and_a_second_one_is_not() {
        assert!(TaskState::Expired.takes_answer() && TaskState::New.takes_answer());
        assert!(!TaskState::Done.takes_answer() && !TaskState::Failed.takes_answer());
    }
}
