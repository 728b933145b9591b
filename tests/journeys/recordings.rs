//! A replay of what a real osqueryd sent, byte by byte but for the secret, the key and the names of the machine.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use ostiary_tests::{
    Answer, Program, Stored, StoredRow, StoredStatus, StoredTask, Wire, World, WorldOptions,
    eventually,
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// One recorded request.
#[derive(Debug, Deserialize)]
struct Recorded {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Recorded {
    fn all(name: &str) -> Vec<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("fixtures/osquery/recordings/{name}.jsonl"));
        let text = std::fs::read_to_string(file).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn is_gzip(&self) -> bool {
        self.headers
            .iter()
            .any(|(name, value)| name == "Content-Encoding" && value == "gzip")
    }

    /// The body, inflated.
    fn body(&self) -> Vec<u8> {
        let bytes = base64::prelude::BASE64_STANDARD.decode(&self.body).unwrap();
        if !self.is_gzip() {
            return bytes;
        }
        let mut inflated = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice())
            .read_to_end(&mut inflated)
            .unwrap();
        inflated
    }

    /// The whole request with another body: headers in the recorded order.
    fn request(&self, body: &[u8], replica: &Replica) -> Vec<u8> {
        let body = if self.is_gzip() {
            gzip(body)
        } else {
            body.to_vec()
        };
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            let value = match name.as_str() {
                "Content-Length" => body.len().to_string(),
                "Authorization" => format!("NodeKey {}", replica.key),
                _ => value.clone(),
            };
            write!(bytes, "{name}: {value}\r\n").unwrap();
        }
        bytes.extend_from_slice(b"Host: localhost\r\n\r\n");
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// A machine that repeats a recording under its own names.
struct Replica {
    wire: Wire,
    /// What is replaced by what in bodies, besides the key.
    names: Vec<(String, String)>,
    key: String,
    node: Uuid,
}

impl Replica {
    /// Sends the recorded enrollment as `host`.
    async fn enroll(world: &World, recording: &[Recorded], host: &str) -> Self {
        let enrollment = &recording[0];
        let recorded: Value = serde_json::from_slice(&enrollment.body()).unwrap();
        let details = &recorded["host_details"];
        let uuid = Uuid::new_v5(&Uuid::NAMESPACE_DNS, host.as_bytes()).to_string();
        let own = [
            (&recorded["enroll_secret"], world.enroll_secret()),
            (&recorded["host_identifier"], host),
            (
                &details["osquery_info"]["instance_id"],
                &format!("instance-{host}"),
            ),
            (&details["system_info"]["uuid"], &uuid),
        ];
        let names = own
            .iter()
            .map(|(old, new)| (old.as_str().unwrap().to_owned(), (*new).to_owned()))
            .collect();
        let mut replica = Self {
            wire: world.wire(),
            names,
            key: String::new(),
            node: Uuid::nil(),
        };
        let answer = replica.send(enrollment, &enrollment.body()).await;
        replica.key = answer.json()["node_key"]
            .as_str()
            .expect("a key is given out")
            .to_owned();
        let nodes = world.find_nodes(host).await;
        assert_eq!(nodes.len(), 1, "{host}");
        let brand = nodes[0].host_details["system_info"]["cpu_brand"]
            .as_str()
            .unwrap();
        assert!(
            brand.starts_with("AMD EPYC\u{FFFD}"),
            "NUL bytes are replaced: {brand:?}"
        );
        replica.node = nodes[0].id;
        replica
    }

    async fn send(&self, recorded: &Recorded, body: &[u8]) -> Answer {
        let request = recorded.request(&self.own(body), self);
        let answer = Answer::parse(&self.wire.raw(&request, Duration::from_secs(20)).await);
        let answer =
            answer.unwrap_or_else(|| panic!("{}: closed without an answer", recorded.path));
        let said = String::from_utf8_lossy(&answer.body);
        assert!(
            answer.is_success() && !answer.body.is_empty(),
            "{}: {said}",
            recorded.path
        );
        answer
    }

