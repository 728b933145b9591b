//! What counts as a number in a rule, and how numbers compare.

use std::cmp::Ordering;

/// Up to here a float holds every whole number, so that a whole number is a key that equals only itself.
const EXACT: i128 = 1 << 53;

/// A number of a rule or of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// Digits alone.
    Whole(i128),
    /// Digits with a dot.
    Real(f64),
}

impl Number {
    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => Some(one.cmp(&other)),
            _ => self.real().partial_cmp(&other.real()),
        }
    }

    pub(super) fn equals(self, other: Self) -> bool {
        self.compare(other) == Some(Ordering::Equal)
    }

    pub(super) fn real(self) -> f64 {
        match self {
            #[expect(
                clippy::cast_precision_loss,
                reason = "compared with a float, a float is what it becomes"
            )]
            Self::Whole(number) => number as f64,
            Self::Real(number) => number,
        }
    }

    /// The small whole number that it equals: two numbers of which one has a key are equal if both have the same.
    pub(super) fn key(self) -> Option<i128> {
        let whole = match self {
            Self::Whole(number) => number,
            #[expect(
                clippy::cast_possible_truncation,
                reason = "it has no fraction, and beyond the bounds it is no key"
            )]
            Self::Real(number) if number.fract() == 0.0 => number as i128,
            Self::Real(_) => return None,
        };
        (-EXACT < whole && whole < EXACT).then_some(whole)
    }
}

/// What doorman takes for a number, and its negative: digits, with at most one dot. `007` is 7, `1.50` is 1.5;
/// exponents, addresses and digits beyond 38 (hashes) are text.
pub(super) fn number_of(text: &str) -> Option<Number> {
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
    fn equal_numbers_have_equal_keys_or_none() {
        let texts = [
            "0",
            "-0",
            "0.0",
            "7",
            "007",
            "7.0",
            "7.5",
            "-7",
            "-7.0",
            "9007199254740991",
            "9007199254740992",
            "9007199254740993",
            "9007199254740992.0",
            "18446744073709551615",
        ];
        let numbers: Vec<Number> = texts.iter().filter_map(|text| number_of(text)).collect();
        for one in &numbers {
            for other in &numbers {
                if one.key().is_some() || other.key().is_some() {
                    assert_eq!(
                        one.equals(*other),
                        one.key() == other.key(),
                        "{one:?} {other:?}"
                    );
                }
            }
        }
    }
}
