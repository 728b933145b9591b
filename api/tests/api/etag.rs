//! The etag of configs: who gets which form of the document, and who may be told that it still holds.

use ostiary_domain::node_config::{config_hash, is_run_by};
use serde_json::json;

use crate::support::{Api, PATIENCE, post};

const OK: &str = r#"{"etag":"ok"}"#;

#[tokio::test]
async fn a_node_with_an_etag_is_told_that_its_config_still_holds_until_it_changes() {
    let api = Api::start().await;
    let key = api.enroll("new-1").await;
    let ask = |etag: String| api.post("/config", json!({"node_key": key, "etag": etag}));

    let plain = api.post("/config", json!({"node_key": key})).await;
    let first = ask(String::new()).await;
    let etag = first.json()["etag"].as_str().unwrap().to_owned();
    assert!(!etag.is_empty() && etag != "ok", "{etag}");
    let mut without = first.json();
    without.as_object_mut().unwrap().shift_remove("etag");
    assert_eq!(
        without.to_string().as_bytes(),
        plain.body,
        "the same but for the etag"
    );
    for hash in [config_hash(&plain.body), config_hash(&first.body)] {
        assert!(is_run_by(&plain.body, &hash), "either form may be reported");
    }
    assert!(!is_run_by(&plain.body, &config_hash(b"{}")));

    assert_eq!(ask(etag.clone()).await.body, OK.as_bytes());
    assert_eq!(ask("another".to_owned()).await.body, first.body);
    assert_eq!(ask(String::new()).await.body, first.body, "after a restart");
    api.eventually(
        "SELECT document FROM node_configs JOIN config_documents ON hash = document_hash",
        &[std::str::from_utf8(&plain.body).unwrap()],
    )
    .await;

    api.db
        .execute(
            "INSERT INTO queries (id, name, sql, interval_seconds, created_at, updated_at)
             VALUES (gen_random_uuid(), 'usb', 'SELECT * FROM usb_devices', 60, now(), now())",
        )
        .await;
    let started = std::time::Instant::now();
    let changed = loop {
        let answer = ask(etag.clone()).await;
        if answer.body != OK.as_bytes() {
            break answer.json();
        }
        assert!(started.elapsed() < PATIENCE, "the change does not arrive");
    };
    assert_eq!(changed["schedule"]["usb"]["interval"], 60);
    assert_ne!(changed["etag"], json!(etag));
    api.eventually(
        "SELECT (document::json->'schedule'->'usb' IS NOT NULL)::text FROM node_configs
         JOIN config_documents ON hash = document_hash",
        &["true"],
    )
    .await;
    api.stop().await;
}

#[tokio::test]
async fn a_node_that_sends_no_etag_is_never_told_that_its_config_still_holds() {
    let api = Api::start().await;
    let key = api.enroll("old-1").await;
    let with = api
        .post("/config", json!({"node_key": key, "etag": ""}))
        .await;
    let etag = with.json()["etag"].as_str().unwrap().to_owned();
    let plain = api.post("/config", json!({"node_key": key})).await.body;
    assert!(serde_json::from_slice::<serde_json::Value>(&plain).unwrap()["schedule"].is_object());
    let asks = [
        json!({"node_key": key}),
        json!({"node_key": key, "ETAG": etag}),
        json!({"node_key": key, "x": {"etag": etag}}),
        json!({"node_key": key, "etag": null}),
        json!({"node_key": key, "etag": true}),
        json!({"node_key": key, "etag": 1}),
        json!({"node_key": key, "etag": [etag]}),
        json!({"node_key": key, "etag": {"etag": etag}}),
    ];
    for ask in asks {
        let answer = api.post("/config", ask.clone()).await;
        assert_eq!(answer.body, plain, "{ask}");
    }
    // Headers as proxies and browsers send them are no etag of osquery's.
    for header in ["If-None-Match", "ETag"] {
        let body = json!({"node_key": key}).to_string();
        let answer = post(api.address, "/config", &[(header, &etag)], body.as_bytes()).await;
        assert_eq!(
            (answer.status, answer.body),
            (200, plain.clone()),
            "{header}"
        );
    }
    for word in [
        "",
        "ok",
        "OK",
        &etag[1..],
        &etag.to_uppercase(),
        &format!("{etag} "),
    ] {
        let answer = api
            .post("/config", json!({"node_key": key, "etag": word}))
            .await;
        assert_eq!(answer.body, with.body, "{word}");
    }
    api.stop().await;
}
