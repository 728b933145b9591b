//! Having nodes send everything again, for programs.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::actions::resync;
use crate::auth::{Edit, Permit};
use crate::error::Result;
use crate::state::App;

#[derive(Debug, Deserialize)]
pub(crate) struct Wanted {
    target: String,
    /// How many nodes are meant; left out, nothing is done and the number is told.
    confirm: Option<usize>,
}

/// `POST /api/v1/resync` with `{"target": "lab", "confirm": 12}`.
pub(crate) async fn resync(
    State(app): State<App>,
    permit: Permit<Edit>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Value>> {
    let Some(confirm) = wanted.confirm else {
        let nodes = resync::reach(&app, &wanted.target).await?;
        return Ok(Json(json!({"nodes": nodes, "done": false})));
    };
    let epoch = resync::resync(&app, &permit, &wanted.target, &confirm.to_string()).await?;
    Ok(Json(
        json!({"nodes": confirm, "done": true, "schedule_epoch": epoch}),
    ))
}
