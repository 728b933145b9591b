//! Deliveries as the worker works on them: one attempt-history of sending one alert to one destination.
//!
//! How long to wait and when to give up is not decided here; people read deliveries through `delivery_lists`.
//!
//! **Invariant I8:** an attempt is counted before it is made, and a claim is a lease: whatever becomes of the claimant, the delivery
//! is due again when the lease is over, until somebody records an end. So an alert is sent at least once.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{AlertId, DeliveryId, DestinationId};
use serde_json::Value;
use uuid::Uuid;

use crate::{Conn, Result};

/// Sets the locks of destinations that gather apart from other advisory locks.
const DIGEST_LOCK: i64 = 0x6f73_7469_6469_6773;

/// A delivery to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewDelivery {
    /// Its id, which the destination sees with each attempt.
    pub id: DeliveryId,
    /// What is told.
    pub alert_id: AlertId,
    /// Where.
    pub destination_id: DestinationId,
}

/// Stores deliveries and gives the ids of those that are to be made, due at once or, where the destination gathers, together with what
/// it has gathered. A destination that is disabled gets a row that says so; one that is gone gets none, and neither does an alert that
/// is gone.
///
/// # Errors
/// Postgres failed.
pub async fn insert(
    conn: &mut Conn,
    deliveries: &[NewDelivery],
    now: DateTime<Utc>,
) -> Result<Vec<DeliveryId>> {
    let ids: Vec<Uuid> = deliveries.iter().map(|new| new.id.0).collect();
    let alerts: Vec<Uuid> = deliveries.iter().map(|new| new.alert_id.0).collect();
    let destinations: Vec<Uuid> = deliveries.iter().map(|new| new.destination_id.0).collect();
    let made = sqlx::query!(
        r#"
        INSERT INTO deliveries
            (id, alert_id, finding_id, destination_id, destination_name, destination_kind, state, due_at, created_at, finished_at,
            last_answer)
        SELECT new.id, a.id, a.finding_id, d.id, d.name, d.kind,
            CASE WHEN d.enabled THEN 'waiting' ELSE 'skipped' END,
            CASE WHEN d.digest_minutes = 0 THEN $4
                ELSE coalesce((SELECT min(w.due_at) FROM deliveries w
                        WHERE w.destination_id = d.id AND w.state = 'waiting' AND w.attempts = 0 AND w.due_at > $4),
                    $4 + make_interval(mins => d.digest_minutes)) END,
            $4, CASE WHEN d.enabled THEN NULL ELSE $4 END,
            CASE WHEN d.enabled THEN '' ELSE 'not sent: the destination is disabled' END
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS new (id, alert_id, destination_id)
        JOIN alerts a ON a.id = new.alert_id
        JOIN destinations d ON d.id = new.destination_id
        RETURNING id, state
        "#,
        &ids,
        &alerts,
        &destinations,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(made
        .into_iter()
        .filter(|row| row.state == "waiting")
        .map(|row| DeliveryId(row.id))
        .collect())
}

/// A delivery that its claimant may now attempt.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Which.
    pub id: DeliveryId,
    /// Attempts so far, this one included; also tells this claim from later ones.
    pub attempts: u32,
    /// Those of them that count: without what was before somebody had it sent again.
    pub counted_attempts: u32,
    /// Answers in a row, before this attempt, that somebody over there may mend.
    pub rejections: u32,
    /// What is told.
    pub alert_id: AlertId,
    /// `opened`, `acknowledged` or `resolved`.
    pub alert_kind: String,
    /// The alert's body, as it was written.
    pub body: Value,
    /// The destination's name when the delivery was made.
    pub destination_name: String,
    /// The destination, while it exists.
    pub destination_id: Option<DestinationId>,
    /// The destination as it is now; `None` when it was deleted.
    pub destination: Option<SealedDestination>,
}

/// A destination whose settings are still sealed.
#[derive(Debug, Clone)]
pub struct SealedDestination {
    /// `email`, `webhook`, …
    pub kind: String,
    /// The sealed settings.
    pub settings: Vec<u8>,
    /// Is anything to be sent there?
    pub enabled: bool,
    /// Its own title, or nothing.
    pub title_template: String,
    /// Its own text, or nothing.
    pub text_template: String,
    /// Are alerts gathered, to be told in one message?
    pub gathers: bool,
}

struct ClaimedRow {
    id: Uuid,
    attempts: i32,
    forgiven_attempts: i32,
    rejections: i32,
    destination_id: Option<Uuid>,
    title_template: Option<String>,
    text_template: Option<String>,
    digest_minutes: Option<i32>,
    alert_id: Uuid,
    kind: String,
    body: Value,
    destination_name: String,
    destination_kind: Option<String>,
    settings_sealed: Option<Vec<u8>>,
    enabled: Option<bool>,
}

