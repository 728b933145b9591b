//! What a live query came to: whom it asks, what each node did with it, and the rows, in the order of the SELECT. For pages and REST
//! alike. Rows came from nodes and are hostile.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ostiary_domain::ids::LiveQueryId;
use ostiary_domain::live_query::{Kept, MAX_OFFERS, is_denylisted};
use ostiary_domain::node::NodeFacts;
use ostiary_domain::table_denial::TableDenial;
use ostiary_store::live_queries::{self as store, LiveQueryRecord, TaskRecord};
use ostiary_store::node_lists::NodeFilter;
use ostiary_store::page::PageRequest;
use ostiary_store::{Conn, node_lists, table_denials};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::table::{MAX_ROWS, cell, columns_of, csv_cell, rows_of};
use crate::actions::node_tables;
use crate::error::{Error, Result};
use crate::state::App;

/// A node that a live query asks.
struct AskedNode {
    name: String,
    /// Its health as a word.
    health: String,
    /// Why it is not handed the query.
    kept: Option<Kept>,
}

/// The nodes that a live query asks.
pub(crate) struct Asked {
    nodes: HashMap<Uuid, AskedNode>,
}

impl Asked {
    async fn load(app: &App, conn: &mut Conn, query: &LiveQueryRecord) -> Result<Self> {
        let everybody = node_lists::facts(conn).await?;
        let denials: Vec<TableDenial> = table_denials::list_values(conn).await?;
        let judged = query.to_domain();
        let asked = |facts: &NodeFacts| AskedNode {
            name: facts.name.clone(),
            health: "offline".to_owned(),
            kept: judged.is_kept_from(facts, &denials),
        };
        let mut nodes: HashMap<Uuid, AskedNode> = everybody
            .iter()
            .filter(|(id, facts)| judged.asks(*id, facts))
            .map(|(id, facts)| (id.0, asked(facts)))
            .collect();
        let mut page = PageRequest {
            after: None,
            limit: Some(500),
        };
        // States are only shown, so a fleet beyond a few pages does without.
        for _ in 0..4 {
            let lines =
                node_lists::list(conn, &NodeFilter::default(), app.cutoffs(), &page).await?;
            for line in &lines.items {
                if let Some(node) = nodes.get_mut(&line.id) {
                    node.health.clone_from(&line.state);
                }
            }
            match lines.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        Ok(Self { nodes })
    }

    fn total(&self) -> i64 {
        i64::try_from(self.nodes.len()).unwrap_or(i64::MAX)
    }

    fn name(&self, id: Uuid) -> String {
        let known = self.nodes.get(&id);
        known.map_or_else(|| id.to_string(), |node| node.name.clone())
    }
}

/// `Counts` of the contract. A task that nobody answered in time is expired, whether its row says so yet or not.
pub(crate) fn counts(query: &LiveQueryRecord, total: i64, now: DateTime<Utc>) -> Value {
    let is_over = is_over(query, now);
    let settled = query.done + query.failed + query.stuck + query.skipped;
    let total = total.max(settled + query.offered + query.expired);
    let (offered, new, expired) = if is_over {
        (0, 0, total - settled)
    } else {
        (
            query.offered,
            total - settled - query.offered - query.expired,
            query.expired,
        )
    };
    json!({"total": total, "done": query.done, "failed": query.failed, "stuck": query.stuck, "skipped": query.skipped,
        "offered": offered, "new": new, "expired": expired})
}

fn is_over(query: &LiveQueryRecord, now: DateTime<Utc>) -> bool {
    query.cancelled_at.is_some() || query.expires_at <= now
}

/// `running`, `done`, `cancelled` or `expired`.
pub(crate) fn state(query: &LiveQueryRecord, total: i64, now: DateTime<Utc>) -> &'static str {
    if query.cancelled_at.is_some() {
        "cancelled"
    } else if total > 0 && query.done + query.failed + query.stuck + query.skipped >= total {
        "done"
    } else if query.expires_at <= now {
        "expired"
    } else {
        "running"
    }
}

