//! Live queries: ad-hoc SQL, each node's share of it (a task), and which of them a poll gets.
//!
//! A task is `new` while it has no row; handing it out makes it `offered`. The answer of a read may be lost and a node may die, so
//! an offer that brought nothing is made again; writes may come late and twice.
//!
//! A node asks for work only when it has run and tried to send what it got before, so an offer that is followed by the next question
//! and no answer was lost, or killed osqueryd, or its answer cannot be sent. Offered often enough, it is the node that fails, and
//! the query is taken for stuck there: each further offer would make osqueryd run it and block all later answers again
//! (`osquery/distributed/distributed.cpp`, osquery #8322).

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{LiveQueryId, NodeId, UserId};
use crate::node::NodeFacts;
use crate::osquery::OsqueryVersion;
use crate::table_denial::TableDenial;
use crate::target::Target;

/// An offer that is not answered within this time is made again: longer than three polls at osquery's default interval of 60 s.
pub const OFFER_AGAIN_AFTER: TimeDelta = TimeDelta::minutes(3);

/// A query that was handed out this often without an answer probably kills the worker that runs it, or what it returns cannot be
/// sent: it is not offered again.
pub const MAX_OFFERS: i32 = 5;

/// A query with a discovery that was handed out this often without an answer: osqueryd does not tell that a discovery returned
/// nothing, so silence most likely means that. Twice, since the first offer may have been lost.
pub const MAX_OFFERS_WITH_DISCOVERY: i32 = 2;

/// Discovery is sent from this version on. Before, one query with a discovery silences those without, and when no discovery
/// returns a row all of them run (osquery #5260).
pub const DISCOVERY_SINCE: OsqueryVersion = OsqueryVersion::new(5, 8, 0);

/// What osqueryd says when it refuses the text of a query that killed it within the last day
/// (`osquery/distributed/distributed.cpp`, from 5.5 on).
const DENYLISTED: &str = "distributed query is denylisted";

/// The id of a live query on the wire: short, and without dots (osquery 2.x splits there).
#[must_use]
pub fn wire_id(id: LiveQueryId) -> String {
    format!("{WIRE_PREFIX}{}", id.0.simple())
}

/// Is this a text as [`wire_id`] makes it?
#[must_use]
pub fn is_wire_id(text: &str) -> bool {
    text.strip_prefix(WIRE_PREFIX)
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

const WIRE_PREFIX: &str = "lq-";

/// Does a node's error say that it refuses the query because it was killed while running the same text?
#[must_use]
pub fn is_denylisted(message: &str) -> bool {
    message.contains(DENYLISTED)
}

/// The same SQL as another text, which osqueryd has not denylisted: with a comment, in place of one made so before.
#[must_use]
pub fn retold(sql: &str, now: DateTime<Utc>) -> String {
    let before = sql.rfind(RETOLD).map_or(sql, |at| &sql[..at]);
    let bare = before.trim_end().trim_end_matches(';').trim_end();
    format!("{bare}{RETOLD}{} */", now.format("%Y-%m-%d %H:%M:%S"))
}

const RETOLD: &str = " /* asked again ";

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
    /// Handed out again and again while the node kept asking, and never answered.
    Stuck,
    /// Its discovery returned nothing there, as far as silence tells.
    Skipped,
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
            Self::Stuck => "stuck",
            Self::Skipped => "skipped",
        }
    }
}

/// An ad-hoc query.
#[derive(Debug, Clone)]
pub struct LiveQuery {
    /// Which.
    pub id: LiveQueryId,
    /// Its id on the wire: see [`wire_id`].
    pub wire_id: String,
    /// What nodes run.
    pub sql: String,
    /// What must return a row on a node for the query to run there.
    pub discovery: Option<Discovery>,
    /// osquery's tables that it reads.
    pub tables: Vec<String>,
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

/// A condition on what a node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// SQL, never empty.
    pub sql: String,
    /// Where all tables exist that it reads: elsewhere its error would lose everything that is handed out with it.
    pub platforms: Vec<String>,
    /// From which version on they do.
    pub since: OsqueryVersion,
}

