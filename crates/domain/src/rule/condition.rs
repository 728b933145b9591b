//! Conditions: what a rule asks of an event.

use super::{Operand, Operator};

/// A tree of tests.
#[derive(Debug, Clone)]
pub enum Condition {
    /// All of them (never none: an empty group is refused).
    All(Vec<Condition>),
    /// Any of them.
    Any(Vec<Condition>),
    /// Not this one.
    Not(Box<Condition>),
    /// One test.
    Test(Test),
}

/// One value compared with one operand.
#[derive(Debug, Clone)]
pub struct Test {
    /// Which value.
    pub field: Field,
    /// How it is compared.
    pub operator: &'static Operator,
    /// With what.
    pub operand: Operand,
}

/// A value of an event or of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The scheduled name of the query, `pack/<pack>/<query>` for queries of packs; or the name of a fact.
    QueryName,
    /// `added`, `removed`, `snapshot` or `triggered`.
    Action,
    /// When it happened, in seconds since 1970.
    Timestamp,
    /// What the node calls itself.
    HostIdentifier,
    /// The host name of the node.
    HostName,
    /// The platform of the node: `linux`, `darwin`, `windows`, `freebsd`.
    Platform,
    /// The tags of the node: matches if any does; negated, if none does (so also without tags).
    Tag,
    /// A column of the row.
    Column(String),
}

impl Field {
    /// Whether the value is the same for all rows of an execution.
    pub(super) fn is_of_the_execution(&self) -> bool {
        !matches!(self, Self::Action | Self::Timestamp | Self::Column(_))
    }

    /// Whether case plays no part: a rule and a target that name a tag, a platform or a host must mean the same nodes.
    pub(super) fn is_of_any_case(&self) -> bool {
        matches!(
            self,
            Self::HostIdentifier | Self::HostName | Self::Platform | Self::Tag
        )
    }
}

/// How a field is written in the JSON and said to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldInfo {
    /// The name in the JSON.
    pub name: &'static str,
    /// How people say it.
    pub label: &'static str,
}

/// All fields that pages offer. `column` takes the operators with a prefix, the others those without. The parser also
/// takes `node` for `host_identifier`.
pub const FIELDS: [FieldInfo; 8] = [
    FieldInfo {
        name: "query_name",
        label: "Query",
    },
    FieldInfo {
        name: "action",
        label: "Action",
    },
    FieldInfo {
        name: "column",
        label: "Column",
    },
    FieldInfo {
        name: "tag",
        label: "Tag",
    },
    FieldInfo {
        name: "platform",
        label: "Platform",
    },
    FieldInfo {
        name: "host_name",
        label: "Host name",
    },
    FieldInfo {
        name: "host_identifier",
        label: "Host identifier",
    },
    FieldInfo {
        name: "timestamp",
        label: "Time (Unix)",
    },
];
