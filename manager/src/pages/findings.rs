//! Findings: what needs me?

use axum::extract::{Path, Query, State};
use axum::response::Response;
use chrono::{DateTime, Utc};
use ostiary_domain::ids::{FindingId, RuleId};
use ostiary_store::delivery_lists::{self, AttemptRecord, DeliveryFilter, DeliveryRecord};
use ostiary_store::finding_lists::{
    self, Decision, FindingFilter, FindingRecord, MatchRecord, Order,
};
use ostiary_store::page::PageRequest;
use ostiary_store::rule_edits;
use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::{pager, request};
use super::shell::Page;
use super::table::{cell, columns_of, table};
use crate::actions::findings;
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, Result};
use crate::state::App;

/// `FindingLine` of the contract.
pub(super) fn line(finding: &FindingRecord) -> Value {
    json!({
        "id": finding.id, "severity": finding.severity, "state": finding.state,
        "rule": {"id": finding.rule_id, "name": finding.rule_name}, "node": {"id": finding.node_id, "name": finding.node_name},
        "entity": finding.entity, "query_name": finding.query_name, "match_count": finding.match_count,
        "opened_at": finding.opened_at, "last_matched_at": finding.last_matched_at,
    })
}

/// `DeliveryLine` of the contract.
pub(super) fn delivery_line(delivery: &DeliveryRecord) -> Value {
    let is_waiting = delivery.state == "waiting";
    json!({
        "id": delivery.id, "state": delivery.state,
        "destination": {"id": delivery.destination_id, "name": delivery.destination_name, "kind": delivery.destination_kind},
        "alert_kind": delivery.alert_kind, "finding": {"id": delivery.finding_id, "title": delivery.finding_title},
        "attempts": delivery.attempts, "created_at": delivery.created_at, "due_at": is_waiting.then_some(delivery.due_at),
        "finished_at": delivery.finished_at, "last_answer": delivery.last_answer,
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    state: Option<String>,
    severity: String,
    rule: String,
    after: String,
}

/// `GET /findings`
pub(crate) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let state = asked.state.unwrap_or_else(|| "open".to_owned());
    let rule_id: Option<RuleId> = asked.rule.parse().ok();
    let wanted = if state == "all" {
        String::new()
    } else {
        state.clone()
    };
    let filter = FindingFilter {
        state: wanted,
        severity: asked.severity.clone(),
        rule: rule_id,
        ..FindingFilter::default()
    };
    let order = if state == "open" {
        Order::Worst
    } else {
        Order::Newest
    };
    let mut conn = app.db.acquire().await?;
    let page = finding_lists::list(&mut conn, &filter, order, &request(Some(&asked.after))).await?;
    let rule = match rule_id {
        Some(id) => rule_edits::find(&mut conn, id)
            .await?
            .map(|rule| json!({"id": rule.id, "name": rule.name})),
        None => None,
    };
    let counts = finding_lists::count_by_state(&mut conn).await?;
    drop(conn);
    let filters = [
        ("state", state.as_str()),
        ("severity", &asked.severity),
        ("rule", &asked.rule),
    ];
    let context = json!({
        "filter": {"state": state, "severity": asked.severity, "rule": asked.rule},
        "counts": counts, "rule": rule,
        "findings": page.items.iter().map(line).collect::<Vec<_>>(),
        "pager": pager("/findings", &filters, "after", page.next.as_deref(), asked.after.is_empty()),
    });
    Page {
        template: "pages/findings/list.html",
        title: "Findings",
        nav: "findings",
    }
    .show(&app, &visitor, context)
    .await
}

/// `GET /findings/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<FindingId>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let finding = finding_lists::find(&mut conn, id)
        .await?
        .ok_or(Error::NotFound)?;
    let matches = finding_lists::list_matches(&mut conn, &[id.0]).await?;
    let about = DeliveryFilter {
        finding: Some(id),
        destination: None,
    };
    let deliveries = delivery_lists::list(
        &mut conn,
        about,
        &PageRequest {
            after: None,
            limit: Some(200),
        },
    )
    .await?
    .items;
    let ids: Vec<_> = deliveries.iter().map(|delivery| delivery.id).collect();
    let attempts = delivery_lists::list_attempts(&mut conn, &ids).await?;
    drop(conn);
    let mut head = line(&finding);
    for (name, value) in [
        ("acknowledged_at", json!(finding.acknowledged_at)),
        ("acknowledged_by", json!(finding.acknowledged_by)),
        ("resolved_at", json!(finding.resolved_at)),
        ("resolved_by", json!(finding.resolved_by)),
        ("rule_description", json!(finding.rule_description)),
        ("runbook_url", json!(finding.runbook_url)),
    ] {
        head[name] = value;
    }
    let shown: Vec<_> = matches
        .iter()
        .map(|each| {
            json!({"matched_at": each.matched_at, "occurred_at": each.occurred_at, "query_name": each.query_name,
                "action": each.action, "table": table([&each.columns])})
        })
        .collect();
    let context = json!({
        "finding": head, "matches": shown, "change": change(&matches), "timeline": timeline(&finding, &deliveries),
        "deliveries": deliveries.iter().map(|delivery| with_attempts(delivery, &attempts)).collect::<Vec<_>>(),
    });
    Page {
        template: "pages/findings/show.html",
        title: &finding.rule_name,
        nav: "findings",
    }
    .show(&app, &visitor, context)
    .await
}

