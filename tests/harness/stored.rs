//! What Ostiary has stored of a node, in a form that tests can write down and compare.

use std::collections::BTreeMap;
use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_store::event_lists::{self, EventFilter, EventRecord};
use ostiary_store::live_queries::{self, NewLiveQuery};
use ostiary_store::node_lists::{self, Cutoffs, NodeFilter};
use ostiary_store::node_records::{self, NodeRecord};
use ostiary_store::page::PageRequest;
use ostiary_store::{pending, unreadable};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{PATIENCE, World, eventually};

/// One execution of a scheduled query. Two executions are equal when all that the node said is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredExecution {
    /// Scheduled name.
    pub query: String,
    /// Node's clock, as sent.
    pub unix_time: i64,
    /// As sent, or 0.
    pub epoch: u64,
    /// As sent, or 0.
    pub counter: i64,
    /// All rows rather than a difference.
    #[serde(default)]
    pub snapshot: bool,
    /// Something in it was no UTF-8.
    #[serde(default)]
    pub lossy: bool,
    /// Of its first row.
    #[serde(default)]
    pub decorations: BTreeMap<String, String>,
    /// In the order stored.
    pub rows: Vec<StoredRow>,
}

/// A row with its action.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredRow {
    /// New.
    Added(BTreeMap<String, String>),
    /// Gone.
    Removed(BTreeMap<String, String>),
    /// There.
    Snapshot(BTreeMap<String, String>),
}

/// A line of osqueryd's own log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredStatus {
    /// 0 info, 1 warning, 2 error, 3 fatal.
    pub severity: i16,
    /// Source file.
    pub filename: String,
    /// Line in it.
    pub line: i32,
    /// What it says.
    pub message: String,
    /// Of osqueryd.
    pub version: String,
    /// When it happened; the time of receipt when the node did not say.
    pub unix_time: Option<i64>,
}

/// A node's answer to a live query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredTask {
    /// `offered`, `done` or `failed`.
    pub state: String,
    /// 0 for success; absent before osquery 2.1.2.
    #[serde(default)]
    pub status: Option<i32>,
    /// The node's words.
    #[serde(default)]
    pub message: String,
    /// What the query cost, as far as the node said.
    #[serde(default)]
    pub stats: Option<BTreeMap<String, Value>>,
    /// In the order of the answer; columns in the order of the SELECT.
    #[serde(default)]
    pub rows: Vec<serde_json::Map<String, Value>>,
}

/// Everything that came of a node's posts.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// Sorted.
    pub executions: Vec<StoredExecution>,
    /// Sorted.
    pub statuses: Vec<StoredStatus>,
    /// The reasons why something is kept as unreadable.
    pub unreadable: Vec<String>,
}

