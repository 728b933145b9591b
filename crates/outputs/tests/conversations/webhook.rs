//! Webhooks: to web servers that take the alert, refuse it, misbehave, or lie where nothing may be called.

use std::net::SocketAddr;
use std::time::Duration;

use ostiary_outputs::destinations::{Kind, send_test};
use ostiary_outputs::{Options, Outbound, SendError, Templates, TestAlert};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::scripted::{Server, Step};
use crate::{
    PATIENCE, impatient, message, outbound, outbound_for, refused, rejected, retry, send, send_by,
};

const SECRET: &str = "0123456789abcdef";

fn settings(address: SocketAddr) -> Value {
    json!({"url": format!("http://{address}/hooks/T0p-s3cret?k=v"), "secret": SECRET})
}

async fn answered(answer: impl Into<Vec<u8>>) -> (Server, Result<String, SendError>) {
    let server = Server::http(answer, Step::Close).await;
    let result = send("webhook", &settings(server.address), &message(&json!({}))).await;
    (server, result)
}

fn header<'a>(request: &'a str, name: &str) -> &'a str {
    let head = request.split_once("\r\n\r\n").unwrap().0;
    let found = head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    });
    found.unwrap_or_else(|| panic!("no {name} in {head}"))
}

#[tokio::test]
async fn an_alert_is_posted_as_json_and_its_signature_verifies() {
    use hmac::Mac as _;
    let (server, result) = answered("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(result, Ok("204 No Content".to_owned()));
    let heard = server.heard();
    assert_eq!(heard.len(), 1);
    let request = &heard[0];
    assert!(
        request.starts_with("POST /hooks/T0p-s3cret?k=v HTTP/1.1\r\n"),
        "{request}"
    );
    assert_eq!(header(request, "Content-Type"), "application/json");
    let delivery = "00000000-0000-0000-0000-000000000006";
    assert_eq!(header(request, "Ostiary-Delivery"), delivery);

    let body = request.split_once("\r\n\r\n").unwrap().1;
    let (signed, signature) = header(request, "Ostiary-Signature")
        .split_once(",v1=")
        .unwrap();
    assert_eq!(signed, format!("t=1800000001,id={delivery}"));
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("1800000001.{delivery}.{body}").as_bytes());
    mac.verify_slice(&hex::decode(signature).unwrap()).unwrap();

    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["type"], "finding.opened");
    assert_eq!(body["delivery_id"], delivery);
    assert_eq!(body["alert"]["node"]["name"], "mac-7");
    assert_eq!(body["alert"]["columns"]["global_state"], "0");
}

#[tokio::test]
async fn a_busy_or_broken_server_is_tried_again_and_a_refusal_is_not() {
    for status in [
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "408 Request Timeout",
    ] {
        let (_server, result) = answered(format!(
            "HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\noops"
        ))
        .await;
        assert_eq!(retry(result), (format!("{status}: oops"), None));
    }
    let limited = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n";
    let (_server, result) = answered(limited).await;
    let wait = Some(Duration::from_secs(120));
    assert_eq!(retry(result), ("429 Too Many Requests".to_owned(), wait));
    let for_ever =
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 99999999\r\nContent-Length: 0\r\n\r\n";
    let (_server, result) = answered(for_ever).await;
    assert_eq!(retry(result).1, Some(Duration::from_secs(3600)));
    let dated = "HTTP/1.1 429 Too Many Requests\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
        Retry-After: Sat, 21 Nov 2026 12:01:30 GMT\r\nContent-Length: 0\r\n\r\n";
    let (_server, result) = answered(dated).await;
    assert_eq!(retry(result).1, Some(Duration::from_secs(90)));
    for status in ["400 Bad Request", "410 Gone", "422 Unprocessable Entity"] {
        let (_server, result) =
            answered(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(refused(result), status);
    }
    for status in ["401 Unauthorized", "403 Forbidden", "404 Not Found"] {
        let (_server, result) =
            answered(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(rejected(result), status, "somebody may mend it");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let inside = Server::http("HTTP/1.1 204 No Content\r\n\r\n", Step::Close).await;
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
        inside.address
    );
    let (_server, result) = answered(redirect).await;
    assert_eq!(rejected(result), "307 Temporary Redirect");
    assert!(inside.heard().is_empty());
}

#[tokio::test]
async fn silence_rubbish_and_closed_doors_are_tried_again_within_the_time_out() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], ostiary_dev::free_port().unwrap()));
    let servers = [
        Server::http("", Step::Hang).await,
        Server::http("HTTP/1.1 200 OK\r\nContent-", Step::Hang).await,
        Server::http("", Step::Close).await,
        Server::http("SSH-2.0-OpenSSH_9.2\r\n", Step::Close).await,
    ];
    let addresses = servers.iter().map(|server| server.address);
    for address in addresses.chain([nobody]) {
        let settings = settings(address);
        let (outbound, message) = (impatient(), message(&json!({})));
        let sent = send_by(&outbound, "webhook", &settings, &message);
        let sent = tokio::time::timeout(PATIENCE, sent).await;
        let (answer, _) = retry(sent.expect("it ends by itself"));
        assert!(!answer.contains("s3cret"), "the URL is a secret: {answer}");
    }
}