/// Everything about one live query: `live_query`, `counts`, `results`, `tasks`.
///
/// # Errors
/// [`Error::NotFound`], or Postgres failed.
pub(crate) async fn whole(app: &App, id: LiveQueryId) -> Result<Value> {
    let now = app.now();
    // Nodes answer meanwhile: counts, rows and tasks must speak of the same moment.
    let mut conn = app.db.begin_snapshot().await?;
    let query = store::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let asked = Asked::load(app, &mut conn, &query).await?;
    let tasks = store::list_tasks(&mut conn, id).await?;
    let most = i64::try_from(MAX_ROWS).unwrap_or(500);
    let answers = store::list_rows(&mut conn, id, most).await?;
    let reported = match query.purpose.as_str() {
        "tables" => Some(node_tables::reported(&mut conn, id).await?),
        _ => None,
    };
    drop(conn);
    Ok(json!({
        "reported": reported,
        "live_query": {"id": query.id, "sql": query.sql, "discovery": query.discovery, "description": query.description,
            "target": query.target, "node_count": query.node_ids.len(), "state": state(&query, asked.total(), now),
            "created_by": query.created_by, "created_at": query.created_at, "expires_at": query.expires_at,
            "purpose": query.purpose},
        "counts": counts(&query, asked.total(), now),
        "results": results(&query, &answers, &tasks, &asked),
        "tasks": shown_tasks(&tasks, &asked, is_over(&query, now)),
    }))
}

/// Columns in the order of the SELECT: as the rows have them, or before there are any as the check of the SQL found them.
fn results(
    query: &LiveQueryRecord,
    answers: &[store::TaskRows],
    tasks: &[TaskRecord],
    asked: &Asked,
) -> Value {
    let mut rows: Vec<(Uuid, Map<String, Value>)> = Vec::new();
    for answer in answers {
        for row in rows_of(&answer.rows) {
            if let Value::Object(row) = row {
                rows.push((answer.node_id, row));
            }
        }
    }
    let total: i64 = tasks.iter().map(|task| i64::from(task.row_count)).sum();
    rows.truncate(MAX_ROWS);
    let mut columns = columns_of(&rows.iter().map(|(_, row)| row).collect::<Vec<_>>());
    if columns.is_empty() {
        columns = query.columns.iter().map(String::as_str).collect();
    }
    let shown: Vec<Value> = rows
        .iter()
        .map(|(id, row)| {
            let cells: Vec<_> = columns
                .iter()
                .map(|column| cell(row.get(*column)))
                .collect();
            json!({"node": {"id": id, "name": asked.name(*id)}, "cells": cells})
        })
        .collect();
    let is_cut = total > i64::try_from(shown.len()).unwrap_or(i64::MAX);
    json!({"columns": columns, "rows": shown, "total": total, "cut": is_cut})
}

/// What stands first: what somebody may want to do something about.
const RANKS: [&str; 10] = [
    "failed",
    "denylisted",
    "stuck",
    "expired",
    "denied",
    "unfit",
    "offered",
    "new",
    "skipped",
    "done",
];

