//! Sinks: what is stored reaches each of them, in its order, whatever becomes of the others.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ostiary_boot::clock::new_id;
use ostiary_domain::ids::{NodeId, SinkId};
use ostiary_outputs::sinks::SEAL_PURPOSE;
use ostiary_store::Db;
use ostiary_store::sinks::{Source, cursors, edits};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::support::{Stage, line, seconds, until, when};

/// A stage whose sinks may write files, into a folder that goes with it, and speak with this machine.
struct Yard {
    stage: Stage,
    folder: PathBuf,
}

impl Drop for Yard {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Yard {
    async fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("ostiary-sinks-{}", new_id()));
        std::fs::create_dir_all(&folder).unwrap();
        let into = folder.clone();
        let stage = Stage::with(|settings| {
            settings.sinks.folder = into;
            settings.outputs.allow_private_addresses = true;
        })
        .await;
        Self { stage, folder }
    }

    async fn sink(&self, kind: &str, settings: &Value, sources: &[Source], rest: &str) -> SinkId {
        let id = SinkId(new_id());
        let key = &self.stage.app.settings.keys.destinations;
        let sealed = key.seal(SEAL_PURPOSE, settings.to_string().as_bytes());
        let types: Vec<String> = ["result", "status", "finding", "audit"]
            .into_iter()
            .filter(|name| sources.contains(&Source::of_type(name).unwrap()))
            .map(str::to_owned)
            .collect();
        let values = edits::SinkValues {
            name: &format!("{kind} {id}"),
            kind,
            settings_sealed: &sealed,
            summary: "",
            enabled: true,
            types: &types,
            queries: &[],
            target: "",
        };
        let mut tx = self.stage.test.db.begin().await.unwrap();
        edits::insert(&mut tx, id, &values, self.stage.now())
            .await
            .unwrap();
        cursors::set_sources(&mut tx, id, sources).await.unwrap();
        Db::commit(tx).await.unwrap();
        if !rest.is_empty() {
            self.stage
                .test
                .execute(&format!("UPDATE sinks SET {rest} WHERE id = '{id}'"))
                .await;
        }
        id
    }

    async fn file(&self, name: &str, sources: &[Source], rest: &str) -> SinkId {
        let settings = json!({"file": name, "format": "json"});
        self.sink("file", &settings, sources, rest).await
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Works until a file has so many lines; whatever a test has left open may hold the horizon up for a moment.
    async fn work_until(&self, name: &str, lines: usize) -> Vec<Value> {
        until(&format!("{lines} lines in {name}"), async || {
            self.stage.work().await;
            self.lines(name).len() >= lines
        })
        .await;
        let all = self.lines(name);
        assert_eq!(all.len(), lines, "{name}");
        all
    }

    async fn results(&self, node: NodeId, query: &str, values: &[&str]) {
        let at = self.stage.unix_now();
        let lines: Vec<Value> = values
            .iter()
            .map(|value| line(query, "added", 1, at, json!({"value": value})))
            .collect();
        self.stage.results(node, &lines).await;
    }

    async fn line_of(&self, id: SinkId) -> edits::SinkLine {
        let mut conn = self.stage.test.db.acquire().await.unwrap();
        edits::find(&mut conn, id).await.unwrap().unwrap()
    }
}

