//! Nodes that look like one machine, and machines that wait to be let in: for programs that decide.

use axum::Json;
use axum::extract::{Path, State};
use ostiary_domain::ids::NodeId;
use ostiary_store::node_conflicts;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::actions::identity;
use crate::auth::{Admin, Permit, View};
use crate::error::Result;
use crate::pages::identity::{claimants, undecided};
use crate::state::App;

/// `GET /api/v1/nodes/conflicts`: undecided pairs, the newest 30 of `total`; a decision makes room for the next.
pub(crate) async fn conflicts(State(app): State<App>, _: Permit<View>) -> Result<Json<Value>> {
    let mut conn = app.db.acquire().await?;
    let total = node_conflicts::count(&mut conn).await?;
    let pairs = undecided(&app, &mut conn).await?;
    Ok(Json(json!({"items": pairs, "total": total})))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Merged {
    gone: NodeId,
    kept: NodeId,
}

/// `POST /api/v1/nodes/conflicts/merge` with `{"gone": …, "kept": …}`: the two are one node from then on, by the id `kept`.
pub(crate) async fn merge(
    State(app): State<App>,
    permit: Permit<Admin>,
    Json(wanted): Json<Merged>,
) -> Result<Json<Value>> {
    identity::merge(&app, &permit, wanted.gone, wanted.kept).await?;
    Ok(Json(json!({"node_id": wanted.kept})))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Apart {
    one: NodeId,
    other: NodeId,
}

/// `POST /api/v1/nodes/conflicts/keep-apart` with `{"one": …, "other": …}`: they are two machines, and not flagged again.
pub(crate) async fn keep_apart(
    State(app): State<App>,
    permit: Permit<Admin>,
    Json(wanted): Json<Apart>,
) -> Result<Json<Value>> {
    identity::keep_apart(&app, &permit, wanted.one, wanted.other).await?;
    Ok(Json(json!({"kept_apart": [wanted.one, wanted.other]})))
}

/// `GET /api/v1/nodes/approvals`: who waits, and who was refused, the newest 30 of each.
pub(crate) async fn approvals(State(app): State<App>, _: Permit<View>) -> Result<Json<Value>> {
    let mut conn = app.db.acquire().await?;
    let waiting = claimants(&app, &mut conn, "waiting").await?;
    let refused = claimants(&app, &mut conn, "refused").await?;
    Ok(Json(json!({"waiting": waiting, "refused": refused})))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Approved {
    r#as: ApprovedAs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ApprovedAs {
    New,
    Same,
}

/// `POST /api/v1/nodes/{id}/approve` with `{"as": "new"}`, or `"same"`: as the silent node that it claims to be, whose id is answered
/// with it.
pub(crate) async fn approve(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<NodeId>,
    Json(wanted): Json<Approved>,
) -> Result<Json<Value>> {
    let same = wanted.r#as == ApprovedAs::Same;
    let known_as = identity::approve(&app, &permit, id, same).await?;
    Ok(Json(json!({"node_id": known_as, "approval": null})))
}

/// `POST /api/v1/nodes/{id}/refuse`
pub(crate) async fn refuse(
    State(app): State<App>,
    permit: Permit<Admin>,
    Path(id): Path<NodeId>,
) -> Result<Json<Value>> {
    identity::refuse(&app, &permit, id).await?;
    Ok(Json(json!({"node_id": id, "approval": "refused"})))
}
