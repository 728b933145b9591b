//! Silences.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ostiary_domain::ids::SilenceId;
use ostiary_store::silences as store;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Asked, Paging, listed};
use crate::actions::silences::{self, SilenceDraft};
use crate::auth::{Edit, Permit, View};
use crate::error::Result;
use crate::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    ended: bool,
    limit: Option<i64>,
    after: Option<String>,
}

/// `GET /api/v1/silences`, newest first: those that are on, or with `ended=true` those that are not.
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
    let page = store::list(&mut conn, !wanted.ended, app.now(), &paging).await?;
    Ok(listed(&page.items, page.next.as_deref()))
}

/// A silence as a program describes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Draft {
    rule: String,
    node: String,
    target: String,
    reason: String,
    ends_at: String,
}

/// `POST /api/v1/silences`
pub(crate) async fn create(
    State(app): State<App>,
    permit: Permit<Edit>,
    Json(draft): Json<Draft>,
) -> Result<(StatusCode, Json<Value>)> {
    let draft = SilenceDraft {
        rule: draft.rule,
        node: draft.node,
        target: draft.target,
        reason: draft.reason,
        ends_at: draft.ends_at,
    };
    let id = silences::create(&app, &permit, &draft).await?;
    Ok((StatusCode::CREATED, Json(json!({"id": id}))))
}

/// `POST /api/v1/silences/{id}/end`
pub(crate) async fn end(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path(id): Path<SilenceId>,
) -> Result<StatusCode> {
    silences::end(&app, &permit, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
