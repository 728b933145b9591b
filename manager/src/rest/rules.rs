//! Rules for programs: the same actions as the form, with JSON where the form has text.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ostiary_domain::ids::RuleId;
use ostiary_store::rule_edits::{self, RuleRecord};
use ostiary_store::rules_revisions;
use serde::Deserialize;
use serde_json::{Value, json};

use super::listed;
use crate::actions::rule_trial::{self, Trial};
use crate::actions::rules::{self, RuleDraft};
use crate::auth::{Edit, Permit, View};
use crate::error::{Error, Result};
use crate::state::App;

/// A rule as it is sent; what is left out has the form's default.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sent {
    name: String,
    description: String,
    severity: Option<String>,
    conditions: Value,
    scope: String,
    entity_columns: Vec<String>,
    on_baseline: bool,
    max_age_seconds: Option<i64>,
    runbook_url: String,
    enabled: Option<bool>,
    owner: String,
    watch: Option<String>,
    watch_count: Option<i64>,
    watch_seconds: Option<i64>,
    /// Ids.
    destinations: Vec<String>,
}

impl From<Sent> for RuleDraft {
    fn from(sent: Sent) -> Self {
        let default = Self::new();
        let text =
            |number: Option<i64>| number.map_or_else(String::new, |number| number.to_string());
        Self {
            name: sent.name,
            description: sent.description,
            severity: sent.severity.unwrap_or(default.severity),
            conditions: sent.conditions.to_string(),
            scope: sent.scope,
            entity_columns: sent.entity_columns.join(", "),
            on_baseline: sent.on_baseline,
            max_age_seconds: (sent.max_age_seconds)
                .map_or(default.max_age_seconds, |seconds| seconds.to_string()),
            runbook_url: sent.runbook_url,
            enabled: sent.enabled.unwrap_or(default.enabled),
            owner: sent.owner,
            watch: sent.watch.unwrap_or(default.watch),
            watch_count: text(sent.watch_count),
            watch_seconds: text(sent.watch_seconds),
            destinations: sent.destinations,
        }
    }
}

/// `GET /api/v1/rules`: all of them, by name.
pub(crate) async fn list(State(app): State<App>, _: Permit<View>) -> Result<Json<Value>> {
    let rules: Vec<RuleRecord> = rule_edits::list(&mut *app.db.acquire().await?).await?;
    Ok(listed(&rules, None))
}

/// `GET /api/v1/rules/{id}`, its destinations with their ids.
pub(crate) async fn show(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<RuleId>,
) -> Result<Json<Value>> {
    let mut conn = app.db.acquire().await?;
    let rule = rule_edits::find(&mut conn, id)
        .await?
        .ok_or(Error::NotFound)?;
    let mut shown = json!(rule);
    shown["destinations"] = json!(rule_edits::list_destinations(&mut conn, id).await?);
    Ok(Json(shown))
}

/// `GET /api/v1/rules/language`: the fields, operators and watches there are.
pub(crate) async fn language(_: Permit<View>) -> Json<Value> {
    Json(rules::language())
}

/// `POST /api/v1/rules`; answers the id.
pub(crate) async fn create(
    State(app): State<App>,
    permit: Permit<Edit>,
    Json(sent): Json<Sent>,
) -> Result<(StatusCode, Json<Value>)> {
    let id = rules::create(&app, &permit, &sent.into()).await?;
    Ok((StatusCode::CREATED, Json(json!({"id": id}))))
}

/// `PUT /api/v1/rules/{id}`: the whole rule.
pub(crate) async fn update(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path(id): Path<RuleId>,
    Json(sent): Json<Sent>,
) -> Result<StatusCode> {
    rules::update(&app, &permit, id, &sent.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Confirmed {
    /// The rule's name.
    confirm: String,
}

/// `DELETE /api/v1/rules/{id}`, with the rule's name in `confirm`.
pub(crate) async fn delete(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path(id): Path<RuleId>,
    Json(confirmed): Json<Confirmed>,
) -> Result<StatusCode> {
    rules::delete(&app, &permit, id, &confirmed.confirm).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
pub(crate) struct Tried {
    /// As it would be sent to be made; it needs no name.
    rule: Sent,
    /// 7, if it is left out.
    days: Option<i64>,
}

/// `POST /api/v1/rules/dry-run`: what a rule would have done in the last days. Whoever hangs up ends it.
pub(crate) async fn dry_run(
    State(app): State<App>,
    permit: Permit<Edit>,
    Json(tried): Json<Tried>,
) -> Result<Json<Trial>> {
    let days = tried.days.unwrap_or(7).to_string();
    Ok(Json(
        rule_trial::dry_run(&app, &permit, &tried.rule.into(), &days).await?,
    ))
}

/// `GET /api/v1/rules/{id}/revisions`, newest first.
pub(crate) async fn revisions(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<RuleId>,
) -> Result<Json<Value>> {
    let found = rules_revisions::list(&mut *app.db.acquire().await?, id).await?;
    Ok(listed(&found, None))
}

/// `GET /api/v1/rules/{id}/revisions/{number}`: the rule as it was.
pub(crate) async fn revision(
    State(app): State<App>,
    _: Permit<View>,
    Path((id, number)): Path<(RuleId, i32)>,
) -> Result<Json<Value>> {
    let found = rules_revisions::find_json(&mut *app.db.acquire().await?, id, number).await?;
    found.map(Json).ok_or(Error::NotFound)
}

/// `POST /api/v1/rules/{id}/revisions/{number}/return`
pub(crate) async fn return_to(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path((id, number)): Path<(RuleId, i32)>,
) -> Result<StatusCode> {
    rules::return_to(&app, &permit, id, number).await?;
    Ok(StatusCode::NO_CONTENT)
}