    fn own(&self, body: &[u8]) -> Vec<u8> {
        let key = (
            "\"node_key\":\"nk-1\"".to_owned(),
            format!("\"node_key\":\"{}\"", self.key),
        );
        self.names
            .iter()
            .chain([&key])
            .fold(body.to_vec(), |body, (old, new)| {
                replace(&body, old.as_bytes(), new.as_bytes())
            })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_osqueryd_is_answered_and_every_line_is_stored_once() {
    let world = World::start(WorldOptions::only(&[Program::Api, Program::Worker])).await;
    for (name, lines) in [("event", 71), ("batch", 50)] {
        let recording = Recorded::all(name);
        let replica = Replica::enroll(&world, &recording, &format!("replayed-{name}")).await;
        let mut live_queries = Vec::new();
        for recorded in &recording[1..] {
            if recorded.path == "/distributed/write" {
                live_queries = ask(&world, &replica, &recorded.body()).await;
            }
            replica.send(recorded, &recorded.body()).await;
        }
        world.worked_off().await;
        let said = Said::of(&recording, &replica);
        assert_eq!(said.lines, lines, "{name}");
        said.compare(&world, &replica).await;
        for (id, wire_id) in live_queries {
            assert_eq!(
                world.task(id, replica.node).await,
                Some(answered(&wire_id)),
                "{wire_id}"
            );
        }
    }
    world.end().await;
}

/// Every other answer is lost on the way: the lines come again, with those that have come up since.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_come_again_in_larger_posts_are_stored_once() {
    let world = World::start(WorldOptions::only(&[Program::Api, Program::Worker])).await;
    for name in ["event", "batch"] {
        let recording = Recorded::all(name);
        let replica = Replica::enroll(&world, &recording, &format!("forgetful-{name}")).await;
        for log_type in ["result", "status"] {
            let marker = format!("\"log_type\":\"{log_type}\"");
            let posts: Vec<_> = recording
                .iter()
                .filter(|recorded| recorded.path == "/log")
                .map(|recorded| (recorded, recorded.body()))
                .filter(|(_, body)| find(body, marker.as_bytes()).is_some())
                .collect();
            for pair in posts.chunks(2) {
                let (recorded, body) = &pair[0];
                replica.send(recorded, body).await;
                if let Some((_, next)) = pair.get(1) {
                    let both = [lines_of(body), b",", lines_of(next)].concat();
                    replica
                        .send(recorded, &replace(body, lines_of(body), &both))
                        .await;
                }
            }
        }
        world.worked_off().await;
        Said::of(&recording, &replica)
            .compare(&world, &replica)
            .await;
    }
    world.end().await;
}

/// Asks what the recorded answers answer, and polls until all of it was handed out.
async fn ask(world: &World, replica: &Replica, write: &[u8]) -> Vec<(Uuid, String)> {
    let write: Value = serde_json::from_str(&String::from_utf8_lossy(write)).unwrap();
    let mut asked = Vec::new();
    for wire_id in write["queries"].as_object().unwrap().keys() {
        asked.push((
            world.ask(&[replica.node], wire_id, "SELECT 1").await,
            wire_id.clone(),
        ));
    }
    let mut waiting: Vec<&String> = asked.iter().map(|(_, wire_id)| wire_id).collect();
    eventually(
        "live queries are handed out",
        Duration::from_secs(20),
        async || {
            let answer = replica
                .wire
                .post("/distributed/read", &json!({"node_key": replica.key}))
                .await
                .json();
            waiting.retain(|wire_id| answer["queries"].get(wire_id.as_str()).is_none());
            waiting.is_empty().then_some(())
        },
    )
    .await;
    asked
}

/// What the recorded answers to live queries say.
fn answered(wire_id: &str) -> StoredTask {
    let user_time = if wire_id == "lq_none" { 10 } else { 0 };
    let said = |state: &str, status, message: &str, rows: Value| StoredTask {
        state: state.into(),
        status: Some(status),
        message: message.into(),
        stats: serde_json::from_value(json!({
            "wall_time_ms": 0, "user_time_ms": user_time, "system_time_ms": 0, "memory_bytes": 0
        }))
        .unwrap(),
        rows: serde_json::from_value(rows).unwrap(),
    };
    match wire_id {
        "lq_os" => said(
            "done",
            0,
            "",
            json!([{"name": "Debian GNU/Linux", "version": "12 (bookworm)"}]),
        ),
        "lq_none" => said("done", 0, "", json!([])),
        "lq_bytes" => {
            let row = json!({"bad": "\u{FFFD}A\u{FFFD}", "utf8": "é", "nul": "A", "big": "9223372036854775807", "real": "1.5", "missing": ""});
            said("done", 0, "", json!([row]))
        }
        "lq_err" => said("failed", 1, "no such table: nosuch", json!([])),
        other => panic!("nothing was recorded of {other}"),
    }
}

/// What a recording says, each line once, read here anew so that a mistake of our decoder cannot hide.
#[derive(Debug, Default)]
struct Said {
    lines: usize,
    rows: Vec<String>,
    statuses: Vec<StoredStatus>,
}

impl Said {
    fn of(recording: &[Recorded], replica: &Replica) -> Self {
        let mut said = Self::default();
        for recorded in recording.iter().filter(|recorded| recorded.path == "/log") {
            let body = replica.own(&recorded.body());
            let post: Value = serde_json::from_str(&String::from_utf8_lossy(&body)).unwrap();
            for line in post["data"].as_array().unwrap() {
                said.lines += 1;
                if post["log_type"] == "result" {
                    said.add_rows(line)
                } else {
                    said.add_status(line)
                }
            }
        }
        said.rows.sort();
        said.statuses.sort();
        said
    }

