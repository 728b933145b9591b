//! Findings: what needs me?

use axum::extract::{Path, Query, State};
use axum::response::Response;
use ostiary_domain::ids::FindingId;
use ostiary_store::Conn;
use ostiary_store::delivery_lists::{self, AttemptRecord, DeliveryFilter, DeliveryRecord};
use ostiary_store::finding_lists::{
    self, FindingFilter, FindingRecord, MatchRecord, Order, TimelineRecord,
};
use ostiary_store::findings::{Decision, storm_samples};
use ostiary_store::page::PageRequest;
use ostiary_store::{node_records, rule_edits, silences};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Fields;
use super::paging::{pager, request};
use super::shell::Page;
use super::table::{cell, columns_of, table};
use crate::actions::findings::{self, Decided};
use crate::auth::{Edit, Permit, View, Visitor};
use crate::error::{Error, Result};
use crate::state::App;

/// Entities and findings that the page of a finding of the fleet shows.
const ENTITIES_SHOWN: i64 = 20;
const MEMBERS_SHOWN: i64 = 50;

/// `FindingLine` of the contract.
pub(super) fn line(finding: &FindingRecord) -> Value {
    json!({
        "id": finding.id, "severity": finding.severity, "state": finding.state,
        "rule": {"id": finding.rule_id, "name": finding.rule_name}, "node": {"id": finding.node_id, "name": finding.node_name},
        "entity": finding.entity, "query_name": finding.query_name, "match_count": finding.match_count,
        "opened_at": finding.opened_at, "last_matched_at": finding.last_matched_at, "on_fleet": finding.on_fleet,
        "fleet_nodes": finding.fleet_nodes, "stands_out": finding.stands_out_at.is_some(),
        "taken_in": finding.fleet_finding_id.is_some(), "silenced": finding.silence_id.is_some(),
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
    node: String,
    q: String,
    within: String,
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
    let wanted = if state == "all" {
        String::new()
    } else {
        state.clone()
    };
    let filter = FindingFilter {
        state: wanted,
        severity: asked.severity.clone(),
        rule: asked.rule.parse().ok(),
        node: asked.node.parse().ok(),
        text: asked.q.trim().to_owned(),
        within: asked.within.parse().ok(),
        ..FindingFilter::default()
    };
    let order = if state == "open" {
        Order::Worst
    } else {
        Order::Newest
    };
    let mut conn = app.db.acquire().await?;
    let page = finding_lists::list(&mut conn, &filter, order, &request(Some(&asked.after))).await?;
    let named = |id: Option<Value>, name: &str| id.map(|id| json!({"id": id, "name": name}));
    let rule = match filter.rule {
        Some(id) => rule_edits::find(&mut conn, id)
            .await?
            .and_then(|rule| named(Some(json!(rule.id)), &rule.name)),
        None => None,
    };
    let node = match filter.node {
        Some(id) => node_records::find(&mut conn, id)
            .await?
            .and_then(|node| named(Some(json!(node.id)), &node.name)),
        None => None,
    };
    let within = match filter.within {
        Some(id) => finding_lists::find(&mut conn, id).await?.as_ref().map(line),
        None => None,
    };
    let counts = finding_lists::count_by_state(&mut conn).await?;
    let silenced = silences::count_active(&mut conn, app.now()).await?;
    drop(conn);
    let filters = [
        ("state", state.as_str()),
        ("severity", &asked.severity),
        ("rule", &asked.rule),
        ("node", &asked.node),
        ("q", &asked.q),
        ("within", &asked.within),
    ];
    let context = json!({
        "filter": {"state": state, "severity": asked.severity, "rule": asked.rule, "node": asked.node, "q": asked.q,
            "within": asked.within},
        "counts": counts, "rule": rule, "node": node, "within": within, "silenced": silenced,
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
        ..DeliveryFilter::default()
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
    let attempts = delivery_lists::list_attempts(&mut conn, &ids, false).await?;
    let timeline = finding_lists::list_timeline(&mut conn, id).await?;
    let fleet = if finding.on_fleet {
        Some(fleet(&mut conn, id).await?)
    } else {
        None
    };
    drop(conn);
    let mut head = line(&finding);
    for (name, value) in [
        ("acknowledged_at", json!(finding.acknowledged_at)),
        ("acknowledged_by", json!(finding.acknowledged_by)),
        ("resolved_at", json!(finding.resolved_at)),
        ("resolved_by", json!(finding.resolved_by)),
        ("rule_description", json!(finding.rule_description)),
        ("runbook_url", json!(finding.runbook_url)),
        ("former_id", json!(finding.former_id)),
        ("later_id", json!(finding.later_id)),
        ("fleet_finding_id", json!(finding.fleet_finding_id)),
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
        "finding": head, "matches": shown, "change": change(&matches), "fleet": fleet,
        "timeline": timeline.iter().map(timeline_line).collect::<Vec<_>>(),
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

pub(super) fn with_attempts(delivery: &DeliveryRecord, attempts: &[AttemptRecord]) -> Value {
    let mut shown = delivery_line(delivery);
    shown["attempt_list"] = json!(
        attempts
            .iter()
            .filter(|attempt| attempt.delivery_id == delivery.id)
            .collect::<Vec<_>>()
    );
    shown
}

/// What a finding of the fleet took in: its entities, and the first of its findings.
async fn fleet(conn: &mut Conn, id: FindingId) -> Result<Value> {
    let entities = storm_samples::list_entities(conn, id, ENTITIES_SHOWN).await?;
    let filter = FindingFilter {
        within: Some(id),
        ..FindingFilter::default()
    };
    let some = PageRequest {
        after: None,
        limit: Some(MEMBERS_SHOWN),
    };
    let members = finding_lists::list(conn, &filter, Order::Newest, &some).await?;
    let shown: Vec<Value> = members.items.iter().map(line).collect();
    Ok(json!({"entities": entities, "members": shown, "more": members.next.is_some()}))
}

/// Before and after, as the latest match tells it: the row that came and the one that went by the same change.
fn change(matches: &[MatchRecord]) -> Option<Vec<Value>> {
    let latest = matches.iter().find(|each| each.counterpart.is_some())?;
    let counterpart = latest.counterpart.as_ref()?;
    let (before, after) = match latest.action.as_str() {
        "removed" => (&latest.columns, counterpart),
        _ => (counterpart, &latest.columns),
    };
    let (before, after) = (before.as_object()?, after.as_object()?);
    let lines = columns_of(&[before, after]).into_iter().map(|column| {
        let (old, new) = (cell(before.get(column)), cell(after.get(column)));
        json!({"column": column, "changed": old != new, "before": old, "after": new})
    });
    Some(lines.collect())
}

/// What happened, as a sentence; what somebody wrote stands below it.
fn timeline_line(entry: &TimelineRecord) -> Value {
    let by = |verb: &str| match entry.who.as_str() {
        "" => format!("{verb} by the rule itself"),
        who => format!("{verb} by {who}"),
    };
    let (sentence, text) = match entry.kind.as_str() {
        "opened" => ("Opened".to_owned(), ""),
        "matched" => (
            format!(
                "Matched {} more {}",
                entry.count,
                if entry.count == 1 { "time" } else { "times" }
            ),
            "",
        ),
        "acknowledged" => (by("Acknowledged"), entry.text.as_str()),
        "resolved" => (by("Resolved"), entry.text.as_str()),
        "reopened" => (by("Reopened"), entry.text.as_str()),
        "commented" => (format!("{} wrote", entry.who), entry.text.as_str()),
        "silenced" => (
            format!("Nobody was told: {} has silenced it", entry.who),
            entry.text.as_str(),
        ),
        "unsilenced" => ("Matched again after the silence".to_owned(), ""),
        "taken_in" => (
            "Many nodes have this: a finding of the fleet took it in".to_owned(),
            "",
        ),
        "stood_out" => ("Told alone: few nodes have this".to_owned(), ""),
        "calm" => ("Calm again: further nodes are told of alone".to_owned(), ""),
        "told" => (
            match entry.text.as_str() {
                "opened" => "The rule's destinations are told".to_owned(),
                what => format!("Those who were told are told that it is {what}"),
            },
            "",
        ),
        "delivered" => (format!("{} took it ({})", entry.who, entry.text), ""),
        _ => (format!("{} was given up", entry.who), entry.text.as_str()),
    };
    let row = entry.columns.as_ref().map(|columns| table([columns]));
    json!({"at": entry.at, "icon": entry.kind, "text": sentence, "note": text, "table": row})
}

async fn decide(
    app: App,
    visitor: Visitor,
    permit: Permit<Edit>,
    asked: (FindingId, Fields),
    decision: Decision,
) -> Result<Response> {
    let (id, fields) = asked;
    let to = format!("/findings/{id}");
    let done = match decision {
        Decision::Acknowledge => "Acknowledged: it is yours now.",
        Decision::Resolve => "Resolved. Another match opens a new finding.",
        Decision::Reopen => "Open again.",
    };
    match findings::decide(&app, &permit, id, decision, fields.text("comment")).await {
        Ok(Decided::Changed) => visitor.done(&to, done).await,
        Ok(Decided::Already(who)) => visitor.done(&to, who).await,
        Err(error) => visitor.refused(&to, error).await,
    }
}

/// `POST /findings/{id}/acknowledge`
pub(crate) async fn acknowledge(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<FindingId>,
    fields: Fields,
) -> Result<Response> {
    decide(app, visitor, permit, (id, fields), Decision::Acknowledge).await
}

/// `POST /findings/{id}/resolve`
pub(crate) async fn resolve(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<FindingId>,
    fields: Fields,
) -> Result<Response> {
    decide(app, visitor, permit, (id, fields), Decision::Resolve).await
}

/// `POST /findings/{id}/reopen`
pub(crate) async fn reopen(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<FindingId>,
    fields: Fields,
) -> Result<Response> {
    decide(app, visitor, permit, (id, fields), Decision::Reopen).await
}

/// `POST /findings/{id}/comment`
pub(crate) async fn comment(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    Path(id): Path<FindingId>,
    fields: Fields,
) -> Result<Response> {
    let to = format!("/findings/{id}");
    let result = findings::comment(&app, &permit, id, fields.text("comment")).await;
    visitor.answer(result, &to, "Written down.", &to).await
}

/// `POST /findings/decide`: the same about all that are chosen in a list.
pub(crate) async fn decide_all(
    State(app): State<App>,
    visitor: Visitor,
    permit: Permit<Edit>,
    fields: Fields,
) -> Result<Response> {
    let ids: Vec<FindingId> = fields
        .all("ids")
        .into_iter()
        .filter_map(|id| id.parse().ok())
        .collect();
    let (decision, done) = match fields.text("decision") {
        "acknowledge" => (Decision::Acknowledge, "acknowledged"),
        "resolve" => (Decision::Resolve, "resolved"),
        "reopen" => (Decision::Reopen, "opened again"),
        _ => return Err(Error::field("decision", "Choose what to do.")),
    };
    let state = match fields.text("state") {
        state @ ("acknowledged" | "resolved" | "all") => state,
        _ => "open",
    };
    let to = format!("/findings?state={state}");
    match findings::decide_all(&app, &permit, &ids, decision, fields.text("comment")).await {
        Ok(tally) => {
            let mut said = format!("{} {done}.", tally.changed);
            if tally.already > 0 {
                said.push_str(&format!(" {} had been before.", tally.already));
            }
            for why in tally.refused {
                said.push(' ');
                said.push_str(&why);
            }
            visitor.done(&to, said).await
        }
        Err(error) => visitor.refused(&to, error).await,
    }
}
