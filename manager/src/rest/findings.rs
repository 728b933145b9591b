//! Findings with the rows that prove them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ostiary_domain::ids::FindingId;
use ostiary_store::finding_lists::{self, FindingFilter, FindingRecord, MatchRecord, Order};
use ostiary_store::findings::Decision;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Asked, Paging, listed};
use crate::actions::findings::{self, Decided};
use crate::auth::{Edit, Permit, View};
use crate::error::{Error, Result};
use crate::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    state: String,
    severity: String,
    rule: String,
    node: String,
    q: String,
    within: String,
    limit: Option<i64>,
    after: Option<String>,
}

/// An id that may be left out, but not be wrong: a misspelt filter must not list everything.
pub(super) fn optional<T: std::str::FromStr>(field: &str, text: &str) -> Result<Option<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| Error::field(field, format!("{field} must be an id.")))
}

/// `GET /api/v1/findings`, newest first; all states unless one is asked for.
pub(crate) async fn list(
    State(app): State<App>,
    _: Permit<View>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Value>> {
    let paging = Paging {
        limit: wanted.limit,
        after: wanted.after,
    }
    .request::<3>()?;
    let filter = FindingFilter {
        rule: optional("rule", &wanted.rule)?,
        node: optional("node", &wanted.node)?,
        state: wanted.state,
        severity: wanted.severity,
        within: optional("within", &wanted.within)?,
        text: wanted.q,
        id: None,
        taken_in: true,
    };
    let mut conn = app.db.acquire().await?;
    let page = finding_lists::list(&mut conn, &filter, Order::Newest, &paging).await?;
    let ids: Vec<_> = page.items.iter().map(|finding| finding.id).collect();
    let matches = finding_lists::list_matches(&mut conn, &ids).await?;
    let items: Vec<Value> = page
        .items
        .iter()
        .map(|finding| item(finding, &matches))
        .collect();
    Ok(listed(&items, page.next.as_deref()))
}

/// `GET /api/v1/findings/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<FindingId>,
) -> Result<Json<Value>> {
    let mut conn = app.db.acquire().await?;
    let finding = finding_lists::find(&mut conn, id)
        .await?
        .ok_or(Error::NotFound)?;
    let matches = finding_lists::list_matches(&mut conn, &[id.0]).await?;
    let mut shown = item(&finding, &matches);
    shown["timeline"] = json!(finding_lists::list_timeline(&mut conn, id).await?);
    Ok(Json(shown))
}

/// What is decided, or written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Said {
    comment: String,
}

async fn decide(
    app: App,
    permit: Permit<Edit>,
    id: FindingId,
    decision: Decision,
    comment: &str,
) -> Result<Json<Value>> {
    let decided = findings::decide(&app, &permit, id, decision, comment).await?;
    Ok(Json(match decided {
        Decided::Changed => json!({"changed": true}),
        Decided::Already(said) => json!({"changed": false, "said": said}),
    }))
}

/// `POST /api/v1/findings/{id}/acknowledge`
pub(crate) async fn acknowledge(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path(id): Path<FindingId>,
    Json(said): Json<Said>,
) -> Result<Json<Value>> {
    decide(app, permit, id, Decision::Acknowledge, &said.comment).await
}

/// `POST /api/v1/findings/{id}/resolve`
pub(crate) async fn resolve(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path(id): Path<FindingId>,
    Json(said): Json<Said>,
) -> Result<Json<Value>> {
    decide(app, permit, id, Decision::Resolve, &said.comment).await
}

/// `POST /api/v1/findings/{id}/reopen`
pub(crate) async fn reopen(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path(id): Path<FindingId>,
    Json(said): Json<Said>,
) -> Result<Json<Value>> {
    decide(app, permit, id, Decision::Reopen, &said.comment).await
}

/// `POST /api/v1/findings/{id}/comment`
pub(crate) async fn comment(
    State(app): State<App>,
    permit: Permit<Edit>,
    Path(id): Path<FindingId>,
    Json(said): Json<Said>,
) -> Result<StatusCode> {
    findings::comment(&app, &permit, id, &said.comment).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The same about several findings.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Several {
    ids: Vec<FindingId>,
    decision: String,
    comment: String,
}

/// `POST /api/v1/findings/decide`
pub(crate) async fn decide_all(
    State(app): State<App>,
    permit: Permit<Edit>,
    Json(asked): Json<Several>,
) -> Result<Json<Value>> {
    let decision = match asked.decision.as_str() {
        "acknowledge" => Decision::Acknowledge,
        "resolve" => Decision::Resolve,
        "reopen" => Decision::Reopen,
        _ => {
            return Err(Error::field(
                "decision",
                "decision must be acknowledge, resolve or reopen.",
            ));
        }
    };
    let tally = findings::decide_all(&app, &permit, &asked.ids, decision, &asked.comment).await?;
    Ok(Json(
        json!({"changed": tally.changed, "already": tally.already, "refused": tally.refused}),
    ))
}

fn item(finding: &FindingRecord, matches: &[MatchRecord]) -> Value {
    let own: Vec<Value> = matches
        .iter()
        .filter(|each| each.finding_id == finding.id)
        .map(|each| {
            json!({"matched_at": each.matched_at, "occurred_at": each.occurred_at, "query": each.query_name,
                "action": each.action, "columns": each.columns, "counterpart": each.counterpart})
        })
        .collect();
    json!({
        "id": finding.id, "rule": {"id": finding.rule_id, "name": finding.rule_name},
        "node": {"id": finding.node_id, "name": finding.node_name}, "entity": finding.entity, "severity": finding.severity,
        "state": finding.state, "query": finding.query_name, "opened_at": finding.opened_at,
        "last_matched_at": finding.last_matched_at, "acknowledged_at": finding.acknowledged_at,
        "acknowledged_by": finding.acknowledged_by, "resolved_at": finding.resolved_at, "resolved_by": finding.resolved_by,
        "match_count": finding.match_count, "on_fleet": finding.on_fleet, "fleet_nodes": finding.fleet_nodes,
        "fleet_finding_id": finding.fleet_finding_id, "stands_out_at": finding.stands_out_at, "former_id": finding.former_id,
        "later_id": finding.later_id, "silence_id": finding.silence_id, "matches": own,
    })
}
