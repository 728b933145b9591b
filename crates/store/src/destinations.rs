//! Destinations as admins edit them. Their settings are sealed; only a key of the settings opens them.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::DestinationId;
use serde::Serialize;
use uuid::Uuid;

use crate::{Conn, Result};

/// A destination, without its settings.
#[derive(Debug, Clone, Serialize)]
pub struct DestinationLine {
    /// Which.
    pub id: Uuid,
    /// Unique.
    pub name: String,
    /// `email`, `webhook`, …
    pub kind: String,
    /// What a list may show; no secrets.
    pub summary: String,
    /// Is anything sent there?
    pub enabled: bool,
    /// Of the latest change.
    pub updated_at: DateTime<Utc>,
    /// Rules that send there.
    pub rules: i64,
    /// State of the newest delivery.
    pub last_state: Option<String>,
    /// When that delivery was made.
    pub last_at: Option<DateTime<Utc>>,
    /// The mildest severity that it is told of.
    pub min_severity: String,
    /// Of which nodes: a tag expression, empty for all.
    pub target: String,
    /// Is it told of rules, too, that do not name it?
    pub takes_all: bool,
    /// Is it told when a finding is acknowledged or resolved?
    pub tells_changes: bool,
    /// Minutes for which alerts are gathered; 0: they are told at once.
    pub digest_minutes: i32,
    /// Its own title; empty: Ostiary's.
    pub title_template: String,
    /// Its own text; empty: Ostiary's.
    pub text_template: String,
    /// Deliveries that were given up.
    pub dead: i64,
    /// Deliveries that wait.
    pub waiting: i64,
    /// Since when it fails, if it does.
    pub failing_since: Option<DateTime<Utc>>,
    /// When it is tried again, if it is paused.
    pub paused_until: Option<DateTime<Utc>>,
    /// What it said last while failing.
    pub failing_answer: Option<String>,
}

/// All destinations, in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<DestinationLine>> {
    lines(conn, None).await
}

async fn lines(conn: &mut Conn, id: Option<DestinationId>) -> Result<Vec<DestinationLine>> {
    Ok(sqlx::query_as!(
        DestinationLine,
        r#"
        SELECT d.id, d.name, d.kind, d.summary, d.enabled, d.updated_at,
            (SELECT count(*) FROM rule_destinations rd WHERE rd.destination_id = d.id) AS "rules!",
            l.state AS "last_state?", l.created_at AS "last_at?",
            d.min_severity, d.target, d.takes_all, d.tells_changes, d.digest_minutes, d.title_template, d.text_template,
            (SELECT count(*) FROM deliveries x WHERE x.destination_id = d.id AND x.state = 'dead') AS "dead!",
            (SELECT count(*) FROM deliveries x WHERE x.destination_id = d.id AND x.state = 'waiting') AS "waiting!",
            c.failing_since AS "failing_since?", c.paused_until AS "paused_until?", c.last_answer AS "failing_answer?"
        FROM destinations d
        LEFT JOIN destination_circuits c ON c.destination_id = d.id
        LEFT JOIN LATERAL (
            SELECT state, created_at FROM deliveries WHERE destination_id = d.id ORDER BY created_at DESC LIMIT 1) l ON true
        WHERE ($1::uuid IS NULL OR d.id = $1)
        ORDER BY lower(d.name)
        "#,
        id.map(|id| id.0)
    )
    .fetch_all(conn)
    .await?)
}

/// One of them.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: DestinationId) -> Result<Option<DestinationLine>> {
    Ok(lines(conn, Some(id)).await?.into_iter().next())
}

/// The id of a destination by its name.
///
/// # Errors
/// Postgres failed.
pub async fn find_id(conn: &mut Conn, name: &str) -> Result<Option<DestinationId>> {
    Ok(
        sqlx::query_scalar!("SELECT id FROM destinations WHERE name = $1", name)
            .fetch_optional(conn)
            .await?
            .map(DestinationId),
    )
}

/// The sealed settings of a destination.
///
/// # Errors
/// Postgres failed.
pub async fn find_sealed(conn: &mut Conn, id: DestinationId) -> Result<Option<Vec<u8>>> {
    Ok(sqlx::query_scalar!(
        "SELECT settings_sealed FROM destinations WHERE id = $1",
        id.0
    )
    .fetch_optional(conn)
    .await?)
}

