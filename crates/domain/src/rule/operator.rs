//! The operators: one table that the parser, the pages and the documentation read.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};

/// Prefix of the operators that look at a column: `column_equal`, with `[column, expected]` as value.
pub const COLUMN_PREFIX: &str = "column_";

/// Compiled size in bytes beyond which a pattern is refused: rules are many and live in memory.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

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

/// All operators; each also exists with [`COLUMN_PREFIX`].
pub static OPERATORS: [Operator; 16] = [
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
        self.comparison != Comparison::Empty
    }
}

/// What a value is compared with, prepared once.
#[derive(Debug, Clone)]
pub struct Operand {
    text: String,
    number: Option<Number>,
    regex: Option<Regex>,
    any_case: bool,
}

impl Operand {
    /// Prepares a value for an operator.
    ///
    /// # Errors
    /// The operator wants a pattern and this is none, or one too big.
    pub fn new(text: String, comparison: Comparison) -> Result<Self, regex::Error> {
        Self::prepare(text, comparison, false)
    }

    /// The same, compared without regard to case: tags, platforms and host names, as targets compare them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_any_case(text: String, comparison: Comparison) -> Result<Self, regex::Error> {
        Self::prepare(text, comparison, true)
    }

    fn prepare(text: String, comparison: Comparison, any_case: bool) -> Result<Self, regex::Error> {
        let regex = match comparison {
            Comparison::Regex => Some(
                RegexBuilder::new(&format!(r"\A(?:{text})"))
                    .size_limit(REGEX_SIZE_LIMIT)
                    .case_insensitive(any_case)
                    .build()?,
            ),
            _ => None,
        };
        Ok(Self {
            number: number_of(&text),
            text,
            regex,
            any_case,
        })
    }

    /// The value as text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is compared as a number.
    #[must_use]
    pub fn is_number(&self) -> bool {
        self.number.is_some()
    }

    /// Compares a value that is there with this one.
    pub(super) fn compare(&self, comparison: Comparison, value: &str) -> bool {
        if self.any_case && self.regex.is_none() {
            self.compare_texts(comparison, &value.to_lowercase(), &self.text.to_lowercase())
        } else {
            self.compare_texts(comparison, value, &self.text)
        }
    }

    fn compare_texts(&self, comparison: Comparison, value: &str, expected: &str) -> bool {
        match comparison {
            Comparison::Equal => match (number_of(value), self.number) {
                (Some(value), Some(expected)) => value.compare(expected) == Some(Ordering::Equal),
                _ => value == expected,
            },
            Comparison::BeginsWith => value.starts_with(expected),
            Comparison::Contains => value.contains(expected),
            Comparison::EndsWith => value.ends_with(expected),
            Comparison::Empty => value.is_empty(),
            Comparison::Less => self.order(value, expected).is_some_and(Ordering::is_lt),
            Comparison::LessOrEqual => self.order(value, expected).is_some_and(Ordering::is_le),
            Comparison::Greater => self.order(value, expected).is_some_and(Ordering::is_gt),
            Comparison::GreaterOrEqual => self.order(value, expected).is_some_and(Ordering::is_ge),
            Comparison::Regex => self
                .regex
                .as_ref()
                .is_some_and(|regex| regex.is_match(value)),
        }
    }

    fn order(&self, value: &str, expected: &str) -> Option<Ordering> {
        match (number_of(value), self.number) {
            (Some(value), Some(expected)) => value.compare(expected),
            (None, None) => Some(value.cmp(expected)),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Number {
    Whole(i128),
    Real(f64),
}

impl Number {
    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => Some(one.cmp(&other)),
            _ => self.real().partial_cmp(&other.real()),
        }
    }

    fn real(self) -> f64 {
        match self {
            #[expect(
                clippy::cast_precision_loss,
                reason = "compared with a float, a float is what it becomes"
            )]
            Self::Whole(number) => number as f64,
            Self::Real(number) => number,
        }
    }
}