    fn add_rows(&mut self, line: &Value) {
        let head = json!([
            line["name"],
            line["epoch"],
            line["counter"],
            line["unixTime"]
        ]);
        let decorations = line
            .get("decorations")
            .cloned()
            .unwrap_or_else(|| json!({}));
        let mut add = |action: &str, columns: &Value| {
            self.rows
                .push(format!("{head} {action} {columns} {decorations}"))
        };
        if let Some(snapshot) = line["snapshot"].as_array() {
            snapshot.iter().for_each(|row| add("snapshot", row));
            if snapshot.is_empty() {
                self.rows.push(format!("{head} nothing"));
            }
        } else if let Some(changes) = line["diffResults"].as_object() {
            for (action, rows) in changes {
                rows.as_array()
                    .unwrap()
                    .iter()
                    .for_each(|row| add(action, row));
            }
        } else {
            add(line["action"].as_str().unwrap(), &line["columns"]);
        }
    }

    fn add_status(&mut self, line: &Value) {
        self.statuses.push(StoredStatus {
            severity: i16::try_from(line["severity"].as_i64().unwrap()).unwrap(),
            filename: line["filename"].as_str().unwrap().into(),
            line: i32::try_from(line["line"].as_i64().unwrap()).unwrap(),
            message: line["message"].as_str().unwrap().into(),
            version: line["version"].as_str().unwrap().into(),
            unix_time: line["unixTime"].as_i64(),
        });
    }

    async fn compare(mut self, world: &World, replica: &Replica) {
        let stored = world.stored(replica.node).await;
        assert_eq!(stored.unreadable, Vec::<String>::new());
        assert_eq!(rows_of(&stored), self.rows);
        let mut statuses = stored.statuses.clone();
        // On a machine whose clock is behind the recording's, the time of receipt stands in.
        let now = world.now().timestamp();
        if self
            .statuses
            .iter()
            .any(|status| status.unix_time > Some(now))
        {
            statuses
                .iter_mut()
                .chain(&mut self.statuses)
                .for_each(|status| status.unix_time = None);
            statuses.sort();
            self.statuses.sort();
        }
        assert_eq!(statuses, self.statuses);
        let lossy: Vec<_> = stored
            .executions
            .iter()
            .filter(|execution| execution.lossy)
            .collect();
        assert!(!lossy.is_empty(), "the recording holds invalid UTF-8");
        for execution in &stored.executions {
            let replaced = serde_json::to_string(execution)
                .unwrap()
                .contains('\u{FFFD}');
            assert_eq!(execution.lossy, replaced, "{execution:?}");
        }
    }
}

/// What is stored, in the form of [`Said::rows`].
fn rows_of(stored: &Stored) -> Vec<String> {
    let mut rows = Vec::new();
    for execution in &stored.executions {
        let head = json!([
            execution.query,
            execution.epoch,
            execution.counter,
            execution.unix_time
        ]);
        let decorations = json!(execution.decorations);
        if execution.rows.is_empty() {
            rows.push(format!("{head} nothing"));
        }
        for row in &execution.rows {
            let (action, columns): (_, &BTreeMap<_, _>) = match row {
                StoredRow::Added(columns) => ("added", columns),
                StoredRow::Removed(columns) => ("removed", columns),
                StoredRow::Snapshot(columns) => ("snapshot", columns),
            };
            rows.push(format!("{head} {action} {} {decorations}", json!(columns)));
        }
    }
    rows.sort();
    rows
}

/// The lines of a log post, without the brackets around them.
fn lines_of(body: &[u8]) -> &[u8] {
    let start = find(body, b"\"data\":[").expect("a log post has data") + 8;
    let end = find(body, b"],\"log_type\"").unwrap_or(body.len() - 2);
    &body[start..end]
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn replace(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let (mut replaced, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some(start) = find(rest, old) {
        replaced.extend_from_slice(&rest[..start]);
        replaced.extend_from_slice(new);
        rest = &rest[start + old.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
