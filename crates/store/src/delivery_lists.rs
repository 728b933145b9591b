//! Deliveries as people read them.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{DeliveryId, DestinationId, FindingId};
use serde::Serialize;
use uuid::Uuid;

use crate::page::{Page, PageRequest};
use crate::{Conn, Result};

/// One delivery.
#[derive(Debug, Clone, Serialize)]
pub struct DeliveryRecord {
    /// Which.
    pub id: Uuid,
    /// `waiting`, `delivered`, `dead` or `skipped`.
    pub state: String,
    /// The destination, while it exists.
    pub destination_id: Option<Uuid>,
    /// Its name then.
    pub destination_name: String,
    /// Its kind then.
    pub destination_kind: String,
    /// `opened`, `acknowledged` or `resolved`.
    pub alert_kind: String,
    /// Of which finding.
    pub finding_id: Uuid,
    /// Rule and node, for a link.
    pub finding_title: String,
    /// Attempts so far.
    pub attempts: i32,
    /// When the alert was recorded.
    pub created_at: DateTime<Utc>,
    /// When the next attempt is due.
    pub due_at: DateTime<Utc>,
    /// When it was delivered or given up.
    pub finished_at: Option<DateTime<Utc>>,
    /// What the destination said last.
    pub last_answer: String,
}

/// Which deliveries are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeliveryFilter<'a> {
    /// In this state; empty for all.
    pub state: &'a str,
    /// To this destination.
    pub destination: Option<DestinationId>,
    /// About this finding.
    pub finding: Option<FindingId>,
    /// This one alone.
    pub id: Option<DeliveryId>,
}

/// A page of deliveries, newest first.
///
/// # Errors
/// Postgres failed.
pub async fn list(
    conn: &mut Conn,
    filter: DeliveryFilter<'_>,
    page: &PageRequest,
) -> Result<Page<DeliveryRecord>> {
    let limit = page.limit_within(50, 500);
    let after = page.key::<2>().and_then(|[micros, id]| {
        Some((
            DateTime::from_timestamp_micros(micros.parse().ok()?)?,
            id.parse::<Uuid>().ok()?,
        ))
    });
    let (created_at, id) = after.unzip();
    let rows = sqlx::query_as!(
        DeliveryRecord,
        r#"
        SELECT d.id, d.state, d.destination_id, d.destination_name, d.destination_kind, a.kind AS alert_kind, a.finding_id,
            f.rule_name || ' · ' || f.node_name AS "finding_title!", d.attempts, d.created_at, d.due_at, d.finished_at,
            d.last_answer
        FROM deliveries d
        JOIN alerts a ON a.id = d.alert_id
        JOIN findings f ON f.id = a.finding_id
        WHERE ($1::uuid IS NULL OR d.destination_id = $1)
            AND ($2::uuid IS NULL OR a.finding_id = $2)
            AND ($3::timestamptz IS NULL OR (d.created_at, d.id) < ($3, $4))
            AND ($6 = '' OR d.state = $6)
            AND ($7::uuid IS NULL OR d.id = $7)
        ORDER BY d.created_at DESC, d.id DESC
        LIMIT $5::bigint + 1
        "#,
        filter.destination.map(|id| id.0),
        filter.finding.map(|id| id.0),
        created_at,
        id,
        limit,
        filter.state,
        filter.id.map(|id| id.0)
    )
    .fetch_all(conn)
    .await?;
    Ok(Page::cut(rows, limit, |row| {
        [
            row.created_at.timestamp_micros().to_string(),
            row.id.to_string(),
        ]
    }))
}

/// One attempt.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptRecord {
    /// Of which delivery.
    #[serde(skip)]
    pub delivery_id: Uuid,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub duration_ms: i32,
    /// `delivered`, `retry`, `rejected` or `refused`.
    pub outcome: String,
    /// What the destination said, or what went wrong.
    pub answer: String,
    /// What was sent, without secrets (empty when nothing was), if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// One delivery.
///
/// # Errors
/// Postgres failed.
pub async fn find(conn: &mut Conn, id: DeliveryId) -> Result<Option<DeliveryRecord>> {
    let filter = DeliveryFilter {
        id: Some(id),
        ..DeliveryFilter::default()
    };
    let found = list(conn, filter, &PageRequest::default()).await?;
    Ok(found.items.into_iter().next())
}

/// The attempts of deliveries, in order. Bodies are up to 16 KiB each.
///
/// # Errors
/// Postgres failed.
pub async fn list_attempts(
    conn: &mut Conn,
    deliveries: &[Uuid],
    with_bodies: bool,
) -> Result<Vec<AttemptRecord>> {
    Ok(sqlx::query_as!(
        AttemptRecord,
        r#"
        SELECT delivery_id, started_at, duration_ms, outcome, answer, CASE WHEN $2 THEN body END AS body
        FROM delivery_attempts WHERE delivery_id = ANY($1) ORDER BY id
        "#,
        deliveries,
        with_bodies
    )
    .fetch_all(conn)
    .await?)
}
