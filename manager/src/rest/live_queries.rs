//! Live queries for programs: ask, look, stop. Columns stand in the order of the SELECT.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use ostiary_domain::ids::LiveQueryId;
use ostiary_store::{live_queries as store, node_lists};
use serde_json::{Value, json};

use super::{Asked, Paging, listed};
use crate::actions::live_queries::{self, LiveQueryDraft};
use crate::auth::{Permit, RunLiveQuery, View};
use crate::error::Result;
use crate::pages::live_query_view::{self, counts, state};
use crate::state::App;

/// `GET /api/v1/live-queries`, newest first.
pub(crate) async fn list(
    State(app): State<App>,
    _: Permit<View>,
    Asked(paging): Asked<Paging>,
) -> Result<Json<Value>> {
    let now = app.now();
    let mut conn = app.db.acquire().await?;
    let page = store::list(&mut conn, &paging.request::<1>()?).await?;
    let everybody = node_lists::facts(&mut conn).await?;
    let items: Vec<Value> = page
        .items
        .iter()
        .map(|query| {
            let judged = query.to_domain();
            let asked = everybody.iter().filter(|(id, facts)| judged.asks(*id, facts));
            let total = i64::try_from(asked.count()).unwrap_or(i64::MAX);
            json!({"id": query.id, "sql": query.sql, "discovery": query.discovery, "description": query.description,
                "target": query.target, "node_ids": query.node_ids, "state": state(query, total, now),
                "created_by": query.created_by, "created_at": query.created_at, "expires_at": query.expires_at,
                "counts": counts(query, total, now)})
        })
        .collect();
    Ok(listed(&items, page.next.as_deref()))
}

/// `POST /api/v1/live-queries` with the fields of the form; answers `{"id": …}`.
pub(crate) async fn create(
    State(app): State<App>,
    permit: Permit<RunLiveQuery>,
    Json(draft): Json<LiveQueryDraft>,
) -> Result<Json<Value>> {
    let draft = LiveQueryDraft {
        expires_minutes: if draft.expires_minutes.is_empty() {
            "60".to_owned()
        } else {
            draft.expires_minutes
        },
        ..draft
    };
    let id = live_queries::create(&app, &permit, &draft).await?;
    Ok(Json(json!({"id": id})))
}

/// `GET /api/v1/live-queries/{id}`: `live_query`, `counts`, `results` (the first rows; all are in `rows.csv`), `tasks`.
pub(crate) async fn show(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<LiveQueryId>,
) -> Result<Json<Value>> {
    Ok(Json(live_query_view::whole(&app, id).await?))
}

/// `GET /api/v1/live-queries/{id}/rows.csv`
pub(crate) async fn csv(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<LiveQueryId>,
) -> Result<impl IntoResponse> {
    let rows = live_query_view::csv(&app, id).await?;
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], rows))
}

/// `POST /api/v1/live-queries/{id}/cancel`
pub(crate) async fn cancel(
    State(app): State<App>,
    permit: Permit<RunLiveQuery>,
    Path(id): Path<LiveQueryId>,
) -> Result<Json<Value>> {
    live_queries::cancel(&app, &permit, id).await?;
    Ok(Json(json!({"id": id, "state": "cancelled"})))
}