fn with_attempts(delivery: &DeliveryRecord, attempts: &[AttemptRecord]) -> Value {
    let mut shown = delivery_line(delivery);
    shown["attempt_list"] = json!(
        attempts
            .iter()
            .filter(|attempt| attempt.delivery_id == delivery.id)
            .collect::<Vec<_>>()
    );
    shown
}

/// Before and after, when the latest matches are a removed and an added row of one execution.
fn change(matches: &[MatchRecord]) -> Option<Vec<Value>> {
    let latest = matches.first()?;
    let other = matches.get(1).filter(|other| {
        other.occurred_at == latest.occurred_at && other.query_name == latest.query_name
    })?;
    let (before, after) = match (latest.action.as_str(), other.action.as_str()) {
        ("added", "removed") => (other, latest),
        ("removed", "added") => (latest, other),
        _ => return None,
    };
    let (before, after) = (before.columns.as_object()?, after.columns.as_object()?);
    let lines = columns_of(&[before, after]).into_iter().map(|column| {
        let (old, new) = (cell(before.get(column)), cell(after.get(column)));
        json!({"column": column, "changed": old != new, "before": old, "after": new})
    });
    Some(lines.collect())
}

fn timeline(finding: &FindingRecord, deliveries: &[DeliveryRecord]) -> Vec<Value> {
    let by = |who: &Option<String>| {
        who.as_ref()
            .map(|name| format!(" by {name}"))
            .unwrap_or_default()
    };
    let mut entries: Vec<(DateTime<Utc>, &str, String)> =
        vec![(finding.opened_at, "opened", "Opened".to_owned())];
    if finding.match_count > 1 {
        entries.push((
            finding.last_matched_at,
            "matched",
            format!("Matched again, {} times in all", finding.match_count),
        ));
    }
    if let Some(at) = finding.acknowledged_at {
        entries.push((
            at,
            "acknowledged",
            format!("Acknowledged{}", by(&finding.acknowledged_by)),
        ));
    }
    if let Some(at) = finding.resolved_at {
        entries.push((
            at,
            "resolved",
            format!("Resolved{}", by(&finding.resolved_by)),
        ));
    }
    for delivery in deliveries {
        let Some(at) = delivery.finished_at else {
            continue;
        };
        entries.push(match delivery.state.as_str() {
            "delivered" => (
                at,
                "delivered",
                format!("Told to {}", delivery.destination_name),
            ),
            _ => (
                at,
                "failed",
                format!(
                    "Given up on {}: {}",
                    delivery.destination_name, delivery.last_answer
                ),
            ),
        });
    }
    entries.sort_by_key(|(at, _, _)| std::cmp::Reverse(*at));
    entries
        .into_iter()
        .map(|(at, icon, text)| json!({"at": at, "icon": icon, "text": text}))
        .collect()
}

async fn decide(
    app: App,
    visitor: Visitor,
    permit: Permit<Edit>,
    id: FindingId,
    decision: Decision,
    done: &str,
) -> Result<Response> {
    let to = format!("/findings/{id}");
    let result = findings::decide(&app, &permit, id, decision).await;
    visitor.answer(result, &to, done, &to).await
}

/// `POST /findings/{id}/acknowledge`
pub(crate) async fn acknowledge(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<FindingId>,
) -> Result<Response> {
    decide(
        app,
        visitor,
        permit,
        id,
        Decision::Acknowledge,
        "Acknowledged: it is yours now.",
    )
    .await
}

/// `POST /findings/{id}/resolve`
pub(crate) async fn resolve(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<FindingId>,
) -> Result<Response> {
    decide(
        app,
        visitor,
        permit,
        id,
        Decision::Resolve,
        "Resolved. Another match opens a new finding.",
    )
    .await
}

/// `POST /findings/{id}/reopen`
pub(crate) async fn reopen(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<FindingId>,
) -> Result<Response> {
    decide(app, visitor, permit, id, Decision::Reopen, "Open again.").await
}
