//! What a value is compared with, prepared once so that comparing is quick.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use regex::Regex;

use super::moment::{Moment, date_of};
use super::number::{Number, number_of};
use super::{Comparison, PatternError, pattern, version};
use crate::target::{self, Target};

/// What a value is compared with.
#[derive(Debug, Clone)]
pub struct Operand {
    texts: Vec<String>,
    expected: Expected,
    any_case: bool,
}

#[derive(Debug, Clone)]
enum Expected {
    Nothing,
    Value(Value),
    List(List),
    Pattern(Regex),
    Networks(Vec<IpNet>),
    Version(String),
    Moment(Moment),
    Target(Target),
}

#[derive(Debug, Clone)]
struct Value {
    text: String,
    number: Option<Number>,
}

#[derive(Debug, Clone, Default)]
struct List {
    texts: HashSet<String>,
    keys: HashSet<i128>,
    /// Numbers that have no key: compared one by one.
    others: Vec<Number>,
}

/// Why a value cannot be compared with.
#[derive(Debug, thiserror::Error)]
pub enum OperandError {
    /// No pattern that can be used.
    #[error("the pattern is refused: {0}")]
    Pattern(#[from] PatternError),
    /// A list without anything in it.
    #[error("the list is empty")]
    EmptyList,
    /// More than one where one is wanted.
    #[error("one value is wanted, not a list")]
    NotOne,
    /// Neither a network nor an address.
    #[error("{0:?} is no network (10.0.0.0/8) and no address")]
    NotANetwork(String),
    /// No version.
    #[error("{0:?} is no version: it begins with a digit")]
    NotAVersion(String),
    /// No date.
    #[error(
        "{0:?} is no date (2026-11-21), no time (RFC 3339, seconds) and no span from the event (+14d, -12h, now)"
    )]
    NotADate(String),
    /// No tag expression.
    #[error("the tag expression is not understood: {0}")]
    Target(#[from] target::ParseError),
}

impl Operand {
    /// Prepares what an operator compares with; `any_case` compares texts without regard to case, as targets do.
    ///
    /// # Errors
    /// The operator wants something else.
    pub fn new(
        texts: Vec<String>,
        comparison: Comparison,
        any_case: bool,
    ) -> Result<Self, OperandError> {
        let expected = expected(&texts, comparison, any_case)?;
        Ok(Self {
            texts,
            expected,
            any_case,
        })
    }

    /// The values as texts, as they were given.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Whether the outcome hangs on when the event happened.
    pub(super) fn needs_the_event(&self) -> bool {
        matches!(self.expected, Expected::Moment(Moment::FromTheEvent(_)))
    }

    /// The nodes that are meant, if this is a tag expression.
    pub(super) fn target(&self) -> Option<&Target> {
        match &self.expected {
            Expected::Target(target) => Some(target),
            _ => None,
        }
    }

    /// The keys that a value must have one of to be equal ([`key_of`]); `None` if a value without a key may be.
    pub(super) fn keys(&self, comparison: Comparison) -> Option<Vec<Key>> {
        if self.any_case || !matches!(comparison, Comparison::Equal | Comparison::In) {
            return None;
        }
        self.texts.iter().map(|text| key_of(text)).collect()
    }

    /// Compares a value that is there with this one; `None` if the two do not compare, which is no match either way.
    pub(super) fn compare(
        &self,
        comparison: Comparison,
        value: &str,
        event_at: Option<DateTime<Utc>>,
    ) -> Option<bool> {
        Some(match &self.expected {
            Expected::Nothing => value.is_empty(),
            Expected::Value(expected) if self.any_case => {
                expected.compare(comparison, &value.to_lowercase())
            }
            Expected::Value(expected) => expected.compare(comparison, value),
            Expected::List(list) if self.any_case => list.holds(&value.to_lowercase()),
            Expected::List(list) => list.holds(value),
            Expected::Pattern(regex) => regex.is_match(value),
            Expected::Networks(networks) => {
                let address = address_of(value)?;
                networks.iter().any(|network| network.contains(&address))
            }
            Expected::Version(expected) => {
                let order = version::compare(value, expected)?;
                match comparison {
                    Comparison::VersionEqual => order.is_eq(),
                    Comparison::VersionLess => order.is_lt(),
                    Comparison::VersionLessOrEqual => order.is_le(),
                    Comparison::VersionGreater => order.is_gt(),
                    _ => order.is_ge(),
                }
            }
            Expected::Moment(moment) => {
                let (at, expected) = (date_of(value)?, moment.resolve(event_at)?);
                if comparison == Comparison::Before {
                    at < expected
                } else {
                    at > expected
                }
            }
            Expected::Target(_) => return None,
        })
    }
}

