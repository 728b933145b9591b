//! Who a node is, as it sees it: keys that go on to work whatever enrolls beside them, keys by header, waiting for an approval.

use std::time::Duration;

use ostiary_store::{Db, testing};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Api, PATIENCE, endpoints, modern_enroll, parse, post, until};

/// An enrollment with this hardware (UUID and serial number) and this database; empty texts are not told.
fn claim(hardware: &str, serial: &str, instance: &str) -> Value {
    let mut body = modern_enroll("clone", "x");
    body["host_details"]["osquery_info"]["uuid"] = hardware.into();
    body["host_details"]["osquery_info"]["instance_id"] = instance.into();
    body["host_details"]["system_info"]["uuid"] = hardware.into();
    body["host_details"]["system_info"]["hardware_serial"] = serial.into();
    body
}

#[tokio::test]
async fn no_enrollment_makes_a_key_invalid_that_is_in_use() {
    let api = Api::start_with(|settings| {
        settings.api.limits.enroll_per_host.per_second = 0.0;
        settings.api.alive_minutes = 0;
    })
    .await;
    let mut keys = Vec::new();
    let parts = ["", "a", "b"];
    for round in 0..2 {
        for hardware in parts {
            for serial in parts {
                for instance in parts {
                    let answer = api.post("/enroll", claim(hardware, serial, instance)).await;
                    let key = answer.json()["node_key"].clone();
                    assert!(
                        key.is_string(),
                        "{hardware} {serial} {instance}: {answer:?}"
                    );
                    keys.push(key);
                }
            }
        }
        for key in &keys {
            let config = api.post("/config", json!({"node_key": key})).await;
            assert!(config.is_success(), "round {round}: {config:?}");
        }
    }
    let revoked = "SELECT count(*)::text FROM node_keys WHERE revoked_at IS NOT NULL";
    assert_eq!(api.db.texts(revoked).await, ["0"]);
    api.stop().await;
}

#[tokio::test]
async fn an_enrollment_and_a_write_in_the_background_never_wait_for_each_other() {
    let api = Api::start().await;
    let first = api.post("/enroll", claim("u", "s", "i1")).await;
    assert!(first.json()["node_key"].is_string(), "{first:?}");
    // Check-ins and fetched configs are written together: one row of the node is locked, then a row that names it is inserted.
    let mut tx = api.db.db.begin().await.unwrap();
    testing::execute(&mut tx, "UPDATE node_checkins SET last_seen_at = now()").await;
    let waiting = "SELECT '' FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let both = async {
        until("the enrollment waits", async || {
            !api.db.texts(waiting).await.is_empty()
        })
        .await;
        testing::execute(&mut tx, "SELECT FROM nodes FOR KEY SHARE").await;
        Db::commit(tx).await.unwrap();
    };
    let (again, ()) = tokio::join!(api.post("/enroll", claim("u", "s", "i1")), both);
    assert!(again.json()["node_key"].is_string(), "{again:?}");
    api.stop().await;
}

#[tokio::test]
async fn a_clone_finds_itself_again_and_makes_no_third_node() {
    let api = Api::start().await;
    for instance in ["i1", "i2", "i1", "i2", "i1", "i2"] {
        let answer = api.post("/enroll", claim("u", "s", instance)).await;
        assert!(answer.json()["node_key"].is_string(), "{answer:?}");
    }
    // A copied database on other hardware, again and again.
    for _ in 0..3 {
        let answer = api.post("/enroll", claim("u2", "s2", "i1")).await;
        assert!(answer.json()["node_key"].is_string(), "{answer:?}");
    }
    let reasons = api
        .db
        .texts("SELECT reason FROM node_conflicts ORDER BY noted_at")
        .await;
    assert_eq!(reasons, ["hardware", "database"]);
    assert_eq!(
        api.db.texts("SELECT count(*)::text FROM nodes").await,
        ["3"]
    );
    api.stop().await;
}

/// The head of a request, and nothing of its body: what is answered within `patience`.
async fn only_the_head(
    api: &Api,
    path: &str,
    headers: &str,
    patience: Duration,
) -> Option<crate::support::Answer> {
    let mut socket = TcpStream::connect(api.address).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = socket.read_to_end(&mut answer);
    let _ = tokio::time::timeout(patience, reading).await;
    parse(&answer)
}

