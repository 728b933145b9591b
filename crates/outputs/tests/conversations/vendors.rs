//! Payloads of the vendors' APIs, against the golden files beside this one. Each file begins with lines (`# `) that name the
//! documentation it was written from, and then holds the request as our server heard it: request line, the headers that matter, body.
//!
//! The vendors' own servers are not called: a scripted server of ours answers as their documentation says.

use std::net::SocketAddr;
use std::path::PathBuf;

use ostiary_outputs::destinations::{Kind, send_test};
use ostiary_outputs::{AlertChange, AlertKind, Message, Templates, TestAlert};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::scripted::{Server, Step};
use crate::{message, outbound, refused, rejected, retry, send};

/// Headers that a vendor reads.
const HEADERS: [&str; 5] = [
    "content-type",
    "authorization",
    "accept",
    "x-sentry-auth",
    "ostiary-delivery",
];

/// A request as the golden files have it: bodies of one JSON value are indented.
fn readable(request: &str) -> String {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let mut text = format!("{}\n", lines.next().unwrap());
    let mut headers: Vec<String> = lines
        .filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let name = name.to_ascii_lowercase();
            HEADERS
                .contains(&name.as_str())
                .then(|| format!("{name}: {value}\n"))
        })
        .collect();
    headers.sort();
    text.extend(headers);
    text.push('\n');
    match serde_json::from_str::<Value>(body) {
        Ok(value) => text.push_str(&serde_json::to_string_pretty(&value).unwrap()),
        Err(_) => text.push_str(body.trim_end()),
    }
    text.push('\n');
    text
}

