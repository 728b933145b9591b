//! The timeline of a finding: one row for each thing that happened to it, but one for a run of further matches. Nothing here rewrites
//! what stands there.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{FindingId, UserId};
use serde_json::Value;

use crate::{Conn, Result};

/// Who did something.
#[derive(Debug, Clone, Copy, Default)]
pub struct By<'a> {
    /// The user; `None` when it was none.
    pub user_id: Option<UserId>,
    /// The name, which outlives the user; empty for the rule itself.
    pub name: &'a str,
}

impl By<'_> {
    /// The rule itself.
    pub const RULE: Self = Self {
        user_id: None,
        name: "",
    };
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Its first match.
    Opened,
    /// Further matches.
    Matched,
    /// Somebody took it over.
    Acknowledged,
    /// Somebody wrote something.
    Commented,
    /// It is over.
    Resolved,
    /// It is not over.
    Reopened,
    /// It was opened while nobody was to be told.
    Silenced,
    /// It matched again after the silence had ended.
    Unsilenced,
    /// A finding of the fleet took it in.
    TakenIn,
    /// It is told alone though it was taken in.
    StoodOut,
    /// The storm of a finding of the fleet is over.
    Calm,
    /// An alert was recorded.
    Told,
}

impl EntryKind {
    /// The word of the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Matched => "matched",
            Self::Acknowledged => "acknowledged",
            Self::Commented => "commented",
            Self::Resolved => "resolved",
            Self::Reopened => "reopened",
            Self::Silenced => "silenced",
            Self::Unsilenced => "unsilenced",
            Self::TakenIn => "taken_in",
            Self::StoodOut => "stood_out",
            Self::Calm => "calm",
            Self::Told => "told",
        }
    }
}

/// A line of the timeline.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Of which finding.
    pub finding_id: FindingId,
    /// When, by the server's clock.
    pub at: DateTime<Utc>,
    /// What.
    pub kind: EntryKind,
    /// Who.
    pub by: By<'a>,
    /// A comment or a reason.
    pub text: &'a str,
    /// The row that went, when it ended by itself.
    pub columns: Option<&'a Value>,
}

/// Adds a line.
///
/// # Errors
/// Postgres failed.
pub async fn insert_entry(conn: &mut Conn, entry: &Entry<'_>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO finding_entries (finding_id, at, kind, user_id, user_name, text, columns)
        VALUES ($1, $2, $3, $4, $5, $6, $7::text::json)",
        entry.finding_id.0,
        entry.at,
        entry.kind.as_str(),
        entry.by.user_id.map(|id| id.0),
        entry.by.name,
        entry.text,
        entry.columns.map(ToString::to_string)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Counts further matches: in the last line if that is about matches, too, else in a new one.
pub(super) async fn count_matches(
    conn: &mut Conn,
    finding: FindingId,
    count: i64,
    at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        WITH latest AS (SELECT id, kind FROM finding_entries WHERE finding_id = $1 ORDER BY id DESC LIMIT 1),
        counted AS (
            UPDATE finding_entries e SET at = greatest(e.at, $2), match_count = e.match_count + $3
            FROM latest WHERE e.id = latest.id AND latest.kind = 'matched'
            RETURNING e.id)
        INSERT INTO finding_entries (finding_id, at, kind, match_count)
        SELECT $1, $2, 'matched', $3 WHERE NOT EXISTS (SELECT FROM counted)
        "#,
        finding.0,
        at,
        count
    )
    .execute(conn)
    .await?;
    Ok(())
}
