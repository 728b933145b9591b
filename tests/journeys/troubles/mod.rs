//! Every route × every trouble, against the real programs: never an empty body, never anything that osqueryd takes for a success,
//! except where what was sent is stored. A closed connection is an answer to malformed HTTP only.
//!
//! That a handler's panic is answered, too, is tested inside the api: no request makes one panic.

mod malformed;
mod requests;
mod servers;

use ostiary_tests::{Answer, Wire};
use serde_json::json;

use crate::formats::flips;

const ENDPOINTS: [&str; 7] = [
    "/enroll",
    "/config",
    "/log",
    "/distributed/read",
    "/distributed/write",
    "/carve/start",
    "/carve/continue",
];

/// Switches the aliases on that [`routes`] names.
const ALIASES: (&str, &str) = ("API__ALIASES__SETS", r#"["fleet"]"#);

/// Every endpoint by every way: `("PUT", "/v1/log", "/log")`, and by an alias.
fn routes() -> Vec<(&'static str, String, &'static str)> {
    let mut routes = Vec::new();
    for endpoint in ENDPOINTS {
        for prefix in ["", "/v1"] {
            routes.extend(
                ["POST", "PUT"].map(|method| (method, format!("{prefix}{endpoint}"), endpoint)),
            );
        }
        let alias = match endpoint {
            "/carve/start" => "/carve/begin",
            "/carve/continue" => "/carve/block",
            same => same,
        };
        routes.push(("POST", format!("/api/osquery{alias}"), endpoint));
    }
    routes
}

/// A body that an endpoint likes.
fn good_body(endpoint: &str, key: &str) -> String {
    let body = match endpoint {
        "/log" => json!({"node_key": key, "log_type": "result", "data": []}),
        "/distributed/write" => json!({"node_key": key, "queries": {}, "statuses": {}}),
        "/carve/start" => json!({
            "node_key": key, "block_count": 1, "block_size": 10, "carve_size": 10, "carve_id": "carve", "request_id": ""
        }),
        // Nobody was given this session: what a good block is, only the answer to a start tells.
        "/carve/continue" => block_body("nobodys-session"),
        _ => json!({"node_key": key}),
    };
    body.to_string()
}

/// The only block of the carve that `good_body` starts.
fn block_body(session: &str) -> serde_json::Value {
    json!({"block_id": 0, "session_id": session, "request_id": "", "data": "MDEyMzQ1Njc4OQ=="})
}

/// One line of a result log that is like no other.
fn log_body(key: &str, mark: &str) -> String {
    json!({"node_key": key, "log_type": "result", "data": [{
        "name": "marks", "hostIdentifier": "h", "unixTime": 1_700_000_000, "epoch": 0, "counter": 1, "columns": {"mark": mark},
        "action": "added"
    }]})
    .to_string()
}

/// It must be a failure to osqueryd that does not cost the node its key.
#[track_caller]
fn assert_refused(what: &str, answer: Option<&Answer>) {
    let answer = answer.unwrap_or_else(|| panic!("{what}: closed without an answer"));
    let said = String::from_utf8_lossy(&answer.body);
    assert!(!answer.body.is_empty(), "{what}: an empty body");
    assert!(!answer.is_success(), "{what}: taken for a success: {said}");
    if ["/carve/continue", "/carve/block"]
        .iter()
        .any(|path| what.contains(path))
    {
        assert!(said.starts_with("refused: "), "{what}: {said}");
    } else {
        assert!(answer.json()["error"].is_string(), "{what}: {said}");
        assert_eq!(answer.json().get("node_key"), None, "{what}: {said}");
    }
    assert!(
        (400..600).contains(&answer.status),
        "{what}: {} {said}",
        answer.status
    );
}

/// As [`assert_refused`], and the node keeps its key. (`/enroll` looks for a key only; there `node_invalid` does no harm.)
#[track_caller]
fn assert_refused_softly(what: &str, endpoint: &str, answer: Option<&Answer>) {
    assert_refused(what, answer);
    let invalid = answer.is_some_and(Answer::is_node_invalid);
    assert!(
        endpoint == "/enroll" || !invalid,
        "{what}: costs the node its key"
    );
}

#[track_caller]
fn assert_accepted(what: &str, answer: Option<&Answer>) {
    let answer = answer.unwrap_or_else(|| panic!("{what}: closed without an answer"));
    let said = String::from_utf8_lossy(&answer.body);
    assert_eq!(said, r#"{"node_invalid":false}"#, "{what}");
}

/// The assertions of these journeys bite: whatever a refusal or an acceptance is spoiled to, they fail.
#[test]
fn no_spoiled_answer_passes_for_a_refusal_or_an_acceptance() {
    let answer = |status: u16, body: &str| Answer {
        status,
        body: body.into(),
    };
    let bites = |check: &dyn Fn(Option<&Answer>), good: &Answer| {
        check(Some(good));
        for (how, spoiled) in flips::of("/log", good) {
            let check = std::panic::AssertUnwindSafe(|| check(spoiled.as_ref()));
            assert!(
                std::panic::catch_unwind(check).is_err(),
                "{how} of {good:?} passes"
            );
        }
    };
    for endpoint in ENDPOINTS
        .into_iter()
        .filter(|endpoint| *endpoint != "/enroll")
    {
        for status in [400, 401, 403, 404, 405, 408, 413, 415, 417, 429, 500, 503] {
            let refused = answer(status, r#"{"error":"words"}"#);
            bites(
                &|answer| assert_refused_softly("spoiled", endpoint, answer),
                &refused,
            );
        }
    }
    let accepted = answer(200, r#"{"node_invalid":false}"#);
    bites(&|answer| assert_accepted("spoiled", answer), &accepted);
}

/// A request with the key in the header, as osquery does from 5.23 on.
async fn with_key(wire: &Wire, method: &str, path: &str, key: &str, body: &[u8]) -> Option<Answer> {
    let authorization = format!("NodeKey {key}");
    wire.request(method, path, &[("Authorization", &authorization)], body)
        .await
}
