//! Everything about one node.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use ostiary_domain::ids::NodeId;
use ostiary_domain::node::{Health, HealthLimits};
use ostiary_store::event_lists::{self, EventFilter, EventRecord};
use ostiary_store::finding_lists::{self, FindingFilter, Order};
use ostiary_store::node_merges;
use ostiary_store::node_records::{self, NodeRecord};
use ostiary_store::{Conn, live_queries as live_query_lists, node_lists, tags};
use serde::Deserialize;
use serde_json::{Value, json};

use super::staleness;
use crate::auth::{Permit, View, Visitor};
use crate::error::{Error, Result};
use crate::pages::paging::{pager, request};
use crate::pages::shell::Page;
use crate::pages::table::{MAX_ROWS, rows_of, table};
use crate::pages::{findings::line, live_queries::title};
use crate::state::App;

pub(in crate::pages) async fn load(conn: &mut Conn, id: NodeId) -> Result<NodeRecord> {
    node_records::find(conn, id).await?.ok_or(Error::NotFound)
}

/// The judgement of the house on a node.
pub(crate) fn health(node: &NodeRecord, app: &App) -> &'static str {
    let seen = node.last_seen_at.unwrap_or(node.enrolled_at);
    let limits = HealthLimits::default();
    Health::judge(
        node.disabled_at.is_some(),
        node.enrolled_at,
        seen,
        node.results_at,
        &limits,
        app.now(),
    )
    .as_str()
}

/// What every page of one node shows.
fn head(node: &NodeRecord, app: &App) -> Value {
    json!({
        "id": node.id, "name": node.name, "display_name": node.display_name, "hostname": node.hostname,
        "host_identifier": node.host_identifier, "state": health(node, app), "platform": node.platform, "os_name": node.os_name,
        "os_version": node.os_version, "osquery_version": node.osquery_version, "last_seen_at": node.last_seen_at,
        "last_ip": node.last_ip, "open_findings": node.open_findings, "disabled_at": node.disabled_at,
    })
}

pub(in crate::pages) async fn render(
    app: &App,
    visitor: &Visitor,
    node: &NodeRecord,
    tab: &str,
    file: &str,
    mut context: Value,
) -> Result<Response> {
    context["node"] = head(node, app);
    context["node_tab"] = tab.into();
    let template = format!("pages/nodes/{file}.html");
    Page {
        template: &template,
        title: &node.name,
        nav: "nodes",
    }
    .show(app, visitor, context)
    .await
}

/// `GET /nodes/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<NodeId>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let node = load(&mut conn, id).await?;
    let conflict = match node.conflict_with {
        Some(other) => node_lists::names(&mut conn, &[other]).await?.pop(),
        None => None,
    };
    let checkins = [
        ("enroll", node.enroll_at),
        ("config", node.config_at),
        ("log", node.log_at),
        ("distributed/read", node.distributed_read_at),
        ("distributed/write", node.distributed_write_at),
    ];
    let context = json!({
        "vitals": vitals(&node),
        "tags": node.tags,
        "all_tags": tags::names(&mut conn).await?,
        "checkins": checkins.iter().map(|(endpoint, at)| json!({"endpoint": endpoint, "at": at})).collect::<Vec<_>>(),
        "identity": {
            "hardware_uuid": node.hardware_uuid, "hardware_serial": node.hardware_serial, "hardware_model": node.hardware_model,
            "instance_id": node.instance_id, "enroll_secret": node.enroll_secret, "first_enrolled_at": node.first_enrolled_at,
            "enrolled_at": node.enrolled_at, "conflict_with": conflict, "reestablished_at": node.reestablished_at,
            "lines_lost": node.lines_lost, "keys": node.keys,
            "approval": node.approval,
            "moving": node_merges::list_moving_to(&mut conn, id, app.now()).await?,
        },
        "host_details": node.host_details.to_string(),
        "results_at": node.results_at,
    });
    drop(conn);
    render(&app, &visitor, &node, "summary", "show", context).await
}