/// Every node that was asked.
fn shown_tasks(tasks: &[TaskRecord], asked: &Asked, is_over: bool) -> Vec<Value> {
    let known: HashMap<Uuid, &TaskRecord> = tasks.iter().map(|task| (task.node_id, task)).collect();
    let mut ids: Vec<Uuid> = asked
        .nodes
        .keys()
        .copied()
        .chain(known.keys().copied())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let mut shown: Vec<(Option<usize>, String, Value)> = ids
        .into_iter()
        .map(|id| {
            let (task, node) = (known.get(&id).copied(), asked.nodes.get(&id));
            let (state, hint) = told(task, node.and_then(|node| node.kept.as_ref()), is_over);
            let name = asked.name(id);
            let health = node.map_or("offline", |node| node.health.as_str());
            let value = json!({
                "node": {"id": id, "name": name, "state": health}, "state": state, "hint": hint,
                "message": task.map(|task| task.message.as_str()).unwrap_or_default(),
                "row_count": task.map_or(0, |task| task.row_count), "at": task.and_then(|task| task.finished_at.or(task.offered_at)),
                "offers": task.map_or(0, |task| task.offers),
                "stats": task.and_then(|task| task.stats.clone()).unwrap_or_else(|| json!({})),
            });
            (RANKS.iter().position(|each| *each == state), name, value)
        })
        .collect();
    shown.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    shown.into_iter().map(|(_, _, value)| value).collect()
}

/// The state of a task for people, and what it means where that is not plain.
fn told<'a>(task: Option<&'a TaskRecord>, kept: Option<&Kept>, is_over: bool) -> (&'a str, String) {
    let state = task.map_or("new", |task| task.state.as_str());
    match (state, kept) {
        ("failed", _) if task.is_some_and(|task| is_denylisted(&task.message)) => (
            "denylisted",
            "osqueryd was killed while it ran this very text (too much CPU or memory), and refuses it for a day. Ask for less; or \
             ask again as another text, with a comment."
                .to_owned(),
        ),
        ("stuck", _) => (
            "stuck",
            format!(
                "Handed out {MAX_OFFERS} times, and the node went on asking without ever answering: osqueryd is killed while it runs \
                 the query, or cannot upload what it returns. Ask for fewer rows or columns. If other answers of this node are \
                 missing, too, restart osqueryd there: it keeps trying to send them together."
            ),
        ),
        ("skipped", _) => ("skipped", "Its discovery returned no row there: the node does not say so, but asked for more without answering.".to_owned()),
        ("new", Some(Kept::Denied(reason))) => ("denied", format!("It may not be asked there: {reason}")),
        ("new", Some(Kept::Discovery)) => (
            "unfit",
            "It is not asked: queries with a discovery go to osquery 5.8 and later only, and where every table of the discovery exists."
                .to_owned(),
        ),
        ("new" | "offered", _) if is_over => ("expired", String::new()),
        _ => (state, String::new()),
    }
}

/// All rows as a file that a spreadsheet may open without harm.
///
/// # Errors
/// [`Error::NotFound`], or Postgres failed.
pub(crate) async fn csv(app: &App, id: LiveQueryId) -> Result<Vec<u8>> {
    let mut conn = app.db.begin_snapshot().await?;
    let query = store::find(&mut conn, id).await?.ok_or(Error::NotFound)?;
    let asked = Asked::load(app, &mut conn, &query).await?;
    let answers = store::list_rows(&mut conn, id, 1_000_000).await?;
    drop(conn);
    let rows: Vec<(Uuid, Value)> = answers
        .iter()
        .flat_map(|answer| {
            rows_of(&answer.rows)
                .into_iter()
                .map(|row| (answer.node_id, row))
        })
        .collect();
    let columns = columns_of(
        &rows
            .iter()
            .filter_map(|(_, row)| row.as_object())
            .collect::<Vec<_>>(),
    );
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = ["node_id", "node"]
        .into_iter()
        .chain(columns.iter().copied())
        .map(csv_cell);
    writer
        .write_record(head)
        .map_err(|error| Error::Internal(error.into()))?;
    for (id, row) in &rows {
        let cells = columns
            .iter()
            .map(|column| csv_cell(&cell(row.get(column)).unwrap_or_default()));
        let record = [id.to_string(), csv_cell(&asked.name(*id))]
            .into_iter()
            .chain(cells);
        writer
            .write_record(record)
            .map_err(|error| Error::Internal(error.into()))?;
    }
    writer
        .into_inner()
        .map_err(|error| Error::Internal(anyhow::anyhow!("{error}")))
}
