//! Deliveries with every attempt and its answer.

use axum::Json;
use axum::extract::State;
use ostiary_store::delivery_lists::{self, DeliveryFilter};
use serde_json::{Value, json};

use super::{Asked, Paging, listed};
use crate::auth::{Permit, View};
use crate::error::Result;
use crate::state::App;

/// `GET /api/v1/deliveries`, newest first.
pub(crate) async fn list(
    State(app): State<App>,
    _: Permit<View>,
    Asked(paging): Asked<Paging>,
) -> Result<Json<Value>> {
    let request = paging.request::<2>()?;
    let mut conn = app.db.acquire().await?;
    let page = delivery_lists::list(&mut conn, DeliveryFilter::default(), &request).await?;
    let ids: Vec<_> = page.items.iter().map(|delivery| delivery.id).collect();
    let attempts = delivery_lists::list_attempts(&mut conn, &ids).await?;
    let items: Vec<Value> = page
        .items
        .iter()
        .map(|delivery| {
            let own: Vec<_> = attempts.iter().filter(|attempt| attempt.delivery_id == delivery.id).collect();
            json!({
                "id": delivery.id, "state": delivery.state, "alert_kind": delivery.alert_kind,
                "finding": {"id": delivery.finding_id, "title": delivery.finding_title},
                "destination": {"id": delivery.destination_id, "name": delivery.destination_name, "kind": delivery.destination_kind},
                "attempt_count": delivery.attempts, "created_at": delivery.created_at, "due_at": delivery.due_at,
                "finished_at": delivery.finished_at, "last_answer": delivery.last_answer, "attempts": own,
            })
        })
        .collect();
    Ok(listed(&items, page.next.as_deref()))
}
