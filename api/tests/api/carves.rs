//! Carves as nodes of every version hand them over (cases K1 to K12 of the compatibility corpus), and as nobody shall.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{Answer, Api, modern_enroll, post, request};

/// Three blocks: 100, 100 and 50 bytes.
const SHAPE: [u64; 3] = [3, 100, 250];

/// An api that takes carves.
pub(crate) async fn api_with_carves() -> Api {
    Api::start_with(|settings| settings.carves.enabled = true).await
}

/// A start that is taken.
pub(crate) fn start_body(key: &str, carve_id: &str) -> Value {
    let [block_count, block_size, carve_size] = SHAPE;
    json!({
        "block_count": block_count, "block_size": block_size, "carve_size": carve_size, "carve_id": carve_id,
        "request_id": "11111111-2222-4333-8444-555555555555", "node_key": key
    })
}

/// The bytes of a block of the shape above.
fn bytes(block: u64) -> Vec<u8> {
    let length = if block == 2 { 50 } else { 100 };
    (0..length).map(|n| (block * 7 + n) as u8).collect()
}

/// A block that is taken.
pub(crate) fn block_body(session: &str, block: u64) -> Value {
    json!({"block_id": block, "session_id": session, "request_id": "r", "data": STANDARD.encode(bytes(block))})
}

pub(crate) async fn start(api: &Api, key: &str, carve_id: &str) -> String {
    let answer = api.post("/carve/start", start_body(key, carve_id)).await;
    session_of(&answer).unwrap_or_else(|| panic!("no session: {answer:?}"))
}

fn session_of(answer: &Answer) -> Option<String> {
    let session = answer.json()["session_id"].as_str()?.to_owned();
    (!session.is_empty()).then_some(session)
}

/// As osqueryd judges the answer to a block: any JSON, and nothing at all, is a success.
fn is_taken(answer: &Answer) -> bool {
    answer.body.is_empty() || serde_json::from_slice::<Value>(&answer.body).is_ok()
}

async fn send(api: &Api, body: Value) -> Answer {
    api.post("/carve/continue", body).await
}

#[track_caller]
fn assert_taken(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, &b"{}"[..]),
        "{answer:?}"
    );
}

#[track_caller]
fn assert_block_refused(answer: &Answer, status: u16, why: &str) {
    assert!(!is_taken(answer), "{answer:?}");
    assert_eq!(answer.status, status, "{answer:?}");
    let said = String::from_utf8_lossy(&answer.body);
    assert!(said.contains(why), "{said}");
}