/// What doorman takes for a number, and its negative: digits, with at most one dot. `007` is 7, `1.50` is 1.5;
/// exponents, addresses and digits beyond 38 (hashes) are text.
fn number_of(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    // The first byte decides nearly always.
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let (whole, fraction) = digits
        .split_once('.')
        .map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !fraction.is_none_or(all_digits) || digits == "." {
        return None;
    }
    match fraction {
        None => text.parse().ok().map(Number::Whole),
        Some(_) => text
            .parse()
            .ok()
            .filter(|real: &f64| real.is_finite())
            .map(Number::Real),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_doorman_took_for_numbers_and_their_negatives() {
        let cases = [
            ("0", Some(Number::Whole(0))),
            ("007", Some(Number::Whole(7))),
            ("-5", Some(Number::Whole(-5))),
            (
                "18446744073709551615",
                Some(Number::Whole(18_446_744_073_709_551_615)),
            ),
            ("1.50", Some(Number::Real(1.5))),
            ("-.5", Some(Number::Real(-0.5))),
            ("1.", Some(Number::Real(1.0))),
        ];
        for (text, expected) in cases {
            assert_eq!(number_of(text), expected, "{text}");
        }
        for text in [
            "", "-", ".", "-.", "1e3", "10.0.0.1", "+1", " 1", "0x1f", "--1", "inf", "NaN", "1,5",
            "١",
        ] {
            assert_eq!(number_of(text), None, "{text}");
        }
        assert_eq!(number_of(&"9".repeat(40)), None, "a hash of digits is text");
    }

    #[test]
    fn every_operator_compares_as_the_table_says() {
        // operator, expected, values that match, values that do not
        let cases: &[(&str, &str, &[&str], &[&str])] = &[
            ("equal", "7", &["7", "007", "7.0"], &["8", "seven", ""]),
            ("equal", "x", &["x"], &["X", "xx", ""]),
            ("not_equal", "7", &["8", "x", ""], &["7", "7.0"]),
            ("begins_with", "12", &["123", "12"], &["012", ""]),
            ("not_begins_with", "a", &["b", ""], &["ab"]),
            ("ends_with", ".exe", &["a.exe"], &["a.EXE", "exe"]),
            ("not_ends_with", ".exe", &["a.EXE", ""], &["a.exe"]),
            ("contains", "23", &["1234"], &["2 3"]),
            ("contains", "", &["", "x"], &[]),
            ("not_contains", "23", &["2 3"], &["1234"]),
            ("is_empty", "", &[""], &["0", " "]),
            ("is_not_empty", "", &["0", " "], &[""]),
            ("less", "10", &["9", "-1", "9.99"], &["10", "11", "abc", ""]),
            ("less", "b", &["a", ""], &["b", "c", "1"]),
            ("less_or_equal", "10", &["10", "10.0"], &["10.01"]),
            (
                "greater",
                "-1",
                &["0", "18446744073709551615"],
                &["-1", "-2", "x"],
            ),
            ("greater_or_equal", "1.5", &["1.50", "2"], &["1", ""]),
            ("matches_regex", "a.c", &["abc", "abcd"], &["xabc", ""]),
            ("matches_regex", "a|b", &["a", "bx"], &["xb"]),
            ("matches_regex", "(?i)ABC$", &["abc"], &["abcd"]),
            ("not_matches_regex", "1", &["21"], &["12"]),
        ];
        for (name, expected, matching, failing) in cases {
            let operator = Operator::find(name).unwrap();
            let operand = Operand::new((*expected).to_owned(), operator.comparison).unwrap();
            let judge =
                |value: &str| operand.compare(operator.comparison, value) != operator.negated;
            matching
                .iter()
                .for_each(|value| assert!(judge(value), "{value:?} {name} {expected:?}"));
            failing
                .iter()
                .for_each(|value| assert!(!judge(value), "{value:?} not {name} {expected:?}"));
        }
    }

    #[test]
    fn bad_and_huge_patterns_are_refused() {
        for pattern in ["(", "(?=x)", r"(\w{100}){100}"] {
            assert!(
                Operand::new(pattern.to_owned(), Comparison::Regex).is_err(),
                "{pattern}"
            );
        }
    }
}
