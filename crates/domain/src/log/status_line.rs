//! One line of a status log: what osqueryd says about itself.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::decode::{Receipt, UnreadableReason};
use super::legacy_text::Repair;
use super::times;
use crate::osquery::{Columns, integer_of, object_members};

/// A status line. Before osquery 2.4.1 it had neither host identifier nor time.
#[derive(Debug, Clone)]
pub struct StatusLine<'a> {
    /// What the node calls itself, `""` when not sent.
    pub host_identifier: Cow<'a, str>,
    /// Seconds since 1970 by the node's clock, as sent; see [`super::Execution::unix_time`].
    pub unix_time: i64,
    /// That time, or the time of receipt when it is absurd or was not sent.
    pub occurred_at: DateTime<Utc>,
    /// 0 info, 1 warning, 2 error, 3 fatal; 0 when it is missing or no number.
    pub severity: i16,
    /// Source file of osquery.
    pub filename: Cow<'a, str>,
    /// Line in that file, 0 when it is missing or no number.
    pub line: i32,
    /// The message; it may hold line breaks and anything else.
    pub message: Cow<'a, str>,
    /// Version of osquery.
    pub version: Cow<'a, str>,
    /// What the decorators of the config said.
    pub decorations: Columns<'a>,
}

pub(super) fn decode<'a>(
    json: &'a str,
    receipt: &Receipt,
) -> Result<StatusLine<'a>, UnreadableReason> {
    let members =
        object_members(json).map_err(|error| UnreadableReason::Malformed(error.to_string()))?;
    let repair = Repair::of_status(receipt.version);
    let text = |key| {
        let text = members.text(key).unwrap_or_default();
        repair.apply(&text).map_or(text, Cow::Owned)
    };
    let number = |key| members.get(key).and_then(integer_of);
    if members.get("message").is_none() {
        return Err(UnreadableReason::NoMessage);
    }
    let unix_time = times::unix_time(
        number("unixTime"),
        members.text("calendarTime"),
        receipt.received_at,
    );
    let decorations = members
        .get("decorations")
        .and_then(|nested| serde_json::from_str(nested.get()).ok());
    Ok(StatusLine {
        host_identifier: text("hostIdentifier"),
        unix_time,
        occurred_at: times::occurred_at(unix_time, receipt.received_at),
        severity: number("severity")
            .and_then(|severity| severity.try_into().ok())
            .unwrap_or(0),
        filename: text("filename"),
        line: number("line")
            .and_then(|line| line.try_into().ok())
            .unwrap_or(0),
        message: text("message"),
        version: text("version"),
        decorations: decorations.unwrap_or_default(),
    })
}
