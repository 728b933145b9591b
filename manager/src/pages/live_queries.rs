//! Live queries: ask now, and read what came.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use ostiary_domain::ids::LiveQueryId;
use ostiary_domain::target::Target;
use ostiary_store::live_queries::{self as store, LiveQueryRecord, TaskRecord};
use ostiary_store::node_lists::NodeFilter;
use ostiary_store::page::PageRequest;
use ostiary_store::{Conn, node_lists, tags};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Fields;
use super::paging::{pager, request};
use super::shell::Page;
use super::table::{MAX_ROWS, cell, columns_of, csv_cell, rows_of};
use crate::actions::live_queries::{self, LiveQueryDraft};
use crate::actions::validate::words;
use crate::auth::{Permit, RunLiveQuery, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
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

/// The nodes that a live query asks, with name and state.
struct Asked {
    nodes: HashMap<Uuid, (String, String)>,
}

impl Asked {
    async fn load(app: &App, conn: &mut Conn, query: &LiveQueryRecord) -> Result<Self> {
        let everybody = node_lists::facts(conn).await?;
        let target = if query.target.is_empty() {
            None
        } else {
            Target::parse(&query.target).ok()
        };
        let chosen = |id: Uuid, facts| {
            query.target_all
                || query.node_ids.contains(&id)
                || target
                    .as_ref()
                    .is_some_and(|target: &Target| target.matches(facts))
        };
        let mut nodes: HashMap<Uuid, (String, String)> = everybody
            .iter()
            .filter(|(id, facts)| chosen(id.0, facts))
            .map(|(id, facts)| (id.0, (facts.name.clone(), "offline".to_owned())))
            .collect();
        let mut page = PageRequest {
            after: None,
            limit: Some(500),
        };
        // States are only shown, so a fleet beyond a few pages does without.
        for _ in 0..4 {
            let lines =
                node_lists::list(conn, &NodeFilter::default(), app.cutoffs(), &page).await?;
            for line in &lines.items {
                if let Some(node) = nodes.get_mut(&line.id) {
                    node.1.clone_from(&line.state);
                }
            }
            match lines.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        Ok(Self { nodes })
    }
}

/// `Counts` of the contract. A task that nobody answered in time is expired, whether its row says so yet or not.
fn counts(query: &LiveQueryRecord, total: i64, now: DateTime<Utc>) -> Value {
    let is_over = query.cancelled_at.is_some() || query.expires_at <= now;
    let answered = query.done + query.failed;
    let total = total.max(answered + query.offered + query.expired);
    let (offered, new, expired) = if is_over {
        (0, 0, total - answered)
    } else {
        (
            query.offered,
            total - answered - query.offered - query.expired,
            query.expired,
        )
    };
    json!({"total": total, "done": query.done, "failed": query.failed, "offered": offered, "new": new, "expired": expired})
}

fn state(query: &LiveQueryRecord, total: i64, now: DateTime<Utc>) -> &'static str {
    if query.cancelled_at.is_some() {
        "cancelled"
    } else if total > 0 && query.done + query.failed >= total {
        "done"
    } else if query.expires_at <= now {
        "expired"
    } else {
        "running"
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    after: String,
    node: String,
    sql: String,
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
        let target = if query.target.is_empty() { None } else { Target::parse(&query.target).ok() };
        let is_asked = |id: Uuid, facts| {
            query.target_all || query.node_ids.contains(&id) || target.as_ref().is_some_and(|target| target.matches(facts))
        };
        let total = i64::try_from(everybody.iter().filter(|(id, facts)| is_asked(id.0, facts)).count()).unwrap_or(i64::MAX);
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
    let now = app.now();
    let mut conn = app.db.acquire().await?;
    let query = store::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let asked = Asked::load(app, &mut conn, &query).await?;
    let tasks = store::list_tasks(&mut conn, id).await?;
    let results = results(
        &store::list_rows(&mut conn, id, i64::try_from(MAX_ROWS).unwrap_or(500)).await?,
        &tasks,
        &asked,
    );
    drop(conn);
    let total = i64::try_from(asked.nodes.len()).unwrap_or(i64::MAX);
    let context = json!({
        "live_query": {"id": query.id, "sql": query.sql, "description": query.description, "target": query.target,
            "node_count": query.node_ids.len(), "state": state(&query, total, now), "created_by": query.created_by,
            "created_at": query.created_at, "expires_at": query.expires_at},
        "counts": counts(&query, total, now),
        "results": results,
        "tasks": shown_tasks(&tasks, &asked, query.cancelled_at.is_some() || query.expires_at <= now),
    });
    Ok((title(&query.description, &query.sql), context))
}

fn node_name(asked: &Asked, id: Uuid) -> String {
    asked
        .nodes
        .get(&id)
        .map_or_else(|| id.to_string(), |(name, _)| name.clone())
}

fn results(answers: &[store::TaskRows], tasks: &[TaskRecord], asked: &Asked) -> Value {
    let mut rows: Vec<(Uuid, Map<String, Value>)> = Vec::new();
    for answer in answers {
        for row in rows_of(&answer.rows) {
            if let Value::Object(row) = row {
                rows.push((answer.node_id, row));
            }
        }
    }
    let total: i64 = tasks.iter().map(|task| i64::from(task.row_count)).sum();
    rows.truncate(MAX_ROWS);
    let columns = columns_of(&rows.iter().map(|(_, row)| row).collect::<Vec<_>>());
    let shown: Vec<Value> = rows
        .iter()
        .map(|(id, row)| {
            let cells: Vec<_> = columns
                .iter()
                .map(|column| cell(row.get(*column)))
                .collect();
            json!({"node": {"id": id, "name": node_name(asked, *id)}, "cells": cells})
        })
        .collect();
    let is_cut = total > i64::try_from(shown.len()).unwrap_or(i64::MAX);
    json!({"columns": columns, "rows": shown, "total": total, "cut": is_cut})
}

/// Every node that was asked, failed ones first.
fn shown_tasks(tasks: &[TaskRecord], asked: &Asked, is_over: bool) -> Vec<Value> {
    let known: HashMap<Uuid, &TaskRecord> = tasks.iter().map(|task| (task.node_id, task)).collect();
    let rank = |state: &str| {
        ["failed", "expired", "offered", "new", "done"]
            .iter()
            .position(|each| *each == state)
    };
    let mut ids: Vec<Uuid> = asked
        .nodes
        .keys()
        .copied()
        .chain(known.keys().copied())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let mut shown: Vec<(Option<usize>, String, Value)> = ids
        .into_iter()
        .map(|id| {
            let task = known.get(&id);
            let state = match task.map_or("new", |task| task.state.as_str()) {
                "new" | "offered" if is_over => "expired",
                state => state,
            };
            let name = node_name(asked, id);
            let health = asked.nodes.get(&id).map_or("offline", |(_, state)| state.as_str());
            let value = json!({
                "node": {"id": id, "name": name, "state": health}, "state": state,
                "message": task.map(|task| task.message.as_str()).unwrap_or_default(),
                "row_count": task.map_or(0, |task| task.row_count), "at": task.and_then(|task| task.finished_at.or(task.offered_at)),
                "offers": task.map_or(0, |task| task.offers),
            });
            (rank(state), name, value)
        })
        .collect();
    shown.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    shown.into_iter().map(|(_, _, value)| value).collect()
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

/// `GET /live-queries/{id}/rows.csv`: all rows, as a file that a spreadsheet may open without harm.
pub(crate) async fn csv(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<LiveQueryId>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let query = store::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let asked = Asked::load(&app, &mut conn, &query).await?;
    let answers = store::list_rows(&mut conn, id, 1_000_000).await?;
    drop(conn);
    let rows: Vec<(Uuid, Value)> = answers
        .iter()
        .flat_map(|answer| {
            rows_of(&answer.rows)
                .into_iter()
                .map(|row| (answer.node_id, row))
        })
        .collect();
    let columns = columns_of(
        &rows
            .iter()
            .filter_map(|(_, row)| row.as_object())
            .collect::<Vec<_>>(),
    );
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = ["node_id", "node"]
        .into_iter()
        .chain(columns.iter().copied())
        .map(csv_cell);
    writer
        .write_record(head)
        .map_err(|error| Error::Internal(error.into()))?;
    for (id, row) in &rows {
        let cells = columns
            .iter()
            .map(|column| csv_cell(&cell(row.get(column)).unwrap_or_default()));
        let record = [id.to_string(), csv_cell(&node_name(&asked, *id))]
            .into_iter()
            .chain(cells);
        writer
            .write_record(record)
            .map_err(|error| Error::Internal(error.into()))?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| Error::Internal(anyhow::anyhow!("{error}")))?;
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
