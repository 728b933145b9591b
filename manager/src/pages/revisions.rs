//! Revisions of everything that configs are made of: what was changed when and by whom, and the way back.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use ostiary_domain::revision::{Objects, diff};
use ostiary_store::{Conn, config_revisions as store, rollouts};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Fields;
use super::paging::{pager, request};
use super::shell::Page;
use crate::actions::revisions;
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    before: String,
}

/// `GET /revisions`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let page = store::list(&mut conn, &request(Some(&asked.before))).await?;
    let newest = store::newest(&mut conn)
        .await?
        .map(|revision| revision.number);
    let past = rollouts::list(&mut conn, &request(None)).await?;
    drop(conn);
    let context = json!({
        "revisions": page.items,
        "newest": newest,
        "rollouts": past.items,
        "pager": pager("/revisions", &[], "before", page.next.as_deref(), asked.before.is_empty()),
    });
    Page {
        template: "pages/revisions/list.html",
        title: "Revisions",
        nav: "revisions",
    }
    .show(&app, &visitor, context)
    .await
}

/// What a revision changed, and what a return to it would.
async fn context(conn: &mut Conn, number: i64, errors: FieldErrors) -> Result<Value> {
    let (line, objects) = store::find(conn, number).await?.ok_or(Error::NotFound)?;
    let before = store::find(conn, number - 1).await?;
    let now = store::objects(conn).await?;
    let changes = before
        .as_ref()
        .map(|(_, before)| diff(before, &objects))
        .unwrap_or_default();
    Ok(json!({
        "revision": line,
        "objects": objects.count(),
        "has_before": before.is_some(),
        "changes": changes.iter().map(shown).collect::<Vec<_>>(),
        "since": differences(&now, &objects),
        "errors": errors,
    }))
}

/// What a return from how things are now would do.
pub(super) fn differences(now: &Objects, then: &Objects) -> Vec<Value> {
    diff(now, then).iter().map(shown).collect()
}

fn shown(change: &ostiary_domain::revision::ObjectChange) -> Value {
    let mut shown = json!(change);
    shown["kind"] = match change.table.as_str() {
        "packs" => "pack",
        "queries" => "query",
        "file_paths" => "file path",
        "decorators" => "decorator",
        "options" => "option",
        "config_sections" => "section",
        other => other,
    }
    .into();
    if shown.get("fields").is_none() {
        shown["fields"] = json!([]);
    }
    shown
}

/// `GET /revisions/{number}`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(number): Path<i64>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let context = context(&mut conn, number, FieldErrors::default()).await?;
    drop(conn);
    page(&format!("Revision {number}"))
        .show(&app, &visitor, context)
        .await
}

fn page(title: &str) -> Page<'_> {
    Page {
        template: "pages/revisions/show.html",
        title,
        nav: "revisions",
    }
}

/// `POST /revisions/{number}/return`
pub(crate) async fn return_to(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(number): Path<i64>,
    fields: Fields,
) -> Result<Response> {
    let saving = fields.saving();
    match revisions::return_to(&app, &permit, number, &saving).await {
        Ok(new) => {
            visitor
                .done(
                    &format!("/revisions/{new}"),
                    format!("Everything is as it was at revision {number}."),
                )
                .await
        }
        Err(error) => {
            let errors = error.into_fields()?;
            let mut conn = app.db.acquire().await?;
            let context = context(&mut conn, number, errors).await?;
            drop(conn);
            page(&format!("Revision {number}"))
                .show_again(&app, &visitor, saving.kept_in(context))
                .await
        }
    }
}
