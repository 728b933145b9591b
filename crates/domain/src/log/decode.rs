//! From the `data` of a post to what it says.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::execution::Executions;
use super::{Execution, StatusLine, result_line, status_line};
use crate::osquery::{LogType, OsqueryVersion};

/// How a post reached us, as far as that decides how it is read.
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    /// When the api received it.
    pub received_at: DateTime<Utc>,
    /// The version that sent it; when unknown, no text is repaired.
    pub version: Option<OsqueryVersion>,
    /// Whether the literal `\xHH` in differential rows of osquery before 5.22 is read back into text.
    pub unescape: bool,
}

/// What the lines of one post say.
#[derive(Debug, Default)]
pub struct DecodedPost<'a> {
    /// Executions of scheduled queries; those of one (query, epoch) in the order of their counters.
    pub executions: Vec<Execution<'a>>,
    /// Status lines, in the order sent.
    pub statuses: Vec<StatusLine<'a>>,
    /// Lines that could not be understood.
    pub unreadable: Vec<Unreadable<'a>>,
}

/// A line that could not be understood, kept with the reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable<'a> {
    /// Why.
    pub reason: UnreadableReason,
    /// The line, as it came out of the post.
    pub bytes: &'a [u8],
}

/// Why a line could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableReason {
    /// The line, or the rows in it, are no object; the parser's words.
    #[error("not the JSON of a log line: {0}")]
    Malformed(String),
    /// A result without the name of its query.
    #[error("the line does not name a query")]
    NoQueryName,
    /// A result with neither columns, nor a snapshot, nor a difference.
    #[error("the line holds no rows")]
    NoRows,
    /// Neither added, nor removed, nor snapshot.
    #[error("unknown action {0:?}")]
    UnknownAction(String),
    /// A status line without a message.
    #[error("the line holds no message")]
    NoMessage,
    /// The post is neither a result nor a status log.
    #[error("unknown log type")]
    UnknownLogType,
}

/// The raw lines of a post. Absent, null and `""` (how osquery before 3.2 wrote an empty array) hold none; anything else
/// that is no array is taken for one line. In an array that is no JSON as a whole each line is still one.
#[must_use]
pub fn split_lines(data: &str) -> Vec<&str> {
    match data.trim() {
        "" | "\"\"" | "null" => Vec::new(),
        data => match serde_json::from_str::<Vec<&RawValue>>(data) {
            Ok(lines) => lines.into_iter().map(RawValue::get).collect(),
            Err(_) => lenient_lines(data),
        },
    }
}

/// The lines of an array in which something is malformed, told apart by strings and brackets alone.
fn lenient_lines(data: &str) -> Vec<&str> {
    let Some(list) = data
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        return vec![data];
    };
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let (mut lines, mut start) = (Vec::new(), 0);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                lines.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    lines.push(&list[start..]);
    lines.retain_mut(|line| {
        *line = line.trim();
        !line.is_empty()
    });
    lines
}

/// Decodes lines, each by itself. Leave out the lines that were seen before, see [`crate::fingerprint`].
#[must_use]
pub fn decode<'a>(
    log_type: LogType,
    lines: impl IntoIterator<Item = &'a str>,
    receipt: &Receipt,
) -> DecodedPost<'a> {
    let mut post = DecodedPost::default();
    let mut executions = Executions::default();
    for line in lines {
        let outcome = match log_type {
            LogType::Result => {
                result_line::decode(line, receipt).map(|execution| executions.add(execution))
            }
            LogType::Status => {
                status_line::decode(line, receipt).map(|status| post.statuses.push(status))
            }
            LogType::Unknown => Err(UnreadableReason::UnknownLogType),
        };
        if let Err(reason) = outcome {
            post.unreadable.push(Unreadable {
                reason,
                bytes: line.as_bytes(),
            });
        }
    }
    post.executions = executions.finish();
    post
}