/// Claims a delivery until `lease_until`, and counts the attempt. Commit before anything is sent.
///
/// `None`: it is not due, another worker has it, it has ended, an earlier alert of the same finding still waits for the same
/// destination, or the destination is paused. A destination whose pause is over is paused on until the lease ends: this attempt is the
/// probe, and whatever comes of it is noted in `destination_circuits`.
///
/// # Errors
/// Postgres failed.
pub async fn take(
    conn: &mut Conn,
    id: DeliveryId,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
) -> Result<Option<Claimed>> {
    await_turn(&mut *conn, id).await?;
    let may_try = sqlx::query_scalar!(
        r#"
        WITH probe AS (
            UPDATE destination_circuits c SET paused_until = $3
            FROM deliveries d
            WHERE d.id = $1 AND d.state = 'waiting' AND d.due_at <= $2 AND c.destination_id = d.destination_id
                AND c.paused_until <= $2
                AND NOT EXISTS (
                    SELECT FROM deliveries earlier
                    WHERE earlier.finding_id = d.finding_id AND earlier.destination_id = d.destination_id
                        AND earlier.state = 'waiting' AND (earlier.created_at, earlier.id) < (d.created_at, d.id))
            RETURNING c.destination_id)
        SELECT (EXISTS (SELECT FROM probe) OR NOT EXISTS (
                SELECT FROM destination_circuits c JOIN deliveries d ON d.destination_id = c.destination_id
                WHERE d.id = $1 AND c.paused_until IS NOT NULL))
            AND NOT EXISTS (
                SELECT FROM deliveries d JOIN deliveries earlier
                    ON earlier.finding_id = d.finding_id AND earlier.destination_id = d.destination_id
                WHERE d.id = $1 AND earlier.state = 'waiting' AND (earlier.created_at, earlier.id) < (d.created_at, d.id))
            AS "may_try!"
        "#,
        id.0,
        now,
        lease_until
    )
    .fetch_one(&mut *conn)
    .await?;
    if !may_try {
        return Ok(None);
    }
    claim(conn, id.0, now, lease_until).await
}

