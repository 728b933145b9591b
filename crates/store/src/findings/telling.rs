//! What is told of a finding after it was told of first: that somebody has it, that it is over, that it is not.

use chrono::{DateTime, SecondsFormat, Utc};
use ostiary_domain::ids::{AlertId, DeliveryId, DestinationId, FindingId};
use serde_json::{Value, json};

use super::By;
use super::entries::{Entry, EntryKind, insert_entry};
use crate::alerts::{self, NewAlert};
use crate::deliveries::{self, NewDelivery};
use crate::{Conn, Result};

/// A change that those who were told of a finding are told of.
#[derive(Debug, Clone, Copy)]
pub struct FollowUp<'a> {
    /// Of which finding.
    pub finding_id: FindingId,
    /// `opened` (again), `acknowledged` or `resolved`.
    pub kind: &'static str,
    /// Who changed it.
    pub by: By<'a>,
    /// Why, in words; may be empty.
    pub reason: &'a str,
    /// Now.
    pub at: DateTime<Utc>,
}

/// Records an alert about a change, with a delivery for each destination that was told of the finding before; gives the deliveries to
/// ring for. Of a finding of which nobody was told, nobody is told. `new_id` makes ids in order of time.
///
/// The body is that of the alert before, and what changed as `change`: `by`, `at`, `reason`.
///
/// # Errors
/// Postgres failed.
pub async fn follow_up(
    conn: &mut Conn,
    change: &FollowUp<'_>,
    new_id: fn() -> uuid::Uuid,
) -> Result<Vec<DeliveryId>> {
    let told: Vec<DestinationId> = sqlx::query_scalar!(
        r#"
        SELECT DISTINCT d.destination_id AS "id!"
        FROM deliveries d JOIN destinations t ON t.id = d.destination_id
        WHERE d.finding_id = $1 AND d.state <> 'skipped' AND t.tells_changes
        ORDER BY 1
        "#,
        change.finding_id.0
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(DestinationId)
    .collect();
    let body = sqlx::query_scalar!(
        "SELECT body FROM alerts WHERE finding_id = $1 AND kind = 'opened' ORDER BY created_at, id LIMIT 1",
        change.finding_id.0
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(Value::Object(mut body)) = body.filter(|_| !told.is_empty()) else {
        return Ok(Vec::new());
    };
    let by = if change.by.name.is_empty() {
        "the rule"
    } else {
        change.by.name
    };
    let at = change.at.to_rfc3339_opts(SecondsFormat::Micros, true);
    body.insert(
        "change".to_owned(),
        json!({"by": by, "at": at, "reason": change.reason}),
    );
    let alert = NewAlert {
        id: AlertId(new_id()),
        finding_id: change.finding_id,
        kind: change.kind,
        body: &Value::Object(body),
        created_at: change.at,
    };
    alerts::insert(conn, &alert).await?;
    let wanted: Vec<NewDelivery> = told
        .into_iter()
        .map(|destination_id| NewDelivery {
            id: DeliveryId(new_id()),
            alert_id: alert.id,
            destination_id,
        })
        .collect();
    let made = deliveries::insert(conn, &wanted, change.at).await?;
    if !made.is_empty() {
        insert_entry(
            conn,
            &Entry {
                finding_id: change.finding_id,
                at: change.at,
                kind: EntryKind::Told,
                by: By::RULE,
                text: change.kind,
                columns: None,
            },
        )
        .await?;
    }
    Ok(made)
}
