//! The ledger: every delivery, and what can be sent again.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use ostiary_domain::ids::DeliveryId;
use ostiary_store::delivery_lists::{self, DeliveryFilter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Fields;
use super::findings::with_attempts;
use super::paging::{pager, request};
use super::shell::Page;
use crate::actions::deliveries;
use crate::auth::{Admin, Permit, View, Visitor};
use crate::error::{Error, Result};
use crate::state::App;

const STATES: [&str; 4] = ["waiting", "delivered", "dead", "skipped"];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    state: String,
    after: String,
}

/// `GET /deliveries`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let state = STATES.into_iter().find(|state| *state == asked.state);
    let filter = DeliveryFilter {
        state: state.unwrap_or_default(),
        ..DeliveryFilter::default()
    };
    let mut conn = app.db.acquire().await?;
    let page = delivery_lists::list(&mut conn, filter, &request(Some(&asked.after))).await?;
    let ids: Vec<_> = page.items.iter().map(|delivery| delivery.id).collect();
    let attempts = delivery_lists::list_attempts(&mut conn, &ids, false).await?;
    drop(conn);
    let listed: Vec<Value> = page
        .items
        .iter()
        .map(|delivery| with_attempts(delivery, &attempts))
        .collect();
    let filters = [("state", filter.state)];
    let context = json!({
        "filter": {"state": filter.state}, "deliveries": listed,
        "pager": pager("/deliveries", &filters, "after", page.next.as_deref(), asked.after.is_empty()),
    });
    Page {
        template: "pages/deliveries/list.html",
        title: "Deliveries",
        nav: "destinations",
    }
    .show(&app, &visitor, context)
    .await
}

/// `GET /deliveries/{id}`: each attempt with what was sent and what was answered.
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<DeliveryId>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let found = delivery_lists::find(&mut conn, id)
        .await?
        .ok_or(Error::NotFound)?;
    let attempts = delivery_lists::list_attempts(&mut conn, &[id.0], true).await?;
    drop(conn);
    let title = format!("Delivery to {}", found.destination_name);
    Page {
        template: "pages/deliveries/show.html",
        title: &title,
        nav: "destinations",
    }
    .show(
        &app,
        &visitor,
        json!({"delivery": with_attempts(&found, &attempts)}),
    )
    .await
}

/// `POST /deliveries/{id}/send-again`; `back` is the page to come back to.
pub(crate) async fn send_again(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<DeliveryId>,
    fields: Fields,
) -> Result<Response> {
    let result = deliveries::send_again(&app, &permit, id).await;
    // Only a path of ours: a form cannot lead elsewhere.
    let back = match fields.text("back") {
        path if path.starts_with("/destinations/") => path.to_owned(),
        _ => "/deliveries?state=dead".to_owned(),
    };
    visitor
        .answer(result, &back, "It is sent again.", &back)
        .await
}
