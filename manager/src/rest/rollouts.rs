//! Staged roll-outs, for programs: how far they are, what became of their nodes, and how to steer them.

use axum::Json;
use axum::extract::{Path, State};
use ostiary_store::{rollout_nodes, rollouts as store};
use serde_json::{Value, json};
use uuid::Uuid;

use super::revisions::Wanted;
use super::{Asked, Paging, listed};
use crate::actions::rollouts;
use crate::auth::{Edit, Permit, View};
use crate::error::{Error, Result};
use crate::state::App;

/// `GET /api/v1/rollouts`, newest first.
pub(crate) async fn list(
    State(app): State<App>,
    _: Permit<View>,
    Asked(paging): Asked<Paging>,
) -> Result<Json<Value>> {
    let paging = paging.request::<1>()?;
    let page = store::list(&mut *app.db.acquire().await?, &paging).await?;
    Ok(listed(&page.items, page.next.as_deref()))
}

/// `GET /api/v1/rollouts/{id}`, with its nodes.
pub(crate) async fn show(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<Uuid>,
) -> Result<Json<Value>> {
    let mut conn = app.db.acquire().await?;
    let rollout = store::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let nodes = rollout_nodes::list(&mut conn, id).await?;
    drop(conn);
    let nodes = nodes.iter().map(|node| {
        json!({"id": node.node_id, "name": node.name, "stage": node.stage, "counted": node.counted,
            "fetched_at": node.fetched_at, "last_seen_at": node.last_seen_at, "trouble": node.trouble})
    });
    let mut shown = json!(rollout);
    shown["nodes"] = nodes.collect();
    Ok(Json(shown))
}

/// `POST /api/v1/rollouts/{id}/halt`: no further node gets the change.
pub(crate) async fn halt(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path(id): Path<Uuid>,
) -> Result<Json<Value>> {
    rollouts::halt(&app, &permit, id).await?;
    Ok(Json(json!({"id": id, "state": "halted"})))
}

/// `POST /api/v1/rollouts/{id}/resume`: a halted one goes on.
pub(crate) async fn resume(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path(id): Path<Uuid>,
) -> Result<Json<Value>> {
    rollouts::resume(&app, &permit, id).await?;
    Ok(Json(json!({"id": id, "state": "running"})))
}

/// `POST /api/v1/rollouts/{id}/finish`: all nodes get the change now.
pub(crate) async fn finish(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path(id): Path<Uuid>,
) -> Result<Json<Value>> {
    rollouts::finish(&app, &permit, id).await?;
    Ok(Json(json!({"id": id, "state": "finished"})))
}

/// `POST /api/v1/rollouts/{id}/return`: takes the change back, for all nodes at once; answers the new revision.
pub(crate) async fn take_back(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path(id): Path<Uuid>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Value>> {
    let revision = rollouts::take_back(&app, &permit, id, &wanted.into()).await?;
    Ok(Json(
        json!({"id": id, "state": "returned", "revision": revision}),
    ))
}