fn expected(
    texts: &[String],
    comparison: Comparison,
    any_case: bool,
) -> Result<Expected, OperandError> {
    let folded = |text: &String| {
        if any_case {
            text.to_lowercase()
        } else {
            text.clone()
        }
    };
    match comparison {
        Comparison::Empty => return Ok(Expected::Nothing),
        Comparison::In | Comparison::Network if texts.is_empty() => {
            return Err(OperandError::EmptyList);
        }
        Comparison::In => {
            let mut list = List::default();
            texts.iter().for_each(|text| list.add(folded(text)));
            return Ok(Expected::List(list));
        }
        Comparison::Network => {
            let networks: Result<Vec<IpNet>, OperandError> =
                texts.iter().map(|text| network_of(text)).collect();
            return Ok(Expected::Networks(networks?));
        }
        _ => {}
    }
    let [text] = texts else {
        return Err(OperandError::NotOne);
    };
    Ok(match comparison {
        Comparison::Regex => Expected::Pattern(pattern::compile(text, any_case)?),
        Comparison::VersionEqual
        | Comparison::VersionLess
        | Comparison::VersionLessOrEqual
        | Comparison::VersionGreater
        | Comparison::VersionGreaterOrEqual => {
            if !version::is_version(text) {
                return Err(OperandError::NotAVersion(text.clone()));
            }
            Expected::Version(text.clone())
        }
        Comparison::Before | Comparison::After => Expected::Moment(
            Moment::parse(text).ok_or_else(|| OperandError::NotADate(text.clone()))?,
        ),
        Comparison::Target => Expected::Target(Target::parse(text)?),
        _ => {
            let text = folded(text);
            Expected::Value(Value {
                number: number_of(&text),
                text,
            })
        }
    })
}

impl Value {
    fn compare(&self, comparison: Comparison, value: &str) -> bool {
        let expected = self.text.as_str();
        match comparison {
            Comparison::BeginsWith => value.starts_with(expected),
            Comparison::Contains => value.contains(expected),
            Comparison::EndsWith => value.ends_with(expected),
            Comparison::Less => self.order(value).is_some_and(Ordering::is_lt),
            Comparison::LessOrEqual => self.order(value).is_some_and(Ordering::is_le),
            Comparison::Greater => self.order(value).is_some_and(Ordering::is_gt),
            Comparison::GreaterOrEqual => self.order(value).is_some_and(Ordering::is_ge),
            _ => match self.number {
                Some(expected) => number_of(value).is_some_and(|value| value.equals(expected)),
                None => value == expected,
            },
        }
    }

    fn order(&self, value: &str) -> Option<Ordering> {
        match (number_of(value), self.number) {
            (Some(value), Some(expected)) => value.compare(expected),
            (None, None) => Some(value.cmp(self.text.as_str())),
            _ => None,
        }
    }
}

impl List {
    fn add(&mut self, text: String) {
        match number_of(&text) {
            Some(number) => match number.key() {
                Some(key) => {
                    self.keys.insert(key);
                }
                None => self.others.push(number),
            },
            None => {
                self.texts.insert(text);
            }
        }
    }

    fn holds(&self, value: &str) -> bool {
        let Some(number) = number_of(value) else {
            return self.texts.contains(value);
        };
        match number.key() {
            Some(key) => self.keys.contains(&key),
            None => self.others.iter().any(|other| other.equals(number)),
        }
    }
}

/// What equal values share, so that rules can be found by a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Of a number.
    Number(i128),
    /// Of a text.
    Text(String),
}

