//! Conditions: what a rule asks of an event and of its node.

use super::{Comparison, Operand, Operator};

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
    /// The version of osquery that the node runs.
    OsqueryVersion,
    /// The tags of the node: matches if any does; negated, if none does (so also without tags).
    Tag,
    /// Whether a tag expression chooses the node.
    Target,
    /// A vital of the node: the latest row of a query of the built-in pack, else what it said when it enrolled.
    Vital {
        /// `system_info`, `os_version`, `osquery_info`, `uptime`.
        query: String,
        /// A column of it.
        column: String,
    },
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

impl Condition {
    /// Puts cheap tests before dear ones in each group. What a group says does not hang on the order: judging has no effects, and every
    /// test has an outcome.
    pub(super) fn cheapest_first(self) -> Self {
        let sorted = |parts: Vec<Self>| {
            let mut parts: Vec<Self> = parts.into_iter().map(Self::cheapest_first).collect();
            parts.sort_by_key(Self::cost);
            parts
        };
        match self {
            Self::All(parts) => Self::All(sorted(parts)),
            Self::Any(parts) => Self::Any(sorted(parts)),
            Self::Not(part) => Self::Not(Box::new(part.cheapest_first())),
            test @ Self::Test(_) => test,
        }
    }

    fn cost(&self) -> u32 {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::cost).sum::<u32>() + 1,
            Self::Not(part) => part.cost(),
            Self::Test(test) => match (&test.field, test.operator.comparison) {
                (Field::Action | Field::QueryName, Comparison::Equal) => 0,
                (_, Comparison::Equal | Comparison::Empty) => 1,
                (_, Comparison::BeginsWith | Comparison::EndsWith) => 2,
                (_, Comparison::Regex) => 12,
                (_, Comparison::Network | Comparison::Before | Comparison::After) => 6,
                _ => 4,
            },
        }
    }
}

/// How a field is written in the JSON and said to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldInfo {
    /// The name in the JSON.
    pub name: &'static str,
    /// How people say it.
    pub label: &'static str,
    /// The value is a list, with a name first: that of a column or of a vital.
    pub named: bool,
}

const fn field(name: &'static str, label: &'static str, named: bool) -> FieldInfo {
    FieldInfo { name, label, named }
}

/// All fields that pages offer. `column` takes the operators with a prefix, the others those without; `target` takes `fits` and
/// `not_fits`, the others all but these. The parser also takes `node` for `host_identifier`.
pub const FIELDS: [FieldInfo; 11] = [
    field("query_name", "Query", false),
    field("action", "Action", false),
    field("column", "Column", true),
    field("target", "Node (tag expression)", false),
    field("tag", "Tag", false),
    field("platform", "Platform", false),
    field("osquery_version", "osquery version", false),
    field("host_name", "Host name", false),
    field("host_identifier", "Host identifier", false),
    field("vital", "Vital", true),
    field("timestamp", "Time (Unix)", false),
];
