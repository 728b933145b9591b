//! Every route × every trouble: never an empty body, never an accidental success. The table is in `ostiary_api::error`.

use std::time::Instant;

use ostiary_api::Error;
use ostiary_api::aliases::AliasSet;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::carves;
use crate::support::{
    Answer, Api, CLIENT_WAITS, PATIENCE, endpoints, gzip, hasty, parse, post, raw, request,
    settings, until,
};

/// A failure as every osqueryd understands it, which does not make the node enroll again.
fn assert_refused(answer: &Answer, status: u16, what: &str) {
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    assert!(!answer.is_success(), "{what}: {answer:?}");
    if what.contains("/carve/continue") || what.contains("/carve/block") || status == 417 {
        // There any JSON would be a success.
        let said = String::from_utf8_lossy(&answer.body);
        assert!(said.starts_with("refused: "), "{what}: {answer:?}");
    } else {
        assert!(answer.json()["error"].is_string(), "{what}: {answer:?}");
    }
    assert!(
        answer.json().get("node_invalid").is_none(),
        "{what}: {answer:?}"
    );
    assert!(
        answer.head.to_lowercase().contains("content-length: "),
        "{what}: {answer:?}"
    );
}

/// What it is, headers, body, and the status that says so.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8], u16);

#[tokio::test]
async fn no_trouble_with_a_request_is_ever_taken_for_a_success() {
    let api = Api::start_with(|settings| {
        settings.api.small_max_bytes = 8_000;
        settings.api.log_max_bytes = 100_000;
        settings.api.log_max_sent_bytes = 50_000;
        settings.api.distributed_write_max_bytes = 100_000;
        settings.api.http.body_timeout_seconds = 1;
        settings.api.aliases.sets = vec![AliasSet::Fleet];
        settings.carves.enabled = true;
        settings.carves.max_block_bytes = 100;
    })
    .await;
    let key = api.enroll("web-1").await;
    let session = carves::start(&api, &key, "c-1").await;
    for (path, good) in endpoints(&key).into_iter().chain([
        ("/carve/start", carves::start_body(&key, "c-1")),
        ("/carve/continue", carves::block_body(&session, 0)),
    ]) {
        let fleet = path
            .replace("/carve/start", "/carve/begin")
            .replace("/carve/continue", "/carve/block");
        let ways = [
            path.to_owned(),
            format!("/v1{path}"),
            format!("/api/osquery{fleet}"),
        ];
        for path in ways {
            let good = good.to_string();
            let zipped = gzip(good.as_bytes());
            let spaces = format!("{}{good}", " ".repeat(200_000));
            let bomb = gzip(&vec![b' '; 30 << 20]);
            let deep = format!("{{\"node_key\":\"\",\"a\":{}", "[".repeat(100_000));
            let gz: &[(&str, &str)] = &[("Content-Encoding", "gzip")];
            let br: &[(&str, &str)] = &[("Content-Encoding", "br")];
            let none: &[(&str, &str)] = &[];
            let cases: [Case<'_>; 14] = [
                ("no body", none, b"", 400),
                ("no JSON", none, b"rubbish", 400),
                (
                    "JSON cut off",
                    none,
                    &good.as_bytes()[..good.len() - 1],
                    400,
                ),
                ("trailing bytes", none, b"{} x", 400),
                ("array", none, b"[]", 400),
                ("string", none, b"\"x\"", 400),
                ("number", none, b"1", 400),
                ("null", none, b"null", 400),
                ("gzip that is none", gz, good.as_bytes(), 400),
                ("gzip cut off", gz, &zipped[..zipped.len() - 5], 400),
                ("unknown encoding", br, good.as_bytes(), 415),
                ("too large", none, spaces.as_bytes(), 413),
                ("bomb", gz, &bomb, 413),
                (
                    "deep",
                    none,
                    if path.ends_with("/distributed/write") {
                        b"{"
                    } else {
                        &deep.as_bytes()[..4000]
                    },
                    400,
                ),
            ];
            for (case, headers, body, status) in cases {
                let answer = post(api.address, &path, headers, body).await;
                assert_refused(&answer, status, &format!("{case} to {path}"));
            }
            for method in ["GET", "DELETE", "PATCH", "OPTIONS", "BREW"] {
                assert_refused(
                    &request(api.address, method, &path, &[], good.as_bytes()).await,
                    405,
                    &format!("{method} {path}"),
                );
            }
            let expect = post(
                api.address,
                &path,
                &[("Expect", "100-continue")],
                good.as_bytes(),
            )
            .await;
            assert_refused(&expect, 417, &format!("Expect to {path}"));
            assert_refused(
                &slow_body(&api, &path).await,
                408,
                &format!("a slow body to {path}"),
            );
            let good = post(api.address, &path, gz, &zipped).await;
            assert!(
                good.is_success() && good.status == 200,
                "{path} itself: {good:?}"
            );
        }
    }
    for path in [
        "/",
        "/enrol",
        "/v2/log",
        "/manage",
        "/api/v1/nodes",
        "/login",
        "/config/",
        "/distributed",
    ] {
        for method in ["GET", "POST"] {
            assert_refused(
                &request(api.address, method, path, &[], b"{}").await,
                404,
                &format!("{method} {path}"),
            );
        }
    }
    api.stop().await;
}