/// What is known of the machine, each with a name for people; what is not known is left out.
fn vitals(node: &NodeRecord) -> Vec<Value> {
    let of = |query: &str, column: &str| {
        let found = node.vitals.as_object().and_then(|vitals| {
            let key = vitals
                .keys()
                .find(|key| key.as_str() == query || key.rsplit('/').next() == Some(query))?;
            let row = vitals[key].get(0).unwrap_or(&vitals[key]);
            row.get(column)
                .and_then(Value::as_str)
                .map(ToOwned::to_owned)
        });
        let enrolled = || {
            node.host_details
                .get(query)?
                .get(column)?
                .as_str()
                .map(ToOwned::to_owned)
        };
        found.or_else(enrolled).unwrap_or_default()
    };
    let memory = of("system_info", "physical_memory")
        .parse::<i64>()
        .map(|bytes| format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0));
    let uptime = of("uptime", "total_seconds")
        .parse::<i64>()
        .map(|seconds| format!("{} h", seconds / 3600));
    let listed = [
        (
            "Operating system",
            format!("{} {}", node.os_name, node.os_version)
                .trim()
                .to_owned(),
        ),
        ("Model", node.hardware_model.clone()),
        ("Serial number", node.hardware_serial.clone()),
        (
            "Processor",
            of("system_info", "cpu_brand").trim().to_owned(),
        ),
        ("Logical cores", of("system_info", "cpu_logical_cores")),
        ("Memory", memory.unwrap_or_default()),
        ("Up for", uptime.unwrap_or_default()),
        ("osquery", node.osquery_version.clone()),
        ("Architecture", of("os_version", "arch")),
    ];
    listed
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(label, value)| json!({"label": label, "value": value}))
        .collect()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    query: String,
    action: String,
    severity: String,
    before: String,
    after: String,
}

/// `GET /nodes/{id}/present`
pub(crate) async fn present(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<NodeId>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let node = load(&mut conn, id).await?;
    let queries = event_lists::list_present(&mut conn, id).await?;
    let chosen = if asked.query.is_empty() {
        None
    } else {
        event_lists::find_present(&mut conn, id, Some(&asked.query))
            .await?
            .pop()
    };
    let stale = staleness::of(&mut conn, id, &queries, app.now()).await?;
    let stale = |query: &str| stale.get(query).map(|stale| stale.as_str());
    drop(conn);
    let queries: Vec<_> = queries
        .iter()
        .map(|each| {
            json!({"name": each.query_name, "row_count": each.row_count, "changed_at": each.changed_at, "snapshot": each.snapshot,
                "complete": each.complete, "stale": stale(&each.query_name)})
        })
        .collect();
    let chosen = chosen.map(|each| {
        let rows = present_rows(&each.rows);
        json!({"name": each.query_name, "snapshot": each.snapshot, "complete": each.complete, "changed_at": each.changed_at,
            "stale": stale(&each.query_name), "row_count": each.row_count, "table": table(rows.iter().take(MAX_ROWS)), "cut": rows.len() > MAX_ROWS})
    });
    render(
        &app,
        &visitor,
        &node,
        "present",
        "present",
        json!({"queries": queries, "chosen": chosen}),
    )
    .await
}

/// The rows of a stored set.
pub(crate) fn present_rows(json: &str) -> Vec<Value> {
    rows_of(json)
}

/// `GET /nodes/{id}/events`
pub(crate) async fn events(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<NodeId>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let node = load(&mut conn, id).await?;
    let filter = EventFilter {
        query: asked.query.clone(),
        action: known_action(&asked.action).to_owned(),
    };
    let page =
        event_lists::list_of_node(&mut conn, id, &filter, &request(Some(&asked.before))).await?;
    let query_names = event_lists::query_names_of_node(&mut conn, id).await?;
    drop(conn);
    let filters = [("query", asked.query.as_str()), ("action", &filter.action)];
    let context = json!({
        "filter": {"query": asked.query, "action": filter.action},
        "query_names": query_names,
        "events": page.items.iter().map(event).collect::<Vec<_>>(),
        "pager": pager(&format!("/nodes/{id}/events"), &filters, "before", page.next.as_deref(), asked.before.is_empty()),
    });
    render(&app, &visitor, &node, "events", "events", context).await
}

