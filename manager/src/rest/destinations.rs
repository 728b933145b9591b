//! Destinations, for programs: all that the pages can do. Settings go in and never come out: they are secrets.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use ostiary_domain::ids::DestinationId;
use ostiary_outputs::Templates;
use ostiary_store::destinations as store;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Confirmed, listed};
use crate::actions::deliveries;
use crate::actions::destinations::{self, DestinationDraft};
use crate::auth::{Admin, Permit, View};
use crate::error::{Error, Result};
use crate::state::App;

/// A destination as programs write it. `fields` are the settings of its kind by their names; a secret that is left out stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    name: String,
    /// Only when it is made.
    #[serde(default)]
    kind: String,
    #[serde(default = "on")]
    enabled: bool,
    #[serde(default)]
    min_severity: String,
    #[serde(default)]
    target: String,
    #[serde(default)]
    takes_all: bool,
    #[serde(default = "on")]
    tells_changes: bool,
    #[serde(default)]
    digest_minutes: u32,
    #[serde(default)]
    title_template: String,
    #[serde(default)]
    text_template: String,
    #[serde(default)]
    fields: BTreeMap<String, String>,
}

fn on() -> bool {
    true
}

impl From<Wanted> for DestinationDraft {
    fn from(wanted: Wanted) -> Self {
        Self {
            name: wanted.name,
            kind: wanted.kind,
            enabled: wanted.enabled,
            min_severity: wanted.min_severity,
            target: wanted.target,
            takes_all: wanted.takes_all,
            tells_changes: wanted.tells_changes,
            digest_minutes: wanted.digest_minutes.to_string(),
            templates: Templates {
                title: wanted.title_template,
                text: wanted.text_template,
            },
            fields: wanted.fields,
        }
    }
}

/// `GET /api/v1/destinations`, by name.
pub(crate) async fn list(State(app): State<App>, _: Permit<View>) -> Result<Json<Value>> {
    let found = store::list(&mut *app.db.acquire().await?).await?;
    let items: Vec<Value> = found.iter().map(|each| json!(each)).collect();
    Ok(listed(&items, None))
}

/// `GET /api/v1/destinations/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<DestinationId>,
) -> Result<Json<Value>> {
    let found = store::find(&mut *app.db.acquire().await?, id).await?;
    Ok(Json(json!(found.ok_or(Error::NotFound)?)))
}

/// `POST /api/v1/destinations`; answers `{"id": …}`.
pub(crate) async fn create(
    State(app): State<App>,
    permit: Permit<Admin>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Value>> {
    let id = destinations::create(&app, &permit, &wanted.into()).await?;
    Ok(Json(json!({"id": id})))
}

/// `PUT /api/v1/destinations/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<DestinationId>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Value>> {
    destinations::update(&app, &permit, id, &wanted.into()).await?;
    Ok(Json(json!({"id": id})))
}

/// `POST /api/v1/destinations/{id}/delete` with `{"confirm": "its name"}`
pub(crate) async fn delete(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<DestinationId>,
    Json(Confirmed { confirm }): Json<Confirmed>,
) -> Result<Json<Value>> {
    destinations::delete(&app, &permit, id, &confirm).await?;
    Ok(Json(json!({"id": id})))
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
