//! Silences: what is quiet just now, why, and until when; and what was.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use chrono::TimeDelta;
use ostiary_domain::ids::{NodeId, SilenceId};
use ostiary_store::page::PageRequest;
use ostiary_store::{node_records, rule_edits, silences as store, tags};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Fields;
use super::paging::{pager, request};
use super::shell::Page;
use crate::actions::silences::{self, SilenceDraft};
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{FieldErrors, Result};
use crate::state::App;

/// A silence ends so long after it was begun to be typed, unless somebody says otherwise.
const USUAL: TimeDelta = TimeDelta::hours(4);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    after: String,
}

/// `GET /silences`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let now = app.now();
    let mut conn = app.db.acquire().await?;
    let on = store::list(
        &mut conn,
        true,
        now,
        &PageRequest {
            after: None,
            limit: Some(500),
        },
    )
    .await?;
    let ended = store::list(&mut conn, false, now, &request(Some(&asked.after))).await?;
    drop(conn);
    let context = json!({
        "on": on.items, "ended": ended.items,
        "pager": pager("/silences", &[], "after", ended.next.as_deref(), asked.after.is_empty()),
    });
    Page {
        template: "pages/silences/list.html",
        title: "Silences",
        nav: "silences",
    }
    .show(&app, &visitor, context)
    .await
}

/// What a new silence may be about, as links name it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct About {
    rule: String,
    node: String,
    target: String,
}

async fn context(app: &App, form: SilenceDraft, errors: FieldErrors) -> Result<Value> {
    let mut conn = app.db.acquire().await?;
    let rules: Vec<Value> = rule_edits::list(&mut conn)
        .await?
        .iter()
        .map(|rule| json!({"id": rule.id, "name": rule.name}))
        .collect();
    let node = match form.node.parse::<NodeId>() {
        Ok(id) => node_records::find(&mut conn, id)
            .await?
            .map(|node| json!({"id": node.id, "name": node.name})),
        Err(_) => None,
    };
    let all_tags = tags::names(&mut conn).await?;
    Ok(json!({"form": form, "errors": errors, "rules": rules, "node": node, "all_tags": all_tags}))
}

fn page() -> Page<'static> {
    Page {
        template: "pages/silences/form.html",
        title: "Silence",
        nav: "silences",
    }
}

/// `GET /silences/new`
pub(crate) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    Query(about): Query<About>,
) -> Result<Response> {
    let form = SilenceDraft {
        rule: about.rule,
        node: about.node,
        target: about.target,
        reason: String::new(),
        ends_at: (app.now() + USUAL).format("%Y-%m-%dT%H:%M").to_string(),
    };
    let context = context(&app, form, FieldErrors::default()).await?;
    page().show(&app, &visitor, context).await
}

/// `POST /silences`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let form = SilenceDraft {
        rule: fields.owned("rule"),
        node: fields.owned("node"),
        target: fields.owned("target"),
        reason: fields.owned("reason"),
        ends_at: fields.owned("ends_at"),
    };
    match silences::create(&app, &permit, &form).await {
        Ok(_) => {
            visitor
                .done(
                    "/silences",
                    "Silenced. Findings open all the same, but nobody is told.",
                )
                .await
        }
        Err(error) => {
            let context = context(&app, form, error.into_fields()?).await?;
            page().show_again(&app, &visitor, context).await
        }
    }
}

/// `POST /silences/{id}/end`
pub(crate) async fn end(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<SilenceId>,
) -> Result<Response> {
    let result = silences::end(&app, &permit, id).await;
    let said = "Ended: from now on people are told again.";
    visitor.answer(result, "/silences", said, "/silences").await
}
