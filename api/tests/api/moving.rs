//! Nodes of other managers: their paths, and their keys, which look unlike ours.

use ostiary_api::aliases::{AliasSet, Endpoint};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::support::{Api, modern_enroll, post, settings};

#[tokio::test]
async fn nodes_of_other_managers_find_us_at_the_paths_they_know() {
    let api = Api::start_with(|settings| {
        settings.api.aliases.sets = vec![
            AliasSet::Fleet,
            AliasSet::Kolide,
            AliasSet::Osctrl,
            AliasSet::Zentral,
            AliasSet::Uptycs,
            AliasSet::Polylogyx,
        ];
        let own = [("/{any}/old/log".to_owned(), Endpoint::Log)];
        settings.api.aliases.paths = own.into();
    })
    .await;
    let managers = [
        (
            "/api/osquery",
            [
                "enroll",
                "config",
                "log",
                "distributed/read",
                "distributed/write",
            ],
        ),
        (
            "/api/v1/osquery",
            [
                "enroll",
                "config",
                "log",
                "distributed/read",
                "distributed/write",
            ],
        ),
        (
            "/0d4fb5c8-1f2a-4c9e-9d3e-2c8a5a8f7b11",
            ["enroll", "config", "log", "read", "write"],
        ),
        (
            "/prod",
            [
                "osquery_enroll",
                "osquery_config",
                "osquery_log",
                "osquery_read",
                "osquery_write",
            ],
        ),
        (
            "/osquery",
            [
                "enroll",
                "config",
                "log",
                "distributed/read",
                "distributed/write",
            ],
        ),
        (
            "/public/osquery",
            [
                "enroll",
                "config",
                "log",
                "distributed/read",
                "distributed/write",
            ],
        ),
        (
            "/agent",
            [
                "enroll",
                "config",
                "log",
                "distributed_read",
                "distributed_write",
            ],
        ),
    ];
    for (prefix, [enroll, config, log, read, write]) in managers {
        let enrolled = api
            .post(&format!("{prefix}/{enroll}"), modern_enroll(prefix, prefix))
            .await;
        let key = enrolled.json()["node_key"]
            .as_str()
            .expect(prefix)
            .to_owned();
        let ask = async |path: &str, more: Value| {
            let mut body = json!({"node_key": key});
            body.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            api.post(&format!("{prefix}/{path}"), body).await
        };
        assert!(
            ask(config, json!({})).await.json()["options"].is_object(),
            "{prefix}"
        );
        let line = json!({"log_type": "result", "data": [{"name": "q"}]});
        assert!(ask(log, line).await.is_success(), "{prefix}");
        assert!(ask(read, json!({})).await.is_success(), "{prefix}");
        assert!(
            ask(write, json!({"queries": {}})).await.is_success(),
            "{prefix}"
        );
    }
    let key = api.enroll("free").await;
    let body = json!({"node_key": key, "log_type": "result", "data": [{"name": "q"}]});
    assert!(
        api.post("/tenant/old/log", body).await.is_success(),
        "a path of one's own"
    );
    api.eventually("SELECT count(*)::text FROM log_batches", &["8"])
        .await;
    api.stop().await;
}

#[tokio::test]
async fn without_their_set_the_paths_of_others_are_nothing() {
    let api = Api::start().await;
    let answer = api
        .post("/api/osquery/enroll", modern_enroll("a", "a"))
        .await;
    assert!(
        answer.status == 404 && answer.json()["error"].is_string(),
        "{answer:?}"
    );
    api.stop().await;
}

#[tokio::test]
async fn aliases_that_collide_are_refused_at_the_start() {
    for (path, endpoint) in [
        ("/metrics", Endpoint::Log),
        ("/{any}/log", Endpoint::Enroll),
        ("log", Endpoint::Log),
    ] {
        let mut settings = settings("postgres://127.0.0.1:1/none");
        settings.api.aliases.paths = [(path.to_owned(), endpoint)].into();
        let error = ostiary_api::start(settings, CancellationToken::new())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[tokio::test]
async fn keys_of_any_shape_are_keys() {
    let api = Api::start().await;
    api.enroll("moved").await;
    let long = "k".repeat(512);
    let keys = [
        "8letters",
        "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
        "0d4fb5c8-1f2a-4c9e-9d3e-2c8a5a8f7b11",
        "Zm9v+/==",
        &long,
    ];
    for key in keys {
        let hash = hex::encode(Sha256::digest(key.as_bytes()));
        let id = ostiary_boot::clock::new_id();
        let sql = format!(
            "INSERT INTO node_keys (id, node_id, key_sha256, created_at) SELECT '{id}', id, '\\x{hash}', now() FROM nodes"
        );
        api.db.execute(&sql).await;
        for path in ["/config", "/distributed/read"] {
            let answer = api.post(path, json!({"node_key": key})).await;
            assert!(
                answer.is_success() && answer.status == 200,
                "{key} {path}: {answer:?}"
            );
            let header = format!("NodeKey {key}");
            let headers = [("Authorization", header.as_str())];
            let answer = post(api.address, path, &headers, b"{}").await;
            assert!(
                answer.is_success() && answer.status == 200,
                "{key} in the header, {path}: {answer:?}"
            );
        }
    }
    api.stop().await;
}
