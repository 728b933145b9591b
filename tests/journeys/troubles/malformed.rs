//! Bytes that are no HTTP, or bad HTTP, by raw socket: hyper would answer them by itself and with an empty body.

use ostiary_tests::{Answer, PATIENCE, Program, Wire, World, WorldOptions, eventually};

use super::{ENDPOINTS, assert_accepted, assert_refused, log_body};

#[tokio::test(flavor = "multi_thread")]
async fn malformed_http_is_never_taken_for_a_success() {
    let options = WorldOptions::only(&[Program::Api])
        .set("API__HTTP__HEADER_TIMEOUT_SECONDS", "2")
        .set("API__HTTP__BODY_TIMEOUT_SECONDS", "2");
    let world = World::start(options).await;
    let wire = world.wire();
    let key = wire.enroll(world.enroll_secret(), "stammerer").await;
    let mut sent = Vec::new();
    for endpoint in ENDPOINTS {
        for path in [endpoint.to_owned(), format!("/v1{endpoint}")] {
            for (name, bytes) in malformed(&path, &key) {
                let wire = wire.clone();
                sent.push((
                    format!("{path}: {name}"),
                    tokio::spawn(async move { judge(&wire, &bytes).await }),
                ));
            }
        }
    }
    let mut faults = Vec::new();
    for (what, judged) in sent {
        if let Err(fault) = judged.await.unwrap() {
            faults.push(format!("{what}: {fault}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let answer = wire
        .request("POST", "/log", &[], log_body(&key, "after all").as_bytes())
        .await;
    assert_accepted("a post after all that", answer.as_ref());
    world.end().await;
}

/// The connection is closed, either without a word or after an answer that osqueryd takes for a failure.
async fn judge(wire: &Wire, bytes: &[u8]) -> Result<(), String> {
    let exchange = wire.exchange(bytes, PATIENCE).await;
    let said = String::from_utf8_lossy(&exchange.received).into_owned();
    if !exchange.closed {
        return Err(format!(
            "still open after {} s; it said {said:?}",
            PATIENCE.as_secs()
        ));
    }
    if exchange.received.is_empty() {
        return Ok(());
    }
    match Answer::parse(&exchange.received) {
        Some(answer) if !answer.body.is_empty() && !answer.is_success() && answer.status >= 400 => {
            Ok(())
        }
        _ => Err(format!("answered {said:?}")),
    }
}

fn malformed(path: &str, key: &str) -> Vec<(&'static str, Vec<u8>)> {
    let body = log_body(key, "malformed");
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: NodeKey {key}\r\n");
    let long = "x".repeat(1_000_000);
    let many = (0..300)
        .map(|n| format!("X-{n}: {n}\r\n"))
        .collect::<String>();
    let text = |text: String| text.into_bytes();
    vec![
        ("nothing at all", Vec::new()),
        ("garbage", b"\x16\x03\x01\x02\x00garbage\r\n\r\n".to_vec()),
        ("white space", b"\r\n\r\n\r\n".to_vec()),
        ("no path", b"POST\r\n\r\n".to_vec()),
        (
            "no version",
            text(format!(
                "POST {path}\r\nContent-Length: {length}\r\n\r\n{body}"
            )),
        ),
        ("HTTP/0.9", text(format!("GET {path}\r\n"))),
        (
            "HTTP/9.9",
            text(format!(
                "POST {path} HTTP/9.9\r\nContent-Length: {length}\r\n\r\n{body}"
            )),
        ),
        (
            "HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        ),
        (
            "HTTP/1.0 without a body",
            text(format!("POST {path} HTTP/1.0\r\n\r\n")),
        ),
        (
            "a path with a space",
            text(format!(
                "POST {path} {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"
            )),
        ),
        (
            "a path with a NUL",
            text(format!(
                "POST {path}\0 HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"
            )),
        ),
        (
            "a path without end",
            text(format!(
                "POST {path}{long} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"
            )),
        ),
        (
            "a header without a colon",
            text(format!(
                "{head}Odd header\r\nContent-Length: {length}\r\n\r\n{body}"
            )),
        ),
        (
            "a header with a space in its name",
            text(format!("{head}Content-Length : {length}\r\n\r\n{body}")),
        ),
        (
            "a header with a NUL",
            text(format!(
                "{head}X: a\0b\r\nContent-Length: {length}\r\n\r\n{body}"
            )),
        ),
        (
            "a header without end",
            text(format!(
                "{head}X: {long}\r\nContent-Length: {length}\r\n\r\n{body}"
            )),
        ),
        (
            "too many headers",
            text(format!(
                "{head}{many}Content-Length: {length}\r\n\r\n{body}"
            )),
        ),
        (
            "a length that is no number",
            text(format!("{head}Content-Length: many\r\n\r\n{body}")),
        ),
        (
            "a negative length",
            text(format!("{head}Content-Length: -1\r\n\r\n{body}")),
        ),
        (
            "a length beyond all numbers",
            text(format!(
                "{head}Content-Length: 99999999999999999999999\r\n\r\n{body}"
            )),
        ),
        (
            "two lengths",
            text(format!(
                "{head}Content-Length: {length}\r\nContent-Length: 5\r\n\r\n{body}"
            )),
        ),
        (
            "an unknown transfer encoding",
            text(format!("{head}Transfer-Encoding: surprise\r\n\r\n{body}")),
        ),
        (
            "a bad chunk",
            text(format!(
                "{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n"
            )),
        ),
        (
            "a chunk that is too short",
            text(format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n5\r\n{body}\r\n0\r\n\r\n"
            )),
        ),
        (
            "chunks without end",
            text(format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n"
            )),
        ),
        (
            "Expect",
            text(format!(
                "{head}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
            )),
        ),
        ("half a request line", text(format!("POST {path}"))),
        ("half a head", head.clone().into_bytes()),
        (
            "half a body",
            text(format!(
                "{head}Content-Length: {length}\r\n\r\n{}",
                &body[..length / 2]
            )),
        ),
        (
            "no body where one was announced",
            text(format!("{head}Content-Length: {length}\r\n\r\n")),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_cap_connections_are_closed_unanswered() {
    // Connections that say nothing keep their places for longer than this takes.
    let options = WorldOptions::only(&[Program::Api])
        .set("API__HTTP__MAX_CONNECTIONS", "3")
        .set("API__HTTP__HEADER_TIMEOUT_SECONDS", "600");
    let world = World::start(options).await;
    let wire = world.wire();
    let mut held = Vec::new();
    for _ in 0..3 {
        // The harness' own look at the port may still hold a place for a moment.
        held.push(
            eventually("a place is free", PATIENCE, async || {
                wire.connect().await.ok()
            })
            .await,
        );
    }
    let exchange = wire
        .exchange(
            b"POST /log HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
            PATIENCE,
        )
        .await;
    assert!(
        exchange.closed && exchange.received.is_empty(),
        "{exchange:?}"
    );
    drop(held);
    let served = eventually("a place is free again", PATIENCE, async || {
        wire.request("POST", "/log", &[], b"{}").await
    });
    assert_refused("a post without a key", Some(&served.await));
    world.end().await;
}
