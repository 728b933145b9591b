//! Denied tables: what nodes of a target are never asked.

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::ids::TableDenialId;
use ostiary_store::{node_lists, table_denials as store, tags};
use serde_json::{Value, json};

use super::Fields;
use super::shell::Page;
use crate::actions::sql_check::odd_tables;
use crate::actions::table_denials::{self, DenialDraft, name_of, withheld};
use crate::auth::{Admin, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const FORM: &str = "pages/table_denials/form.html";

fn draft(fields: &Fields) -> DenialDraft {
    DenialDraft {
        target: fields.owned("target"),
        tables: fields.owned("tables"),
        reason: fields.owned("reason"),
    }
}

async fn context(
    app: &App,
    known: Option<TableDenialId>,
    form: Option<DenialDraft>,
    errors: FieldErrors,
) -> Result<(String, Value)> {
    let mut conn = app.db.acquire().await?;
    let found = match known {
        Some(id) => Some(store::find(&mut conn, id).await?.ok_or(Error::NotFound)?),
        None => None,
    };
    let kept = match &found {
        Some(found) => withheld(&mut conn, &found.values).await?,
        None => Vec::new(),
    };
    let form = form.or_else(|| found.as_ref().map(DenialDraft::from));
    let title = found.as_ref().map_or_else(
        || "Deny tables".to_owned(),
        |found| format!("Tables denied to {}", name_of(&found.values)),
    );
    let denial = found.map(|found| json!({"id": found.id, "name": name_of(&found.values)}));
    let all_tags = tags::names(&mut conn).await?;
    let context = json!({"denial": denial, "form": form.unwrap_or_default(), "errors": errors, "all_tags": all_tags,
        "withheld": kept});
    Ok((title, context))
}

/// `GET /table-denials`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let everybody = node_lists::facts(&mut conn).await?;
    let mut denials = Vec::new();
    for found in store::list(&mut conn).await? {
        let target = found.values.nodes();
        let nodes = everybody.iter().filter(|(_, facts)| target.matches(facts));
        let kept = withheld(&mut conn, &found.values).await?.len();
        denials.push(
            json!({"id": found.id, "target": found.values.target, "tables": found.values.tables,
            "reason": found.values.reason, "nodes": nodes.count(), "withheld": kept}),
        );
    }
    let odd = odd_tables(&app.sql_checkers, &mut conn).await?.into_iter();
    let odd: Vec<Value> = odd
        .map(|odd| json!({"name": odd.name, "problem": odd.problem}))
        .collect();
    let reported = store::list_known(&mut conn).await?;
    let context = json!({"denials": denials, "reported": reported, "odd": odd});
    drop(conn);
    Page {
        template: "pages/table_denials/list.html",
        title: "Denied tables",
        nav: "table-denials",
    }
    .show(&app, &visitor, context)
    .await
}

/// `GET /table-denials/new`
pub(crate) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Admin>,
) -> Result<Response> {
    let (title, context) = context(&app, None, None, FieldErrors::default()).await?;
    page(&title).show(&app, &visitor, context).await
}

fn page(title: &str) -> Page<'_> {
    Page {
        template: FORM,
        title,
        nav: "table-denials",
    }
}

/// `POST /table-denials`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    let done = if fields.is_on("preview") {
        table_denials::preview(&app, &permit, &form).await.map(drop)
    } else {
        table_denials::create(&app, &permit, &form).await.map(drop)
    };
    match done {
        Ok(()) => {
            let said =
                "Denied. What reads these tables is left out of configs from their next fetch on.";
            visitor.done("/table-denials", said).await
        }
        Err(error) => {
            let errors = error.into_fields()?;
            let (title, context) = context(&app, None, Some(form), errors).await?;
            page(&title).show_again(&app, &visitor, context).await
        }
    }
}

/// `GET /table-denials/{id}/edit`
pub(crate) async fn edit(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Admin>,
    Path(id): Path<TableDenialId>,
) -> Result<Response> {
    let (title, context) = context(&app, Some(id), None, FieldErrors::default()).await?;
    page(&title).show(&app, &visitor, context).await
}

/// `POST /table-denials/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<TableDenialId>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    let done = if fields.is_on("preview") {
        table_denials::preview(&app, &permit, &form).await.map(drop)
    } else {
        table_denials::update(&app, &permit, id, &form).await
    };
    match done {
        Ok(()) => {
            let said = "Saved. It counts from the next config and the next live query on.";
            visitor.done("/table-denials", said).await
        }
        Err(error) => {
            let errors = error.into_fields()?;
            let (title, context) = context(&app, Some(id), Some(form), errors).await?;
            page(&title).show_again(&app, &visitor, context).await
        }
    }
}

/// `POST /table-denials/{id}/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Admin>,
    Path(id): Path<TableDenialId>,
    fields: Fields,
) -> Result<Response> {
    let result = table_denials::delete(&app, &permit, id, fields.text("confirm")).await;
    let back = format!("/table-denials/{id}/edit");
    visitor
        .answer(result, "/table-denials", "The denial was deleted.", &back)
        .await
}
