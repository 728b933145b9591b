//! What tests of deliveries play with: a database with one finding and one destination, and a web server that answers by script.

use std::sync::{Arc, Mutex};

use ostiary_boot::clock::new_id;
use ostiary_domain::clock::TestClock;
use ostiary_domain::ids::{AlertId, DestinationId, FindingId};
use ostiary_outputs::Options;
use ostiary_store::alerts::{self, NewAlert};
use ostiary_store::deliveries::NewDelivery;
use ostiary_store::delivery_lists::{self, AttemptRecord, DeliveryFilter, DeliveryRecord};
use ostiary_store::destinations::{self, DestinationValues};
use ostiary_store::testing::TestDb;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::super::*;

pub(super) const OK: &str = "204 No Content";
/// The receiver takes the request and never answers.
pub(super) const SILENCE: &str = "";

/// A web server that gives its answers in turn, the last one again and again.
pub(super) struct Receiver {
    url: String,
    state: Arc<Mutex<(Vec<&'static str>, Vec<Value>)>>,
    pub(super) heard: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) async fn start(answers: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new((answers.to_vec(), Vec::new())));
        let heard = Arc::new(Notify::new());
        let (its_state, its_heard) = (Arc::clone(&state), Arc::clone(&heard));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(
                    stream,
                    Arc::clone(&its_state),
                    Arc::clone(&its_heard),
                ));
            }
        });
        Self {
            url,
            state,
            heard,
            task,
        }
    }

    /// What came so far.
    pub(super) fn bodies(&self) -> Vec<Value> {
        self.state.lock().unwrap().1.clone()
    }

    /// The ids of the deliveries that came so far.
    pub(super) fn deliveries(&self) -> Vec<String> {
        let bodies = self.bodies();
        let ids = bodies
            .iter()
            .map(|body| body["delivery_id"].as_str().unwrap().to_owned());
        ids.collect()
    }

    pub(super) fn answer_from_now(&self, answer: &'static str) {
        self.state.lock().unwrap().0 = vec![answer];
    }
}

async fn answer(
    mut stream: TcpStream,
    state: Arc<Mutex<(Vec<&'static str>, Vec<Value>)>>,
    heard: Arc<Notify>,
) {
    let mut request = Vec::new();
    let body = loop {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        if let Some(Ok(body)) = body.map(serde_json::from_str) {
            break body;
        }
    };
    let answer = {
        let (answers, bodies) = &mut *state.lock().unwrap();
        bodies.push(body);
        if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0]
        }
    };
    heard.notify_one();
    if answer == SILENCE {
        std::future::pending::<()>().await;
    }
    let (status, more) = answer.split_once('|').unwrap_or((answer, ""));
    let text = format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n");
    let _ = stream.write_all(text.as_bytes()).await;
}

/// A database with one finding and one destination, and what the worker needs to deliver.
pub(super) struct World {
    pub(super) test_db: TestDb,
    /// As the worker's role.
    pub(super) db: Db,
    pub(super) outbound: Outbound,
    key: Key,
    pub(super) clock: TestClock,
    pub(super) shutdown: CancellationToken,
    pub(super) finding: FindingId,
    pub(super) destination: DestinationId,
}

impl World {
    pub(super) async fn new(receiver: &Receiver) -> Self {
        let test_db = TestDb::new().await;
        let db = test_db.as_role("ostiary_worker");
        let options = Options {
            allow_private_addresses: true,
            ..Options::default()
        };
        let world = Self {
            db,
            outbound: Outbound::with_timeout(options, Duration::from_secs(30)).unwrap(),
            key: Key::new(&[7; 32]),
            clock: TestClock::at(DateTime::from_timestamp(1_800_000_000, 0).unwrap()),
            shutdown: CancellationToken::new(),
            finding: new_id().into(),
            destination: new_id().into(),
            test_db,
        };
        world.insert_finding(world.finding).await;
        world.insert_destination(&receiver.url).await;
        world
    }

    pub(super) async fn insert_finding(&self, id: FindingId) {
        let sql = format!(
            "INSERT INTO findings (id, rule_name, node_name, entity_hash, entity, severity, state, opened_at, last_matched_at)
            VALUES ('{id}', 'Firewall off', 'mac-7', '', 'e', 'high', 'open', '2027-01-15', '2027-01-15')"
        );
        self.test_db.execute(&sql).await;
    }

