//! Certificates, and which nodes have accepted which.

use axum::Json;
use axum::extract::{Path, State};
use ostiary_store::certificates as store;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Asked, Paging, listed};
use crate::auth::{Permit, View};
use crate::certificates::{find_alike, view};
use crate::error::{Error, Result};
use crate::state::App;

/// `GET /api/v1/certificates`
pub(crate) async fn show(State(app): State<App>, _: Permit<View>) -> Result<Json<Value>> {
    let mut conn = app.db.acquire().await?;
    Ok(Json(json!(view(&app, &mut conn).await?)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    accepted: bool,
    limit: Option<i64>,
    after: Option<String>,
}

/// `GET /api/v1/certificates/{id}/nodes?accepted=true|false`
pub(crate) async fn nodes(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<String>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Value>> {
    let paging = Paging {
        limit: wanted.limit,
        after: wanted.after,
    };
    let request = paging.request::<1>()?;
    let mut conn = app.db.acquire().await?;
    let chains = find_alike(&mut conn, &id).await?.ok_or(Error::NotFound)?;
    let page = store::list_nodes(&mut conn, &chains, wanted.accepted, &request).await?;
    Ok(listed(&page.items, page.next.as_deref()))
}
