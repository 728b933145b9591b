//! Sinks, for programs: how far each is, and all that the pages can do.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use ostiary_domain::ids::SinkId;
use ostiary_store::sinks::edits;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Confirmed, listed};
use crate::actions::sinks::{self, SinkDraft};
use crate::auth::{Admin, Permit, View};
use crate::error::{Error, Result};
use crate::pages::sinks::with_lag;
use crate::state::App;

/// A sink as programs write it. `fields` are the settings of its kind by their names; a secret that is left out stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    name: String,
    /// Only when it is made.
    #[serde(default)]
    kind: String,
    #[serde(default = "on")]
    enabled: bool,
    types: Vec<String>,
    #[serde(default)]
    queries: Vec<String>,
    #[serde(default)]
    target: String,
    #[serde(default)]
    fields: BTreeMap<String, String>,
}

fn on() -> bool {
    true
}

impl From<Wanted> for SinkDraft {
    fn from(wanted: Wanted) -> Self {
        Self {
            name: wanted.name,
            kind: wanted.kind,
            enabled: wanted.enabled,
            types: wanted.types,
            queries: wanted.queries.join("\n"),
            target: wanted.target,
            fields: wanted.fields,
        }
    }
}

/// `GET /api/v1/sinks`: all of them, each with how far it is behind.
pub(crate) async fn list(State(app): State<App>, _: Permit<View>) -> Result<Json<Value>> {
    let mut conn = app.db.acquire().await?;
    let mut items = Vec::new();
    for line in edits::list(&mut conn).await? {
        items.push(with_lag(&mut conn, &line).await?);
    }
    Ok(listed(&items, None))
}

/// `GET /api/v1/sinks/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<SinkId>,
) -> Result<Json<Value>> {
    let mut conn = app.db.acquire().await?;
    let line = edits::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    Ok(Json(with_lag(&mut conn, &line).await?))
}

/// `POST /api/v1/sinks`; answers `{"id": …}`.
pub(crate) async fn create(
    State(app): State<App>,
    permit: Permit<Admin>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Value>> {
    let id = sinks::create(&app, &permit, &wanted.into()).await?;
    Ok(Json(json!({"id": id})))
}

/// `PUT /api/v1/sinks/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<SinkId>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Value>> {
    sinks::update(&app, &permit, id, &wanted.into()).await?;
    Ok(Json(json!({"id": id})))
}

/// `POST /api/v1/sinks/{id}/pause`: it stays where it stands.
pub(crate) async fn pause(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<SinkId>,
) -> Result<Json<Value>> {
    sinks::pause(&app, &permit, id).await?;
    Ok(Json(json!({"id": id, "enabled": false})))
}

/// `POST /api/v1/sinks/{id}/resume`
pub(crate) async fn resume(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<SinkId>,
) -> Result<Json<Value>> {
    sinks::resume(&app, &permit, id).await?;
    Ok(Json(json!({"id": id, "enabled": true})))
}

/// `POST /api/v1/sinks/{id}/test`: the worker sends it; `tested_at`, `test_taken` and `test_answer` tell how it went.
pub(crate) async fn send_test(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<SinkId>,
) -> Result<Json<Value>> {
    sinks::send_test(&app, &permit, id).await?;
    Ok(Json(json!({"id": id})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Since {
    since: DateTime<Utc>,
}

/// `POST /api/v1/sinks/{id}/replay` with `{"since": "2026-11-21T09:30:00Z"}`.
pub(crate) async fn replay(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<SinkId>,
    Json(Since { since }): Json<Since>,
) -> Result<Json<Value>> {
    sinks::replay(&app, &permit, id, since).await?;
    Ok(Json(json!({"id": id, "since": since})))
}

/// `POST /api/v1/sinks/{id}/delete` with `{"confirm": "its name"}`.
pub(crate) async fn delete(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<SinkId>,
    Json(Confirmed { confirm }): Json<Confirmed>,
) -> Result<Json<Value>> {
    sinks::delete(&app, &permit, id, &confirm).await?;
    Ok(Json(json!({"id": id})))
}
