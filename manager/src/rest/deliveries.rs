//! Deliveries with every attempt and its answer.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ostiary_domain::ids::DeliveryId;
use ostiary_store::delivery_lists::{self, AttemptRecord, DeliveryFilter, DeliveryRecord};
use serde::Deserialize;
use serde_json::{Value, json};

use super::findings::optional;
use super::{Asked, Paging, listed};
use crate::actions::deliveries;
use crate::auth::{Admin, Permit, View};
use crate::error::{Error, Result};
use crate::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    state: String,
    destination: String,
    finding: String,
    limit: Option<i64>,
    after: Option<String>,
}

/// `GET /api/v1/deliveries?state=&destination=&finding=`, newest first.
pub(crate) async fn list(
    State(app): State<App>,
    _: Permit<View>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Value>> {
    let paging = Paging {
        limit: wanted.limit,
        after: wanted.after.clone(),
    };
    let request = paging.request::<2>()?;
    let filter = DeliveryFilter {
        state: &wanted.state,
        destination: optional("destination", &wanted.destination)?,
        finding: optional("finding", &wanted.finding)?,
        id: None,
    };
    let mut conn = app.db.acquire().await?;
    let page = delivery_lists::list(&mut conn, filter, &request).await?;
    let ids: Vec<_> = page.items.iter().map(|delivery| delivery.id).collect();
    let attempts = delivery_lists::list_attempts(&mut conn, &ids, false).await?;
    let items: Vec<Value> = page
        .items
        .iter()
        .map(|delivery| line(delivery, &attempts))
        .collect();
    Ok(listed(&items, page.next.as_deref()))
}

fn line(delivery: &DeliveryRecord, attempts: &[AttemptRecord]) -> Value {
    let own: Vec<_> = attempts
        .iter()
        .filter(|attempt| attempt.delivery_id == delivery.id)
        .collect();
    json!({
        "id": delivery.id, "state": delivery.state, "alert_kind": delivery.alert_kind,
        "finding": {"id": delivery.finding_id, "title": delivery.finding_title},
        "destination": {"id": delivery.destination_id, "name": delivery.destination_name, "kind": delivery.destination_kind},
        "attempt_count": delivery.attempts, "created_at": delivery.created_at, "due_at": delivery.due_at,
        "finished_at": delivery.finished_at, "last_answer": delivery.last_answer, "attempts": own,
    })
}

/// `GET /api/v1/deliveries/{id}`: with what was sent by each attempt, without secrets.
pub(crate) async fn show(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<DeliveryId>,
) -> Result<Json<Value>> {
    let mut conn = app.db.acquire().await?;
    let found = delivery_lists::find(&mut conn, id)
        .await?
        .ok_or(Error::NotFound)?;
    let attempts = delivery_lists::list_attempts(&mut conn, &[id.0], true).await?;
    Ok(Json(line(&found, &attempts)))
}

/// `POST /api/v1/deliveries/{id}/send-again`
pub(crate) async fn send_again(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<DeliveryId>,
) -> Result<StatusCode> {
    deliveries::send_again(&app, &permit, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