impl World {
    /// The time, for those parts of the store that take it.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        SystemTime::now().into()
    }

    /// Waits until the worker has nothing left to do.
    ///
    /// # Panics
    /// It is not done within [`PATIENCE`].
    pub async fn worked_off(&self) {
        eventually("the worker has done everything", PATIENCE, async || {
            let mut conn = self.db.db.acquire().await.ok()?;
            let backlog = pending::backlog(&mut conn).await.ok()?;
            (backlog.rows == 0).then_some(())
        })
        .await;
    }

    /// Waits until no alert is on its way any more. Alerts are there as soon as their posts are worked off, mails are not.
    ///
    /// # Panics
    /// One is after [`PATIENCE`].
    pub async fn delivered(&self) {
        let waiting = "SELECT count(*) FROM deliveries WHERE state = 'waiting'";
        eventually("no delivery waits", PATIENCE, async || {
            (self.scalar(waiting).await == 0).then_some(())
        })
        .await;
    }

    /// The nodes with this text in a name, identifier or serial number.
    ///
    /// # Panics
    /// Postgres fails.
    pub async fn find_nodes(&self, text: &str) -> Vec<NodeRecord> {
        let mut conn = self.db.db.acquire().await.expect("Postgres answers");
        let filter = NodeFilter {
            text: text.into(),
            ..NodeFilter::default()
        };
        let before = self.now() - TimeDelta::days(1);
        let cutoffs = Cutoffs {
            offline_before: before,
            silent_before: before,
        };
        let page = PageRequest {
            limit: Some(100),
            after: None,
        };
        let lines = node_lists::list(&mut conn, &filter, cutoffs, &page)
            .await
            .expect("Postgres answers")
            .items;
        let mut nodes = Vec::new();
        for line in lines {
            nodes.extend(
                node_records::find(&mut conn, line.id.into())
                    .await
                    .expect("Postgres answers"),
            );
        }
        nodes
    }

    /// What is stored of a node. Facts that Ostiary itself noted are left out.
    ///
    /// # Panics
    /// Postgres fails, or something stored cannot be read back.
    pub async fn stored(&self, node: Uuid) -> Stored {
        let mut stored = Stored::default();
        let mut conn = self.db.db.acquire().await.expect("Postgres answers");
        let mut page = first_page();
        loop {
            let found =
                event_lists::list_of_node(&mut conn, node.into(), &EventFilter::default(), &page)
                    .await;
            let found = found.expect("Postgres answers");
            stored
                .executions
                .extend(found.items.iter().filter_map(execution));
            let Some(next) = found.next else { break };
            page.after = Some(next);
        }
        let mut page = first_page();
        loop {
            let found = event_lists::list_status_logs(&mut conn, node.into(), 0, &page)
                .await
                .expect("Postgres answers");
            stored
                .statuses
                .extend(found.items.into_iter().map(|status| StoredStatus {
                    severity: status.severity,
                    filename: status.filename,
                    line: status.line,
                    message: status.message,
                    version: status.version,
                    unix_time: Some(status.occurred_at.timestamp()),
                }));
            let Some(next) = found.next else { break };
            page.after = Some(next);
        }
        let unreadable = unreadable::list(&mut conn, Some(node.into()), &first_page(), false).await;
        stored.unreadable.extend(
            unreadable
                .expect("Postgres answers")
                .items
                .into_iter()
                .map(|item| item.reason),
        );
        stored.executions.sort();
        stored.statuses.sort();
        stored
    }

    /// Asks a node a live query with this id on the wire.
    ///
    /// # Panics
    /// Postgres fails, or the id is taken.
    pub async fn ask(&self, nodes: &[Uuid], wire_id: &str, sql: &str) -> Uuid {
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, wire_id.as_bytes());
        let query = NewLiveQuery {
            id: id.into(),
            wire_id,
            sql,
            description: "",
            target: "",
            target_all: false,
            node_ids: nodes,
            created_by: None,
            expires_at: self.now() + TimeDelta::hours(1),
            discovery: None,
            tables: &[],
            columns: &[],
            purpose: "",
        };
        let mut conn = self.db.db.acquire().await.expect("Postgres answers");
        live_queries::insert(&mut conn, &query, self.now())
            .await
            .expect("the id is new");
        id
    }

    /// A node's share of a live query; `None` while it was not handed out.
    ///
    /// # Panics
    /// Postgres fails.
    pub async fn task(&self, live_query: Uuid, node: Uuid) -> Option<StoredTask> {
        let mut conn = self.db.db.acquire().await.expect("Postgres answers");
        let tasks = live_queries::list_tasks(&mut conn, live_query.into())
            .await
            .expect("Postgres answers");
        let task = tasks.into_iter().find(|task| task.node_id == node)?;
        let rows = live_queries::list_rows(&mut conn, live_query.into(), i64::MAX)
            .await
            .expect("Postgres answers");
        let own = rows.into_iter().find(|rows| rows.node_id == node);
        let rows: Vec<_> = own.map_or_else(Vec::new, |own| {
            serde_json::from_str(&own.rows).expect("rows are objects")
        });
        assert_eq!(
            usize::try_from(task.row_count),
            Ok(rows.len()),
            "rows are counted"
        );
        drop(conn);
        // Nobody is shown these yet, so the store has no words for them.
        let sql = format!(
            "SELECT json_build_array(status, stats)::text FROM live_query_tasks WHERE (live_query_id, node_id) = ('{live_query}', '{node}')"
        );
        let (status, stats) =
            serde_json::from_str(&self.db.texts(&sql).await.concat()).expect("the row is there");
        Some(StoredTask {
            state: task.state,
            status,
            message: task.message,
            stats,
            rows,
        })
    }
}

fn first_page() -> PageRequest {
    PageRequest {
        after: None,
        limit: Some(500),
    }
}

/// `None` for a fact of our own.
fn execution(event: &EventRecord) -> Option<StoredExecution> {
    #[derive(Deserialize)]
    struct Written {
        action: String,
        columns: BTreeMap<String, String>,
        #[serde(default)]
        decorations: BTreeMap<String, String>,
    }
    let written: Vec<Written> = serde_json::from_str(&event.rows).expect("rows are a list of rows");
    assert_eq!(
        usize::try_from(event.row_count),
        Ok(written.len()),
        "rows are counted"
    );
    let decorations = written
        .first()
        .map(|row| row.decorations.clone())
        .unwrap_or_default();
    let mut rows = Vec::with_capacity(written.len());
    for row in written {
        rows.push(match row.action.as_str() {
            "added" => StoredRow::Added(row.columns),
            "removed" => StoredRow::Removed(row.columns),
            "snapshot" => StoredRow::Snapshot(row.columns),
            _ => return None,
        });
    }
    Some(StoredExecution {
        query: event.query_name.clone(),
        unix_time: event.unix_time,
        epoch: event.epoch.parse().expect("an epoch is a number"),
        counter: event.counter,
        snapshot: event.snapshot,
        lossy: event.lossy,
        decorations,
        rows,
    })
}
