//! The operators: one table that the parser, the pages and the documentation read.

/// Prefix of the operators that look at a column: `column_equal`, with `[column, expected]` as value.
pub const COLUMN_PREFIX: &str = "column_";

/// One operator of the rule language.
#[derive(Debug, PartialEq, Eq)]
pub struct Operator {
    /// The name in the JSON, without [`COLUMN_PREFIX`].
    pub name: &'static str,
    /// How people say it.
    pub label: &'static str,
    /// What it compares.
    pub comparison: Comparison,
    /// It matches where the comparison fails (a missing value still is no match).
    pub negated: bool,
}

/// What an operator compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// The same number, if both look like numbers, else the same text.
    Equal,
    /// The text begins so.
    BeginsWith,
    /// The text holds this.
    Contains,
    /// The text ends so.
    EndsWith,
    /// The text is empty (SQL NULL arrives as the empty text); takes no value.
    Empty,
    /// Before: as numbers if both look like numbers, as text if neither does; a number and a text do not compare.
    Less,
    /// Not after.
    LessOrEqual,
    /// After.
    Greater,
    /// Not before.
    GreaterOrEqual,
    /// The pattern matches from the start of the text on (as Python's `re.match`), to its end only if it says `$`.
    Regex,
    /// Equal to one of a list, as [`Comparison::Equal`] has it.
    In,
    /// An IP address inside one of some networks (`10.0.0.0/8`, `fe80::/10`, single addresses); what is no address is no match. An
    /// IPv4 address mapped into IPv6 counts as the IPv4 address that it is, a zone (`%en0`) plays no part.
    Network,
    /// The same version; what is none is no match.
    VersionEqual,
    /// An older version.
    VersionLess,
    /// Not a newer version.
    VersionLessOrEqual,
    /// A newer version.
    VersionGreater,
    /// Not an older version.
    VersionGreaterOrEqual,
    /// A date before this one, or before a span from the event (`+14d`); what is no date is no match.
    Before,
    /// A date after this one.
    After,
    /// The node is one that a tag expression chooses; only for the field `target`.
    Target,
}

/// What an operator wants to be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// Nothing.
    Nothing,
    /// A text or a number.
    Value,
    /// Texts or numbers.
    List,
    /// A regular expression.
    Pattern,
    /// Networks.
    Networks,
    /// A version.
    Version,
    /// A date, or a span from the event.
    Date,
    /// A tag expression.
    Target,
}

impl Wants {
    /// The word of forms and documentation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Value => "a text or a number",
            Self::List => "a list of texts or numbers",
            Self::Pattern => "a pattern",
            Self::Networks => "a list of networks",
            Self::Version => "a version",
            Self::Date => "a date, or a span such as +14d",
            Self::Target => "a tag expression",
        }
    }
}

const fn operator(
    name: &'static str,
    label: &'static str,
    comparison: Comparison,
    negated: bool,
) -> Operator {
    Operator {
        name,
        label,
        comparison,
        negated,
    }
}

/// All operators; each also exists with [`COLUMN_PREFIX`], but those of targets.
pub static OPERATORS: [Operator; 29] = [
    operator("equal", "is", Comparison::Equal, false),
    operator("not_equal", "is not", Comparison::Equal, true),
    operator("begins_with", "begins with", Comparison::BeginsWith, false),
    operator(
        "not_begins_with",
        "does not begin with",
        Comparison::BeginsWith,
        true,
    ),
    operator("contains", "contains", Comparison::Contains, false),
    operator(
        "not_contains",
        "does not contain",
        Comparison::Contains,
        true,
    ),
    operator("ends_with", "ends with", Comparison::EndsWith, false),
    operator(
        "not_ends_with",
        "does not end with",
        Comparison::EndsWith,
        true,
    ),
    operator("is_empty", "is empty", Comparison::Empty, false),
    operator("is_not_empty", "is not empty", Comparison::Empty, true),
    operator("less", "is less than", Comparison::Less, false),
    operator(
        "less_or_equal",
        "is at most",
        Comparison::LessOrEqual,
        false,
    ),
    operator("greater", "is more than", Comparison::Greater, false),
    operator(
        "greater_or_equal",
        "is at least",
        Comparison::GreaterOrEqual,
        false,
    ),
    operator(
        "matches_regex",
        "matches the pattern",
        Comparison::Regex,
        false,
    ),
    operator(
        "not_matches_regex",
        "does not match the pattern",
        Comparison::Regex,
        true,
    ),
    operator("in", "is one of", Comparison::In, false),
    operator("not_in", "is none of", Comparison::In, true),
    operator(
        "in_network",
        "is in the network",
        Comparison::Network,
        false,
    ),
    operator(
        "not_in_network",
        "is outside the network",
        Comparison::Network,
        true,
    ),
    operator(
        "version_equal",
        "is version",
        Comparison::VersionEqual,
        false,
    ),
    operator(
        "version_less",
        "is older than version",
        Comparison::VersionLess,
        false,
    ),
    operator(
        "version_less_or_equal",
        "is at most version",
        Comparison::VersionLessOrEqual,
        false,
    ),
    operator(
        "version_greater",
        "is newer than version",
        Comparison::VersionGreater,
        false,
    ),
    operator(
        "version_greater_or_equal",
        "is at least version",
        Comparison::VersionGreaterOrEqual,
        false,
    ),
    operator("before", "is before", Comparison::Before, false),
    operator("after", "is after", Comparison::After, false),
    operator("fits", "fits", Comparison::Target, false),
    operator("not_fits", "does not fit", Comparison::Target, true),
];

impl Operator {
    /// The operator of this name, without prefix.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        OPERATORS.iter().find(|operator| operator.name == name)
    }

    /// Whether it compares with a value.
    #[must_use]
    pub fn takes_value(&self) -> bool {
        self.wants() != Wants::Nothing
    }

    /// What it wants to be compared with.
    #[must_use]
    pub fn wants(&self) -> Wants {
        match self.comparison {
            Comparison::Empty => Wants::Nothing,
            Comparison::In => Wants::List,
            Comparison::Network => Wants::Networks,
            Comparison::Regex => Wants::Pattern,
            Comparison::VersionEqual
            | Comparison::VersionLess
            | Comparison::VersionLessOrEqual
            | Comparison::VersionGreater
            | Comparison::VersionGreaterOrEqual => Wants::Version,
            Comparison::Before | Comparison::After => Wants::Date,
            Comparison::Target => Wants::Target,
            _ => Wants::Value,
        }
    }
}
