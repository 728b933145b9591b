//! A stage: a database, a worker on it, and nodes whose posts lie in it as the api stores them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use ostiary_boot::clock::{SystemClock, new_id};
use ostiary_boot::settings::{SettingsArgs, load};
use ostiary_domain::clock::{Clock as _, TestClock};
use ostiary_domain::ids::NodeId;
use ostiary_store::log_batches::{self, NewBatch};
use ostiary_store::testing::TestDb;
use ostiary_worker::{App, Settings};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) struct Stage {
    pub(crate) test: TestDb,
    pub(crate) app: App,
    pub(crate) clock: Arc<TestClock>,
}

/// The settings of a worker on this database; Redis is nowhere.
pub(crate) fn settings(test: &TestDb) -> Settings {
    #[derive(serde::Deserialize)]
    struct Defaults {
        worker: ostiary_worker::Options,
        rollouts: ostiary_domain::rollout::Plan,
        storms: ostiary_domain::finding::StormLimits,
        outputs: ostiary_outputs::Options,
        log: ostiary_boot::telemetry::Options,
    }
    let defaults: Defaults = load(&SettingsArgs::default()).unwrap();
    let redis = json!({"url": "redis://127.0.0.1:1/", "timeout_ms": 100});
    let key = json!("22".repeat(32));
    Settings {
        log: defaults.log,
        database: ostiary_store::testing::options(test.url(Some("ostiary_worker"))),
        redis: serde_json::from_value(redis).unwrap(),
        public: ostiary_worker::Public {
            manager_url: "https://ostiary.example/".into(),
        },
        keys: ostiary_worker::Keys {
            destinations: serde_json::from_value(key).unwrap(),
        },
        outputs: defaults.outputs,
        sinks: Default::default(),
        rollouts: defaults.rollouts,
        storms: defaults.storms,
        worker: defaults.worker,
        dead_man: Default::default(),
        carves: Default::default(),
        blobs: Default::default(),
    }
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let test = TestDb::new().await;
        let mut settings = settings(&test);
        change(&mut settings);
        // Whole microseconds: Postgres rounds others, and what it is told of now might lie in the future.
        let clock = Arc::new(TestClock::at(SystemClock.now().trunc_subsecs(6)));
        let app = App::new(settings, clock.clone(), CancellationToken::new()).unwrap();
        Self { test, app, clock }
    }

    /// Another worker on the same database.
    pub(crate) fn another_worker(&self) -> App {
        App::new(
            (*self.app.settings).clone(),
            self.clock.clone(),
            CancellationToken::new(),
        )
        .unwrap()
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    pub(crate) fn unix_now(&self) -> i64 {
        self.now().timestamp()
    }

    pub(crate) async fn node(&self, name: &str) -> NodeId {
        let id = NodeId(new_id());
        // By the stage's clock, which stands still, and before what begins now.
        let enrolled = (self.now() - chrono::TimeDelta::seconds(1)).to_rfc3339();
        self.test
            .execute(&format!(
                "INSERT INTO nodes (id, host_identifier, hostname, platform, instance_id, enrolled_at, first_enrolled_at)
                 VALUES ('{id}', '{name}', '{name}', 'linux', 'i-1', now(), '{enrolled}');
                 INSERT INTO node_checkins (node_id, last_seen_at) VALUES ('{id}', '{}');",
                self.now().to_rfc3339()
            ))
            .await;
        id
    }

    /// Stores a post, as the api does.
    pub(crate) async fn post(&self, node: NodeId, log_type: char, data: &str) -> i64 {
        self.post_bytes(
            node,
            log_type,
            log_batches::compress(data.as_bytes()),
            "5.23.0",
        )
        .await
    }

    pub(crate) async fn post_bytes(
        &self,
        node: NodeId,
        log_type: char,
        data: Vec<u8>,
        version: &str,
    ) -> i64 {
        let batch = NewBatch {
            node_id: node,
            log_type: u8::try_from(log_type).unwrap(),
            received_at: self.now(),
            client_version: version.into(),
            data,
        };
        let mut conn = self.test.db.acquire().await.unwrap();
        log_batches::insert(&mut conn, &[batch]).await.unwrap()[0]
    }

    pub(crate) async fn results(&self, node: NodeId, lines: &[Value]) -> i64 {
        self.post(node, 'r', &serde_json::to_string(lines).unwrap())
            .await
    }

    pub(crate) async fn work(&self) {
        self.app.run_until_idle().await.unwrap();
    }

    /// A rule with one destination; gives its id.
    pub(crate) async fn rule(&self, name: &str, conditions: &Value, rest: &str) {
        let (rule, destination) = (new_id(), new_id());
        let extra = if rest.is_empty() {
            String::new()
        } else {
            format!(", {rest}")
        };
        let (columns, values): (Vec<&str>, Vec<&str>) = extra
            .split(", ")
            .filter_map(|pair| pair.split_once('='))
            .unzip();
        let (columns, values) = (columns.join(", "), values.join(", "));
        let comma = if columns.is_empty() { "" } else { ", " };
        self.test
            .execute(&format!(
                "INSERT INTO rules (id, name, conditions, severity, created_at, updated_at{comma}{columns})
                 VALUES ('{rule}', '{name}', $json${conditions}$json$, 'high', now(), now(){comma}{values});
                 INSERT INTO destinations (id, name, kind, settings_sealed, created_at, updated_at)
                 VALUES ('{destination}', 'mail for {name}', 'email', '', now(), now());
                 INSERT INTO rule_destinations (rule_id, destination_id) VALUES ('{rule}', '{destination}');"
            ))
            .await;
    }

    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        self.test.texts(sql).await
    }

    pub(crate) async fn count(&self, what: &str) -> i64 {
        self.texts(&format!("SELECT count(*)::text FROM {what}"))
            .await[0]
            .parse()
            .unwrap()
    }

    /// Waits until [`Stage::count`] gives some.
    pub(crate) async fn until_there_is(&self, what: &str) {
        until(what, async || self.count(what).await > 0).await;
    }

    /// Waits until [`Stage::count`] gives none.
    pub(crate) async fn until_there_is_no(&self, what: &str) {
        until(&format!("no {what}"), async || self.count(what).await == 0).await;
    }

    /// Events as people read them, oldest first: `query action {columns}`, with what is marked.
    pub(crate) async fn events(&self, node: NodeId) -> Vec<String> {
        let mut conn = self.test.db.acquire().await.unwrap();
        let page = ostiary_store::page::PageRequest {
            after: None,
            limit: Some(500),
        };
        let filter = ostiary_store::event_lists::EventFilter::default();
        let found = ostiary_store::event_lists::list_of_node(&mut conn, node, &filter, &page)
            .await
            .unwrap();
        let mut items = found.items;
        items.sort_by_key(|event| event.id);
        let mut texts = Vec::new();
        for event in items {
            let marks = [
                (event.baseline, " baseline"),
                (event.late, " late"),
                (event.lossy, " lossy"),
            ];
            let marks: String = marks
                .iter()
                .filter(|(on, _)| *on)
                .map(|(_, mark)| *mark)
                .collect();
            let rows: Vec<Value> = serde_json::from_str(&event.rows).unwrap();
            assert_eq!(usize::try_from(event.row_count).unwrap(), rows.len());
            if rows.is_empty() {
                texts.push(format!("{} -{marks}", event.query_name));
            }
            for row in rows {
                texts.push(format!(
                    "{} {} {}{marks}",
                    event.query_name,
                    row["action"].as_str().unwrap(),
                    row["columns"]
                ));
            }
        }
        texts
    }

    /// Present rows as people read them: `query [rows]`.
    pub(crate) async fn present(&self, node: NodeId) -> Vec<String> {
        let mut conn = self.test.db.acquire().await.unwrap();
        let found = ostiary_store::event_lists::find_present(&mut conn, node, None)
            .await
            .unwrap();
        found
            .iter()
            .map(|present| format!("{} {}", present.query_name, &*present.rows))
            .collect()
    }

    pub(crate) async fn end(self) {
        self.app.db.close().await;
        self.test.drop().await;
    }
}