fn values(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["columns"]["value"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn everything_goes_to_several_places_each_with_its_own_choice() {
    let yard = Yard::new().await;
    let (web, laptop) = (
        yard.stage.node("web-1").await,
        yard.stage.node("laptop").await,
    );
    yard.file("all", &Source::ALL, "").await;
    yard.file("usb", &[Source::Events], "queries = '{usb*}'")
        .await;
    yard.file("web", &[Source::Events], "target = 'host:web-*'")
        .await;
    yard.file("status", &[Source::StatusLogs], "").await;
    yard.stage
        .rule("stick", &when("usb_devices", "value", "stick"), "")
        .await;
    yard.results(web, "usb_devices", &["stick"]).await;
    yard.results(laptop, "usb_devices", &["mouse"]).await;
    yard.results(web, "ports", &["22"]).await;
    let status = json!([{"severity": "1", "filename": "f.cpp", "line": "7", "message": "slow", "version": "5.9.1"}]);
    yard.stage.post(web, 's', &status.to_string()).await;
    yard.stage
        .test
        .execute("INSERT INTO audit_entries (at, user_name, action) VALUES (now(), 'ada', 'packs.update')")
        .await;
    let all = yard.work_until("all", 6).await;
    let mut types: Vec<&str> = all
        .iter()
        .map(|line| line["type"].as_str().unwrap())
        .collect();
    types.sort_unstable();
    assert_eq!(
        types,
        ["audit", "finding", "result", "result", "result", "status"]
    );
    let usb = yard.work_until("usb", 2).await;
    let mut both = values(&usb);
    both.sort_unstable();
    assert_eq!(both, ["mouse", "stick"]);
    let of_web = yard.work_until("web", 2).await;
    assert!(of_web.iter().all(|line| line["node"]["name"] == "web-1"));
    let status = yard.work_until("status", 1).await;
    assert_eq!(status[0]["severity"], "warning");
    let finding = all.iter().find(|line| line["type"] == "finding").unwrap();
    assert_eq!(finding["change"], "opened");
    assert_eq!(finding["first_match"]["columns"]["value"], "stick");
    assert_eq!(finding["node"]["name"], "web-1");
}

#[tokio::test]
async fn a_dead_sink_holds_nothing_back_and_gets_all_when_it_is_mended() {
    let yard = Yard::new().await;
    let node = yard.stage.node("web-1").await;
    let sources = [Source::Events];
    // Nobody can write there: the name is a folder.
    std::fs::create_dir(yard.folder.join("dead")).unwrap();
    let dead = yard.file("dead", &sources, "").await;
    yard.file("alive", &sources, "").await;
    for n in 0..5 {
        yard.results(node, "q", &[&format!("{n}")]).await;
        let alive = yard.work_until("alive", n + 1).await;
        assert_eq!(values(&alive).last().unwrap(), &n.to_string());
    }
    let line = yard.line_of(dead).await;
    assert!(
        line.last_error.contains("dead") && line.attempts > 0,
        "{line:?}"
    );
    assert!(line.due_at > yard.stage.now(), "{line:?}");
    std::fs::remove_dir(yard.folder.join("dead")).unwrap();
    yard.stage.clock.advance(seconds(600));
    let lines = yard.work_until("dead", 5).await;
    assert_eq!(values(&lines), ["0", "1", "2", "3", "4"]);
    let line = yard.line_of(dead).await;
    assert_eq!(
        (line.last_error.as_str(), line.attempts, line.sent_lines),
        ("", 0, 5)
    );
}

#[tokio::test]
async fn rows_of_one_execution_are_cut_into_batches_and_none_is_left_out() {
    let yard = Yard::new().await;
    let node = yard.stage.node("web-1").await;
    let rows: Vec<Value> = (0..2345).map(|n| json!({"value": n.to_string()})).collect();
    let snapshot = crate::support::snapshot("q", yard.stage.unix_now(), json!(rows));
    yard.file("all", &[Source::Events], "").await;
    yard.stage.results(node, &[snapshot]).await;
    yard.results(node, "q2", &["after"]).await;
    let lines = yard.work_until("all", 2346).await;
    let expected: Vec<String> = (0..2345)
        .map(|n| n.to_string())
        .chain(["after".into()])
        .collect();
    assert_eq!(values(&lines), expected);
    let ids: std::collections::HashSet<&str> = lines
        .iter()
        .map(|line| line["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), lines.len(), "ids tell lines apart");
}

#[tokio::test]
async fn a_replay_sends_again_what_came_since_a_time() {
    let yard = Yard::new().await;
    let node = yard.stage.node("web-1").await;
    let sink = yard.file("all", &[Source::Events], "").await;
    yard.results(node, "q", &["old"]).await;
    yard.work_until("all", 1).await;
    yard.stage.clock.advance(seconds(3600));
    let since = yard.stage.now();
    yard.results(node, "q", &["new"]).await;
    yard.work_until("all", 2).await;
    let mut tx = yard.stage.test.db.begin().await.unwrap();
    cursors::replay(&mut tx, sink, since).await.unwrap();
    Db::commit(tx).await.unwrap();
    let lines = yard.work_until("all", 3).await;
    assert_eq!(values(&lines), ["old", "new", "new"]);
    assert_eq!(
        lines[1]["id"], lines[2]["id"],
        "a line has the same id each time"
    );
}

#[tokio::test]
async fn a_test_is_sent_by_whoever_runs_the_sink_even_if_it_is_switched_off() {
    let yard = Yard::new().await;
    let sink = yard.file("all", &[Source::Events], "enabled = false").await;
    let mut conn = yard.stage.test.db.acquire().await.unwrap();
    edits::ask_test(&mut conn, sink, yard.stage.now())
        .await
        .unwrap();
    drop(conn);
    let lines = yard.work_until("all", 1).await;
    assert_eq!(lines[0]["type"], "test");
    let line = yard.line_of(sink).await;
    assert_eq!((line.test_taken, line.test_asked_at), (Some(true), None));
}

#[tokio::test]
async fn settings_that_cannot_be_opened_are_said_and_lose_nothing() {
    let yard = Yard::new().await;
    let node = yard.stage.node("web-1").await;
    let sink = yard
        .file("all", &[Source::Events], "settings_sealed = 'rubbish'")
        .await;
    yard.results(node, "q", &["1"]).await;
    until("it is said", async || {
        yard.stage.work().await;
        yard.line_of(sink).await.last_error.contains("another key")
    })
    .await;
    assert_eq!(yard.line_of(sink).await.sent_lines, 0);
}

/// A web server that takes bodies, unless one of the lines says "poison". Gives the lines that it took.
async fn picky_server() -> (std::net::SocketAddr, Arc<Mutex<Vec<Value>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::<Mutex<Vec<Value>>>::default();
    let ears = taken.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ears = ears.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let (mut head, mut length) = (String::new(), 0);
                    while stream.read_line(&mut head).await.unwrap_or(0) > 2 {
                        let line = head.to_ascii_lowercase();
                        if let Some(value) = line.strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        head.clear();
                    }
                    let mut body = vec![0; length];
                    if length == 0 || stream.read_exact(&mut body).await.is_err() {
                        return;
                    }
                    let text = String::from_utf8(body).unwrap();
                    let is_bad = text.contains("poison");
                    if !is_bad {
                        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
                        ears.lock().unwrap().extend(lines);
                    }
                    let status = if is_bad { "400 Bad Request" } else { "200 OK" };
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    (address, taken)
}

#[tokio::test]
async fn a_line_that_is_refused_for_good_is_left_out_and_told() {
    let yard = Yard::new().await;
    let node = yard.stage.node("web-1").await;
    let (address, taken) = picky_server().await;
    let settings = json!({"url": format!("http://{address}/in"), "compression": "none"});
    let sources = [Source::Events, Source::AuditEntries];
    let sink = yard.sink("http", &settings, &sources, "").await;
    // Alone in its source, which is asked first.
    yard.stage
        .test
        .execute("INSERT INTO audit_entries (at, user_name, action) VALUES (now(), 'poison', 'packs.update')")
        .await;
    // Posts of one node are stored one after the other, so they are read in one batch or in several.
    yard.results(node, "q", &["1", "2", "poison", "3"]).await;
    yard.results(node, "q", &["4"]).await;
    until("all but one are taken", async || {
        yard.stage.work().await;
        yard.stage.clock.advance(seconds(600));
        taken.lock().unwrap().len() >= 4
    })
    .await;
    let lines = taken.lock().unwrap().clone();
    assert_eq!(values(&lines), ["1", "2", "3", "4"]);
    until("the refusals are noted", async || {
        // The entry's turn comes when others are taken.
        yard.results(node, "q", &["more"]).await;
        yard.stage.work().await;
        yard.stage.clock.advance(seconds(600));
        yard.line_of(sink).await.refused_lines == 2
    })
    .await;
    assert!(yard.line_of(sink).await.last_refusal.contains("400"));
}

/// `cargo test -p ostiary-worker --test worker how_fast_lines_are_forwarded -- --ignored --nocapture`
#[tokio::test]
#[ignore = "it measures, which says nothing on a busy machine"]
async fn how_fast_lines_are_forwarded() {
    const LINES: i64 = 200_000;
    let yard = Yard::new().await;
    let node = yard.stage.node("web-1").await;
    let row = |n: usize| json!({"name": format!("package-{n}"), "version": "1.2.3", "source": "", "size": "4711", "arch": "amd64"});
    let rows: Vec<Value> = (0..20).map(row).collect();
    let snapshot = crate::support::snapshot("q", yard.stage.unix_now(), json!(rows));
    yard.stage.results(node, &[snapshot]).await;
    until("it is stored", async || {
        yard.stage.work().await;
        yard.stage.count("events").await > 0
    })
    .await;
    yard.stage
        .test
        .execute(
            "INSERT INTO events (node_id, query_name_id, batch_id, received_at, occurred_at, unix_time, row_count, rows)
             SELECT node_id, query_name_id, batch_id, received_at, occurred_at, unix_time, row_count, rows
             FROM events, generate_series(2, 10000)",
        )
        .await;
    let (address, taken) = picky_server().await;
    let url = format!("http://{address}/in");
    for (kind, settings) in [
        ("file", json!({"file": "all", "format": "json"})),
        ("http", json!({"url": url, "compression": "none"})),
    ] {
        let sink = yard.sink(kind, &settings, &[Source::Events], "").await;
        yard.stage
            .test
            .execute("UPDATE sink_cursors SET after_id = 0 WHERE after_id > 0")
            .await;
        let begun = std::time::Instant::now();
        while yard.line_of(sink).await.sent_lines < LINES {
            yard.stage.work().await;
        }
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!("{kind}: {LINES} lines in {seconds:.1} s");
        yard.stage.test.execute("DELETE FROM sinks").await;
    }
    assert_eq!(taken.lock().unwrap().len() as i64, LINES);
}
