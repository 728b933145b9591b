//! Live queries as nodes of several versions meet them.

use serde_json::{Value, json};

use super::support::{Api, SECRET, post};

/// A node of this platform and version; versions before 2.8 say nothing of themselves.
async fn enroll(api: &Api, host: &str, platform: &str, version: &str) -> String {
    let mut body = json!({"enroll_secret": SECRET, "host_identifier": host, "platform_type": "9"});
    if !version.is_empty() {
        body["host_details"] = json!({
            "os_version": {"platform": platform},
            "osquery_info": {"instance_id": format!("i-{host}"), "version": version, "build_platform": platform},
            "system_info": {"hostname": host},
        });
    }
    let answer = api.post("/enroll", body).await.json();
    answer["node_key"].as_str().unwrap().to_owned()
}

/// `more` are further columns and their values.
async fn ask(api: &Api, number: u8, sql: &str, more: (&str, &str)) {
    let (columns, values) = more;
    api.db
        .execute(&format!(
            "INSERT INTO live_queries (id, wire_id, sql, target_all, created_at, expires_at{columns})
             VALUES ('00000000-0000-7000-8000-0000000000{number:02}', 'lq-{number:032}', '{sql}', true, now(), now() + interval '1 hour'{values})"
        ))
        .await;
    api.app.load().await.unwrap();
}

async fn read(api: &Api, key: &str) -> Value {
    api.post("/distributed/read", json!({"node_key": key}))
        .await
        .json()
}

const DISCOVERY: (&str, &str) = (
    ", discovery, discovery_platforms, discovery_since",
    ", 'SELECT 1 FROM alf', '{darwin}', '5.13.1'",
);

#[tokio::test]
async fn a_discovery_reaches_only_nodes_that_judge_it_rightly_and_never_beside_other_work() {
    let api = Api::start().await;
    let new = enroll(&api, "new", "darwin", "5.23.1").await;
    let others = [
        enroll(&api, "old", "darwin", "5.7.0").await,
        enroll(&api, "older", "darwin", "5.12.0").await,
        enroll(&api, "linux", "linux", "5.23.1").await,
        enroll(&api, "unknown", "darwin", "").await,
    ];
    ask(&api, 1, "SELECT 1", DISCOVERY).await;
    for key in &others {
        assert_eq!(read(&api, key).await, json!({"node_invalid": false}));
    }
    ask(&api, 2, "SELECT 2", ("", "")).await;
    let plain = read(&api, &new).await;
    let (one, two) = (format!("lq-{:032}", 1), format!("lq-{:032}", 2));
    assert_eq!(
        plain,
        json!({"queries": {two.as_str(): "SELECT 2"}, "accelerate": 60, "node_invalid": false})
    );
    assert!(
        plain["accelerate"].is_u64(),
        "osquery from 3.2 on takes nothing else"
    );
    let conditional = read(&api, &new).await;
    assert_eq!(
        conditional,
        json!({"queries": {one.as_str(): "SELECT 1"}, "discovery": {one.as_str(): "SELECT 1 FROM alf"}, "accelerate": 60,
            "node_invalid": false})
    );
    assert_eq!(read(&api, &new).await, json!({"node_invalid": false}));
    for key in &others {
        assert_eq!(
            read(&api, key).await["queries"],
            json!({two.as_str(): "SELECT 2"})
        );
    }
    api.stop().await;
}

#[tokio::test]
async fn a_node_that_is_denied_a_table_is_not_asked_for_it() {
    let api = Api::start().await;
    api.db
        .execute("INSERT INTO tags (id, name, created_at) VALUES ('00000000-0000-7000-8000-0000000000f1', 'laptop', now())")
        .await;
    let (laptop, server) = (
        enroll(&api, "laptop", "darwin", "5.23.1").await,
        enroll(&api, "server", "linux", "5.23.1").await,
    );
    api.db
        .execute("INSERT INTO node_tags SELECT id, '00000000-0000-7000-8000-0000000000f1' FROM nodes WHERE host_identifier = 'laptop'")
        .await;
    ask(&api, 1, "SELECT * FROM file", (", tables", ", '{file}'")).await;
    assert_eq!(read(&api, &laptop).await, json!({"node_invalid": false}));
    assert!(read(&api, &server).await.get("queries").is_some());
    // Once nobody denies it any more it goes there, too.
    api.db.execute("DELETE FROM table_denials").await;
    api.app.load().await.unwrap();
    assert!(read(&api, &laptop).await.get("queries").is_some());
    api.stop().await;
}

