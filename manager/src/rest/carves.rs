//! Carves and what is in them. The bytes are those of `pages::carves::archive`.

use axum::Json;
use axum::extract::{Path, State};
use ostiary_domain::ids::{CarveId, NodeId};
use ostiary_store::carve_lists::{self, CarveFilter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Asked, Paging, listed};
use crate::actions::carves;
use crate::auth::{Permit, RunLiveQuery, View};
use crate::error::{Error, Result};
use crate::pages::carves::{file, line, whole};
use crate::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    node: Option<NodeId>,
    limit: Option<i64>,
    after: Option<String>,
}

/// `GET /api/v1/carves`
pub(crate) async fn list(
    State(app): State<App>,
    _: Permit<View>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Value>> {
    let filter = CarveFilter {
        node: wanted.node,
        ..CarveFilter::default()
    };
    let paging = Paging {
        limit: wanted.limit,
        after: wanted.after,
    }
    .request::<1>()?;
    let mut conn = app.db.acquire().await?;
    let page = carve_lists::list(&mut conn, filter, &paging).await?;
    let items: Vec<Value> = page.items.iter().map(line).collect();
    Ok(listed(&items, page.next.as_deref()))
}

/// What is asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Collected {
    path: String,
}

/// `POST /api/v1/nodes/{id}/carves` with `path`; answers `{"live_query_id": …}`.
pub(crate) async fn collect(
    State(app): State<App>,
    permit: Permit<RunLiveQuery>,
    Path(id): Path<NodeId>,
    Json(wanted): Json<Collected>,
) -> Result<Json<Value>> {
    let query = carves::collect(&app, &permit, id, &wanted.path).await?;
    Ok(Json(json!({"live_query_id": query})))
}

/// `GET /api/v1/carves/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<CarveId>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Value>> {
    let paging = Paging {
        limit: wanted.limit,
        after: wanted.after,
    }
    .request::<1>()?;
    let mut conn = app.db.acquire().await?;
    let carve = carve_lists::find(&mut conn, id)
        .await?
        .ok_or(Error::NotFound)?;
    let files = carve_lists::list_files(&mut conn, id, &paging).await?;
    let mut shown = whole(&carve);
    shown["files"] = json!({
        "items": files.items.iter().map(file).collect::<Vec<_>>(), "next": files.next,
    });
    Ok(Json(shown))
}