/// How long anything may take that must happen in the end. Generous, for the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Asks again and again until it holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One line in event format.
pub(crate) fn line(
    query: &str,
    action: &str,
    counter: u64,
    unix_time: i64,
    columns: Value,
) -> Value {
    let mut line = json!({"name": query, "hostIdentifier": "h", "calendarTime": "", "unixTime": unix_time, "epoch": 0,
        "counter": counter, "numerics": false, "action": action});
    line["columns"] = columns;
    line
}

/// A snapshot in one line.
pub(crate) fn snapshot(query: &str, unix_time: i64, rows: Value) -> Value {
    let mut line = json!({"action": "snapshot", "name": query, "hostIdentifier": "h", "calendarTime": "",
        "unixTime": unix_time, "epoch": 0, "counter": 0, "numerics": false});
    line["snapshot"] = rows;
    line
}

/// Conditions of a rule: this query, and a column that holds this value.
pub(crate) fn when(query: &str, column: &str, value: &str) -> Value {
    json!({"condition": "AND", "rules": [
        {"field": "query_name", "operator": "equal", "value": query},
        {"field": "column", "operator": "column_equal", "value": [column, value]},
    ]})
}

pub(crate) fn seconds(count: i64) -> TimeDelta {
    TimeDelta::seconds(count)
}