/// Where a destination gathers, one transaction claims at a time: two at once would split what is to be told in one message.
async fn await_turn(conn: &mut Conn, id: DeliveryId) -> Result<()> {
    sqlx::query!(
        r#"
        SELECT pg_advisory_xact_lock(hashtextextended(t.id::text, $2))
        FROM deliveries d JOIN destinations t ON t.id = d.destination_id
        WHERE d.id = $1 AND t.digest_minutes > 0
        "#,
        id.0,
        DIGEST_LOCK
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Claims what else waits for the destination of a claimed delivery and is due, up to `limit`, in order: it is told in one message
/// with it.
///
/// # Errors
/// Postgres failed.
pub async fn take_along(
    conn: &mut Conn,
    first: &Claimed,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Claimed>> {
    let Some(destination) = first.destination_id else {
        return Ok(Vec::new());
    };
    let ids = sqlx::query_scalar!(
        r#"
        SELECT d.id FROM deliveries d
        WHERE d.destination_id = $1 AND d.state = 'waiting' AND d.due_at <= $2
            -- what is under way or has to wait keeps the later ones of its finding
            AND NOT EXISTS (
                SELECT FROM deliveries earlier
                WHERE earlier.finding_id = d.finding_id AND earlier.destination_id = d.destination_id AND earlier.id <> $4
                    AND earlier.state = 'waiting' AND earlier.due_at > $2
                    AND (earlier.created_at, earlier.id) < (d.created_at, d.id))
        ORDER BY d.created_at, d.id
        LIMIT $3
        FOR UPDATE SKIP LOCKED
        "#,
        destination.0,
        now,
        limit,
        first.id.0
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut claimed = Vec::new();
    // One after the other: an earlier alert of a finding must be claimed for the next to be free.
    for id in ids {
        claimed.extend(claim(conn, id, now, lease_until).await?);
    }
    Ok(claimed)
}

/// Claims one that is due, whatever waits before it.
async fn claim(
    conn: &mut Conn,
    id: Uuid,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
) -> Result<Option<Claimed>> {
    let row = sqlx::query_as!(
        ClaimedRow,
        r#"
        WITH claimed AS (
            UPDATE deliveries d
            SET attempts = d.attempts + 1, due_at = $3
            FROM alerts a
            WHERE d.id = $1 AND d.state = 'waiting' AND d.due_at <= $2 AND a.id = d.alert_id
            RETURNING d.id, d.attempts, d.forgiven_attempts, d.rejections, d.alert_id, d.destination_id, d.destination_name, a.kind, a.body
        )
        SELECT c.id, c.attempts, c.forgiven_attempts, c.rejections, c.alert_id, c.kind, c.body, c.destination_id, c.destination_name,
            t.kind AS "destination_kind?", t.settings_sealed AS "settings_sealed?", t.enabled AS "enabled?",
            t.title_template AS "title_template?", t.text_template AS "text_template?", t.digest_minutes AS "digest_minutes?"
        FROM claimed c
        LEFT JOIN destinations t ON t.id = c.destination_id
        "#,
        id,
        now,
        lease_until
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(ClaimedRow::into_claimed))
}

impl ClaimedRow {
    fn into_claimed(self) -> Claimed {
        let destination = self
            .destination_kind
            .zip(self.settings_sealed)
            .zip(self.enabled)
            .map(|((kind, settings), enabled)| SealedDestination {
                kind,
                settings,
                enabled,
                title_template: self.title_template.unwrap_or_default(),
                text_template: self.text_template.unwrap_or_default(),
                gathers: self.digest_minutes.unwrap_or_default() > 0,
            });
        Claimed {
            id: DeliveryId(self.id),
            attempts: self.attempts.unsigned_abs(),
            counted_attempts: (self.attempts - self.forgiven_attempts).unsigned_abs(),
            rejections: self.rejections.unsigned_abs(),
            alert_id: AlertId(self.alert_id),
            alert_kind: self.kind,
            body: self.body,
            destination_name: self.destination_name,
            destination_id: self.destination_id.map(DestinationId),
            destination,
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub duration_ms: i32,
    /// What came out.
    pub verdict: Verdict,
    /// What the destination said, or what went wrong.
    pub answer: &'a str,
    /// What was sent, without secrets; empty when nothing was.
    pub body: &'a str,
}

/// What an attempt means for its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The destination took the alert.
    Delivered,
    /// It did not, and is to be tried again.
    Again {
        /// When the next attempt is due.
        due_at: DateTime<Utc>,
    },
    /// It did not, as things stand over there; somebody may mend it, so it is tried again, seldom.
    Rejected {
        /// When the next attempt is due.
        due_at: DateTime<Utc>,
    },
    /// It did not, and there were attempts enough.
    GivenUp,
    /// It never will.
    Refused,
    /// Nothing was sent: the destination is disabled.
    Skipped,
}

impl Verdict {
    fn state(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Again { .. } | Self::Rejected { .. } => "waiting",
            Self::GivenUp | Self::Refused => "dead",
            Self::Skipped => "skipped",
        }
    }

    fn outcome(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Again { .. } | Self::GivenUp => "retry",
            Self::Rejected { .. } => "rejected",
            Self::Refused | Self::Skipped => "refused",
        }
    }
}

/// Records the end of a claimed attempt: the attempt itself, and what becomes of the delivery. Call it in one transaction.
///
/// An attempt that outlived its lease is kept all the same, but changes the delivery only if it delivered: whatever else the later
/// claimant finds out is newer.
///
/// # Errors
/// Postgres failed.
pub async fn record(
    conn: &mut Conn,
    claimed: &Claimed,
    attempt: &Attempt<'_>,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO delivery_attempts (delivery_id, started_at, duration_ms, outcome, answer, body)
        VALUES ($1, $2, $3, $4, $5, $6)
        "#,
        claimed.id.0,
        attempt.started_at,
        attempt.duration_ms,
        attempt.verdict.outcome(),
        attempt.answer,
        attempt.body
    )
    .execute(&mut *conn)
    .await?;
    let (due_at, finished_at) = match attempt.verdict {
        Verdict::Again { due_at } | Verdict::Rejected { due_at } => (Some(due_at), None),
        _ => (None, Some(now)),
    };
    sqlx::query!(
        r#"
        UPDATE deliveries
        SET state = $3, due_at = coalesce($4, due_at), finished_at = $5, last_answer = $6,
            rejections = CASE WHEN $7 THEN rejections + 1 ELSE 0 END
        WHERE id = $1 AND state <> 'delivered' AND ($3 = 'delivered' OR (state = 'waiting' AND attempts::bigint = $2))
        "#,
        claimed.id.0,
        i64::from(claimed.attempts),
        attempt.verdict.state(),
        due_at,
        finished_at,
        attempt.answer,
        matches!(attempt.verdict, Verdict::Rejected { .. })
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The deliveries that may be claimed now, longest due first: the sweep rings for them.
///
/// # Errors
/// Postgres failed.
pub async fn list_due(conn: &mut Conn, now: DateTime<Utc>, limit: i64) -> Result<Vec<DeliveryId>> {
    let ids = sqlx::query_scalar!(
        r#"
        SELECT d.id
        FROM deliveries d
        WHERE d.state = 'waiting' AND d.due_at <= $1
            AND NOT EXISTS (
                SELECT FROM deliveries earlier
                WHERE earlier.finding_id = d.finding_id AND earlier.destination_id = d.destination_id
                    AND earlier.state = 'waiting' AND (earlier.created_at, earlier.id) < (d.created_at, d.id))
            AND NOT EXISTS (
                SELECT FROM destination_circuits c WHERE c.destination_id = d.destination_id AND c.paused_until > $1)
        ORDER BY d.due_at, d.id
        LIMIT $2
        "#,
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(DeliveryId).collect())
}
