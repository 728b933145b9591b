//! Posts every case in one world and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ostiary_tests::{
    Answer, PATIENCE, Program, Verdict, Wire, World, WorldOptions, eventually, gzip,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::case::{Case, Decided, Expected, Gzip, Post, Short, Words};
use super::flips;
use super::sending::{Request, Sender};

/// The cases of our compatibility corpus by family: each must have a file.
const FAMILIES: [(&str, &str, usize); 7] = [
    ("E", "enroll", 11),
    ("C", "config", 5),
    ("R", "result log", 24),
    ("S", "status log", 6),
    ("W", "distributed write", 17),
    ("K", "carve", 12),
    ("H", "HTTP and TLS", 11),
];

#[test]
fn no_case_of_the_corpus_is_missing() {
    let present: BTreeSet<String> = Case::all().into_iter().map(|case| case.case).collect();
    let numbered: BTreeSet<String> = FAMILIES
        .iter()
        .flat_map(|(family, _, count)| (1..=*count).map(move |number| format!("{family}{number}")))
        .collect();
    let missing: Vec<&String> = numbered.difference(&present).collect();
    assert_eq!(missing, Vec::<&String>::new(), "cases without a file");
    let unknown: Vec<&String> = present
        .difference(&numbered)
        .filter(|case| !case.starts_with('X'))
        .collect();
    assert_eq!(unknown, Vec::<&String>::new(), "files of no case");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_since_1_8_is_answered_and_stored() {
    let only = std::env::var("OSTIARY_CASE").unwrap_or_default();
    let mut by_settings: BTreeMap<Vec<(String, String)>, Vec<Case>> = BTreeMap::new();
    for case in Case::all() {
        if case.name.contains(&only) {
            let settings = case.settings.clone().into_iter().collect();
            by_settings.entry(settings).or_default().push(case);
        }
    }
    let mut report = Report::default();
    for (settings, cases) in by_settings {
        let mut options = WorldOptions::only(&[Program::Api, Program::Worker]);
        for (name, value) in settings {
            options = options.set(&name, &value);
        }
        let world = World::start(options).await;
        report.add(&world, &cases).await;
        world.end().await;
    }
    println!("{}", report.table());
    assert_eq!(report.failed, 0, "faults, see the table");
    if only.is_empty() {
        report.assert_complete();
    }
}

/// What came of all cases.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    failed: usize,
    /// Answers that were spoiled, and how often the checker noticed.
    spoiled: usize,
    /// The words of every `error`.
    errors: BTreeMap<String, usize>,
}

impl Report {
    async fn add(&mut self, world: &World, cases: &[Case]) {
        let mut played = Vec::new();
        for case in cases {
            played.push(Played::of(world, case).await);
        }
        world.worked_off().await;
        for (case, mut played) in cases.iter().zip(played) {
            played.compare(world, case).await;
            self.line(case, &played);
        }
        let log = world.log(Program::Api);
        let panics: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("panicked"))
            .collect();
        if !panics.is_empty() {
            self.failed += panics.len();
            self.lines.push(format!("FAILED the api: {panics:?}"));
        }
    }

    fn line(&mut self, case: &Case, played: &Played) {
        let verdict = if played.faults.is_empty() {
            "ok"
        } else {
            "FAILED"
        };
        let family = FAMILIES
            .iter()
            .find(|(letter, _, _)| case.case.starts_with(letter))
            .map_or("found", |(_, name, _)| name);
        self.lines.push(format!(
            "{verdict:7}{:4} {family:18}{:44} {:30} {:12} {:>6} {:44} {}",
            case.case,
            case.name,
            played.answers,
            played.verdicts,
            format!("{} ms", played.took.as_millis()),
            played.stored,
            case.title
        ));
        for fault in &played.faults {
            self.failed += 1;
            self.lines.push(format!("       {fault}"));
        }
        self.spoiled += played.spoiled;
        for error in &played.errors {
            *self.errors.entry(error.clone()).or_default() += 1;
        }
    }

    fn table(&self) -> String {
        let mut table = format!(
            "       case {:18}{:44} {:30} {:12} {:>6} stored\n",
            "family", "file", "answers", "client", "took"
        );
        let mut lines = self.lines.clone();
        // A fault stays below its case.
        let mut key = String::new();
        lines.sort_by_cached_key(|line| {
            if !line.starts_with("       ") {
                key = line[7..].to_owned();
            }
            (key.clone(), line.starts_with("       "))
        });
        for line in lines {
            writeln!(table, "{line}").unwrap();
        }
        writeln!(
            table,
            "{} answers were spoiled in all ways (empty, error dropped or added, node_invalid flipped, …): each was noticed",
            self.spoiled
        )
        .unwrap();
        for (error, times) in &self.errors {
            writeln!(table, "{times:4} × error: {error}").unwrap();
        }
        table
    }

    /// Each way in which the api can fail was met, but for those that no request brings about.
    fn assert_complete(&self) {
        let source = include_str!("../../../api/src/error.rs");
        let words = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix("#[error(\"")?.strip_suffix("\")]"))
            .filter(|words| !words.starts_with('{'));
        let missing: Vec<&str> = words
            .filter(|words| !self.errors.contains_key(*words) && !ELSEWHERE.contains(words))
            .collect();
        assert_eq!(missing, Vec::<&str>::new(), "errors that no case meets");
    }
}