#[track_caller]
fn assert_start_refused(answer: &Answer, status: u16, why: &str) {
    assert_eq!(session_of(answer), None, "{answer:?}");
    assert_eq!(answer.status, status, "{answer:?}");
    let said = answer.json()["error"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(said.contains(why), "{answer:?}");
}

async fn state(api: &Api, carve_id: &str) -> String {
    api.db
        .texts(&format!(
            "SELECT state || ' ' || received_blocks || '/' || block_count FROM carves WHERE carve_id = '{carve_id}'"
        ))
        .await
        .join(",")
}

#[tokio::test]
async fn k1_k3_k6_a_carve_begins_with_or_without_request_id_and_takes_its_blocks() {
    let api = api_with_carves().await;
    let key = api.enroll("web-1").await;
    for (carve_id, request_id) in [("c-1", true), ("c-2", false)] {
        let mut body = start_body(&key, carve_id);
        if !request_id {
            body.as_object_mut().unwrap().remove("request_id");
        }
        let answer = api.post("/carve/start", body).await;
        assert_eq!(answer.status, 200);
        let session = session_of(&answer).unwrap();
        assert!(session.len() >= 43, "256 bits: {session}");
        for block in 0..3 {
            assert_eq!(state(&api, carve_id).await, format!("receiving {block}/3"));
            assert_taken(&send(&api, block_body(&session, block)).await);
        }
        assert_eq!(state(&api, carve_id).await, "received 3/3");
    }
    let stored = api
        .db
        .texts("SELECT encode(string_agg(data, '' ORDER BY block_id), 'hex') FROM carve_blocks GROUP BY carve_id")
        .await;
    let all = hex::encode((0..3).flat_map(bytes).collect::<Vec<_>>());
    assert_eq!(stored, [all.clone(), all]);
    let kept = api
        .db
        .texts("SELECT request_id FROM carves ORDER BY carve_id")
        .await;
    assert_eq!(kept, ["11111111-2222-4333-8444-555555555555", ""]);
    api.stop().await;
}

#[tokio::test]
async fn k2_numbers_of_osquery_2_are_texts() {
    let api = api_with_carves().await;
    let key = api.enroll("old-1").await;
    // Written as Boost's property tree does: slashes escaped, a new line behind.
    let body = format!(
        "{{\"block_count\":\"3\",\"block_size\":\"100\",\"carve_size\":\"250\",\"carve_id\":\"c-1\",\"node_key\":\"{key}\"}}\n"
    );
    let answer = post(api.address, "/carve/start", &[], body.as_bytes()).await;
    let session = session_of(&answer).unwrap();
    for block in 0..3 {
        let data = STANDARD.encode(bytes(block)).replace('/', "\\/");
        let body = format!(
            "{{\"block_id\":\"{block}\",\"session_id\":\"{session}\",\"request_id\":\"\",\"data\":\"{data}\"}}\n"
        );
        assert_taken(&post(api.address, "/v1/carve/continue", &[], body.as_bytes()).await);
    }
    assert_eq!(state(&api, "c-1").await, "received 3/3");
    api.stop().await;
}

#[tokio::test]
async fn k4_a_start_that_comes_again_goes_on_with_the_blocks_that_are_there() {
    let api = api_with_carves().await;
    let key = api.enroll("web-1").await;
    let first = start(&api, &key, "c-1").await;
    assert_taken(&send(&api, block_body(&first, 0)).await);
    let second = start(&api, &key, "c-1").await;
    assert_ne!(first, second, "only a hash is kept of the first");
    assert_eq!(state(&api, "c-1").await, "receiving 1/3");
    assert_taken(&send(&api, block_body(&second, 1)).await);
    assert_taken(&send(&api, block_body(&first, 2)).await);
    assert_eq!(state(&api, "c-1").await, "received 3/3");
    let third = start(&api, &key, "c-1").await;
    assert_taken(&send(&api, block_body(&third, 2)).await);
    let mut other = start_body(&key, "c-1");
    other["carve_size"] = json!(251);
    assert_start_refused(
        &api.post("/carve/start", other).await,
        403,
        "begun otherwise",
    );
    for _ in 0..12 {
        start(&api, &key, "c-1").await;
    }
    let sessions = api
        .db
        .texts("SELECT count(*)::text FROM carve_sessions")
        .await;
    assert_eq!(sessions, ["8"], "the oldest ones end");
    assert_block_refused(
        &send(&api, block_body(&first, 2)).await,
        409,
        "session is unknown",
    );
    api.stop().await;
}

#[tokio::test]
async fn k5_blocks_come_in_any_order_and_again_by_way_of_several_apis() {
    let api = api_with_carves().await;
    let beside = api
        .beside_with(|settings| settings.carves.enabled = true)
        .await;
    let key = api.enroll("web-1").await;
    let session = start(&api, &key, "c-1").await;
    let through = |address: SocketAddr, block: u64| {
        let body = block_body(&session, block).to_string();
        async move { post(address, "/carve/continue", &[], body.as_bytes()).await }
    };
    assert_taken(&through(api.address, 2).await);
    assert_taken(&through(beside.address, 0).await);
    assert_taken(&through(beside.address, 2).await);
    let (a, b) = tokio::join!(through(api.address, 0), through(beside.address, 0));
    assert_taken(&a);
    assert_taken(&b);
    assert_eq!(state(&api, "c-1").await, "receiving 2/3");
    // The last one missing comes twice at once: osqueryd sends a request again when its connection breaks.
    let (a, b) = tokio::join!(through(api.address, 1), through(beside.address, 1));
    assert_taken(&a);
    assert_taken(&b);
    assert_eq!(state(&api, "c-1").await, "received 3/3");
    assert_taken(&through(api.address, 1).await);
    let mut other = block_body(&session, 1);
    other["data"] = json!(STANDARD.encode([9; 100]));
    assert_block_refused(&send(&api, other).await, 409, "other bytes");
    beside.stop().await;
    api.stop().await;
}

#[tokio::test]
async fn k7_numbers_that_do_not_fit_each_other_are_refused() {
    let api = api_with_carves().await;
    let key = api.enroll("web-1").await;
    for (count, size, total) in [
        (json!(0), json!(100), json!(0)),
        (json!(0), json!(0), json!(0)),
        (json!(2), json!(100), json!(250)),
        (json!(4), json!(100), json!(250)),
        (json!(1), json!(100), json!("18446744073709551615")),
    ] {
        let body = json!({"block_count": count, "block_size": size, "carve_size": total, "carve_id": "c", "node_key": key});
        assert_start_refused(&api.post("/carve/start", body).await, 403, "do not fit");
    }
    for (field, odd) in [
        ("block_count", json!(-1)),
        ("block_size", json!(1.5)),
        ("carve_size", json!("x")),
        ("carve_id", json!("")),
        ("carve_id", json!("a b")),
    ] {
        let mut body = start_body(&key, "c");
        body[field] = odd;
        assert_start_refused(&api.post("/carve/start", body).await, 400, field);
    }
    assert_eq!(state(&api, "c").await, "");
    api.stop().await;
}

#[tokio::test]
async fn k9_k10_a_block_comes_with_the_session_of_its_own_node_or_not_at_all() {
    let api = api_with_carves().await;
    let (key, other) = (api.enroll("web-1").await, api.enroll("web-2").await);
    let session = start(&api, &key, "c-1").await;
    let with = |key: &str, body: Value| {
        let header = format!("NodeKey {key}");
        let address = api.address;
        async move {
            let headers = [("Authorization", header.as_str())];
            post(
                address,
                "/carve/continue",
                &headers,
                body.to_string().as_bytes(),
            )
            .await
        }
    };
    assert_taken(&send(&api, block_body(&session, 0)).await);
    assert_taken(&with(&key, block_body(&session, 1)).await);
    let foreign = with(&other, block_body(&session, 2)).await;
    assert_block_refused(&foreign, 409, "another node's");
    let stranger = with("a-key-that-nobody-has", block_body(&session, 2)).await;
    assert_block_refused(&stranger, 401, "unknown");
    for wrong in ["x", "", &session[1..], &format!("{session}A")] {
        let answer = send(&api, block_body(wrong, 2)).await;
        assert!(!is_taken(&answer), "{wrong}: {answer:?}");
    }
    for wrong in [json!(null), json!(7), json!({"a": "b"})] {
        let mut body = block_body(&session, 2);
        body["session_id"] = wrong;
        assert!(!is_taken(&send(&api, body).await));
    }
    assert_eq!(state(&api, "c-1").await, "receiving 2/3");
    // Two nodes may give the same name to their carves.
    let theirs = start(&api, &other, "c-1").await;
    assert_taken(&send(&api, block_body(&theirs, 0)).await);
    assert_eq!(state(&api, "c-1").await.matches('/').count(), 2);
    api.db
        .execute("UPDATE nodes SET disabled_at = now() WHERE host_identifier = 'web-1'")
        .await;
    let disabled = send(&api, block_body(&session, 2)).await;
    assert_block_refused(&disabled, 403, "disabled");
    api.stop().await;
}

#[tokio::test]
async fn a_block_is_taken_only_while_its_node_may_be_collected_from() {
    let api = api_with_carves().await;
    let key = api.enroll("web-1").await;
    let session = start(&api, &key, "c-1").await;
    assert_taken(&send(&api, block_body(&session, 0)).await);
    let deny = "INSERT INTO table_denials (id, target, tables, reason, created_at, updated_at)
        VALUES ('00000000-0000-7000-8000-0000000000d1', '*', '{carves}', 'private.', now(), now())";
    for (decided, status, said, undone) in [
        (
            "UPDATE nodes SET disabled_at = now(), approval = 'refused'",
            403,
            "not approved",
            "UPDATE nodes SET disabled_at = NULL, approval = NULL",
        ),
        (
            "UPDATE nodes SET disabled_at = now(), approval = 'waiting'",
            403,
            "waits for an approval",
            "UPDATE nodes SET disabled_at = NULL, approval = NULL",
        ),
        (
            deny,
            403,
            "no files are collected",
            "DELETE FROM table_denials WHERE reason = 'private.'",
        ),
        (
            "UPDATE node_keys SET revoked_at = now()",
            401,
            "node key is unknown",
            "UPDATE node_keys SET revoked_at = NULL",
        ),
        // The session began by a key that is revoked, though the node has another one by now.
        (
            "UPDATE node_keys SET revoked_at = now();
             INSERT INTO node_keys (id, node_id, key_sha256, created_at)
             SELECT '00000000-0000-7000-8000-0000000000c1', id, decode(repeat('01', 32), 'hex'), now() FROM nodes",
            401,
            "node key is unknown",
            "DELETE FROM node_keys WHERE id = '00000000-0000-7000-8000-0000000000c1'; UPDATE node_keys SET revoked_at = NULL",
        ),
    ] {
        api.db.execute(decided).await;
        api.app.load().await.unwrap();
        for block in [0, 1] {
            let answer = send(&api, block_body(&session, block)).await;
            assert_block_refused(&answer, status, said);
        }
        api.db.execute(undone).await;
    }
    api.app.load().await.unwrap();
    assert_taken(&send(&api, block_body(&session, 1)).await);
    api.stop().await;
}

#[tokio::test]
async fn k11_k12_a_block_of_another_length_or_without_base64_is_refused() {
    let api = api_with_carves().await;
    let key = api.enroll("web-1").await;
    let session = start(&api, &key, "c-1").await;
    let with = |block: u64, data: String| {
        let mut body = block_body(&session, block);
        body["data"] = json!(data);
        body
    };
    for (block, length) in [(0, 101), (0, 99), (0, 0), (2, 100), (2, 51), (2, 49)] {
        let answer = send(&api, with(block, STANDARD.encode(vec![1; length]))).await;
        assert!(!is_taken(&answer), "{block} {length}: {answer:?}");
    }
    for block in [json!(3), json!(u64::MAX), json!(4_294_967_296_u64)] {
        let mut body = block_body(&session, 0);
        body["block_id"] = block;
        assert_block_refused(&send(&api, body).await, 409, "no such block");
    }
    let good = STANDARD.encode(bytes(0));
    for bad in [
        good.trim_end_matches('=').to_owned(),
        format!("{good}\n"),
        good.replace(&good[4..8], "!!!!"),
        good.replace(&good[4..8], "____"),
        "=".repeat(good.len()),
    ] {
        assert_block_refused(&send(&api, with(0, bad)).await, 400, "base64");
    }
    assert_eq!(state(&api, "c-1").await, "receiving 0/3");
    api.stop().await;
}

#[tokio::test]
async fn carves_are_off_unless_switched_on_and_only_of_nodes_that_may() {
    let api = Api::start().await;
    let key = api.enroll("web-1").await;
    assert_start_refused(
        &api.post("/carve/start", start_body(&key, "c-1")).await,
        403,
        "switched off",
    );
    assert_block_refused(&send(&api, block_body("x", 0)).await, 403, "switched off");
    api.stop().await;

    let api = Api::start_with(|settings| {
        settings.carves.enabled = true;
        settings.carves.target = "host:web-*".into();
    })
    .await;
    let (web, laptop) = (api.enroll("web-1").await, api.enroll("laptop-1").await);
    start(&api, &web, "c-1").await;
    assert_start_refused(
        &api.post("/carve/start", start_body(&laptop, "c-1")).await,
        403,
        "no files are collected",
    );
    // Denied tables are denied however the carve began.
    api.db
        .execute(
            "INSERT INTO table_denials (id, target, tables, reason, created_at, updated_at)
             VALUES ('00000000-0000-7000-8000-0000000000aa', 'host:web-1', '{carves}', 'private.', now(), now())",
        )
        .await;
    assert_start_refused(
        &api.post("/carve/start", start_body(&web, "c-2")).await,
        403,
        "no files are collected",
    );
    let unknown = api.post("/carve/start", start_body("unknown", "c-1")).await;
    assert_eq!((unknown.status, session_of(&unknown)), (401, None));
    api.stop().await;
}

#[tokio::test]
async fn a_carve_begins_only_within_the_limits() {
    let api = Api::start_with(|settings| {
        settings.carves.enabled = true;
        settings.carves.max_carve_bytes = 250;
        settings.carves.max_block_bytes = 100;
        settings.carves.open_per_node = 2;
        settings.carves.open_in_all = 3;
        settings.carves.node_bytes_a_day = 750;
    })
    .await;
    let (a, b) = (api.enroll("a").await, api.enroll("b").await);
    let refused = async |key: &str, id: &str, why: &str| {
        assert_start_refused(
            &api.post("/carve/start", start_body(key, id)).await,
            403,
            why,
        );
    };
    let mut large = start_body(&a, "c-0");
    large["carve_size"] = json!(251);
    assert_start_refused(
        &api.post("/carve/start", large).await,
        403,
        "carve is too large",
    );
    let large = json!({"block_count": 1, "block_size": 101, "carve_size": 101, "carve_id": "c-0", "node_key": a});
    assert_start_refused(
        &api.post("/carve/start", large).await,
        403,
        "blocks are too large",
    );
    start(&api, &a, "c-1").await;
    start(&api, &a, "c-2").await;
    refused(&a, "c-3", "of this node").await;
    start(&api, &a, "c-2").await;
    start(&api, &b, "c-1").await;
    refused(&b, "c-2", "too many carves are under way").await;
    api.db.execute("UPDATE carves SET state = 'stored'").await;
    start(&api, &a, "c-3").await;
    api.db.execute("UPDATE carves SET state = 'stored'").await;
    refused(&a, "c-4", "enough for a day").await;
    api.db
        .execute("UPDATE carves SET started_at = started_at - interval '25 hours'")
        .await;
    start(&api, &a, "c-4").await;
    api.stop().await;
}

#[tokio::test]
async fn a_carve_that_was_given_up_takes_no_block_but_may_begin_again() {
    let api = api_with_carves().await;
    let key = api.enroll("web-1").await;
    let session = start(&api, &key, "c-1").await;
    assert_taken(&send(&api, block_body(&session, 0)).await);
    api.db
        .execute("UPDATE carves SET state = 'expired'; DELETE FROM carve_blocks")
        .await;
    assert_block_refused(&send(&api, block_body(&session, 1)).await, 409, "has ended");
    let session = start(&api, &key, "c-1").await;
    assert_eq!(state(&api, "c-1").await, "receiving 0/3");
    for block in 0..3 {
        assert_taken(&send(&api, block_body(&session, block)).await);
    }
    assert_eq!(state(&api, "c-1").await, "received 3/3");
    api.db
        .execute("UPDATE carves SET state = 'stored'; DELETE FROM carve_blocks")
        .await;
    // The answer to the last block was lost, and the worker was quicker than the repetition.
    assert_taken(&send(&api, block_body(&session, 2)).await);
    api.db.execute("UPDATE carves SET state = 'failed'").await;
    assert_start_refused(
        &api.post("/carve/start", start_body(&key, "c-1")).await,
        403,
        "has ended",
    );
    api.stop().await;
}

#[tokio::test]
async fn a_block_is_refused_in_words_wherever_it_goes_astray() {
    let api = api_with_carves().await;
    let key = api.enroll("web-1").await;
    let session = start(&api, &key, "c-1").await;
    let body = block_body(&session, 0).to_string();
    for path in [
        "/carve/continue/",
        "/carve/block",
        "/v2/carve/continue",
        "/api/v1/osquery/carve/block",
        "/CARVE/CONTINUE",
    ] {
        let answer = post(api.address, path, &[], body.as_bytes()).await;
        assert_block_refused(&answer, 404, "nothing here");
    }
    for method in ["GET", "DELETE", "PATCH", "OPTIONS"] {
        let answer = request(api.address, method, "/carve/continue", &[], body.as_bytes()).await;
        assert_block_refused(&answer, 405, "method");
    }
    let answer = post(
        api.address,
        "/enroll",
        &[],
        modern_enroll("b", "b").to_string().as_bytes(),
    )
    .await;
    assert!(answer.is_success());
    assert_eq!(state(&api, "c-1").await, "receiving 0/3");
    api.stop().await;
}

#[tokio::test]
async fn the_api_cannot_read_back_what_nodes_handed_over() {
    let api = api_with_carves().await;
    let may = api
        .db
        .texts(
            "SELECT concat_ws(' ', has_column_privilege('ostiary_api', 'carve_blocks', 'data', 'SELECT'),
                has_table_privilege('ostiary_api', 'carve_files', 'SELECT'), has_table_privilege('ostiary_api', 'carves', 'DELETE'),
                has_column_privilege('ostiary_api', 'carves', 'path', 'SELECT'))",
        )
        .await;
    assert_eq!(may, ["f f f f"]);
    api.stop().await;
}