    async fn insert_destination(&self, url: &str) {
        let settings = json!({"url": url, "secret": "0123456789abcdef"});
        let sealed = self.seal(&settings);
        let mut conn = self.test_db.db.acquire().await.unwrap();
        let values = destination("webhook", &sealed);
        destinations::insert(&mut conn, self.destination, &values, self.clock.now())
            .await
            .unwrap();
    }

    /// Makes another kind of the destination.
    pub(super) async fn change_destination(&self, kind: &str, settings: &Value) {
        let sql = format!("UPDATE destinations SET kind = '{kind}'");
        self.test_db.execute(&sql).await;
        let sealed = self.seal(settings);
        let mut conn = self.test_db.db.acquire().await.unwrap();
        let values = destination(kind, &sealed);
        destinations::update(&mut conn, self.destination, &values, self.clock.now())
            .await
            .unwrap();
    }

    fn seal(&self, settings: &Value) -> Vec<u8> {
        self.key.seal(SEAL_PURPOSE, settings.to_string().as_bytes())
    }

    /// Records an alert of a finding with its delivery, as the worker does.
    pub(super) async fn tell(&self, finding: FindingId, kind: &'static str) -> DeliveryId {
        let body = json!({
            "finding_id": finding, "rule": {"name": "Firewall off", "severity": "high"},
            "node": {"id": "1", "name": "mac-7", "host_identifier": "u"}, "entity": "e", "query_name": "q", "action": "added",
            "columns": {"a": "b"}, "occurred_at": "2027-01-15T08:00:00Z", "opened_at": "2027-01-15T08:00:00Z",
        });
        let alert = AlertId(new_id());
        let new = NewDelivery {
            id: new_id().into(),
            alert_id: alert,
            destination_id: self.destination,
        };
        let mut tx = self.db.begin().await.unwrap();
        let now = self.clock.now();
        let alert = NewAlert {
            id: alert,
            finding_id: finding,
            kind,
            body: &body,
            created_at: now,
        };
        alerts::insert(&mut tx, &alert).await.unwrap();
        let made = deliveries::insert(&mut tx, &[new], now).await.unwrap();
        Db::commit(tx).await.unwrap();
        assert_eq!(made, [new.id]);
        new.id
    }

    pub(super) async fn deliver(&self, id: DeliveryId) -> Outcome {
        deliver(&self.db, &self.outbound, &self.key, &self.clock, id)
            .await
            .unwrap()
    }

    pub(super) async fn deliver_due(&self) -> usize {
        deliver_due(
            &self.db,
            &self.outbound,
            &self.key,
            &self.clock,
            4,
            &self.shutdown,
        )
        .await
        .unwrap()
    }

    pub(super) async fn row(&self, id: DeliveryId) -> DeliveryRecord {
        let mut conn = self.test_db.db.acquire().await.unwrap();
        let page = delivery_lists::list(&mut conn, DeliveryFilter::default(), &Default::default())
            .await
            .unwrap();
        page.items.into_iter().find(|row| row.id == id.0).unwrap()
    }

    async fn attempt_records(&self, id: DeliveryId) -> Vec<AttemptRecord> {
        let mut conn = self.test_db.db.acquire().await.unwrap();
        let attempts = delivery_lists::list_attempts(&mut conn, &[id.0], true).await;
        attempts.unwrap()
    }

    /// What was sent by each attempt, as the ledger has it.
    pub(super) async fn sent(&self, id: DeliveryId) -> Vec<String> {
        let attempts = self.attempt_records(id).await.into_iter();
        attempts.map(|attempt| attempt.body.unwrap()).collect()
    }

    /// Outcome and answer of each attempt.
    pub(super) async fn attempts(&self, id: DeliveryId) -> Vec<(String, String)> {
        let attempts = self.attempt_records(id).await;
        attempts
            .into_iter()
            .map(|attempt| (attempt.outcome, attempt.answer))
            .collect()
    }

    pub(super) fn pass(&self, time: Duration) {
        self.clock.advance(TimeDelta::from_std(time).unwrap());
    }

    pub(super) async fn end(self) {
        self.db.close().await;
        self.test_db.drop().await;
    }
}

fn destination<'a>(kind: &'a str, sealed: &'a [u8]) -> DestinationValues<'a> {
    DestinationValues {
        name: "hook",
        kind,
        settings_sealed: sealed,
        summary: "",
        enabled: true,
        min_severity: "info",
        target: "",
        takes_all: false,
        tells_changes: true,
        digest_minutes: 0,
        title_template: "",
        text_template: "",
    }
}
