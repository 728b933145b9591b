//! Bodies, methods and paths that are wrong, and bodies that are too large.

use std::io::Write as _;

use ostiary_tests::{Program, Wire, World, WorldOptions, gzip};
use serde_json::json;

use super::{
    ALIASES, ENDPOINTS, assert_accepted, assert_refused_softly, good_body, log_body, routes,
    with_key,
};

/// Bodies that are no JSON object.
const UNREADABLE: &[(&str, &[u8])] = &[
    ("no body", b""),
    ("white space", b" \r\n"),
    ("no JSON", b"OK"),
    ("HTML", b"<html></html>"),
    ("cut off", br#"{"node_key":"#),
    (
        "cut off in a line",
        br#"{"node_key":"","log_type":"result","data":[{"name":"q""#,
    ),
    ("something behind it", b"{} {}"),
    ("single quotes", b"{'node_key':'k'}"),
    ("no UTF-8", b"\xff\xfe\x00"),
    ("an array", b"[]"),
    ("a text", b"\"text\""),
    ("a number", b"7"),
    ("null", b"null"),
    ("true", b"true"),
    ("a key that is no text", br#"{"node_key":7}"#),
];

const SMALL: usize = 20_000;
const LARGE: usize = 1_000_000;
const LARGE_INFLATED: usize = 4_000_000;
/// What three bombs at once may make the api grow by, in bytes. Their bounds add up to 12 MB at most.
const BOMBS_MAY_COST: usize = 64 << 20;

fn options() -> WorldOptions {
    WorldOptions::only(&[Program::Api, Program::Worker])
        .set(ALIASES.0, ALIASES.1)
        .set("API__SMALL_MAX_BYTES", &SMALL.to_string())
        .set("API__LOG_MAX_SENT_BYTES", &LARGE.to_string())
        .set("API__LOG_MAX_BYTES", &LARGE_INFLATED.to_string())
        .set("API__DISTRIBUTED_WRITE_MAX_BYTES", &LARGE.to_string())
        .set("API__OVERSIZED_REFUSALS", "3")
        .set("CARVES__ENABLED", "true")
        .set("CARVES__MAX_BLOCK_BYTES", &(SMALL / 2).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_cannot_be_read_are_refused_or_kept() {
    let world = World::start(options()).await;
    let wire = world.wire();
    let key = wire.enroll(world.enroll_secret(), "unreadable").await;
    let mut kept = 0;
    for (method, path, endpoint) in routes() {
        for (name, body) in UNREADABLE {
            let what = format!("{method} {path} with {name}");
            assert_refused_softly(
                &what,
                endpoint,
                wire.request(method, &path, &[], body).await.as_ref(),
            );
            // Whoever says in a header who it is gets rid of it; else it would send it for ever.
            let answer = with_key(&wire, method, &path, &key, body).await;
            if endpoint == "/log" || endpoint == "/distributed/write" {
                assert_accepted(&what, answer.as_ref());
                kept += 1;
            } else {
                assert_refused_softly(&what, endpoint, answer.as_ref());
            }
        }
        unusable_encodings(&wire, method, &path, endpoint, &key).await;
    }
    let node = world.find_nodes("unreadable").await[0].id;
    assert_eq!(world.stored(node).await.unreadable.len(), kept);
    world.end().await;
}

/// Encodings that are no gzip: the fault may lie on the way, so the node shall keep what it has.
async fn unusable_encodings(wire: &Wire, method: &str, path: &str, endpoint: &str, key: &str) {
    let good = good_body(endpoint, key);
    let whole = gzip(good.as_bytes());
    let mut corrupt = whole.clone();
    let middle = corrupt.len() / 2;
    corrupt[middle] ^= 0xff;
    let authorization = format!("NodeKey {key}");
    for (name, encoding, body) in [
        ("corrupt gzip", "gzip", corrupt.as_slice()),
        ("truncated gzip", "gzip", &whole[..whole.len() - 9]),
        ("gzip without its end", "gzip", &whole[..whole.len() - 1]),
        ("gzip that is none", "gzip", good.as_bytes()),
        ("nothing as gzip", "gzip", b""),
        ("an unknown encoding", "deflate", good.as_bytes()),
    ] {
        let headers = [
            ("Content-Encoding", encoding),
            ("Authorization", &authorization),
        ];
        let what = format!("{method} {path} with {name}");
        assert_refused_softly(
            &what,
            endpoint,
            wire.request(method, path, &headers, body).await.as_ref(),
        );
        assert_refused_softly(
            &what,
            endpoint,
            wire.request(method, path, &headers[..1], body)
                .await
                .as_ref(),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_methods_paths_keys_and_secrets_are_refused() {
    let world = World::start(options()).await;
    let wire = world.wire();
    let key = wire.enroll(world.enroll_secret(), "astray").await;
    for (_, path, endpoint) in routes() {
        for method in ["GET", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let body = good_body(endpoint, &key);
            let what = format!("{method} {path}");
            assert_refused_softly(
                &what,
                endpoint,
                with_key(&wire, method, &path, &key, body.as_bytes())
                    .await
                    .as_ref(),
            );
        }
    }
    let paths = [
        "/",
        "/nothing",
        "/log/",
        "/LOG",
        "//log",
        "/v1",
        "/v1/",
        "/v2/log",
        "/v1/v1/log",
        "/log/enroll",
        "/api/v1/nodes",
        "/login",
    ];
    for path in paths {
        for method in ["POST", "PUT", "GET", "DELETE"] {
            let body = good_body("/log", &key);
            let what = format!("{method} {path}");
            assert_refused_softly(
                &what,
                path,
                with_key(&wire, method, path, &key, body.as_bytes())
                    .await
                    .as_ref(),
            );
        }
    }
    for (method, path, endpoint) in routes() {
        if endpoint == "/enroll" {
            for secret in [json!("wrong"), json!(""), json!(null), json!(7)] {
                let body =
                    json!({"enroll_secret": secret, "host_identifier": "stranger"}).to_string();
                let answer = wire.request(method, &path, &[], body.as_bytes()).await;
                assert_refused_softly(
                    &format!("{method} {path} with secret {secret}"),
                    endpoint,
                    answer.as_ref(),
                );
            }
        } else {
            assert_refused_softly(
                &format!("{method} {path} without a key"),
                endpoint,
                wire.request(method, &path, &[], b"{}").await.as_ref(),
            );
            for stranger in [String::new(), format!("stranger-{method}-{path}")] {
                let body = good_body(endpoint, &stranger);
                let answer = wire
                    .request(method, &path, &[], body.as_bytes())
                    .await
                    .unwrap();
                if endpoint == "/carve/continue" {
                    // A block says by its session only who sends it.
                    assert_refused_softly(&format!("{method} {path}"), endpoint, Some(&answer));
                    continue;
                }
                assert_eq!(
                    String::from_utf8_lossy(&answer.body),
                    r#"{"node_invalid":true}"#,
                    "{method} {path} with {stranger:?}"
                );
            }
        }
    }
    assert!(world.find_nodes("stranger").await.is_empty());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_are_refused_and_in_the_end_taken_in_part() {
    let world = World::start(options()).await;
    let wire = world.wire();
    let key = wire.enroll(world.enroll_secret(), "glutton").await;
    for (method, path, endpoint) in routes()
        .into_iter()
        .filter(|(_, _, endpoint)| !is_large(endpoint))
    {
        let body = json!({"node_key": key, "enroll_secret": world.enroll_secret(), "padding": "x".repeat(SMALL)}).to_string();
        let what = format!("{method} {path} with {} bytes", body.len());
        assert_refused_softly(
            &what,
            endpoint,
            with_key(&wire, method, &path, &key, body.as_bytes())
                .await
                .as_ref(),
        );
    }
    let lines: Vec<_> = (0..20_000).map(|n| json!({"name": "many", "unixTime": 1_700_000_000, "columns": {"n": n.to_string()}, "action": "added"})).collect();
    let log = json!({"node_key": key, "log_type": "result", "data": lines}).to_string();
    let rows = vec![json!({"a": "x".repeat(100)}); 20_000];
    let write =
        json!({"node_key": key, "queries": {"lq": rows}, "statuses": {"lq": 0}}).to_string();
    for (endpoint, body) in [("/log", log), ("/distributed/write", write)] {
        assert!(body.len() > LARGE);
        let ways: Vec<_> = routes()
            .into_iter()
            .filter(|(_, _, route)| *route == endpoint)
            // The one that is taken in part begins the count anew.
            .take(4)
            .collect();
        for (turn, (method, path, _)) in ways.iter().enumerate() {
            let answer = wire.request(method, path, &[], body.as_bytes()).await;
            let what = format!("{method} {path} with {} bytes, turn {turn}", body.len());
            if turn < 3 {
                assert_refused_softly(&what, endpoint, answer.as_ref());
            } else {
                assert_accepted(&what, answer.as_ref());
            }
        }
    }
    world.worked_off().await;
    let node = world.find_nodes("glutton").await.remove(0);
    let stored = world.stored(node.id).await;
    let rows: usize = stored
        .executions
        .iter()
        .map(|execution| execution.rows.len())
        .sum();
    assert!(
        (1..20_000).contains(&rows),
        "the first lines are stored: {rows}"
    );
    assert!(node.lines_lost > 0, "the others are counted as lost");
    assert_eq!(
        stored.unreadable.len(),
        1,
        "the beginning of the answer to a live query is kept: {:?}",
        stored.unreadable
    );
    let answer = wire
        .request("POST", "/log", &[], log_body(&key, "after it").as_bytes())
        .await;
    assert_accepted("a post behind the large one", answer.as_ref());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_bombs_are_refused_and_cost_little_memory() {
    let world = World::start(options()).await;
    let wire = world.wire();
    let key = wire.enroll(world.enroll_secret(), "bomber").await;
    let api = world.pid(Program::Api).expect("it was started");
    // Nearly as much as may be sent; inflated, many times what may be read.
    let sizes = (15 << 20, 200 << 20);
    let (small, large) = (bomb(&key, sizes.0), bomb(&key, sizes.1));
    assert!(small.len() < SMALL && large.len() < LARGE);
    for endpoint in ENDPOINTS {
        let (bomb, inflated) = if is_large(endpoint) {
            (&large, sizes.1)
        } else {
            (&small, sizes.0)
        };
        std::fs::write(format!("/proc/{api}/clear_refs"), "5").unwrap();
        let before = memory(api, "VmRSS");
        // As many as are refused; a further one would be taken in part, see above.
        let bombs = ["", "/v1", ""].map(|prefix| {
            let (wire, bomb, path) = (wire.clone(), bomb.clone(), format!("{prefix}{endpoint}"));
            tokio::spawn(async move {
                let answer = wire
                    .request("POST", &path, &[("Content-Encoding", "gzip")], &bomb)
                    .await;
                (path, answer)
            })
        });
        for sent in bombs {
            let (path, answer) = sent.await.unwrap();
            assert_refused_softly(&format!("{path} with a bomb"), endpoint, answer.as_ref());
        }
        let highest = memory(api, "VmHWM");
        let grown = highest.saturating_sub(before);
        assert!(
            grown < BOMBS_MAY_COST,
            "{endpoint}: three bombs of {inflated} bytes, {} as sent, made the api grow by {grown} bytes, from {before} to {highest}; \
             {BOMBS_MAY_COST} are allowed",
            bomb.len()
        );
        let answer = wire
            .request("POST", "/log", &[], log_body(&key, endpoint).as_bytes())
            .await;
        assert_accepted("a post behind the bombs", answer.as_ref());
    }
    world.end().await;
}

fn is_large(endpoint: &str) -> bool {
    endpoint == "/log" || endpoint == "/distributed/write"
}

/// Begins as a body that every endpoint can tell its node from, and goes on for a long time.
fn bomb(key: &str, inflated: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    write!(
        encoder,
        r#"{{"node_key":"{key}","log_type":"result","data":["#
    )
    .unwrap();
    let spaces = vec![b' '; 1 << 20];
    for _ in 0..inflated >> 20 {
        encoder.write_all(&spaces).unwrap();
    }
    encoder.write_all(b"]}").unwrap();
    encoder.finish().unwrap()
}

/// A line of /proc/<pid>/status, in bytes.
fn memory(pid: u32, line: &str) -> usize {
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
