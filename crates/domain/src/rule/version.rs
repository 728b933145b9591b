//! Versions of software, compared as people read them: `1.10` is after `1.9`, `2.0-rc1` before `2.0`.
//!
//! A version is taken apart into runs of digits and runs of letters; everything else only separates. Part by part, the shorter one
//! filled up with zeros: words of a pre-release (`alpha`, `beta`, `dev`, `pre`, `preview`, `rc`, `snapshot`) come before a zero, other
//! words after it (`1.1.1a` is after `1.1.1`), other numbers last. A Debian epoch is a first number.

use std::cmp::Ordering;

/// Words that stand before the release itself, in lower case.
const BEFORE_THE_RELEASE: [&str; 7] = ["alpha", "beta", "dev", "pre", "preview", "rc", "snapshot"];

/// Compares two versions; `None` if one of them is none: a version begins with a digit, or with `v` and a digit.
pub(super) fn compare(one: &str, other: &str) -> Option<Ordering> {
    let (one, other) = (numbers_of(one)?, numbers_of(other)?);
    let (mut one, mut other) = (Parts(one), Parts(other));
    loop {
        let (a, b) = (one.next(), other.next());
        if a.is_none() && b.is_none() {
            return Some(Ordering::Equal);
        }
        let zero = Part::Number("");
        let order = a.unwrap_or(zero).compare(b.unwrap_or(zero));
        if order.is_ne() {
            return Some(order);
        }
    }
}

/// Whether the text is a version.
pub(super) fn is_version(text: &str) -> bool {
    numbers_of(text).is_some()
}

fn numbers_of(text: &str) -> Option<&str> {
    let text = text.trim();
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    text.starts_with(|first: char| first.is_ascii_digit())
        .then_some(text)
}

#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    /// Digits without leading zeros; none for zero.
    Number(&'a str),
    Word(&'a str),
}

impl Part<'_> {
    fn rank(self) -> u8 {
        match self {
            Self::Word(word) if comes_before(word) => 0,
            Self::Number("") => 1,
            Self::Word(_) => 2,
            Self::Number(_) => 3,
        }
    }

    fn compare(self, other: Self) -> Ordering {
        self.rank()
            .cmp(&other.rank())
            .then_with(|| match (self, other) {
                (Self::Number(one), Self::Number(other)) => {
                    (one.len(), one).cmp(&(other.len(), other))
                }
                (Self::Word(one), Self::Word(other)) => {
                    one.to_ascii_lowercase().cmp(&other.to_ascii_lowercase())
                }
                _ => Ordering::Equal,
            })
    }
}

fn comes_before(word: &str) -> bool {
    BEFORE_THE_RELEASE
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known))
}

struct Parts<'a>(&'a str);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let rest = self
            .0
            .trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let first = rest.chars().next()?;
        let same = |c: char| c.is_ascii_digit() == first.is_ascii_digit();
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() || !same(c))
            .unwrap_or(rest.len());
        let (part, rest) = rest.split_at(end);
        self.0 = rest;
        Some(if first.is_ascii_digit() {
            Part::Number(part.trim_start_matches('0'))
        } else {
            Part::Word(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_in_the_order_people_expect() {
        let ordered = [
            "0.9",
            "1.0-alpha",
            "1.0-beta2",
            "1.0-beta10",
            "1.0-rc1",
            "1.0",
            "1.0.1",
            "1.0.10",
            "1.1.1",
            "1.1.1a",
            "1.1.1b",
            "1.1.1.1",
            "1.2",
            "v1.10",
            "5.17.0",
            "5.17.0-1-g182672a07",
            "5.17.0-2-g0",
            "120.0.6099.109",
            "120.0.6099.1090",
            "99999999999999999999999999999999999999999.1",
        ];
        for (index, one) in ordered.iter().enumerate() {
            for (place, other) in ordered.iter().enumerate() {
                assert_eq!(
                    compare(one, other),
                    Some(index.cmp(&place)),
                    "{one} {other}"
                );
            }
        }
        for equal in ["1", "1.0", "01.00", "v1", " 1.0.0 ", "1-0"] {
            assert_eq!(compare(equal, "1"), Some(Ordering::Equal), "{equal}");
        }
    }

    #[test]
    fn what_does_not_begin_with_a_digit_is_no_version() {
        for odd in ["", "v", "unknown", "-1", ".5", "version 3"] {
            assert_eq!(compare(odd, "1"), None, "{odd}");
            assert_eq!(compare("1", odd), None, "{odd}");
        }
    }
}
