//! Posts every case in one world and compares.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use ostiary_tests::{Answer, Program, Wire, World, WorldOptions, eventually, gzip};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::case::{Case, Expected, Post, Verdict, Words};

/// The cases that must be there, as our compatibility corpus names them: log results (R), status logs (S), answers to live queries
/// (W), enrollments (E) and configs (C).
const CASES: &str = "R1 R2 R3 R4 R5 R6 R7 R8 R9 R14 R18 R19 R20 S1 S2 S3 W1 W2 W3 W4 W5 W6 E1 E2 E3 E4 E5 E6 E10 C1 C2 C3";

#[test]
fn no_case_of_the_corpus_is_missing() {
    let present: BTreeSet<String> = Case::all().into_iter().map(|case| case.case).collect();
    let missing: Vec<&str> = CASES
        .split(' ')
        .filter(|case| !present.contains(*case))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_since_1_8_is_answered_and_stored() {
    let world = World::start(WorldOptions::only(&[Program::Api, Program::Worker])).await;
    let cases = Case::all();
    let mut played = Vec::new();
    for case in &cases {
        played.push(Played::of(&world, case).await);
    }
    world.worked_off().await;
    let (mut table, mut failed) = (String::new(), 0);
    for (case, mut played) in cases.iter().zip(played) {
        played.compare(&world, case).await;
        let verdict = if played.faults.is_empty() {
            "ok"
        } else {
            "FAILED"
        };
        writeln!(
            table,
            "{verdict:7}{:5}{:33}{}",
            case.case, case.name, case.title
        )
        .unwrap();
        for fault in &played.faults {
            failed += 1;
            writeln!(table, "       {fault}").unwrap();
        }
    }
    println!("{table}");
    assert_eq!(failed, 0, "faults, see the table");
    world.end().await;
}

/// A case whose posts were sent.
struct Played {
    words: Words,
    node: Option<Uuid>,
    live_queries: Vec<(String, Uuid)>,
    faults: Vec<String>,
}

impl Played {
    async fn of(world: &World, case: &Case) -> Self {
        let wire = world.wire().version(&case.client);
        let words = Words::of(case, world.enroll_secret());
        let mut played = Self {
            words,
            node: None,
            live_queries: Vec::new(),
            faults: Vec::new(),
        };
        if case.enrolled {
            let host = played.words.get("host").to_owned();
            played
                .words
                .add_key(&wire.enroll(world.enroll_secret(), &host).await);
            played.node = world.find_nodes(&host).await.first().map(|node| node.id);
        }
        played.take_live_queries(world, case, &wire).await;
        for post in &case.posts {
            let answer = played.send(&wire, case, post).await;
            played.judge(post, answer.as_ref());
        }
        played
    }

    /// The node is asked, and polls until everything was handed out to it.
    async fn take_live_queries(&mut self, world: &World, case: &Case, wire: &Wire) {
        for (name, sql) in &case.live_queries {
            let node = self.node.expect("who is asked is enrolled");
            let id = world
                .ask(&[node], self.words.get(&format!("live.{name}")), sql)
                .await;
            self.live_queries.push((name.clone(), id));
        }
        if case.live_queries.is_empty() {
            return;
        }
        let mut waiting: BTreeSet<String> = case
            .live_queries
            .keys()
            .map(|name| self.words.get(&format!("live.{name}")).to_owned())
            .collect();
        let body = self.words.fill(br#"{"node_key":"{{node_key}}"}"#);
        eventually(
            &format!("{}: live queries are handed out", case.name),
            Duration::from_secs(20),
            async || {
                let answer = wire.post_bytes("/distributed/read", &body).await.json();
                waiting.retain(|id| answer["queries"].get(id).is_none());
                waiting.is_empty().then_some(())
            },
        )
        .await;
    }

    /// Sends as that version would: with the key in a header from 5.23 on.
    async fn send(&mut self, wire: &Wire, case: &Case, post: &Post) -> Option<Answer> {
        let mut body = post.body(&self.words);
        let mut headers = Vec::new();
        for (name, value) in &post.headers {
            headers.push((name.as_str(), self.words.fill_text(value)));
        }
        if headers.is_empty() && case.name.starts_with("5.23/") && post.endpoint != "/enroll" {
            headers.extend(key_in(&body).map(|key| ("Authorization", format!("NodeKey {key}"))));
        }
        if post.gzip {
            body = gzip(&body);
            headers.push(("Content-Encoding", "gzip".into()));
        }
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = wire
            .request(
                "POST",
                &self.words.fill_text(&post.endpoint),
                &headers,
                &body,
            )
            .await;
        if let Some(key) = answer.as_ref().and_then(key_given_out) {
            self.words.add_key(&key);
        }
        answer
    }

    fn judge(&mut self, post: &Post, answer: Option<&Answer>) {
        let Some(answer) = answer else {
            self.faults
                .push(format!("{}: closed without an answer", post.endpoint));
            return;
        };
        let right = match &post.answer {
            Expected::Exactly(body) => serde_json::from_slice::<Map<String, Value>>(&answer.body)
                .is_ok_and(|sent| sent == *body),
            Expected::Verdict(Verdict::NodeKey) => {
                key_given_out(answer).is_some() && answer.is_success()
            }
            Expected::Verdict(Verdict::NoKey) => {
                key_given_out(answer).is_none() && !answer.is_success()
            }
            Expected::Verdict(Verdict::Config) => {
                answer.is_success()
                    && answer.status == 200
                    && answer.json()["options"]["pack_delimiter"] == "/"
            }
        };
        if !right {
            let said = String::from_utf8_lossy(&answer.body);
            self.faults.push(format!(
                "{}: expected {:?}, answered {} {said}",
                post.endpoint, post.answer, answer.status
            ));
        }
    }

    async fn compare(&mut self, world: &World, case: &Case) {
        if let Some(node) = self.node {
            let stored = world.stored(node).await;
            let (mut executions, mut statuses) =
                (case.then.executions.clone(), case.then.statuses.clone());
            executions.sort();
            statuses.sort();
            self.equal("executions", &executions, &stored.executions);
            // A line without a time has that of its receipt.
            let timed: Vec<_> = statuses
                .iter()
                .map(|status| status.unix_time.is_some())
                .collect();
            let mut seen = stored.statuses.clone();
            seen.iter_mut()
                .zip(timed)
                .filter(|(_, timed)| !timed)
                .for_each(|(status, _)| status.unix_time = None);
            self.equal("status lines", &statuses, &seen);
            if stored.unreadable.len() != case.then.unreadable {
                self.faults.push(format!(
                    "unreadable: {} expected, {:?} stored",
                    case.then.unreadable, stored.unreadable
                ));
            }
        }
        for (name, id) in self.live_queries.clone() {
            let node = self.node.expect("who is asked is enrolled");
            let task = world.task(id, node).await;
            // As text: columns keep the order of the SELECT.
            let [expected, seen] = [case.then.tasks.get(&name), task.as_ref()]
                .map(|task| serde_json::to_string(&task).unwrap());
            self.equal(&format!("task {name}"), &expected, &seen);
        }
        if let Some(nodes) = &case.then.nodes {
            self.compare_nodes(world, nodes).await;
        }
    }

    async fn compare_nodes(&mut self, world: &World, expected: &[Map<String, Value>]) {
        let filled = self.words.fill(&serde_json::to_vec(expected).unwrap());
        let expected: Vec<Map<String, Value>> = serde_json::from_slice(&filled).unwrap();
        let found = world.find_nodes(self.words.get("host")).await;
        if found.len() != expected.len() {
            self.faults.push(format!(
                "{} nodes expected, {} found",
                expected.len(),
                found.len()
            ));
        }
        for (expected, node) in expected.iter().zip(found) {
            let node = serde_json::to_value(node).unwrap();
            for (field, value) in expected {
                self.equal(&format!("node's {field}"), value, &node[field]);
            }
        }
    }

    fn equal<T: PartialEq + serde::Serialize>(&mut self, what: &str, expected: &T, seen: &T) {
        if expected != seen {
            let text = |value: &T| serde_json::to_string(value).unwrap();
            self.faults.push(format!(
                "{what}\n         expected {}\n         stored   {}",
                text(expected),
                text(seen)
            ));
        }
    }
}

fn key_given_out(answer: &Answer) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    body["node_key"]
        .as_str()
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
}

fn key_in(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body["node_key"]
        .as_str()
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
}
