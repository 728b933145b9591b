//! Rules: what do we want to hear about?

use axum::extract::{Path, State};
use axum::response::Response;
use ostiary_domain::fact::{FACTS, FactKind};
use ostiary_domain::ids::RuleId;
use ostiary_store::finding_lists::{self, FindingFilter, Order};
use ostiary_store::page::PageRequest;
use ostiary_store::{destinations, rule_edits, rules_revisions, tags};
use serde_json::{Value, json};

use super::Fields;
use super::findings::line;
use super::shell::Page;
use crate::actions::rules::{self, RuleDraft};
use crate::actions::{rule_trial, starter_rules};
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
        owner: fields.owned("owner"),
        watch: match fields.text("watch") {
            // Who does not say it means what rules have always waited for.
            "" => RuleDraft::new().watch,
            watch => watch.to_owned(),
        },
        watch_count: fields.owned("watch_count"),
        watch_seconds: fields.owned("watch_seconds"),
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
    let mut query_names = ostiary_store::rules::list_query_names(&mut conn, 500).await?;
    query_names.extend(FACTS.map(FactKind::query_name));
    Ok(json!({
        "rule": rule.map(|(id, name)| json!({"id": id, "name": name})), "form": form, "errors": errors, "destinations": listed,
        "language": rules::language(), "all_tags": tags::names(&mut conn).await?, "trial": null, "days": "7",
        "query_names": query_names,
    }))
}

/// `GET /rules`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
) -> Result<Response> {
    let found = rule_edits::list(&mut *app.db.acquire().await?).await?;
    let starters = starter_rules::list(&found);
    Page {
        template: "pages/rules/list.html",
        title: "Rules",
        nav: "rules",
    }
    .show(
        &app,
        &visitor,
        json!({"rules": found, "starters": starters}),
    )
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
    let revisions = rules_revisions::list(&mut conn, id).await?;
    drop(conn);
    let mut shown = json!(rule);
    shown["conditions"] = rule.conditions.to_string().into();
    let context = json!({"rule": shown, "destinations": destinations, "findings": findings.iter().map(line).collect::<Vec<_>>(),
        "revisions": revisions, "language": rules::language()});
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

/// `POST /rules/dry-run`: the form again, with what the rule would have done.
pub(crate) async fn try_new(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    try_rule(&app, &visitor, &permit, (None, &fields)).await
}

/// `POST /rules/{id}/dry-run`
pub(crate) async fn try_changed(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<RuleId>,
    fields: Fields,
) -> Result<Response> {
    try_rule(&app, &visitor, &permit, (Some(id), &fields)).await
}

async fn try_rule(
    app: &App,
    visitor: &Visitor,
    permit: &Permit<Edit>,
    (id, fields): (Option<RuleId>, &Fields),
) -> Result<Response> {
    let form = draft(fields);
    let rule = match id {
        Some(id) => rule_edits::find(&mut *app.db.acquire().await?, id).await?,
        None => None,
    };
    let tried = rule_trial::dry_run(app, permit, &form, fields.text("days")).await;
    let (trial, errors) = match tried {
        Ok(trial) => (json!(trial), FieldErrors::default()),
        Err(error) => (Value::Null, error.into_fields()?),
    };
    let is_right = errors.0.is_empty();
    let named = rule
        .as_ref()
        .map(|rule| (RuleId(rule.id), rule.name.as_str()));
    let mut context = context(app, named, &form, errors).await?;
    context["trial"] = trial;
    context["days"] = fields.text("days").into();
    let title = match &rule {
        Some(rule) => format!("Edit {}", rule.name),
        None => "New rule".to_owned(),
    };
    let page = Page {
        template: FORM,
        title: &title,
        nav: "rules",
    };
    if is_right {
        page.show(app, visitor, context).await
    } else {
        page.show_again(app, visitor, context).await
    }
}

/// `POST /rules/{id}/revisions/{number}/return`
pub(crate) async fn return_to(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path((id, number)): Path<(RuleId, i32)>,
) -> Result<Response> {
    let result = rules::return_to(&app, &permit, id, number).await;
    let page = format!("/rules/{id}");
    visitor
        .answer(
            result,
            &page,
            &format!("The rule is what it was after revision {number}."),
            &page,
        )
        .await
}

/// `POST /rules/starter`: makes a rule of the starter set, with its pack.
pub(crate) async fn add_starter(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let result = starter_rules::add(&app, &permit, fields.text("starter"), &fields.saving()).await;
    visitor
        .answer(
            result.map(drop),
            "/rules",
            "The rule and its pack are on. Choose in the rule whom it tells.",
            "/rules",
        )
        .await
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
