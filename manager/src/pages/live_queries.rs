//! Live queries: ask now, and read what came.

use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use ostiary_domain::ids::{LiveQueryId, NodeId};
use ostiary_domain::live_query::retold;
use ostiary_store::live_queries as store;
use ostiary_store::{node_lists, tags};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Fields;
use super::live_query_view::{self, counts, state};
use super::paging::{pager, request};
use super::shell::Page;
use crate::actions::live_queries::{self, LiveQueryDraft};
use crate::actions::node_tables;
use crate::actions::validate::words;
use crate::auth::{Permit, RunLiveQuery, View, Visitor};
use crate::error::{FieldErrors, Result};
use crate::state::App;
use crate::views::short;

/// What a list calls a live query.
pub(super) fn title(description: &str, sql: &str) -> String {
    if description.is_empty() {
        short(&sql.split_whitespace().collect::<Vec<_>>().join(" "), 80)
    } else {
        description.to_owned()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    after: String,
    node: String,
    sql: String,
    discovery: String,
    target: String,
}

/// `GET /live-queries`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Query(wanted): Query<Wanted>,
) -> Result<Response> {
    let now = app.now();
    let mut conn = app.db.acquire().await?;
    let page = store::list(&mut conn, &request(Some(&wanted.after))).await?;
    let everybody = node_lists::facts(&mut conn).await?;
    drop(conn);
    let shown = page.items.iter().map(|query| {
        let judged = query.to_domain();
        let asked = everybody.iter().filter(|(id, facts)| judged.asks(*id, facts));
        let total = i64::try_from(asked.count()).unwrap_or(i64::MAX);
        json!({"id": query.id, "sql": query.sql, "description": query.description, "target": query.target,
            "state": state(query, total, now), "created_by": query.created_by, "created_at": query.created_at,
            "counts": counts(query, total, now)})
    });
    let context = json!({
        "live_queries": shown.collect::<Vec<_>>(),
        "pager": pager("/live-queries", &[], "after", page.next.as_deref(), wanted.after.is_empty()),
    });
    Page {
        template: "pages/live_queries/list.html",
        title: "Live queries",
        nav: "live-queries",
    }
    .show(&app, &visitor, context)
    .await
}

async fn form_context(app: &App, form: &LiveQueryDraft, errors: FieldErrors) -> Result<Value> {
    let ids: Vec<Uuid> = words(&form.node_ids)
        .iter()
        .filter_map(|id| id.parse().ok())
        .collect();
    let mut conn = app.db.acquire().await?;
    Ok(json!({
        "form": form, "errors": errors, "nodes": node_lists::names(&mut conn, &ids).await?,
        "all_tags": tags::names(&mut conn).await?, "online": node_lists::count(&mut conn, app.cutoffs()).await?.online,
    }))
}

const FORM: Page<'static> = Page {
    template: "pages/live_queries/form.html",
    title: "New live query",
    nav: "live-queries",
};

/// `GET /live-queries/new`
pub(crate) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<RunLiveQuery>,
    Query(wanted): Query<Wanted>,
) -> Result<Response> {
    let form = LiveQueryDraft {
        sql: wanted.sql,
        discovery: wanted.discovery,
        target: wanted.target,
        node_ids: wanted.node,
        expires_minutes: "60".to_owned(),
        ..LiveQueryDraft::default()
    };
    FORM.show(
        &app,
        &visitor,
        form_context(&app, &form, FieldErrors::default()).await?,
    )
    .await
}

/// `POST /live-queries`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<RunLiveQuery>,
    fields: Fields,
) -> Result<Response> {
    let form = LiveQueryDraft {
        sql: fields.owned("sql"),
        discovery: fields.owned("discovery"),
        description: fields.owned("description"),
        target: fields.owned("target"),
        node_ids: fields.owned("node_ids"),
        expires_minutes: fields.owned("expires_minutes"),
    };
    match live_queries::create(&app, &permit, &form).await {
        Ok(id) => {
            visitor
                .done(
                    &format!("/live-queries/{id}"),
                    "Asked. Nodes answer at their next poll.",
                )
                .await
        }
        Err(error) => {
            FORM.show_again(
                &app,
                &visitor,
                form_context(&app, &form, error.into_fields()?).await?,
            )
            .await
        }
    }
}

/// The context of `show` and `part`.
async fn context(app: &App, id: LiveQueryId) -> Result<(String, Value)> {
    let mut context = live_query_view::whole(app, id).await?;
    let query = &context["live_query"];
    let of = |field: &str| query[field].as_str().unwrap_or_default();
    let title = title(of("description"), of("sql"));
    // For a node that has denylisted the text.
    context["retold"] = retold(of("sql"), app.now()).into();
    Ok((title, context))
}

/// `GET /live-queries/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<LiveQueryId>,
) -> Result<Response> {
    let (title, context) = context(&app, id).await?;
    Page {
        template: "pages/live_queries/show.html",
        title: &title,
        nav: "live-queries",
    }
    .show(&app, &visitor, context)
    .await
}

/// `GET /live-queries/{id}/part`
pub(crate) async fn part(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<LiveQueryId>,
) -> Result<Response> {
    let (title, context) = context(&app, id).await?;
    Page {
        template: "pages/live_queries/part.html",
        title: &title,
        nav: "live-queries",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /live-queries/{id}/cancel`
pub(crate) async fn cancel(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<RunLiveQuery>,
    Path(id): Path<LiveQueryId>,
) -> Result<Response> {
    live_queries::cancel(&app, &permit, id).await?;
    visitor
        .done(
            &format!("/live-queries/{id}"),
            "Cancelled. What was answered stays.",
        )
        .await
}

/// `POST /live-queries/{id}/learn`: for the case that the manager was restarted before the node answered.
pub(crate) async fn learn(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<RunLiveQuery>,
    Path(id): Path<LiveQueryId>,
) -> Result<Response> {
    let learned = live_queries::learn_tables(&app, &permit, id).await?;
    let said = match (learned.tables, learned.left_out) {
        (0, 0) => "It has no tables but those that osquery ships.".to_owned(),
        (tables, 0) => format!("Tables that SQL may use from now on: {tables}."),
        (tables, left_out) => {
            format!("Tables that SQL may use from now on: {tables}. No room for {left_out} more.")
        }
    };
    visitor.done(&format!("/live-queries/{id}"), &said).await
}

/// `POST /nodes/{id}/learn-tables`: asks, and takes the answer over when it comes.
pub(crate) async fn ask_for_tables(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<RunLiveQuery>,
    Path(node): Path<NodeId>,
) -> Result<Response> {
    let id = node_tables::learn(&app, &permit, node).await?;
    let said =
        "Asked. As soon as the node answers, SQL may use its tables; the result stands here.";
    visitor.done(&format!("/live-queries/{id}"), said).await
}

/// `GET /live-queries/{id}/rows.csv`: all rows, as a file that a spreadsheet may open without harm.
pub(crate) async fn csv(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<LiveQueryId>,
) -> Result<Response> {
    let bytes = live_query_view::csv(&app, id).await?;
    let disposition = format!("attachment; filename=\"live-query-{id}.csv\"");
    Ok((
        [
            (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
            (header::CONTENT_DISPOSITION, disposition),
        ],
        bytes,
    )
        .into_response())
}
