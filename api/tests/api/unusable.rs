//! What cannot be stored as it is meant: too large, or malformed.

use serde_json::json;

use super::support::{Answer, Api, post};

/// Lines that differ, as a JSON array of more than 2,000 bytes.
fn large() -> String {
    json!(
        (0..100)
            .map(|n| json!({"name": "q", "n": n}))
            .collect::<Vec<_>>()
    )
    .to_string()
}

async fn small_api() -> Api {
    Api::start_with(|settings| {
        settings.api.log_max_bytes = 2_000;
        settings.api.distributed_write_max_bytes = 2_000;
        settings.api.oversized_refusals = 2;
    })
    .await
}

async fn count(api: &Api, table: &str) -> String {
    api.db
        .texts(&format!("SELECT count(*)::text FROM {table}"))
        .await
        .remove(0)
}

#[tokio::test]
async fn what_is_too_large_is_set_aside_though_other_posts_get_through_between() {
    let api = small_api().await;
    let key = api.enroll("web-1").await;
    let log = |log_type, data: &str| {
        format!(r#"{{"data":{data},"log_type":"{log_type}","node_key":"{key}"}}"#)
    };
    let results = log("result", &large());
    let (status, result) = (log("status", r#"[{"line":"1"}]"#), log("result", "[{}]"));
    let write = |rows: &str| format!(r#"{{"queries":{{"x":{rows}}},"node_key":"{key}"}}"#);
    let (answer, answers) = (write("[]"), write(&large()));
    // What is refused, and all that osqueryd sends beside it from other threads.
    for (path, poison, beside) in [
        (
            "/log",
            &results,
            [("/log", &status), ("/distributed/write", &answer)],
        ),
        (
            "/distributed/write",
            &answers,
            [("/log", &status), ("/log", &result)],
        ),
    ] {
        for turn in 0..3 {
            let got = post(api.address, path, &[], poison.as_bytes()).await;
            assert_eq!(
                got.status,
                if turn < 2 { 413 } else { 200 },
                "{path}, turn {turn}: {got:?}"
            );
            for (path, body) in beside {
                let got = post(api.address, path, &[], body.as_bytes()).await;
                assert!(got.is_success(), "{path}: {got:?}");
            }
        }
    }
    api.stop().await;
}

#[tokio::test]
async fn an_answer_that_comes_again_after_it_was_set_aside_is_kept_once() {
    let api = small_api().await;
    let key = api.enroll("web-1").await;
    let body = |mark: &str| {
        let rows = large();
        format!(r#"{{"queries":{{"{mark}":{rows}}},"statuses":{{"x":0}},"node_key":"{key}"}}"#)
    };
    for (mark, kept) in [("x", "1"), ("x", "1"), ("y", "2")] {
        for _ in 0..3 {
            post(
                api.address,
                "/distributed/write",
                &[],
                body(mark).as_bytes(),
            )
            .await;
        }
        assert_eq!(count(&api, "unreadable").await, kept, "{mark}");
    }
    api.stop().await;
}

#[tokio::test]
async fn answers_that_only_the_end_of_a_large_body_names_are_ended_too() {
    let api = small_api().await;
    let key = api.enroll("web-1").await;
    for number in 1..=3 {
        api.db
            .execute(&format!(
                "INSERT INTO live_queries (id, wire_id, sql, target_all, created_at, expires_at)
                 VALUES ('00000000-0000-7000-8000-0000000000{number:02}', 'lq-{number:032}', 'SELECT 1', true, now(),
                    now() + interval '1 hour')"
            ))
            .await;
    }
    api.app.load().await.unwrap();
    let read = api.post("/distributed/read", json!({"node_key": key}));
    assert_eq!(
        read.await.json()["queries"]
            .as_object()
            .map(serde_json::Map::len),
        Some(3)
    );
    // The second lies behind what is kept of the beginning; the third is answered later.
    let body = format!(
        r#"{{"queries":{{"lq-{:032}":{},"lq-{:032}":[]}},"statuses":{{"lq-{:032}":0,"lq-{:032}":0}},"node_key":"{key}"}}"#,
        1,
        large(),
        2,
        1,
        2
    );
    for _ in 0..3 {
        post(api.address, "/distributed/write", &[], body.as_bytes()).await;
    }
    let states = "SELECT state FROM live_query_tasks ORDER BY live_query_id";
    assert_eq!(api.db.texts(states).await, ["failed", "failed", "offered"]);
    api.stop().await;
}

fn is_node_invalid(answer: &Answer) -> bool {
    answer.status == 401 && answer.json() == json!({"node_invalid": true})
}

#[tokio::test]
async fn a_node_whose_key_is_revoked_hears_so_though_what_it_sends_is_malformed() {
    let api = Api::start().await;
    for (n, path) in ["/log", "/distributed/write"].into_iter().enumerate() {
        for (m, shape) in ["header", "beginning", "cut", "end"]
            .into_iter()
            .enumerate()
        {
            let key = api.enroll(&format!("node-{n}-{m}")).await;
            let header = format!("NodeKey {key}");
            let (headers, body) = match shape {
                "header" => (
                    vec![("Authorization", header.as_str())],
                    "{\"data\":[}".into(),
                ),
                "beginning" => (
                    vec![],
                    format!(r#"{{"node_key":"{key}","data":[{{"a":'b'}}]}}"#),
                ),
                "cut" => (vec![], format!(r#"{{"node_key":"{key}","data":[{{"a":"b"#)),
                _ => (
                    vec![],
                    format!(r#"{{"data":[{{"a":'b'}}],"node_key":"{key}"}}"#),
                ),
            };
            let send = || post(api.address, path, &headers, body.as_bytes());
            let before = send().await;
            assert!(
                !is_node_invalid(&before),
                "{shape} to {path} with a good key: {before:?}"
            );
            if shape == "cut" {
                assert_eq!(before.status, 400, "it was cut off on the way, maybe");
            }
            api.db
                .execute("UPDATE node_keys SET revoked_at = now() WHERE revoked_at IS NULL")
                .await;
            api.app.load().await.unwrap();
            let after = send().await;
            assert!(is_node_invalid(&after), "{shape} to {path}: {after:?}");
        }
        let nobodys = post(api.address, path, &[], br#"{"node_key":"","data":["#).await;
        assert_eq!(nobodys.status, 400);
    }
    api.stop().await;
}

#[tokio::test]
async fn a_disabled_node_hears_so_though_what_it_sends_is_malformed() {
    let api = Api::start().await;
    let key = api.enroll("web-1").await;
    api.db.execute("UPDATE nodes SET disabled_at = now()").await;
    api.app.load().await.unwrap();
    let header = format!("NodeKey {key}");
    for path in ["/log", "/distributed/write"] {
        let refused = post(
            api.address,
            path,
            &[("Authorization", &header)],
            b"{\"data\":[}",
        )
        .await;
        assert_eq!(
            (refused.status, refused.json()),
            (403, json!({"error": "this node is disabled"}))
        );
    }
    assert_eq!(count(&api, "unreadable").await, "0");
    api.stop().await;
}