/// The key of a value; `None` for numbers that have none ([`Number::key`]).
pub(super) fn key_of(text: &str) -> Option<Key> {
    match number_of(text) {
        Some(number) => number.key().map(Key::Number),
        None => Some(Key::Text(text.to_owned())),
    }
}

fn network_of(text: &str) -> Result<IpNet, OperandError> {
    let text = text.trim();
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| OperandError::NotANetwork(text.to_owned()))
}

fn address_of(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.split_once('%').map_or(text, |(address, _)| address);
    bare.parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Operator;

    #[test]
    fn every_operator_compares_as_the_table_says() {
        // operator, expected (lists with bars between), values that match, values that do not
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
            (
                "in",
                "a|7|1.5",
                &["a", "7", "07", "7.0", "1.50"],
                &["A", "b", "", "8"],
            ),
            ("not_in", "a|7", &["b", ""], &["a", "7.0"]),
            (
                "in_network",
                "10.0.0.0/8|fe80::/10|::1",
                &["10.1.2.3", "::ffff:10.0.0.1", "fe80::1%en0", "::1"],
                &["11.0.0.1", "", "host", "10.0.0.0/8"],
            ),
            (
                "not_in_network",
                "10.0.0.0/8",
                &["11.0.0.1", "::1"],
                &["10.1.2.3", "", "host"],
            ),
            ("version_equal", "1.2", &["1.2.0", "v1.2"], &["1.20", ""]),
            (
                "version_less",
                "1.10",
                &["1.9", "1.10-rc1"],
                &["1.10", "2", "none", ""],
            ),
            (
                "version_less_or_equal",
                "1.10",
                &["1.10", "1.9"],
                &["1.10.1"],
            ),
            ("version_greater", "1.9", &["1.10"], &["1.9", ""]),
            (
                "version_greater_or_equal",
                "1.9",
                &["1.9", "1.10"],
                &["1.8.9", "x"],
            ),
            (
                "before",
                "2026-01-01",
                &["2025-12-31", "1700000000", "20251231"],
                &["2026-01-01", "", "soon"],
            ),
            ("after", "2026-01-01", &["2026-01-02"], &["2026-01-01", ""]),
            // The event happened at 2026-11-21T00:00:00Z.
            (
                "before",
                "+14d",
                &["2026-12-01", "1"],
                &["2026-12-05", "never"],
            ),
            ("after", "-1d", &["2026-11-20T12:00:00Z"], &["2026-11-19"]),
        ];
        let at = DateTime::from_timestamp(1_795_219_200, 0);
        for (name, expected, matching, failing) in cases {
            let operator = Operator::find(name).unwrap();
            let texts = expected.split('|').map(ToOwned::to_owned);
            let texts = match operator.comparison {
                Comparison::Regex => vec![(*expected).to_owned()],
                _ => texts.collect(),
            };
            let operand = Operand::new(texts, operator.comparison, false).unwrap();
            let judge = |value: &str| {
                operand
                    .compare(operator.comparison, value, at)
                    .is_some_and(|held| held != operator.negated)
            };
            matching
                .iter()
                .for_each(|value| assert!(judge(value), "{value:?} {name} {expected:?}"));
            failing
                .iter()
                .for_each(|value| assert!(!judge(value), "{value:?} not {name} {expected:?}"));
        }
    }

    #[test]
    fn what_an_operator_cannot_use_is_refused_with_its_words() {
        let refused = |comparison, texts: &[&str]| {
            let texts = texts.iter().map(ToString::to_string).collect();
            Operand::new(texts, comparison, false)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(refused(Comparison::In, &[]), "the list is empty");
        assert_eq!(
            refused(Comparison::Equal, &["a", "b"]),
            "one value is wanted, not a list"
        );
        assert!(
            refused(Comparison::Network, &["10.0.0.0/33"])
                .starts_with("\"10.0.0.0/33\" is no network")
        );
        assert!(refused(Comparison::VersionLess, &["new"]).starts_with("\"new\" is no version"));
        assert!(refused(Comparison::Before, &["soon"]).starts_with("\"soon\" is no date"));
        assert!(
            refused(Comparison::Target, &["a and"])
                .starts_with("the tag expression is not understood")
        );
        assert!(refused(Comparison::Regex, &["("]).starts_with("the pattern is refused"));
    }
}