#[tokio::test]
async fn answers_of_all_versions_are_understood() {
    let api = Api::start().await;
    let key = enroll(&api, "a", "linux", "5.23.1").await;
    for number in 1..=6 {
        ask(&api, number, "SELECT 1", ("", "")).await;
    }
    assert_eq!(
        read(&api, &key).await["queries"].as_object().unwrap().len(),
        6
    );
    let id = |number: u8| format!("lq-{number:032}");
    let bodies = [
        // 2.1.0: no statuses; 2.1.2 to 3.1: texts, "" for no rows; 3.2 to 4.3: no messages; 4.4 to 5.7; 5.8 on; denylisted
        json!({"queries": {id(1): [{"b": "1", "a": "2"}]}}),
        json!({"queries": {id(2): ""}, "statuses": {id(2): "1"}}),
        json!({"queries": {id(3): []}, "statuses": {id(3): 0}}),
        json!({"queries": {id(4): []}, "statuses": {id(4): 1}, "messages": {id(4): "no such table: foo"}}),
        json!({"queries": {id(5): [{"a": "1"}]}, "statuses": {id(5): 0}, "messages": {id(5): ""},
            "stats": {id(5): {"wall_time_ms": 12, "user_time": 10, "system_time": 2, "memory": 4096}}}),
        json!({"queries": {id(6): []}, "statuses": {id(6): 1}, "messages": {id(6): "distributed query is denylisted"},
            "stats": {id(6): {}}}),
    ];
    for mut body in bodies {
        body["node_key"] = key.as_str().into();
        for _ in 0..2 {
            assert!(
                api.post("/distributed/write", body.clone())
                    .await
                    .is_success(),
                "{body}"
            );
        }
    }
    let tasks = api
        .db
        .texts("SELECT concat_ws(' ', state, rows, message, stats->>'memory_bytes') FROM live_query_tasks ORDER BY live_query_id")
        .await;
    assert_eq!(
        tasks,
        [
            r#"done [{"b":"1","a":"2"}] "#,
            "failed [] ",
            "done [] ",
            "failed [] no such table: foo",
            r#"done [{"a":"1"}]  4096"#,
            "failed [] distributed query is denylisted",
        ]
    );
    api.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_ended_and_not_asked_for_again() {
    let api = Api::start_with(|settings| {
        settings.api.distributed_write_max_bytes = 20_000;
        settings.api.oversized_refusals = 1;
    })
    .await;
    let key = enroll(&api, "a", "linux", "5.23.1").await;
    ask(&api, 1, "SELECT 1", ("", "")).await;
    ask(&api, 2, "SELECT 2", ("", "")).await;
    assert_eq!(
        read(&api, &key).await["queries"].as_object().unwrap().len(),
        2
    );
    let large = format!(
        r#"{{"queries":{{"lq-{:032}":[{{"a":"{}"}}]}},"node_key":"{key}"}}"#,
        1,
        "x".repeat(30_000)
    );
    let refused = post(api.address, "/distributed/write", &[], large.as_bytes()).await;
    assert!(!refused.is_success(), "it may have been a mishap");
    let accepted = post(api.address, "/distributed/write", &[], large.as_bytes()).await;
    assert!(accepted.is_success(), "or it would block all later answers");
    let tasks = api
        .db
        .texts("SELECT state || ' ' || split_part(message, ' bytes', 1) FROM live_query_tasks ORDER BY live_query_id")
        .await;
    assert_eq!(
        tasks,
        ["failed The answer was larger than 20000", "offered "]
    );
    api.stop().await;
}
