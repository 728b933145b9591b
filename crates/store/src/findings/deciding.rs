//! What people decide about findings. Whom that is told: `telling`.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::FindingId;
use uuid::Uuid;

use super::By;
use super::entries::{Entry, EntryKind, insert_entry};
use crate::{Conn, Error, Result};

/// What a person decides about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// I look after it.
    Acknowledge,
    /// It is done.
    Resolve,
    /// It is not done.
    Reopen,
}

impl Decision {
    /// The state that it leads to; also what is stated.
    #[must_use]
    pub fn state(self) -> &'static str {
        match self {
            Self::Acknowledge => "acknowledged",
            Self::Resolve => "resolved",
            Self::Reopen => "open",
        }
    }

    /// Of which states it makes another one.
    fn from(self) -> &'static [&'static str] {
        match self {
            Self::Acknowledge => &["open"],
            Self::Resolve => &["open", "acknowledged"],
            Self::Reopen => &["acknowledged", "resolved"],
        }
    }

    fn entry(self) -> EntryKind {
        match self {
            Self::Acknowledge => EntryKind::Acknowledged,
            Self::Resolve => EntryKind::Resolved,
            Self::Reopen => EntryKind::Reopened,
        }
    }
}

/// A decision, as it is put down.
#[derive(Debug, Clone, Copy)]
pub struct Stated<'a> {
    /// Who says so.
    pub by: By<'a>,
    /// What they wrote with it; may be empty.
    pub text: &'a str,
    /// Now.
    pub at: DateTime<Utc>,
}

/// Puts a decision down; one about a finding of the fleet holds for all that it took in. Says whether it changed anything: not if the
/// finding is gone or was decided so before.
///
/// # Errors
/// [`Error::Constraint`] `findings_open_key` or `findings_fleet_key`: reopening beside a newer open finding of the same matter. Else
/// Postgres failed.
pub async fn decide(
    conn: &mut Conn,
    id: FindingId,
    decision: Decision,
    stated: Stated<'_>,
) -> std::result::Result<bool, Error> {
    // A finding taken back does not bring those back that it took in: meanwhile some may have opened anew.
    let members = if decision == Decision::Reopen {
        Vec::new()
    } else {
        lock_members(&mut *conn, id).await?
    };
    if put_down(&mut *conn, &[id.0], decision, &stated).await? == 0 {
        return Ok(false);
    }
    let entry = Entry {
        finding_id: id,
        at: stated.at,
        kind: decision.entry(),
        by: stated.by,
        text: stated.text,
        columns: None,
    };
    insert_entry(&mut *conn, &entry).await?;
    if !members.is_empty() {
        put_down(&mut *conn, &members, decision, &stated).await?;
        sqlx::query!(
            r#"
            INSERT INTO finding_entries (finding_id, at, kind, user_id, user_name, text)
            SELECT id, $2, $3, $4, $5, 'with the finding of the fleet' FROM unnest($1::uuid[]) AS member (id)
            "#,
            &members,
            stated.at,
            decision.entry().as_str(),
            stated.by.user_id.map(|id| id.0),
            stated.by.name
        )
        .execute(conn)
        .await?;
    }
    Ok(true)
}

/// What a finding of the fleet took in and is not resolved, in the order in which workers lock them.
async fn lock_members(conn: &mut Conn, id: FindingId) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT id FROM findings WHERE fleet_finding_id = $1 AND state <> 'resolved'
        ORDER BY rule_id, node_id, entity_hash FOR UPDATE
        "#,
        id.0
    )
    .fetch_all(conn)
    .await?)
}

/// Of what a finding of the fleet took in, the findings that were told alone and decided with it at this time: those who were told of
/// them are to be told of that, too.
///
/// # Errors
/// Postgres failed.
pub async fn list_told_members(
    conn: &mut Conn,
    id: FindingId,
    at: DateTime<Utc>,
) -> Result<Vec<FindingId>> {
    let ids = sqlx::query_scalar!(
        r#"
        SELECT id FROM findings m
        WHERE fleet_finding_id = $1 AND (acknowledged_at = $2 OR resolved_at = $2)
            AND EXISTS (SELECT FROM alerts a WHERE a.finding_id = m.id)
        ORDER BY id
        "#,
        id.0,
        at
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(FindingId).collect())
}

async fn put_down(
    conn: &mut Conn,
    ids: &[Uuid],
    decision: Decision,
    stated: &Stated<'_>,
) -> Result<u64> {
    let from: Vec<String> = decision.from().iter().map(ToString::to_string).collect();
    let done = sqlx::query!(
        r#"
        UPDATE findings SET state = $2,
            acknowledged_at = CASE $2 WHEN 'acknowledged' THEN $4 WHEN 'open' THEN NULL ELSE acknowledged_at END,
            acknowledged_by = CASE $2 WHEN 'acknowledged' THEN $5 WHEN 'open' THEN NULL ELSE acknowledged_by END,
            resolved_at = CASE $2 WHEN 'resolved' THEN $4 END,
            resolved_by = CASE $2 WHEN 'resolved' THEN $5 END
        WHERE id = ANY($1) AND state = ANY($3)
        "#,
        ids,
        decision.state(),
        &from,
        stated.at,
        stated.by.user_id.map(|id| id.0)
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Adds a comment. Says whether there is such a finding.
///
/// # Errors
/// Postgres failed.
pub async fn comment(conn: &mut Conn, id: FindingId, stated: Stated<'_>) -> Result<bool> {
    let found = sqlx::query_scalar!("SELECT id FROM findings WHERE id = $1 FOR KEY SHARE", id.0)
        .fetch_optional(&mut *conn)
        .await?;
    if found.is_none() {
        return Ok(false);
    }
    let entry = Entry {
        finding_id: id,
        at: stated.at,
        kind: EntryKind::Commented,
        by: stated.by,
        text: stated.text,
        columns: None,
    };
    insert_entry(conn, &entry).await?;
    Ok(true)
}