/// What an admin may set.
#[derive(Debug)]
pub struct DestinationValues<'a> {
    /// Unique.
    pub name: &'a str,
    /// As in [`DestinationLine::kind`].
    pub kind: &'a str,
    /// The settings, sealed.
    pub settings_sealed: &'a [u8],
    /// What a list may show.
    pub summary: &'a str,
    /// Is anything sent there?
    pub enabled: bool,
    /// As in [`DestinationLine::min_severity`].
    pub min_severity: &'a str,
    /// As in [`DestinationLine::target`].
    pub target: &'a str,
    /// As in [`DestinationLine::takes_all`].
    pub takes_all: bool,
    /// As in [`DestinationLine::tells_changes`].
    pub tells_changes: bool,
    /// As in [`DestinationLine::digest_minutes`].
    pub digest_minutes: i32,
    /// As in [`DestinationLine::title_template`].
    pub title_template: &'a str,
    /// As in [`DestinationLine::text_template`].
    pub text_template: &'a str,
}

/// Makes a destination.
///
/// # Errors
/// The name is taken (`destinations_name_key`), or Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    id: DestinationId,
    values: &DestinationValues<'_>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO destinations (id, name, kind, settings_sealed, summary, enabled, created_at, updated_at, min_severity, target,
            takes_all, tells_changes, digest_minutes, title_template, text_template)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11, $12, $13, $14)
        "#,
        id.0,
        values.name,
        values.kind,
        values.settings_sealed,
        values.summary,
        values.enabled,
        now,
        values.min_severity,
        values.target,
        values.takes_all,
        values.tells_changes,
        values.digest_minutes,
        values.title_template,
        values.text_template
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes a destination; its kind stays. Says whether it exists.
///
/// # Errors
/// The name is taken (`destinations_name_key`), or Postgres failed.
pub async fn update(
    conn: &mut Conn,
    id: DestinationId,
    values: &DestinationValues<'_>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        UPDATE destinations SET name = $2, settings_sealed = $3, summary = $4, enabled = $5, updated_at = $6, min_severity = $7,
            target = $8, takes_all = $9, tells_changes = $10, digest_minutes = $11, title_template = $12, text_template = $13
        WHERE id = $1
        "#,
        id.0,
        values.name,
        values.settings_sealed,
        values.summary,
        values.enabled,
        now,
        values.min_severity,
        values.target,
        values.takes_all,
        values.tells_changes,
        values.digest_minutes,
        values.title_template,
        values.text_template
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a destination; its deliveries stay with its name. Says whether it existed.
///
/// # Errors
/// Postgres failed.
pub async fn delete(conn: &mut Conn, id: DestinationId) -> Result<bool> {
    Ok(sqlx::query!("DELETE FROM destinations WHERE id = $1", id.0)
        .execute(conn)
        .await?
        .rows_affected()
        > 0)
}

/// A rule that sends to a destination.
#[derive(Debug, Clone, Serialize)]
pub struct SendingRule {
    /// Which.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// The rules that send to a destination.
///
/// # Errors
/// Postgres failed.
pub async fn list_rules(conn: &mut Conn, id: DestinationId) -> Result<Vec<SendingRule>> {
    Ok(sqlx::query_as!(
        SendingRule,
        r#"
        SELECT r.id, r.name FROM rule_destinations rd JOIN rules r ON r.id = rd.rule_id
        WHERE rd.destination_id = $1 ORDER BY lower(r.name)
        "#,
        id.0
    )
    .fetch_all(conn)
    .await?)
}

/// What a destination wants to be told, for whoever decides where an alert goes.
#[derive(Debug, Clone)]
pub struct StoredRoute {
    /// Which.
    pub id: DestinationId,
    /// As in [`DestinationLine::min_severity`].
    pub min_severity: String,
    /// As in [`DestinationLine::target`].
    pub target: String,
    /// As in [`DestinationLine::takes_all`].
    pub takes_all: bool,
}

/// What every destination wants, the disabled ones too: what would have gone there is told by a row of the ledger.
///
/// # Errors
/// Postgres failed.
pub async fn list_routes(conn: &mut Conn) -> Result<Vec<StoredRoute>> {
    let rows =
        sqlx::query!("SELECT id, min_severity, target, takes_all FROM destinations ORDER BY id")
            .fetch_all(conn)
            .await?;
    Ok(rows
        .into_iter()
        .map(|row| StoredRoute {
            id: DestinationId(row.id),
            min_severity: row.min_severity,
            target: row.target,
            takes_all: row.takes_all,
        })
        .collect())
}

/// Was this event told by a destination's own webhook before?
///
/// # Errors
/// Postgres failed.
pub async fn knows_event(conn: &mut Conn, id: DestinationId, event: &str) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM pager_events WHERE destination_id = $1 AND event_id = $2) AS "knows!""#,
        id.0,
        event
    )
    .fetch_one(conn)
    .await?)
}

/// Notes an event that a destination's own webhook told, once it is worked; noting it again changes nothing.
///
/// # Errors
/// Postgres failed.
pub async fn note_event(
    conn: &mut Conn,
    id: DestinationId,
    event: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO pager_events (destination_id, event_id, received_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        id.0,
        event,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
