//! Alerts, recorded before they are sent (invariant I8). Their deliveries are in `deliveries`.

use chrono::{DateTime, Utc};
use ostiary_domain::ids::{AlertId, FindingId};
use serde_json::Value;

use crate::{Conn, Result};

/// What is told about a finding.
#[derive(Debug)]
pub struct NewAlert<'a> {
    /// Which.
    pub id: AlertId,
    /// About what.
    pub finding_id: FindingId,
    /// `opened`, `acknowledged` or `resolved`.
    pub kind: &'static str,
    /// All that outputs need; no secrets.
    pub body: &'a Value,
    /// Now.
    pub created_at: DateTime<Utc>,
}

/// Records an alert.
///
/// # Errors
/// Postgres failed.
pub async fn insert(conn: &mut Conn, alert: &NewAlert<'_>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO alerts (id, finding_id, kind, body, created_at) VALUES ($1, $2, $3, $4::text::json, $5)",
        alert.id.0,
        alert.finding_id.0,
        alert.kind,
        alert.body.to_string(),
        alert.created_at
    )
    .execute(conn)
    .await?;
    Ok(())
}
