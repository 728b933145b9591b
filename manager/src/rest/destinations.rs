//! Destinations without their settings, and what can be sent again. They are made and changed on pages: their settings are secrets.

use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use ostiary_domain::ids::DestinationId;
use ostiary_store::destinations as store;
use serde::Deserialize;
use serde_json::{Value, json};

use super::listed;
use crate::actions::{deliveries, destinations};
use crate::auth::{Admin, Permit, View};
use crate::error::Result;
use crate::state::App;

/// `GET /api/v1/destinations`, by name.
pub(crate) async fn list(State(app): State<App>, _: Permit<View>) -> Result<Json<Value>> {
    let found = store::list(&mut *app.db.acquire().await?).await?;
    let items: Vec<Value> = found.iter().map(|each| json!(each)).collect();
    Ok(listed(&items, None))
}

/// `POST /api/v1/destinations/{id}/test`
pub(crate) async fn send_test(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<DestinationId>,
) -> Result<Json<Value>> {
    Ok(Json(
        match destinations::send_test(&app, &permit, id).await? {
            Ok(answer) => json!({"taken": true, "answer": answer}),
            Err(answer) => json!({"taken": false, "answer": answer}),
        },
    ))
}

/// `POST /api/v1/destinations/{id}/send-dead-again`
pub(crate) async fn send_dead_again(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<DestinationId>,
) -> Result<Json<Value>> {
    let sent = deliveries::send_dead_again(&app, &permit, id).await?;
    Ok(Json(json!({"deliveries": sent})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replay {
    since: DateTime<Utc>,
}

/// `POST /api/v1/destinations/{id}/replay` with `{"since": "2026-11-21T09:30:00Z"}`
pub(crate) async fn replay(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<DestinationId>,
    Json(asked): Json<Replay>,
) -> Result<Json<Value>> {
    let sent = deliveries::replay(&app, &permit, id, asked.since).await?;
    Ok(Json(json!({"deliveries": sent})))
}
