//! Dates in rows and in rules.
//!
//! A row says a date as seconds since 1970 (also with a fraction), as `2026-11-21`, as `2026-11-21 14:00:00` (UTC) or in RFC 3339.
//! Eight digits that are a date from 1990 on (`20240131`, as `programs.install_date` has it) are that date: no node speaks of
//! August 1970. Everything else is no date, and no match.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};

use super::number::{Number, number_of};

/// What a date is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// A date.
    At(DateTime<Utc>),
    /// So long after the event (before it, when negative): `now`, `+14d`, `-12h`.
    FromTheEvent(TimeDelta),
}

impl Moment {
    /// Reads a date, or `now`, or a signed span in `s`, `m`, `h`, `d` or `w`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "now" {
            return Some(Self::FromTheEvent(TimeDelta::zero()));
        }
        if let Some(span) = text.strip_prefix('+') {
            return span_of(span).map(Self::FromTheEvent);
        }
        if let Some(span) = text.strip_prefix('-') {
            return span_of(span).map(|span| Self::FromTheEvent(-span));
        }
        date_of(text).map(Self::At)
    }

    /// The date that is meant for an event of this time; a date needs none.
    pub(super) fn resolve(self, event_at: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        match self {
            Self::At(at) => Some(at),
            Self::FromTheEvent(span) => event_at?.checked_add_signed(span),
        }
    }
}

fn span_of(text: &str) -> Option<TimeDelta> {
    let unit = text.chars().next_back()?;
    let count: i64 = text[..text.len() - unit.len_utf8()].parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    // A sign of its own would make `--5d` a span.
    (count >= 0)
        .then(|| count.checked_mul(seconds))
        .flatten()
        .and_then(TimeDelta::try_seconds)
}

/// The date that a value of a row says.
pub(super) fn date_of(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    match number_of(text) {
        Some(Number::Whole(_)) if text.len() == 8 && text >= "19900101" => {
            let day = NaiveDate::parse_from_str(text, "%Y%m%d").ok();
            day.map_or_else(
                || DateTime::from_timestamp(text.parse().ok()?, 0),
                |day| Some(midnight(day)),
            )
        }
        Some(Number::Whole(seconds)) if seconds >= 0 => {
            DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what is out of bounds is no date"
        )]
        Some(Number::Real(seconds)) if (0.0..1e14).contains(&seconds) => {
            DateTime::from_timestamp(seconds as i64, 0)
        }
        Some(_) => None,
        None => written_date(text),
    }
}

fn written_date(text: &str) -> Option<DateTime<Utc>> {
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.to_utc());
    }
    for form in ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"] {
        if let Ok(at) = NaiveDateTime::parse_from_str(text, form) {
            return Some(at.and_utc());
        }
    }
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        .map(midnight)
}

fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_rows_are_read_in_every_form_osquery_has() {
        let expected = "2024-01-31T00:00:00Z";
        for text in [
            "1706659200",
            "1706659200.9",
            "20240131",
            "2024-01-31",
            "2024-01-31 00:00:00",
            "2024-01-31T00:00:00",
            "2024-01-31T01:00:00+01:00",
            " 1706659200 ",
        ] {
            let at = date_of(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                at.timestamp(),
                DateTime::parse_from_rfc3339(expected).unwrap().timestamp(),
                "{text}"
            );
        }
        for odd in [
            "",
            "-1",
            "soon",
            "2024-13-01",
            "31.01.2024",
            "1e9",
            "999999999999999999999",
        ] {
            assert_eq!(date_of(odd), None, "{odd}");
        }
        assert_eq!(
            date_of("19999999").map(|at| at.timestamp()),
            Some(19_999_999)
        );
    }

    #[test]
    fn a_rule_may_say_a_date_or_a_span_from_the_event() {
        let days = |count| Some(Moment::FromTheEvent(TimeDelta::days(count)));
        assert_eq!(Moment::parse("+14d"), days(14));
        assert_eq!(Moment::parse("-2w"), days(-14));
        assert_eq!(Moment::parse("now"), days(0));
        assert_eq!(Moment::parse("0"), Some(Moment::At(DateTime::UNIX_EPOCH)));
        for odd in [
            "",
            "+",
            "+d",
            "+1y",
            "--1d",
            "+-1d",
            "-",
            "later",
            "+9223372036854775807w",
        ] {
            assert_eq!(Moment::parse(odd), None, "{odd}");
        }
    }
}