/// Announces more than it sends.
async fn slow_body(api: &Api, path: &str) -> Answer {
    let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{{");
    parse(&raw(api.address, head.as_bytes()).await).expect("an answer comes after the time-out")
}

#[tokio::test]
async fn malformed_http_closes_the_socket_unanswered() {
    let api = Api::start_with(|settings| {
        settings.api.keep_alive = true;
        settings.api.http.header_timeout_seconds = 1;
    })
    .await;
    let long_uri = format!("POST /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    let large_head = format!("POST /log HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(200_000));
    let many_headers = format!("POST /log HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(500));
    let cases: [(&str, &[u8]); 12] = [
        ("rubbish", b"rubbish\r\n\r\n"),
        (
            "a TLS client hello",
            b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
        ),
        ("no version", b"POST /log\r\n\r\n"),
        ("a version that is none", b"POST /log HTTP/9.9\r\n\r\n"),
        ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("a bad header", b"POST /log HTTP/1.1\r\nno colon\r\n\r\n"),
        (
            "two lengths",
            b"POST /log HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        ),
        (
            "a negative length",
            b"POST /log HTTP/1.1\r\nContent-Length: -1\r\n\r\n{}",
        ),
        ("a bad URI", b"POST \xff\xfe HTTP/1.1\r\n\r\n"),
        ("a URI too long", long_uri.as_bytes()),
        ("a head too large", large_head.as_bytes()),
        ("too many headers", many_headers.as_bytes()),
    ];
    let good = b"POST /config HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n[]";
    for (case, bytes) in cases {
        let alone = raw(api.address, bytes).await;
        assert!(
            alone.is_empty(),
            "{case}: {:?}",
            String::from_utf8_lossy(&alone)
        );
        // In one write after a good request, then on its kept connection after the answer.
        let pipelined = raw(api.address, &[good, bytes].concat()).await;
        assert_one_answer(&pipelined, &format!("{case} behind a good request"));
        assert_one_answer(
            &on_kept_connection(&api, good, bytes).await,
            &format!("{case} on a kept connection"),
        );
    }
    let cut_off = raw(api.address, b"POST /log HTTP/1.1\r\nHost: h\r\n").await;
    assert!(
        cut_off.is_empty(),
        "a head that never ends: {:?}",
        String::from_utf8_lossy(&cut_off)
    );
    let chunked = raw(
        api.address,
        b"POST /log HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    )
    .await;
    assert!(
        parse(&chunked).is_none_or(|answer| !answer.is_success()),
        "{:?}",
        String::from_utf8_lossy(&chunked)
    );
    api.stop().await;
}

/// Exactly one answer, which is a refusal, and nothing after it.
fn assert_one_answer(bytes: &[u8], what: &str) {
    let answer = parse(bytes).unwrap_or_else(|| panic!("{what}: no answer"));
    let body: Value = serde_json::from_slice(&answer.body)
        .unwrap_or_else(|_| panic!("{what}: more than one answer: {answer:?}"));
    assert!(body["error"].is_string(), "{what}: {answer:?}");
}

async fn on_kept_connection(api: &Api, first: &[u8], then: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(api.address).await.unwrap();
    socket.write_all(first).await.unwrap();
    let mut bytes = vec![0; 4096];
    let mut length = 0;
    while !bytes[..length].ends_with(b"}") {
        length += socket.read(&mut bytes[length..]).await.unwrap();
    }
    bytes.truncate(length);
    let _ = socket.write_all(then).await;
    // A reset tells as little as an end does.
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut bytes))
        .await
        .expect("it is closed");
    bytes
}

#[tokio::test]
async fn kept_connections_serve_one_request_after_another() {
    let api = Api::start_with(|settings| settings.api.keep_alive = true).await;
    let key = api.enroll("web-1").await;
    let body = json!({"node_key": key}).to_string();
    let one = format!(
        "POST /distributed/read HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let last = format!(
        "POST /distributed/read HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answers = raw(api.address, [one.as_str(), &one, &last].concat().as_bytes()).await;
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(
        answers.matches(r#"{"node_invalid":false}"#).count(),
        3,
        "{answers}"
    );
    api.stop().await;
}

#[tokio::test]
async fn without_redis_nothing_changes_for_nodes() {
    // All of these tests run without one; here it is the point.
    let api = Api::start().await;
    let key = api.enroll("web-1").await;
    for (path, body) in endpoints(&key) {
        let started = Instant::now();
        assert!(api.post(path, body).await.is_success(), "{path}");
        assert!(started.elapsed() < CLIENT_WAITS, "{path} waited for Redis");
    }
    let ready = request(api.address, "GET", "/readyz", &[], b"").await;
    assert_eq!(ready.status, 200, "{ready:?}");
    let checks = json!([
        {"name": "postgres", "ok": true, "required": true},
        {"name": "configs", "ok": true, "required": true},
        {"name": "certificate", "ok": true, "required": false},
        {"name": "redis", "ok": false, "required": false}
    ]);
    assert_eq!(ready.json()["checks"], checks);
    let alive = request(api.address, "GET", "/healthz", &[], b"").await;
    assert_eq!(
        (alive.status, alive.json()),
        (200, json!({"status": "alive"}))
    );
    let metrics = request(api.address, "GET", "/metrics", &[], b"").await;
    assert!(
        String::from_utf8_lossy(&metrics.body).contains("ostiary_enrollments_total"),
        "{metrics:?}"
    );
    let forwarded = request(
        api.address,
        "GET",
        "/metrics",
        &[("X-Forwarded-For", "203.0.113.1")],
        b"",
    )
    .await;
    assert_refused(&forwarded, 404, "/metrics through a proxy");
    api.stop().await;
}

/// A Postgres that takes connections and never says a word; or, `None`, one that is not there.
async fn api_without_postgres(hanging: bool) {
    // Who is not there still holds the port: another test's server might take it.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let silent = tokio::spawn(async move {
        if !hanging {
            let _port = socket;
            return std::future::pending().await;
        }
        let listener = socket.listen(1024).unwrap();
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    let shutdown = CancellationToken::new();
    let mut settings = settings(&format!("postgres://ostiary_api@127.0.0.1:{port}/none"));
    settings.carves.enabled = true;
    hasty(&mut settings);
    let running = ostiary_api::start(settings, shutdown.clone())
        .await
        .unwrap();
    let address = running.plain_address.unwrap();
    for (path, body) in endpoints("some-key").into_iter().chain([
        ("/carve/start", carves::start_body("some-key", "c-1")),
        ("/carve/continue", carves::block_body("some-session", 0)),
    ]) {
        let started = Instant::now();
        let answer = post(address, path, &[], body.to_string().as_bytes()).await;
        assert_refused(
            &answer,
            503,
            &format!("{path} without Postgres (hanging: {hanging})"),
        );
        assert!(
            started.elapsed() < CLIENT_WAITS,
            "{path} took {:?}",
            started.elapsed()
        );
    }
    let ready = request(address, "GET", "/readyz", &[], b"").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json()["error"].is_string());
    shutdown.cancel();
    running.stopped().await.unwrap();
    silent.abort();
}

#[tokio::test]
async fn a_postgres_that_hangs_makes_no_node_enroll_again() {
    api_without_postgres(true).await;
}

#[tokio::test]
async fn a_postgres_that_is_down_makes_no_node_enroll_again() {
    api_without_postgres(false).await;
}

#[tokio::test]
async fn a_postgres_that_goes_away_leaves_known_nodes_their_config_and_their_logs() {
    let api = Api::start_with(hasty).await;
    let key = api.enroll("web-1").await;
    assert!(
        api.post("/config", json!({"node_key": key}))
            .await
            .is_success()
    );
    // Nobody can log in any more, and everybody is thrown out.
    let name = api
        .db
        .texts("SELECT current_database()::text")
        .await
        .remove(0);
    api.db.execute(&format!(
        "REVOKE CONNECT ON DATABASE \"{name}\" FROM PUBLIC, ostiary_api;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )).await;
    let log = api
        .post(
            "/log",
            json!({"node_key": key, "log_type": "result", "data": [{}]}),
        )
        .await;
    assert!(
        !log.is_success() && log.json().get("node_invalid").is_none(),
        "{log:?}"
    );
    assert!(
        api.post("/config", json!({"node_key": key}))
            .await
            .is_success(),
        "it is in memory"
    );
    assert!(
        api.post("/distributed/read", json!({"node_key": key}))
            .await
            .is_success(),
        "there is no work, memory says"
    );
    let unknown = api.post("/config", json!({"node_key": "unknown"})).await;
    assert!(
        !unknown.is_success() && unknown.json().get("node_invalid").is_none(),
        "nobody can say that it is unknown: {unknown:?}"
    );
    api.db
        .execute(&format!("GRANT CONNECT ON DATABASE \"{name}\" TO PUBLIC"))
        .await;
    let log = json!({"node_key": key, "log_type": "result", "data": [{}]});
    until("it comes back", async || {
        api.post("/log", log.clone()).await.is_success()
    })
    .await;
    api.stop().await;
}

#[tokio::test]
async fn a_statement_that_waits_for_ever_is_answered_in_time_and_the_post_is_not_lost() {
    let api = Api::start_with(|settings| settings.api.answer_timeout_ms = 3_000).await;
    let key = api.enroll("web-1").await;
    let mut lock = api.db.db.begin().await.unwrap();
    ostiary_store::testing::execute(&mut lock, "LOCK TABLE pending IN ACCESS EXCLUSIVE MODE").await;
    let started = Instant::now();
    let answer = api
        .post(
            "/log",
            json!({"node_key": key, "log_type": "result", "data": [{}]}),
        )
        .await;
    assert_refused(&answer, 503, "a post behind a lock");
    assert!(started.elapsed() < CLIENT_WAITS);
    drop(lock);
    let log = json!({"node_key": key, "log_type": "result", "data": [{}]});
    until("it is taken", async || {
        api.post("/log", log.clone()).await.is_success()
    })
    .await;
    assert_eq!(
        api.db
            .texts("SELECT (count(*) >= 1)::text FROM log_batches")
            .await,
        ["true"]
    );
    api.stop().await;
}

#[tokio::test]
async fn a_full_queue_answers_busy_at_once() {
    let api = Api::start_with(|settings| {
        settings.api.ingest_queue = 1;
        settings.api.answer_timeout_ms = 4_000;
    })
    .await;
    let key = api.enroll("web-1").await;
    let mut lock = api.db.db.begin().await.unwrap();
    ostiary_store::testing::execute(&mut lock, "LOCK TABLE pending IN ACCESS EXCLUSIVE MODE").await;
    let post = || {
        api.post(
            "/log",
            json!({"node_key": key, "log_type": "result", "data": [{}]}),
        )
    };
    let (a, b, c, d, e, f) = tokio::join!(post(), post(), post(), post(), post(), post());
    let answers = [a, b, c, d, e, f];
    assert!(
        answers
            .iter()
            .any(|answer| answer.json() == json!({"error": "busy"})),
        "{answers:?}"
    );
    for answer in &answers {
        assert_refused(answer, 503, "a post behind a lock");
    }
    drop(lock);
    api.stop().await;
}

#[tokio::test]
async fn a_handler_that_panics_is_answered_with_an_error() {
    async fn defect() -> Error {
        panic!("a defect, made by a test")
    }
    let api = Api::start().await;
    let routes = axum::Router::new().route("/log", axum::routing::post(defect));
    let router = ostiary_api::router::guard(routes, &api.app).with_state(api.app.clone());
    let listener = ostiary_boot::http::Listener::plain("127.0.0.1:0".parse().unwrap(), &[])
        .await
        .unwrap();
    let address = listener.address().unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(ostiary_boot::http::serve(
        listener,
        router,
        Default::default(),
        shutdown.clone(),
    ));
    assert_refused(&post(address, "/log", &[], b"{}").await, 500, "a panic");
    shutdown.cancel();
    serving.await.unwrap();
    api.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_at_once_and_room_comes_back() {
    let api = Api::start_with(|settings| {
        settings.api.http.max_connections = 2;
        // Who says nothing keeps its place for longer than this takes.
        settings.api.http.header_timeout_seconds = 600;
    })
    .await;
    let idle = [
        TcpStream::connect(api.address).await.unwrap(),
        TcpStream::connect(api.address).await.unwrap(),
    ];
    let ask = async || raw(api.address, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(ask().await.is_empty());
    drop(idle);
    until("there is room", async || !ask().await.is_empty()).await;
    api.stop().await;
}

#[tokio::test]
async fn a_plain_listener_on_an_open_address_needs_trusted_proxies() {
    let open = "0.0.0.0:0".parse().unwrap();
    assert!(
        ostiary_boot::http::Listener::plain(open, &[])
            .await
            .is_err()
    );
    assert!(
        ostiary_boot::http::Listener::plain(open, &["10.0.0.0/8".parse().unwrap()])
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_request_under_way_is_answered_before_the_process_ends() {
    let api = Api::start().await;
    let key = api.enroll("web-1").await;
    let mut socket = TcpStream::connect(api.address).await.unwrap();
    let body = json!({"node_key": key, "log_type": "result", "data": [{}]}).to_string();
    let head = format!(
        "POST /log HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // The request has reached its handler when the first bytes of its body were asked for; give it a moment by another request.
    assert!(
        api.post("/config", json!({"node_key": key}))
            .await
            .is_success()
    );
    let stopping = tokio::spawn(api.stop());
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert!(
        parse(&answer).is_some_and(|answer| answer.status == 200 && answer.is_success()),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    stopping.await.unwrap();
}
