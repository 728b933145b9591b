//! Nodes, their events and their present rows.

use axum::Json;
use axum::extract::{Path, State};
use ostiary_domain::ids::NodeId;
use ostiary_store::event_lists::{self, EventRecord};
use ostiary_store::node_lists::{self, NodeFilter};
use ostiary_store::{Conn, node_records};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Asked, Paging, listed};
use crate::auth::{Permit, View};
use crate::error::{Error, Result};
use crate::pages::nodes::{health, present_rows, staleness};
use crate::state::App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    q: String,
    state: String,
    platform: String,
    tag: String,
    limit: Option<i64>,
    after: Option<String>,
}

/// `GET /api/v1/nodes`
pub(crate) async fn list(
    State(app): State<App>,
    _: Permit<View>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Value>> {
    let filter = NodeFilter {
        text: wanted.q,
        state: wanted.state,
        platform: wanted.platform,
        tag: wanted.tag,
        ..NodeFilter::default()
    };
    let paging = Paging {
        limit: wanted.limit,
        after: wanted.after,
    }
    .request::<2>()?;
    let page = node_lists::list(
        &mut *app.db.acquire().await?,
        &filter,
        app.cutoffs(),
        &paging,
    )
    .await?;
    Ok(listed(&page.items, page.next.as_deref()))
}

/// `GET /api/v1/nodes/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<NodeId>,
) -> Result<Json<Value>> {
    let node = node_records::find(&mut *app.db.acquire().await?, id)
        .await?
        .ok_or(Error::NotFound)?;
    let mut shown = json!(node);
    shown["state"] = health(&node, &app).into();
    Ok(Json(shown))
}

async fn must_exist(conn: &mut Conn, id: NodeId) -> Result<()> {
    node_lists::names(conn, &[id.0])
        .await?
        .pop()
        .map(drop)
        .ok_or(Error::NotFound)
}

/// `GET /api/v1/nodes/{id}/events`: one item a row, newest first.
pub(crate) async fn events(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<NodeId>,
    Asked(paging): Asked<Paging>,
) -> Result<Json<Value>> {
    let request = paging.request::<3>()?;
    let mut conn = app.db.acquire().await?;
    must_exist(&mut conn, id).await?;
    let page = event_lists::list_rows_of_node(&mut conn, id, &request).await?;
    let items: Vec<Value> = page
        .parts
        .iter()
        .flat_map(|(event, range)| rows_of(event, range.clone()))
        .collect();
    Ok(listed(&items, page.next.as_deref()))
}

/// An execution without rows (an empty snapshot) is one item without columns: it was received, and it says that there is nothing.
fn rows_of(event: &EventRecord, range: std::ops::Range<usize>) -> Vec<Value> {
    let rows: Vec<Value> = serde_json::from_str(&event.rows).unwrap_or_default();
    range
        .map(|index| {
            let row = rows.get(index);
            let of_row = |name: &str| row.and_then(|row| row.get(name)).cloned().unwrap_or(Value::Null);
            let action = row.and_then(|row| row["action"].as_str()).unwrap_or("snapshot");
            json!({
                "id": format!("{}.{index}", event.id), "node_id": event.node_id, "query": event.query_name, "action": action,
                "unix_time": event.unix_time, "occurred_at": event.occurred_at, "received_at": event.received_at,
                "epoch": event.epoch.parse::<u64>().map_or_else(|_| json!(event.epoch), Value::from), "counter": event.counter,
                "snapshot": event.snapshot, "baseline": event.baseline, "late": event.late, "columns": of_row("columns"),
                "decorations": of_row("decorations"),
            })
        })
        .collect()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WantedRows {
    query: Option<String>,
}

/// `GET /api/v1/nodes/{id}/present-rows`: what holds now, one item a query; not paged, a node has some dozens.
pub(crate) async fn present(
    State(app): State<App>,
    _: Permit<View>,
    Path(id): Path<NodeId>,
    Asked(wanted): Asked<WantedRows>,
) -> Result<Json<Value>> {
    let mut conn = app.db.acquire().await?;
    must_exist(&mut conn, id).await?;
    let found = event_lists::find_present(&mut conn, id, wanted.query.as_deref()).await?;
    let stale = staleness::of(&mut conn, id, &found, app.now()).await?;
    let items: Vec<Value> = found
        .iter()
        .map(|each| {
            json!({"query": each.query_name, "snapshot": each.snapshot, "complete": each.complete, "row_count": each.row_count,
                "changed_at": each.changed_at, "stale": stale.get(&each.query_name).map(|stale| stale.as_str()),
                "rows": present_rows(&each.rows)})
        })
        .collect();
    Ok(listed(&items, None))
}