#[tokio::test]
async fn nothing_is_read_of_a_large_body_whose_header_names_no_node() {
    let api = Api::start_with(|settings| settings.api.http.body_timeout_seconds = 600).await;
    let key = api.enroll("web-1").await;
    let off = api.enroll("web-2").await;
    api.db
        .execute("UPDATE nodes SET disabled_at = now() WHERE hostname = 'web-2'")
        .await;
    until("the node is disabled", async || {
        api.post("/config", json!({"node_key": off})).await.status == 403
    })
    .await;
    for (path, _) in endpoints(&key)
        .iter()
        .filter(|(path, _)| *path != "/enroll")
    {
        for path in [(*path).to_owned(), format!("/v1{path}")] {
            for (size, what) in [
                ("Content-Length: 60000000\r\n", "large"),
                ("Transfer-Encoding: chunked\r\n", "of unknown size"),
                (
                    "Content-Length: 60000000\r\nContent-Encoding: gzip\r\n",
                    "large and packed",
                ),
            ] {
                for (header, whose) in [
                    (format!("stranger{path}{what}").replace(' ', ""), "unknown"),
                    (off.clone(), "disabled"),
                ] {
                    let headers = format!("Authorization: NodeKey {header}\r\n{size}");
                    let answer = only_the_head(&api, &path, &headers, PATIENCE)
                        .await
                        .unwrap_or_else(|| {
                            panic!("{path}, {what}, {whose}: the body was waited for")
                        });
                    assert!(!answer.is_success(), "{path}, {what}, {whose}: {answer:?}");
                }
            }
        }
    }
    let headers = format!("Authorization: NodeKey {key}\r\nContent-Length: 60000000\r\n");
    let answer = only_the_head(&api, "/log", &headers, Duration::from_secs(2));
    assert!(answer.await.is_none(), "of a known node it is waited for");
    api.stop().await;
}

#[tokio::test]
async fn the_header_may_be_demanded_and_the_body_has_the_last_word() {
    let api = Api::start_with(|settings| settings.api.require_key_header = true).await;
    let (key, other) = (api.enroll("web-1").await, api.enroll("web-2").await);
    for (path, body) in endpoints(&key)
        .into_iter()
        .filter(|(path, _)| *path != "/enroll")
    {
        let body = body.to_string();
        let without = post(api.address, path, &[], body.as_bytes()).await;
        assert_eq!(
            (without.status, without.is_success()),
            (401, false),
            "{path}: {without:?}"
        );
        assert!(
            without.json().get("node_invalid").is_none(),
            "{path}: {without:?}"
        );
        for header in [&key, &other, "a-stranger"] {
            let authorization = format!("NodeKey {header}");
            let answer = post(
                api.address,
                path,
                &[("Authorization", &authorization)],
                body.as_bytes(),
            )
            .await;
            assert!(answer.is_success(), "{path}: {answer:?}");
        }
    }
    let headers = [("Authorization", "NodeKey nobody")];
    let stranger = post(
        api.address,
        "/config",
        &headers,
        br#"{"node_key":"nobody"}"#,
    )
    .await;
    assert_eq!(
        String::from_utf8_lossy(&stranger.body),
        r#"{"node_invalid":true}"#
    );
    api.stop().await;
}

#[tokio::test]
async fn a_machine_that_waits_has_a_key_and_is_served_once_it_is_approved() {
    let api = Api::start_with(|settings| settings.api.approvals_max = 1).await;
    api.add_secret("strict", "the-strict-secret", "approval = 'all'")
        .await;
    let mut body = modern_enroll("web-1", "a");
    body["enroll_secret"] = "the-strict-secret".into();
    let key = api.post("/enroll", body.clone()).await.json()["node_key"].clone();
    for (path, body) in endpoints(key.as_str().unwrap())
        .into_iter()
        .filter(|(path, _)| *path != "/enroll")
    {
        let answer = api.post(path, body).await;
        assert_eq!(
            (answer.status, answer.is_success()),
            (403, false),
            "{path}: {answer:?}"
        );
        assert!(
            answer.json().get("node_invalid").is_none(),
            "{path}: {answer:?}"
        );
    }
    assert!(
        api.db
            .texts("SELECT id::text FROM pending")
            .await
            .is_empty(),
        "no fact yet"
    );
    let again = api.post("/enroll", body).await.json()["node_key"].clone();
    assert!(again.is_string() && again != key);
    let mut crowd = modern_enroll("web-2", "b");
    crowd["enroll_secret"] = "the-strict-secret".into();
    let refused = api.post("/enroll", crowd).await;
    assert!(
        refused.json()["node_key"].is_null(),
        "one waits already: {refused:?}"
    );
    // It is heard of, so nobody takes it for silent.
    api.post("/config", json!({"node_key": key})).await;
    api.eventually(
        "SELECT (last_seen_at > enroll_at)::text FROM node_checkins",
        &["true"],
    )
    .await;
    api.db
        .execute("UPDATE nodes SET approval = NULL, disabled_at = NULL")
        .await;
    until("it is served", async || {
        let answer = api.post("/config", json!({"node_key": key})).await;
        answer.is_success()
    })
    .await;
    assert!(
        api.post("/config", json!({"node_key": again}))
            .await
            .is_success()
    );
    api.stop().await;
}

#[tokio::test]
async fn a_tag_of_a_secret_is_found_in_whatever_case() {
    let api = Api::start().await;
    api.db
        .execute(
            "INSERT INTO tags (id, name, created_at) VALUES (gen_random_uuid(), 'Prod', now())",
        )
        .await;
    api.add_secret("tagged", "the-tagged-secret", "tags = '{prod,PROD,new}'")
        .await;
    let mut body = modern_enroll("web-1", "a");
    body["enroll_secret"] = "the-tagged-secret".into();
    for _ in 0..2 {
        assert!(api.post("/enroll", body.clone()).await.json()["node_key"].is_string());
    }
    let tags = "SELECT name FROM tags JOIN node_tags ON tag_id = id ORDER BY 1";
    assert_eq!(api.db.texts(tags).await, ["Prod", "new"]);
    api.stop().await;
}
