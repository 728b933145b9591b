//! What could not be understood. Data and exports are those of the pages.

use axum::Json;
use axum::extract::State;
use ostiary_domain::ids::NodeId;
use ostiary_store::unreadable;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Asked, Paging};
use crate::auth::{Permit, View};
use crate::error::Result;
use crate::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    node: Option<NodeId>,
    limit: Option<i64>,
    after: Option<String>,
}

/// `GET /api/v1/unreadable`: newest first, and what had to make room.
pub(crate) async fn list(
    State(app): State<App>,
    _: Permit<View>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Value>> {
    let paging = Paging {
        limit: wanted.limit,
        after: wanted.after,
    }
    .request::<2>()?;
    let mut conn = app.db.acquire().await?;
    let page = unreadable::list(&mut conn, wanted.node, &paging, false).await?;
    let dropped = unreadable::dropped(&mut conn, wanted.node).await?;
    Ok(Json(
        json!({"items": page.items, "next": page.next, "dropped": dropped}),
    ))
}
