//! Identifiers: one newtype per kind of thing, so that a node's id is never taken for a pack's.
//!
//! They are UUIDv7 (RFC 9562), whose leading bits are the time of creation: rows made together lie together. Nothing here makes
//! one: the caller brings time and chance.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    )+};
}

ids! {
    /// A machine running osqueryd.
    NodeId,
    /// A named set of queries.
    PackId,
    /// A scheduled query.
    QueryId,
    /// A tag.
    TagId,
    /// A named category of files to watch.
    FilePathId,
    /// An SQL statement whose columns decorate every result.
    DecoratorId,
    /// One osquery option for one target.
    OptionId,
    /// A piece of another top-level key of configs.
    SectionId,
    /// An enroll secret.
    EnrollSecretId,
    /// A denial of tables.
    TableDenialId,
    /// An ad-hoc query.
    LiveQueryId,
    /// A file collected from a node.
    CarveId,
    /// A rule.
    RuleId,
    /// An open or past matter.
    FindingId,
    /// A time in which nobody is told.
    SilenceId,
    /// What is told about a finding.
    AlertId,
    /// One attempt-history of sending an alert to a destination.
    DeliveryId,
    /// A configured place for alerts.
    DestinationId,
    /// A configured place for everything that is reported.
    SinkId,
    /// A person of the manager.
    UserId,
}