#[tokio::test]
async fn an_answer_of_ten_megabytes_is_not_read() {
    const BYTES: usize = 10 * 1024 * 1024;
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + BYTES, b'x');
    let (_server, result) = answered(answer).await;
    let told = result.unwrap();
    assert!(
        told.starts_with("200 OK: xxx") && told.len() <= 1000,
        "{}",
        told.len()
    );
    // The verdict is in the status: a body that never ends takes nothing back.
    let endless = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthanks\x07";
    let server = Server::http(endless, Step::Hang).await;
    let outbound = outbound_for(Duration::from_secs(5));
    let settings = settings(server.address);
    let result = send_by(&outbound, "webhook", &settings, &message(&json!({}))).await;
    assert_eq!(result, Ok("200 OK: thanks".to_owned()));
}

#[tokio::test]
async fn whatever_leads_inward_is_refused_unless_the_settings_allow_it() {
    let inside = Server::http("HTTP/1.1 204 No Content\r\n\r\n", Step::Close).await;
    let port = inside.address.port();
    let strict = Outbound::new(Options::default()).unwrap();
    for host in [
        "localhost",
        "LOCALHOST",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
    ] {
        let settings = json!({"url": format!("http://{host}:{port}/s3cret"), "secret": SECRET});
        let destination = Kind::find("webhook").unwrap().read(&settings).ok().unwrap();
        let answer = refused(destination.send(&strict, &message(&json!({}))).await);
        assert!(answer.contains("private address"), "{host}: {answer}");
        assert!(!answer.contains("s3cret"), "{answer}");
    }
    assert!(inside.heard().is_empty());
}

/// Run again as a process of its own, since the environment of this one is shared by all tests.
#[tokio::test]
async fn a_proxy_of_the_environment_is_not_heeded() {
    let target = "OSTIARY_TEST_TARGET";
    if let Ok(address) = std::env::var(target) {
        let sent = send(
            "webhook",
            &settings(address.parse().unwrap()),
            &message(&json!({})),
        )
        .await;
        assert_eq!(sent, Ok("204 No Content".to_owned()));
        return;
    }
    let inside = Server::http("HTTP/1.1 204 No Content\r\n\r\n", Step::Close).await;
    let proxy = Server::http("HTTP/1.1 502 Bad Gateway\r\n\r\n", Step::Close).await;
    let mut again = tokio::process::Command::new(std::env::current_exe().unwrap());
    again.args([
        "--exact",
        "webhook::a_proxy_of_the_environment_is_not_heeded",
    ]);
    again.env(target, inside.address.to_string());
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ] {
        again.env(name, format!("http://{}", proxy.address));
    }
    let output = again.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    assert_eq!(inside.heard().len(), 1);
    assert!(proxy.heard().is_empty());
}

#[tokio::test]
async fn what_nodes_say_stays_in_the_body() {
    let server = Server::http("HTTP/1.1 204 No Content\r\n\r\n", Step::Close).await;
    let hostile = message(&json!({
        "/rule/name": "r\r\nX-Own: 1", "/node/name": "n\r\n\r\nGET / HTTP/1.1", "/columns": {"k\u{0}": "\u{202e}v"},
    }));
    send("webhook", &settings(server.address), &hostile)
        .await
        .unwrap();
    let heard = server.heard();
    let (head, body) = heard[0].split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("X-Own") && !head.contains("GET"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["alert"]["rule"]["name"], "r\r\nX-Own: 1");
}

#[tokio::test]
async fn a_test_alert_is_of_a_type_of_its_own() {
    let server = Server::http("HTTP/1.1 204 No Content\r\n\r\n", Step::Close).await;
    let test = TestAlert {
        id: Uuid::from_u128(8).into(),
        destination: "chat",
        url: "",
        templates: &Templates::default(),
        now: message(&json!({})).now,
    };
    let kind = Kind::find("webhook").unwrap();
    send_test(&outbound(), kind, &settings(server.address), &test)
        .await
        .unwrap();
    let heard = server.heard();
    let body: Value = serde_json::from_str(heard[0].split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["type"], "test");
    let wrong = send_test(&outbound(), kind, &json!({"url": "ftp://x"}), &test).await;
    refused(wrong);
}
