//! The times of a line: what the node's clock said, and what we believe.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDateTime, Utc};

/// The year of osquery's first release began at this time; no event is older.
const NO_EVENT_BEFORE: i64 = 1_388_534_400;

/// The node's time: `unixTime`, else `calendarTime`, else the time of receipt.
pub(super) fn unix_time(
    sent: Option<i64>,
    calendar_time: Option<Cow<'_, str>>,
    received_at: DateTime<Utc>,
) -> i64 {
    sent.or_else(|| parse_calendar(&calendar_time?))
        .unwrap_or_else(|| received_at.timestamp())
}

/// The time to show: clamped to the time of receipt when it lies in the future or is absurd (clocks at 1970, …).
pub(super) fn occurred_at(unix_time: i64, received_at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(unix_time, 0)
        .filter(|at| unix_time >= NO_EVENT_BEFORE && *at <= received_at)
        .unwrap_or(received_at)
}

/// Reads `Fri Aug  7 10:00:05 2026 UTC`. Without `UTC` (before 5.0, with UTC switched off) it is local time of a zone
/// that nobody told us; it is taken for UTC, which errs by hours and beats the time of receipt after an outage of days.
fn parse_calendar(text: &str) -> Option<i64> {
    let (_weekday, rest) = text.trim().split_once(' ')?;
    let rest = rest.trim_end_matches("UTC").trim();
    Some(
        NaiveDateTime::parse_from_str(rest, "%b %d %H:%M:%S %Y")
            .ok()?
            .and_utc()
            .timestamp(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r11_calendar_times_are_read_with_and_without_utc() {
        for text in [
            "Fri Aug  7 10:00:05 2026 UTC",
            "Fri Aug  7 10:00:05 2026",
            "Fri Aug 7 10:00:05 2026 UTC\n",
        ] {
            assert_eq!(parse_calendar(text), Some(1_786_096_805), "{text}");
        }
        for odd in ["", "yesterday", "Fri Aug  7", "2026-08-07T10:00:05Z"] {
            assert_eq!(parse_calendar(odd), None, "{odd}");
        }
    }

    #[test]
    fn absurd_times_are_shown_as_the_time_of_receipt() {
        let received_at = DateTime::from_timestamp(1_786_096_805, 0).unwrap();
        assert_eq!(
            occurred_at(1_786_000_000, received_at).timestamp(),
            1_786_000_000
        );
        for absurd in [
            0,
            -1,
            86_400,
            1_786_096_806,
            4_102_444_800,
            i64::MAX,
            i64::MIN,
        ] {
            assert_eq!(occurred_at(absurd, received_at), received_at, "{absurd}");
        }
    }
}