/// Compares what was heard with a golden file; `OSTIARY_WRITE_GOLDEN=1` writes the file anew, its head kept.
fn is_golden(name: &str, heard: &[String]) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conversations/golden");
    let path = folder.join(format!("{name}.http"));
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    let head: String = stored
        .lines()
        .take_while(|line| line.starts_with("# "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(
        head.contains("https://"),
        "{name}: the head names no documentation"
    );
    let requests: Vec<String> = heard.iter().map(|request| readable(request)).collect();
    let text = format!("{head}{}", requests.join("\n"));
    if std::env::var_os("OSTIARY_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(stored, text, "{name}");
}

fn of(kind: AlertKind) -> Message {
    let mut message = message(&json!({}));
    message.kind = kind;
    if matches!(kind, AlertKind::Acknowledged | AlertKind::Resolved) {
        message.alert.change = Some(AlertChange {
            by: "Ann".to_owned(),
            at: message.now,
            reason: String::new(),
        });
    }
    message
}

/// A message in which every text tries to be more than text.
fn hostile() -> Message {
    message(&json!({
        "/rule/name": "<!channel> *b* & <https://evil.example|our bank>\nSecond",
        "/node/name": "n\"]\\ \u{202e}x <at>all</at>",
        "/entity": "{noformat}[~admin] **bold** [x](https://evil.example)",
        "/columns": {"<@U1>": "`code` <!here>\n{noformat} !x!", "k]\"": "v"},
    }))
}

fn pagerduty(address: SocketAddr) -> Value {
    json!({"routing_key": "0123456789abcdef0123456789abcdef", "url": format!("http://{address}/v2/enqueue")})
}

#[tokio::test]
async fn pagerduty_triggers_acknowledges_and_resolves_under_one_key() {
    let answer = r#"{"status":"success","message":"Event processed","dedup_key":"k"}"#;
    let answer = format!(
        "HTTP/1.1 202 Accepted\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    );
    let server = Server::http(answer, Step::Close).await;
    let settings = pagerduty(server.address);
    for kind in [
        AlertKind::Opened,
        AlertKind::Acknowledged,
        AlertKind::Resolved,
    ] {
        let told = send("pagerduty", &settings, &of(kind)).await.unwrap();
        assert!(
            told.starts_with("202 Accepted: {\"status\":\"success\""),
            "{told}"
        );
    }
    is_golden("pagerduty", &server.heard());
}

#[tokio::test]
async fn a_test_of_pagerduty_leaves_no_incident_behind() {
    let server = Server::http(
        "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        Step::Close,
    )
    .await;
    let test = TestAlert {
        id: Uuid::from_u128(8).into(),
        destination: "pager",
        url: "",
        templates: &Templates::default(),
        now: of(AlertKind::Test).now,
    };
    let kind = Kind::find("pagerduty").unwrap();
    send_test(&outbound(), kind, &pagerduty(server.address), &test)
        .await
        .unwrap();
    let bodies: Vec<Value> = server
        .heard()
        .iter()
        .map(|request| serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap())
        .collect();
    let deeds: Vec<_> = bodies
        .iter()
        .map(|body| body["event_action"].as_str().unwrap())
        .collect();
    assert_eq!(deeds, ["trigger", "resolve"]);
    assert_eq!(bodies[0]["dedup_key"], bodies[1]["dedup_key"]);
    assert_eq!(bodies[0]["payload"]["severity"], "info");
}

#[tokio::test]
async fn slack_gets_blocks_in_which_nothing_is_markup() {
    let server = Server::http(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Step::Close,
    )
    .await;
    let settings = json!({"url": format!("http://{}/services/T0/B0/s3cret", server.address)});
    for message in [of(AlertKind::Opened), hostile()] {
        assert_eq!(
            send("slack", &settings, &message).await,
            Ok("200 OK: ok".to_owned())
        );
    }
    let heard = server.heard();
    assert!(
        !heard[1].contains("<!") && !heard[1].contains("<@") && !heard[1].contains("<https://evil"),
        "{}",
        heard[1]
    );
    is_golden("slack", &heard);
}

#[tokio::test]
async fn teams_gets_a_card_in_which_nothing_is_markdown() {
    let server = Server::http(
        "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        Step::Close,
    )
    .await;
    let settings = json!({"url": format!("http://{}/workflows/1/triggers/manual/paths/invoke?sig=s3cret", server.address)});
    for message in [of(AlertKind::Opened), hostile()] {
        send("teams", &settings, &message).await.unwrap();
    }
    let heard = server.heard();
    for request in &heard {
        assert!(
            !request.contains("\"TextBlock\"") && !request.contains("\"entities\""),
            "{request}"
        );
    }
    is_golden("teams", &heard);
}

#[tokio::test]
async fn sentry_gets_an_envelope_and_hears_of_no_end() {
    let server = Server::http("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Step::Close).await;
    let settings = json!({"dsn": format!("http://abcdef0123456789@{}/42", server.address)});
    send("sentry", &settings, &of(AlertKind::Opened))
        .await
        .unwrap();
    let told = send("sentry", &settings, &of(AlertKind::Resolved))
        .await
        .unwrap();
    assert!(told.contains("not sent"), "{told}");
    let heard = server.heard();
    assert_eq!(heard.len(), 1);
    is_golden("sentry", &heard);
    let lines: Vec<&str> = heard[0].split_once("\r\n\r\n").unwrap().1.lines().collect();
    let item: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(item["length"], lines[2].len());
}

fn jira(address: SocketAddr, edition: &str) -> Value {
    json!({
        "site": format!("http://{address}/jira"), "edition": edition, "user": "bot@example.com", "token": "t0ken",
        "project": "SEC", "issue_type": "Task", "resolve_transition": "done",
    })
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn jira_gets_an_issue_and_then_a_comment_and_a_transition() {
    let there =
        ok(r#"{"issues":[{"key":"SEC-7","fields":{"status":{"statusCategory":{"key":"new"}}}}]}"#);
    let transitions =
        ok(r#"{"transitions":[{"id":"11","name":"In Progress"},{"id":"31","name":"Done"}]}"#);
    for (edition, file) in [("cloud", "jira_cloud"), ("data_center", "jira_data_center")] {
        let server = Server::http_in_turn(vec![
            ok(r#"{"issues":[]}"#),
            ok(r#"{"id":"10001","key":"SEC-7"}"#),
            there.clone(),
            there.clone(),
            ok("{}"),
            there.clone(),
            ok("{}"),
            transitions.clone(),
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        ])
        .await;
        let settings = jira(server.address, edition);
        for (message, told) in [
            (hostile(), "SEC-7 was created"),
            (hostile(), "SEC-7 is there already"),
            (of(AlertKind::Acknowledged), "SEC-7: commented"),
            (
                of(AlertKind::Resolved),
                "SEC-7: commented and moved on by \"done\"",
            ),
        ] {
            assert_eq!(send("jira", &settings, &message).await, Ok(told.to_owned()));
        }
        is_golden(file, &server.heard());
    }
}

#[tokio::test]
async fn a_vendor_that_refuses_is_tried_again_as_its_answer_says() {
    let answered = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    for kind in ["pagerduty", "slack", "teams", "sentry", "jira"] {
        let settings = |address: SocketAddr| match kind {
            "pagerduty" => pagerduty(address),
            "sentry" => json!({"dsn": format!("http://abc@{address}/1")}),
            "jira" => jira(address, "cloud"),
            _ => json!({"url": format!("http://{address}/s3cret")}),
        };
        let server = Server::http(answered("400 Bad Request"), Step::Close).await;
        refused(send(kind, &settings(server.address), &of(AlertKind::Opened)).await);
        let server = Server::http(answered("403 Forbidden"), Step::Close).await;
        rejected(send(kind, &settings(server.address), &of(AlertKind::Opened)).await);
        let server = Server::http(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n",
            Step::Close,
        )
        .await;
        let (answer, after) =
            retry(send(kind, &settings(server.address), &of(AlertKind::Opened)).await);
        assert_eq!(
            after.map(|wait| wait.as_secs()),
            Some(30),
            "{kind}: {answer}"
        );
        assert!(!answer.contains("s3cret"), "{answer}");
    }
}