fn known_action(action: &str) -> &str {
    if ["added", "removed", "snapshot"].contains(&action) {
        action
    } else {
        ""
    }
}

fn event(event: &EventRecord) -> Value {
    const MOST: usize = 50;
    let rows = rows_of(&event.rows);
    let actions: Vec<Value> = ["added", "removed", "snapshot"]
        .into_iter()
        .filter_map(|action| {
            let of_action = rows
                .iter()
                .filter(|row| row["action"] == action)
                .map(|row| &row["columns"]);
            let shown: Vec<&Value> = of_action.take(MOST).collect();
            (!shown.is_empty()).then(|| json!({"action": action, "table": table(shown)}))
        })
        .collect();
    json!({
        "query_name": event.query_name, "occurred_at": event.occurred_at, "received_at": event.received_at,
        "baseline": event.baseline, "late": event.late, "lossy": event.lossy, "snapshot": event.snapshot,
        "row_count": event.row_count, "actions": actions, "cut": rows.len() > MOST,
    })
}

/// `GET /nodes/{id}/findings`
pub(crate) async fn findings(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<NodeId>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let node = load(&mut conn, id).await?;
    let filter = FindingFilter {
        node: Some(id),
        ..FindingFilter::default()
    };
    let page = finding_lists::list(
        &mut conn,
        &filter,
        Order::Newest,
        &request(Some(&asked.after)),
    )
    .await?;
    drop(conn);
    let path = format!("/nodes/{id}/findings");
    let context = json!({
        "findings": page.items.iter().map(line).collect::<Vec<_>>(),
        "pager": pager(&path, &[], "after", page.next.as_deref(), asked.after.is_empty()),
    });
    render(&app, &visitor, &node, "findings", "findings", context).await
}

/// `GET /nodes/{id}/status-logs`
pub(crate) async fn status_logs(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<NodeId>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let node = load(&mut conn, id).await?;
    let least = asked
        .severity
        .parse::<i16>()
        .ok()
        .filter(|least| (0..=3).contains(least));
    let page = event_lists::list_status_logs(
        &mut conn,
        id,
        least.unwrap_or(0),
        &request(Some(&asked.before)),
    )
    .await?;
    drop(conn);
    let severity = least.map(|least| least.to_string()).unwrap_or_default();
    let word = |severity: i16| match severity {
        1 => "warning",
        2 => "error",
        3 => "fatal",
        _ => "info",
    };
    let logs: Vec<_> = page
        .items
        .iter()
        .map(|log| {
            json!({"severity": word(log.severity), "occurred_at": log.occurred_at, "message": log.message,
                "filename": log.filename, "line": log.line, "version": log.version})
        })
        .collect();
    let path = format!("/nodes/{id}/status-logs");
    let links = pager(
        &path,
        &[("severity", &severity)],
        "before",
        page.next.as_deref(),
        asked.before.is_empty(),
    );
    let context = json!({"filter": {"severity": severity}, "logs": logs, "pager": links});
    render(&app, &visitor, &node, "status-logs", "status_logs", context).await
}

/// `GET /nodes/{id}/live-queries`
pub(crate) async fn live_queries(
    State(app): State<App>,
    visitor: Visitor,
    _: Permit<View>,
    Path(id): Path<NodeId>,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let mut conn = app.db.acquire().await?;
    let node = load(&mut conn, id).await?;
    let page = live_query_lists::list_of_node(&mut conn, id, &request(Some(&asked.after))).await?;
    drop(conn);
    let tasks: Vec<_> = page
        .items
        .iter()
        .map(|task| {
            json!({"live_query": {"id": task.live_query_id, "title": title(&task.description, &task.sql)}, "state": task.state,
                "finished_at": task.finished_at, "created_at": task.created_at, "row_count": task.row_count, "message": task.message})
        })
        .collect();
    let path = format!("/nodes/{id}/live-queries");
    let links = pager(
        &path,
        &[],
        "after",
        page.next.as_deref(),
        asked.after.is_empty(),
    );
    render(
        &app,
        &visitor,
        &node,
        "live-queries",
        "live_queries",
        json!({"tasks": tasks, "pager": links}),
    )
    .await
}
