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
}

/// All destinations, in name order.
///
/// # Errors
/// Postgres failed.
pub async fn list(conn: &mut Conn) -> Result<Vec<DestinationLine>> {
    Ok(sqlx::query_as!(
        DestinationLine,
        r#"
        SELECT d.id, d.name, d.kind, d.summary, d.enabled, d.updated_at,
            (SELECT count(*) FROM rule_destinations rd WHERE rd.destination_id = d.id) AS "rules!",
            l.state AS "last_state?", l.created_at AS "last_at?"
        FROM destinations d
        LEFT JOIN LATERAL (
            SELECT state, created_at FROM deliveries WHERE destination_id = d.id ORDER BY created_at DESC LIMIT 1) l ON true
        ORDER BY lower(d.name)
        "#
    )
    .fetch_all(conn)
    .await?)
}

/// One of them.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: DestinationId) -> Result<Option<DestinationLine>> {
    Ok(list(conn).await?.into_iter().find(|line| line.id == id.0))
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
        INSERT INTO destinations (id, name, kind, settings_sealed, summary, enabled, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
        "#,
        id.0,
        values.name,
        values.kind,
        values.settings_sealed,
        values.summary,
        values.enabled,
        now
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
        "UPDATE destinations SET name = $2, settings_sealed = $3, summary = $4, enabled = $5, updated_at = $6 WHERE id = $1",
        id.0,
        values.name,
        values.settings_sealed,
        values.summary,
        values.enabled,
        now
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