/// Ways to fail that no request alone brings about; `troubles`, `identity` and the api's own tests do.
const ELSEWHERE: [&str; 7] = [
    // Only POST is sent here.
    "this method is not allowed here",
    // The client is gone before it could be said.
    "the body was cut off",
    // `node_invalid: true` stands alone.
    "the node key is unknown",
    // It takes many requests, or servers that fail, or a defect.
    "too many attempts",
    "busy",
    "temporarily not available",
    "internal error",
];

/// A case whose posts were sent.
struct Played {
    words: Words,
    node: Option<Uuid>,
    live_queries: Vec<(String, Uuid)>,
    faults: Vec<String>,
    answers: String,
    verdicts: String,
    stored: String,
    spoiled: usize,
    errors: Vec<String>,
    took: Duration,
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
            answers: String::new(),
            verdicts: String::new(),
            stored: String::new(),
            spoiled: 0,
            errors: Vec::new(),
            took: Duration::ZERO,
        };
        let begun = Instant::now();
        if case.enrolled {
            let host = played.words.get("host").to_owned();
            played
                .words
                .add_key(&wire.enroll(world.enroll_secret(), &host).await);
            played.node = world.find_nodes(&host).await.first().map(|node| node.id);
        }
        if let Some(decided) = case.decided {
            played.decide(world, &wire, decided).await;
        }
        played.take_live_queries(world, case, &wire).await;
        let api = world.pid(Program::Api).expect("it was started");
        let before = resident(api, "VmRSS");
        if case.then.api_memory_mib.is_some() {
            std::fs::write(format!("/proc/{api}/clear_refs"), "5").unwrap();
        }
        let mut sender = Sender::new(world);
        for post in &case.posts {
            for answer in played.send(&mut sender, case, post).await {
                let faults = judge(case, post, answer.as_ref());
                played.faults.extend(faults);
                played.note(case, post, answer.as_ref());
            }
        }
        played.took = begun.elapsed();
        if let Some(bound) = case.then.api_memory_mib {
            let grown = resident(api, "VmHWM").saturating_sub(before) >> 20;
            played.answers.push_str(&format!("(+{grown} MiB)"));
            if grown > bound {
                played
                    .faults
                    .push(format!("the api grew by {grown} MiB, more than {bound}"));
            }
        }
        played
    }

    /// Writes down what came back, and whether the checker would have noticed a spoiled answer.
    fn note(&mut self, case: &Case, post: &Post, answer: Option<&Answer>) {
        let verdict = Verdict::of(&case.client, &post.endpoint, answer);
        if !self.answers.is_empty() {
            self.answers.push(' ');
            self.verdicts.push(' ');
        }
        self.verdicts.push(match verdict {
            Verdict::Success => '+',
            Verdict::Failure => '-',
            Verdict::EnrollAgain => '!',
        });
        let Some(answer) = answer else {
            self.answers.push_str("closed");
            return;
        };
        self.answers.push_str(&answer.status.to_string());
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let Some(error) = body["error"].as_str() {
            self.errors.push(error.to_owned());
        }
        for (how, spoiled) in flips::of(&post.endpoint, answer) {
            self.spoiled += 1;
            if judge(case, post, spoiled.as_ref()).is_empty() {
                self.faults
                    .push(format!("{}: {how} would not be noticed", post.endpoint));
            }
        }
    }

    /// An admin decides, and the api comes to know it.
    async fn decide(&self, world: &World, wire: &Wire, decided: Decided) {
        let values = match decided {
            Decided::Disabled => "disabled_at = now()",
            Decided::Waiting => "disabled_at = now(), approval = 'waiting'",
            Decided::Refused => "disabled_at = now(), approval = 'refused'",
        };
        let node = self.node.expect("who is decided about is enrolled");
        world
            .db
            .execute(&format!("UPDATE nodes SET {values} WHERE id = '{node}'"))
            .await;
        let body = self.words.fill(br#"{"node_key":"{{node_key}}"}"#);
        eventually("the api knows what was decided", PATIENCE, async || {
            let answer = wire.post_bytes("/config", &body).await;
            (answer.status == 403).then_some(())
        })
        .await;
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
            PATIENCE,
            async || {
                let answer = wire.post_bytes("/distributed/read", &body).await.json();
                waiting.retain(|id| answer["queries"].get(id).is_none());
                waiting.is_empty().then_some(())
            },
        )
        .await;
    }

    /// Sends as that version would: with the key in a header from 5.23 on.
    async fn send(
        &mut self,
        sender: &mut Sender<'_>,
        case: &Case,
        post: &Post,
    ) -> Vec<Option<Answer>> {
        let mut body = post.body(&self.words);
        let mut headers = BTreeMap::from([
            ("Content-Type".to_owned(), "application/json".to_owned()),
            ("Accept".to_owned(), "application/json".to_owned()),
            ("Host".to_owned(), "localhost".to_owned()),
            ("User-Agent".to_owned(), format!("osquery/{}", case.client)),
        ]);
        if post.headers.is_empty() && case.name.starts_with("5.23/") && post.endpoint != "/enroll" {
            let key = key_in(&body).map(|key| format!("NodeKey {key}"));
            headers.extend(key.map(|key| ("Authorization".to_owned(), key)));
        }
        for (name, value) in &post.headers {
            headers.insert(name.clone(), self.words.fill_text(value));
        }
        if let Some(agent) = &post.user_agent {
            headers.insert("User-Agent".into(), agent.clone());
        }
        if let Some(kind) = &post.content_type {
            headers.insert("Content-Type".into(), kind.clone());
        }
        if post.gzip != Gzip::No {
            headers.insert("Content-Encoding".into(), "gzip".into());
            body = compressed(&body, post.gzip);
        }
        let mut head = format!("POST {} HTTP/1.1\r\n", self.words.fill_text(&post.endpoint));
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let answers = sender.send(&Request { head, body }, post.how).await;
        for answer in answers.iter().flatten() {
            if let Some(key) = given_out(answer, "node_key") {
                self.words.add_key(&key);
            }
            if let Some(session) = given_out(answer, "session_id") {
                self.words.set("session", &session);
            }
        }
        answers
    }

    async fn compare(&mut self, world: &World, case: &Case) {
        if let Some(node) = self.node {
            let mut stored = world.stored(node).await;
            self.stored = format!(
                "{} executions, {} statuses, {} unreadable",
                stored.executions.len(),
                stored.statuses.len(),
                stored.unreadable.len()
            );
            let mut counted: BTreeMap<String, usize> = BTreeMap::new();
            stored.executions.retain(|execution| {
                let is_counted = case.then.rows.contains_key(&execution.query);
                if is_counted {
                    *counted.entry(execution.query.clone()).or_default() += execution.rows.len();
                }
                !is_counted
            });
            self.equal("rows by query", &case.then.rows, &counted);
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
            if let Some(rows) = case.then.task_rows.get(&name) {
                let seen = task.as_ref().map_or(0, |task| task.rows.len());
                self.equal(&format!("rows of task {name}"), rows, &seen);
                continue;
            }
            // As text: columns keep the order of the SELECT.
            let [expected, seen] = [case.then.tasks.get(&name), task.as_ref()]
                .map(|task| serde_json::to_string(&task).unwrap());
            self.equal(&format!("task {name}"), &expected, &seen);
        }
        for (id, expected) in &case.then.carves {
            let id = self.words.fill_text(id);
            self.compare_carve(world, &id, expected.as_ref()).await;
        }
        if let Some(nodes) = &case.then.nodes {
            self.compare_nodes(world, nodes).await;
        }
    }

    /// The worker joins blocks in its own time.
    async fn compare_carve(
        &mut self,
        world: &World,
        id: &str,
        expected: Option<&Map<String, Value>>,
    ) {
        let sql = format!("SELECT row_to_json(carves)::text FROM carves WHERE carve_id = '{id}'");
        let wanted = expected.and_then(|expected| expected["state"].as_str());
        let deadline = Instant::now() + PATIENCE;
        let found = loop {
            let found = world.db.texts(&sql).await.pop();
            let carve: Option<Map<String, Value>> =
                found.map(|text| serde_json::from_str(&text).unwrap());
            let state = carve.as_ref().and_then(|carve| carve["state"].as_str());
            if state == wanted || Instant::now() > deadline {
                break carve;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        self.stored = found.as_ref().map_or_else(
            || "no carve".to_owned(),
            |carve| format!("carve {} {}", carve["state"], carve["received_blocks"]),
        );
        let (Some(expected), Some(found)) = (expected, &found) else {
            return self.equal("a carve", &expected.is_some(), &found.is_some());
        };
        for (field, value) in expected {
            self.equal(&format!("carve's {field}"), value, &found[field]);
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

/// What is wrong with an answer: not what is expected, or not what the client must make of it.
fn judge(case: &Case, post: &Post, answer: Option<&Answer>) -> Vec<String> {
    let mut faults = Vec::new();
    let verdict = Verdict::of(&case.client, &post.endpoint, answer);
    let said = answer.map_or_else(
        || "nothing".to_owned(),
        |answer| {
            let body = String::from_utf8_lossy(&answer.body);
            format!("{} {}", answer.status, &body[..body.len().min(300)])
        },
    );
    if verdict != post.verdict {
        faults.push(format!(
            "{}: the client must see {:?}, it sees {verdict:?} in {said}",
            post.endpoint, post.verdict
        ));
    }
    if !is_as_expected(&post.answer, answer) {
        faults.push(format!(
            "{}: expected {:?}, answered {said}",
            post.endpoint, post.answer
        ));
    }
    faults
}

fn is_as_expected(expected: &Expected, answer: Option<&Answer>) -> bool {
    let Some(answer) = answer else {
        return matches!(expected, Expected::Short(Short::Closed));
    };
    let object = serde_json::from_slice::<Map<String, Value>>(&answer.body);
    let (has_key, has_session) = (
        given_out(answer, "node_key").is_some(),
        given_out(answer, "session_id").is_some(),
    );
    let has_error = object
        .as_ref()
        .is_ok_and(|object| object.get("error").is_some_and(Value::is_string));
    match expected {
        Expected::Exactly(body) => object.is_ok_and(|sent| sent == *body),
        Expected::Short(Short::NodeKey) => has_key && answer.is_success(),
        Expected::Short(Short::NoKey) => has_error && !has_key && answer.is_node_invalid(),
        Expected::Short(Short::Config) => {
            answer.status == 200
                && answer.is_success()
                && object.is_ok_and(|config| config["options"]["pack_delimiter"] == "/")
        }
        Expected::Short(Short::Session) => has_session && answer.is_success(),
        Expected::Short(Short::NoSession) => has_error && !has_session && !answer.is_node_invalid(),
        Expected::Short(Short::Error) => has_error && !has_key && !answer.is_node_invalid(),
        Expected::Short(Short::NotJson) => {
            !answer.body.is_empty() && serde_json::from_slice::<Value>(&answer.body).is_err()
        }
        Expected::Short(Short::Closed) => false,
    }
}

fn compressed(body: &[u8], how: Gzip) -> Vec<u8> {
    let mut zipped = gzip(body);
    match how {
        Gzip::No | Gzip::Claimed => return body.to_vec(),
        Gzip::Yes => {}
        Gzip::Truncated => zipped.truncate(zipped.len() - 9),
        Gzip::Corrupt => {
            let middle = zipped.len() / 2;
            zipped[middle] ^= 0xff;
        }
    }
    zipped
}

/// A line of /proc/<pid>/status, in bytes.
fn resident(pid: u32, line: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kilobytes: usize = found
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kilobytes << 10
}

fn given_out(answer: &Answer, name: &str) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    body[name]
        .as_str()
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
}

fn key_in(body: &[u8]) -> Option<String> {
    // Only the small ones are worth the time.
    let body: Value = serde_json::from_slice(body).ok()?;
    body["node_key"]
        .as_str()
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
}