impl Discovery {
    /// Can this node be sent it? Not if nothing is known of its version.
    #[must_use]
    pub fn fits(&self, node: &NodeFacts) -> bool {
        let version = node.osquery_version.parse::<OsqueryVersion>();
        let is_new = version.is_ok_and(|own| own >= DISCOVERY_SINCE && own >= self.since);
        is_new && self.platforms.contains(&node.platform)
    }
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

    /// Why a node that it asks is not handed it.
    #[must_use]
    pub fn is_kept_from(&self, node: &NodeFacts, denials: &[TableDenial]) -> Option<Kept> {
        let denial = denials
            .iter()
            .find(|denial| denial.denies_any(self.tables.iter()) && denial.nodes().matches(node));
        match denial {
            Some(denial) => Some(Kept::Denied(denial.reason.clone())),
            None if self.discovery.as_ref().is_some_and(|own| !own.fits(node)) => {
                Some(Kept::Discovery)
            }
            None => None,
        }
    }
}

/// Why a node is not handed a live query that asks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It reads a table that this node is never asked; the reason.
    Denied(String),
    /// Its discovery cannot be sent to this node: too old, of another platform, or nothing is known of it.
    Discovery,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(discovery: bool) -> LiveQuery {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let discovery = discovery.then(|| Discovery {
            sql: "SELECT 1 FROM apps".to_owned(),
            platforms: vec!["darwin".to_owned()],
            since: OsqueryVersion::new(5, 13, 1),
        });
        LiveQuery {
            id: LiveQueryId(uuid::Uuid::nil()),
            wire_id: "lq-1".to_owned(),
            sql: "SELECT * FROM file".to_owned(),
            discovery,
            tables: vec!["file".to_owned()],
            description: String::new(),
            target: Some(Target::All),
            node_ids: Vec::new(),
            created_by: None,
            created_at: now,
            expires_at: now,
            cancelled_at: None,
        }
    }

    #[test]
    fn discovery_goes_only_where_it_can_neither_fail_nor_be_misread() {
        for (version, platform, goes) in [
            ("5.23.1", "darwin", true),
            ("5.13.1", "darwin", true),
            ("5.13.0", "darwin", false),
            ("5.7.0", "darwin", false),
            ("4.9.0", "darwin", false),
            ("", "darwin", false),
            ("5.23.1", "linux", false),
            ("5.23.1", "", false),
        ] {
            let node = NodeFacts {
                osquery_version: version.to_owned(),
                platform: platform.to_owned(),
                ..NodeFacts::default()
            };
            let kept = (!goes).then_some(Kept::Discovery);
            assert_eq!(
                query(true).is_kept_from(&node, &[]),
                kept,
                "{version} {platform}"
            );
            assert_eq!(query(false).is_kept_from(&node, &[]), None);
        }
    }

    #[test]
    fn a_node_that_is_denied_a_table_is_not_handed_what_reads_it() {
        let denial = |tables: &str| TableDenial {
            target: "laptop".to_owned(),
            tables: vec![tables.to_owned()],
            reason: "private.".to_owned(),
        };
        let laptop = NodeFacts {
            tags: vec!["laptop".to_owned()],
            ..NodeFacts::default()
        };
        let kept = query(false).is_kept_from(&laptop, &[denial("file")]);
        assert_eq!(kept, Some(Kept::Denied("private.".to_owned())));
        assert_eq!(query(false).is_kept_from(&laptop, &[denial("hash")]), None);
        assert_eq!(
            query(false).is_kept_from(&NodeFacts::default(), &[denial("file")]),
            None
        );
    }

    #[test]
    fn a_denylisted_query_is_recognised_and_told_anew() {
        assert!(is_denylisted("distributed query is denylisted"));
        assert!(!is_denylisted("no such table: denylisted"));
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let again = retold("SELECT 1;", now);
        assert_eq!(again, "SELECT 1 /* asked again 2027-01-15 08:00:00 */");
        let later = retold(&again, now + TimeDelta::hours(1));
        assert_eq!(later, "SELECT 1 /* asked again 2027-01-15 09:00:00 */");
    }
}
