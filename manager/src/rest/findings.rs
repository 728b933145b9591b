//! Findings with the rows that prove them.

use axum::Json;
use axum::extract::{Path, State};
use ostiary_domain::ids::FindingId;
use ostiary_store::finding_lists::{self, FindingFilter, FindingRecord, MatchRecord, Order};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Asked, Paging, listed};
use crate::auth::{Permit, View};
use crate::error::{Error, Result};
use crate::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    state: String,
    severity: String,
    rule: String,
    node: String,
    limit: Option<i64>,
    after: Option<String>,
}

/// An id that may be left out, but not be wrong: a misspelt filter must not list everything.
fn optional<T: std::str::FromStr>(field: &str, text: &str) -> Result<Option<T>> {
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
        id: None,
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
    Ok(Json(item(&finding, &matches)))
}

fn item(finding: &FindingRecord, matches: &[MatchRecord]) -> Value {
    let own: Vec<Value> = matches
        .iter()
        .filter(|each| each.finding_id == finding.id)
        .map(|each| {
            json!({"matched_at": each.matched_at, "occurred_at": each.occurred_at, "query": each.query_name,
                "action": each.action, "columns": each.columns})
        })
        .collect();
    json!({
        "id": finding.id, "rule": {"id": finding.rule_id, "name": finding.rule_name},
        "node": {"id": finding.node_id, "name": finding.node_name}, "entity": finding.entity, "severity": finding.severity,
        "state": finding.state, "query": finding.query_name, "opened_at": finding.opened_at,
        "last_matched_at": finding.last_matched_at, "acknowledged_at": finding.acknowledged_at,
        "acknowledged_by": finding.acknowledged_by, "resolved_at": finding.resolved_at, "resolved_by": finding.resolved_by,
        "match_count": finding.match_count, "matches": own,
    })
}
