//! Rules: what do we want to hear about?

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::ids::RuleId;
use ostiary_store::finding_lists::{self, FindingFilter, Order};
use ostiary_store::page::PageRequest;
use ostiary_store::{destinations, rule_edits, tags};
use serde_json::{Value, json};

use super::Fields;
use super::findings::line;
use super::shell::Page;
use crate::actions::rules::{self, RuleDraft};
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, FieldErrors, Result};
use crate::state::App;

const FORM: &str = "pages/rules/form.html";

fn draft(fields: &Fields) -> RuleDraft {
    RuleDraft {
        name: fields.owned("name"),
        description: fields.owned("description"),
        severity: fields.owned("severity"),
        conditions: fields.owned("conditions"),
        scope: fields.owned("scope"),
        entity_columns: fields.owned("entity_columns"),
        on_baseline: fields.is_on("on_baseline"),
        max_age_seconds: fields.owned("max_age_seconds"),
        runbook_url: fields.owned("runbook_url"),
        enabled: fields.is_on("enabled"),
        destinations: fields
            .all("destinations")
            .into_iter()
            .map(ToOwned::to_owned)
            .collect(),
    }
}

async fn context(
    app: &App,
    rule: Option<(RuleId, &str)>,
    form: &RuleDraft,
    errors: FieldErrors,
) -> Result<Value> {
    let mut conn = app.db.acquire().await?;
    let listed: Vec<Value> = destinations::list(&mut conn)
        .await?
        .iter()
        .map(|each| json!({"id": each.id, "name": each.name, "kind": each.kind, "enabled": each.enabled}))
        .collect();
    Ok(json!({
        "rule": rule.map(|(id, name)| json!({"id": id, "name": name})), "form": form, "errors": errors, "destinations": listed,
        "operators": rules::operators(), "fields": rules::fields(), "all_tags": tags::names(&mut conn).await?,
    }))
}

/// `GET /rules`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let found = rule_edits::list(&mut *app.db.acquire().await?).await?;
    Page {
        template: "pages/rules/list.html",
        title: "Rules",
        nav: "rules",
    }
    .show(&app, &visitor, json!({"rules": found}))
    .await
}

/// `GET /rules/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<RuleId>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let rule = rule_edits::find(&mut conn, id)
        .await?
        .ok_or(Error::NotFound)?;
    let destinations = rule_edits::list_destinations(&mut conn, id).await?;
    let filter = FindingFilter {
        rule: Some(id),
        ..FindingFilter::default()
    };
    let newest = PageRequest {
        after: None,
        limit: Some(20),
    };
    let findings = finding_lists::list(&mut conn, &filter, Order::Newest, &newest)
        .await?
        .items;
    drop(conn);
    let mut shown = json!(rule);
    shown["conditions"] = rule.conditions.to_string().into();
    let context = json!({"rule": shown, "destinations": destinations, "findings": findings.iter().map(line).collect::<Vec<_>>()});
    Page {
        template: "pages/rules/show.html",
        title: &rule.name,
        nav: "rules",
    }
    .show(&app, &visitor, context)
    .await
}

/// `GET /rules/new`
pub(crate) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
) -> Result<Response> {
    let context = context(&app, None, &RuleDraft::new(), FieldErrors::default()).await?;
    Page {
        template: FORM,
        title: "New rule",
        nav: "rules",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /rules`
pub(crate) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    match rules::create(&app, &permit, &form).await {
        Ok(id) => {
            visitor
                .done(&format!("/rules/{id}"), "The rule was made.")
                .await
        }
        Err(error) => {
            let context = context(&app, None, &form, error.into_fields()?).await?;
            Page {
                template: FORM,
                title: "New rule",
                nav: "rules",
            }
            .show_again(&app, &visitor, context)
            .await
        }
    }
}

/// `GET /rules/{id}/edit`
pub(crate) async fn edit(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<Edit>,
    Path(id): Path<RuleId>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let rule = rule_edits::find(&mut conn, id)
        .await?
        .ok_or(Error::NotFound)?;
    let destinations = rule_edits::list_destinations(&mut conn, id).await?;
    drop(conn);
    let context = context(
        &app,
        Some((id, &rule.name)),
        &RuleDraft::of(&rule, &destinations),
        FieldErrors::default(),
    )
    .await?;
    Page {
        template: FORM,
        title: &format!("Edit {}", rule.name),
        nav: "rules",
    }
    .show(&app, &visitor, context)
    .await
}

/// `POST /rules/{id}`
pub(crate) async fn update(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<RuleId>,
    fields: Fields,
) -> Result<Response> {
    let form = draft(&fields);
    match rules::update(&app, &permit, id, &form).await {
        Ok(()) => visitor.done(&format!("/rules/{id}"), "Saved.").await,
        Err(error) => {
            let errors = error.into_fields()?;
            let rule = rule_edits::find(&mut *app.db.acquire().await?, id)
                .await?
                .ok_or(Error::NotFound)?;
            let context = context(&app, Some((id, &rule.name)), &form, errors).await?;
            Page {
                template: FORM,
                title: &format!("Edit {}", rule.name),
                nav: "rules",
            }
            .show_again(&app, &visitor, context)
            .await
        }
    }
}

/// `POST /rules/{id}/delete`
pub(crate) async fn delete(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<RuleId>,
    fields: Fields,
) -> Result<Response> {
    let result = rules::delete(&app, &permit, id, fields.text("confirm")).await;
    visitor
        .answer(
            result,
            "/rules",
            "The rule was deleted. Its findings stay.",
            &format!("/rules/{id}"),
        )
        .await
}
