//! Every endpoint as a node uses it, over a real socket, on a real Postgres, without Redis.

use crate::support::{Api, PATIENCE, SECRET, gzip, modern_enroll, post};
use serde_json::json;

#[tokio::test]
async fn a_node_enrolls_gets_its_config_stores_logs_and_answers_a_live_query() {
    let api = Api::start().await;
    let key = api.enroll("web-1").await;
    assert_eq!(key.len(), 43);

    let config = api.post("/config", json!({"node_key": key})).await;
    assert_eq!((config.status, config.is_success()), (200, true));
    assert_eq!(config.json()["options"]["pack_delimiter"], "/");
    assert!(
        config.head.to_lowercase().contains("connection: close"),
        "{}",
        config.head
    );
    let again = api.post("/v1/config", json!({"node_key": key})).await;
    assert_eq!(
        again.body, config.body,
        "a config that changes by itself churns every node"
    );

    let line = json!({"name": "pack/it/usb", "action": "added", "columns": {"vendor": "x"}, "unixTime": 1_800_000_000});
    let log = api
        .post(
            "/log",
            json!({"node_key": key, "log_type": "result", "data": [line]}),
        )
        .await;
    assert_eq!(
        String::from_utf8_lossy(&log.body),
        r#"{"node_invalid":false}"#
    );
    let zipped = gzip(
        json!({"node_key": key, "log_type": "status", "data": [{"severity": 1}]})
            .to_string()
            .as_bytes(),
    );
    let log = post(
        api.address,
        "/v1/log",
        &[("Content-Encoding", "gzip")],
        &zipped,
    )
    .await;
    assert_eq!(
        String::from_utf8_lossy(&log.body),
        r#"{"node_invalid":false}"#
    );
    let stored = api
        .db
        .texts("SELECT log_type::text || ' ' || client_version FROM log_batches ORDER BY id")
        .await;
    assert_eq!(stored, ["r 5.23.1", "s 5.23.1"]);
    let pending = api
        .db
        .texts("SELECT kind::text FROM pending ORDER BY id")
        .await;
    assert_eq!(pending, ["f", "b", "b"]);

    let read = api
        .post("/distributed/read", json!({"node_key": key}))
        .await;
    assert_eq!(
        String::from_utf8_lossy(&read.body),
        r#"{"node_invalid":false}"#
    );
    api.db.execute(
        "INSERT INTO live_queries (id, wire_id, sql, target_all, created_at, expires_at)
         VALUES ('00000000-0000-7000-8000-000000000001', 'lq1', 'SELECT 1', true, now(), now() + interval '1 hour')",
    ).await;
    let read = loop {
        let read = api
            .post("/distributed/read", json!({"node_key": key}))
            .await
            .json();
        if read.get("queries").is_some() {
            break read;
        }
    };
    assert_eq!(read["queries"], json!({"lq1": "SELECT 1"}));
    let read = api
        .post("/distributed/read", json!({"node_key": key}))
        .await
        .json();
    assert_eq!(
        read,
        json!({"node_invalid": false}),
        "it was handed out just now"
    );

    let write = r#"{"queries":{"lq1":[{"z":"1","a":"2"},{"z":"3","a":"4"}],"unknown":[]},"statuses":{"lq1":0,"unknown":1},
        "messages":{"lq1":"","unknown":"no"},"stats":{"lq1":{"wall_time_ms":12}},"node_key":"KEY"}"#.replace("KEY", &key);
    for _ in 0..2 {
        let answer = post(api.address, "/distributed/write", &[], write.as_bytes()).await;
        assert_eq!(
            String::from_utf8_lossy(&answer.body),
            r#"{"node_invalid":false}"#
        );
    }
    let task = api.db.texts("SELECT state || ' ' || row_count || ' ' || rows || ' ' || (stats->>'wall_time_ms') FROM live_query_tasks").await;
    assert_eq!(task, [r#"done 2 [{"z":"1","a":"2"},{"z":"3","a":"4"}] 12"#]);

    api.eventually(
        "SELECT concat_ws(' ', client_version, config_at IS NOT NULL, log_at IS NOT NULL, distributed_read_at IS NOT NULL,
            distributed_write_at IS NOT NULL, host(last_ip)) FROM node_checkins",
        &["5.23.1 t t t t 127.0.0.1"],
    ).await;
    api.eventually(
        "SELECT count(*)::text FROM node_configs JOIN config_documents ON hash = document_hash",
        &["1"],
    )
    .await;
    api.eventually(
        "SELECT (last_used_at IS NOT NULL)::text FROM node_keys",
        &["true"],
    )
    .await;
    api.stop().await;
}

#[tokio::test]
async fn three_enrollments_of_one_host_within_moments_all_work_and_keep_their_keys() {
    let api = Api::start().await;
    let enroll = || api.post("/enroll", modern_enroll("web-1", "a"));
    let (first, second, third) = tokio::join!(enroll(), enroll(), enroll());
    assert_eq!(
        api.db.texts("SELECT count(*)::text FROM nodes").await,
        ["1"]
    );
    for answer in [first, second, third] {
        let config = api
            .post("/config", json!({"node_key": answer.json()["node_key"]}))
            .await;
        assert!(config.is_success(), "{config:?}");
    }
    assert_eq!(
        api.db
            .texts("SELECT count(*)::text FROM pending WHERE kind = 'f'")
            .await,
        ["1"]
    );
    assert_eq!(
        api.db.texts("SELECT uses::text FROM enroll_secrets").await,
        ["1"]
    );
    api.stop().await;
}

#[tokio::test]
async fn a_cloned_machine_becomes_a_node_of_its_own_with_the_conflict_shown() {
    let api = Api::start().await;
    api.enroll("web-1").await;
    let clone = api
        .post("/enroll", modern_enroll("web-1", "other-instance"))
        .await;
    assert!(clone.json()["node_key"].is_string(), "{clone:?}");
    let nodes = api
        .db
        .texts("SELECT (conflict_with IS NOT NULL)::text FROM nodes ORDER BY id")
        .await;
    assert_eq!(nodes, ["false", "true"]);
    api.stop().await;
}

#[tokio::test]
async fn old_and_odd_enrollments_are_taken() {
    let api = Api::start().await;
    let bodies = [
        (
            "E1 only secret and host",
            json!({"enroll_secret": SECRET, "host_identifier": "h"}),
        ),
        (
            "E2 with platform_type",
            json!({"enroll_secret": SECRET, "host_identifier": "h2", "platform_type": "21"}),
        ),
        (
            "E9 a long name",
            json!({"enroll_secret": SECRET, "host_identifier": "🦀".repeat(5000)}),
        ),
        ("E9 no name", json!({"enroll_secret": SECRET})),
        (
            "E9 an empty name",
            json!({"enroll_secret": SECRET, "host_identifier": ""}),
        ),
    ];
    for (case, body) in bodies {
        let answer = api.post("/enroll", body).await;
        assert!(answer.json()["node_key"].is_string(), "{case}: {answer:?}");
    }
    let nul = modern_enroll("nul", "nul")
        .to_string()
        .replace("serial-nul", "AMD\\u0000EPYC");
    let answer = post(api.address, "/enroll", &[], nul.as_bytes()).await;
    assert!(answer.json()["node_key"].is_string(), "E6: {answer:?}");
    let kept = api.db.texts("SELECT host_details->'system_info'->>'hardware_serial' FROM nodes WHERE hostname = 'nul'").await;
    assert_eq!(kept, ["AMD\u{FFFD}EPYC"]);
    api.stop().await;
}

#[tokio::test]
async fn an_enrollment_without_a_valid_secret_gets_no_key() {
    let api = Api::start().await;
    api.add_secret("revoked", "revoked-secret", "revoked_at = now()")
        .await;
    api.add_secret(
        "expired",
        "expired-secret",
        "expires_at = now() - interval '1 s'",
    )
    .await;
    api.add_secret("once", "once-secret", "use_limit = 1").await;
    for secret in ["", "wrong", "wrong", "revoked-secret", "expired-secret"] {
        let mut body = modern_enroll("h", "h");
        body["enroll_secret"] = secret.into();
        let answer = api.post("/enroll", body).await;
        assert_eq!(answer.status, 403, "{secret}: {answer:?}");
        assert_eq!(answer.json()["node_invalid"], true, "{secret}");
        assert!(
            answer.json()["error"].is_string() && answer.json().get("node_key").is_none(),
            "{secret}: {answer:?}"
        );
    }
    let enroll = |host: &str| {
        let mut body = modern_enroll(host, host);
        body["enroll_secret"] = "once-secret".into();
        api.post("/enroll", body)
    };
    assert!(enroll("a").await.json()["node_key"].is_string());
    assert!(
        enroll("a").await.json()["node_key"].is_string(),
        "the same node is no second use"
    );
    assert_eq!(enroll("b").await.status, 403);
    assert_eq!(
        api.db.texts("SELECT count(*)::text FROM nodes").await,
        ["1"]
    );
    api.stop().await;
}

#[tokio::test]
async fn a_node_gets_the_tags_of_its_secret_and_may_choose_among_them_when_that_is_allowed() {
    let api = Api::start_with(|settings| settings.api.enroll_tag_delimiter = ":".into()).await;
    api.add_secret("tagged", "tagged-secret", "tags = '{prod,lab}'")
        .await;
    let enroll = |host: &str, secret: &str| {
        let mut body = modern_enroll(host, host);
        body["enroll_secret"] = secret.into();
        api.post("/enroll", body)
    };
    assert!(enroll("all", "tagged-secret").await.json()["node_key"].is_string());
    assert!(enroll("one", "tagged-secret:lab:stolen").await.json()["node_key"].is_string());
    let tags = api.db.texts(
        "SELECT n.hostname || ' ' || t.name FROM nodes n JOIN node_tags ON node_id = n.id JOIN tags t ON t.id = tag_id ORDER BY 1",
    ).await;
    assert_eq!(tags, ["all lab", "all prod", "one lab"]);
    api.stop().await;
}

#[tokio::test]
async fn a_node_that_enrolls_again_gets_only_tags_that_its_secret_has_gained() {
    let api = Api::start().await;
    api.db
        .execute("UPDATE enroll_secrets SET tags = '{Prod,lab}'")
        .await;
    let tags = "SELECT t.name FROM node_tags JOIN tags t ON t.id = tag_id ORDER BY 1";
    api.enroll("web-1").await;
    assert_eq!(api.db.texts(tags).await, ["Prod", "lab"]);
    api.db
        .execute("DELETE FROM node_tags WHERE tag_id = (SELECT id FROM tags WHERE name = 'Prod')")
        .await;
    api.enroll("web-1").await;
    assert_eq!(api.db.texts(tags).await, ["lab"], "an admin took it away");
    api.db
        .execute("UPDATE enroll_secrets SET tags = '{prod,lab,eu}'")
        .await;
    api.enroll("web-1").await;
    assert_eq!(api.db.texts(tags).await, ["eu", "lab"]);
    api.enroll("web-2").await;
    assert_eq!(api.db.texts(tags).await, ["Prod", "eu", "eu", "lab", "lab"]);
    api.stop().await;
}

#[tokio::test]
async fn an_unknown_key_must_enroll_again_and_a_disabled_node_keeps_its_key() {
    let api = Api::start().await;
    let key = api.enroll("web-1").await;
    for path in ["/config", "/log", "/distributed/read", "/distributed/write"] {
        let body = |key: &str| match path {
            "/log" => json!({"node_key": key, "log_type": "result", "data": []}),
            _ => json!({"node_key": key}),
        };
        let empty = api.post(path, body("")).await;
        assert_eq!(
            String::from_utf8_lossy(&empty.body),
            r#"{"node_invalid":true}"#,
            "{path}"
        );
        let unknown = api.post(path, body(&format!("unknown{path}"))).await;
        assert_eq!(
            String::from_utf8_lossy(&unknown.body),
            r#"{"node_invalid":true}"#,
            "{path}"
        );
        let cached = api.post(path, body(&format!("unknown{path}"))).await.json();
        assert_eq!(cached, json!({"error": "busy"}), "a memory is no proof");
    }
    api.db.execute("UPDATE nodes SET disabled_at = now()").await;
    loop {
        let answer = api.post("/config", json!({"node_key": key})).await;
        if !answer.is_success() {
            assert_eq!(
                (answer.status, answer.json()),
                (403, json!({"error": "this node is disabled"}))
            );
            break;
        }
    }
    assert_eq!(
        api.post("/enroll", modern_enroll("web-1", "web-1"))
            .await
            .status,
        403
    );
    api.db
        .execute("UPDATE nodes SET disabled_at = NULL; UPDATE node_keys SET revoked_at = now()")
        .await;
    loop {
        let answer = api.post("/config", json!({"node_key": key})).await;
        if answer.json() == json!({"node_invalid": true}) {
            break;
        }
    }
    api.stop().await;
}

#[tokio::test]
async fn the_key_of_the_body_wins_over_the_header_which_serves_when_there_is_none() {
    let api = Api::start().await;
    let key = api.enroll("web-1").await;
    let header = format!("NodeKey {key}");
    let only_header = post(api.address, "/config", &[("Authorization", &header)], b"{}").await;
    assert!(only_header.is_success(), "C4: {only_header:?}");
    let body = json!({"node_key": ""}).to_string();
    let disagree = post(
        api.address,
        "/config",
        &[("Authorization", &header)],
        body.as_bytes(),
    )
    .await;
    assert_eq!(disagree.json(), json!({"node_invalid": true}), "C5");
    api.stop().await;
}

#[tokio::test]
async fn what_is_whole_and_authenticated_but_unusable_is_kept_and_acknowledged() {
    let api = Api::start().await;
    let key = api.enroll("web-1").await;
    let accepted = json!({"node_invalid": false});
    assert_eq!(
        api.post(
            "/log",
            json!({"node_key": key, "log_type": "odd", "data": [1]})
        )
        .await
        .json(),
        accepted
    );
    assert_eq!(
        api.post("/log", json!({"node_key": key, "log_type": "result"}))
            .await
            .json(),
        accepted
    );
    assert_eq!(
        api.post(
            "/log",
            json!({"node_key": key, "log_type": "result", "data": ""})
        )
        .await
        .json(),
        accepted
    );
    let header = format!("NodeKey {key}");
    let broken = post(
        api.address,
        "/log",
        &[("Authorization", &header)],
        b"{\"node_key\":",
    )
    .await;
    assert_eq!(broken.json(), accepted);
    let kept = api.db.texts("SELECT log_type::text || ': ' || split_part(reason, ':', 1) FROM unreadable ORDER BY id").await;
    assert_eq!(
        kept,
        [
            "odd: unknown log type",
            "result: the post has no data",
            "log: the body is not a JSON object"
        ]
    );
    // Raw bytes that are no UTF-8 are stored like any other line.
    let poison = [
        br#"{"node_key":""#,
        key.as_bytes(),
        br#"","log_type":"result","data":[{"a":""#,
        b"\xff\x41\xc3",
        br#"\u0000\ud800"}]}"#,
    ]
    .concat();
    assert_eq!(
        post(api.address, "/log", &[], &poison).await.json(),
        accepted
    );
    assert_eq!(
        api.db.texts("SELECT count(*)::text FROM log_batches").await,
        ["2"]
    );
    api.stop().await;
}

#[tokio::test]
async fn a_post_that_is_too_large_is_refused_a_few_times_and_then_taken_in_part() {
    let api = Api::start_with(|settings| {
        settings.api.log_max_bytes = 2_000;
        settings.api.oversized_refusals = 2;
    })
    .await;
    let key = api.enroll("web-1").await;
    let lines: Vec<_> = (0..100).map(|n| json!({"name": "q", "n": n})).collect();
    let body = format!(
        r#"{{"node_key":"{key}","log_type":"result","data":{}}}"#,
        json!(lines)
    );
    for _ in 0..2 {
        let refused = post(api.address, "/log", &[], body.as_bytes()).await;
        assert_eq!(
            (refused.status, refused.json()),
            (413, json!({"error": "the body is too large"}))
        );
    }
    let taken = post(api.address, "/log", &[], body.as_bytes()).await;
    assert_eq!(taken.json(), json!({"node_invalid": false}));
    assert_eq!(
        api.db.texts("SELECT count(*)::text FROM log_batches").await,
        ["1"]
    );
    assert_eq!(
        api.db.texts("SELECT lines_lost::text FROM nodes").await,
        ["1"]
    );
    let told = "SELECT fact -> 'columns' ->> 'lines_in_all' FROM pending WHERE fact ->> 'name' = 'lines_lost'";
    assert_eq!(api.db.texts(told).await, ["1"]);
    api.stop().await;
}

#[tokio::test]
async fn a_post_that_is_too_large_is_taken_in_part_in_the_order_of_a_real_osqueryd() {
    let api = Api::start_with(|settings| {
        settings.api.log_max_bytes = 2_000;
        settings.api.distributed_write_max_bytes = 2_000;
        settings.api.oversized_refusals = 1;
    })
    .await;
    let key = api.enroll("web-1").await;
    let lines = json!(
        (0..100)
            .map(|n| json!({"name": "q", "n": n}))
            .collect::<Vec<_>>()
    );
    let log = format!(r#"{{"data":{lines},"log_type":"result","node_key":"{key}"}}"#);
    let write =
        format!(r#"{{"queries":{{"lq":{lines}}},"statuses":{{"lq":0}},"node_key":"{key}"}}"#);
    for (path, body) in [("/log", log), ("/distributed/write", write)] {
        let refused = post(api.address, path, &[], body.as_bytes()).await;
        assert_eq!(refused.status, 413, "{path}");
        let taken = post(api.address, path, &[], body.as_bytes()).await;
        assert_eq!(taken.json(), json!({"node_invalid": false}), "{path}");
    }
    let count = |table| format!("SELECT count(*)::text FROM {table}");
    assert_eq!(api.db.texts(&count("log_batches")).await, ["1"]);
    assert_eq!(
        api.db.texts(&count("unreadable")).await,
        ["1"],
        "the beginning of the answer"
    );
    api.stop().await;
}

#[tokio::test]
async fn a_missing_partition_is_made_by_whoever_needs_it() {
    let api = Api::start().await;
    let key = api.enroll("web-1").await;
    let today = api
        .db
        .texts("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
        .await
        .remove(0);
    api.db
        .execute(&format!("DROP TABLE log_batches_{today}"))
        .await;
    let answer = api
        .post(
            "/log",
            json!({"node_key": key, "log_type": "result", "data": [{}]}),
        )
        .await;
    assert_eq!(answer.json(), json!({"node_invalid": false}));
    api.stop().await;
}

#[tokio::test]
async fn of_two_processes_one_hands_out_a_live_query_and_a_lost_offer_is_made_again() {
    let api = Api::start().await;
    let key = api.enroll("web-1").await;
    api.db
        .execute(
            "INSERT INTO live_queries (id, wire_id, sql, target, created_at, expires_at, cancelled_at) VALUES
             ('00000000-0000-7000-8000-000000000001', 'open', 'SELECT 1', 'platform:linux', now(), now() + interval '1 hour', NULL),
             ('00000000-0000-7000-8000-000000000002', 'others', 'SELECT 2', 'platform:darwin', now(), now() + interval '1 hour', NULL),
             ('00000000-0000-7000-8000-000000000003', 'expired', 'SELECT 3', '*', now(), now() - interval '1 s', NULL),
             ('00000000-0000-7000-8000-000000000004', 'cancelled', 'SELECT 4', '*', now(), now() + interval '1 hour', now())",
        )
        .await;
    let ask = async |address| {
        let body = json!({"node_key": key}).to_string();
        post(address, "/distributed/read", &[], body.as_bytes())
            .await
            .json()
    };
    let handed_out =
        json!({"queries": {"open": "SELECT 1"}, "accelerate": 60, "node_invalid": false});
    let nothing = json!({"node_invalid": false});
    let (one, other) = (api.beside().await, api.beside().await);
    let (a, b) = tokio::join!(ask(one.address), ask(other.address));
    assert_eq!(
        [&a, &b]
            .map(|answer| *answer == handed_out)
            .iter()
            .filter(|got| **got)
            .count(),
        1,
        "{a} {b}"
    );
    assert!(a == nothing || b == nothing, "{a} {b}");
    api.db
        .execute("UPDATE live_query_tasks SET offered_at = now() - interval '4 minutes'")
        .await;
    let later = api.beside().await;
    assert_eq!(ask(later.address).await, handed_out);
    assert_eq!(ask(later.address).await, nothing);
    let offers = api
        .db
        .texts("SELECT state || ' ' || offers FROM live_query_tasks")
        .await;
    assert_eq!(offers, ["offered 2"]);
    for process in [one, other, later] {
        process.stop().await;
    }
    api.stop().await;
}

#[tokio::test]
async fn an_edited_pack_reaches_the_nodes_that_it_is_meant_for() {
    let api = Api::start().await;
    let key = api.enroll("web-1").await;
    let before = api.post("/config", json!({"node_key": key})).await.body;
    api.db
        .execute(
            "INSERT INTO packs (id, name, target, created_at, updated_at) VALUES
             ('00000000-0000-7000-8000-000000000001', 'it', 'platform:linux', now(), now()),
             ('00000000-0000-7000-8000-000000000002', 'mac', 'platform:darwin', now(), now());
             INSERT INTO queries (id, pack_id, name, sql, interval_seconds, created_at, updated_at) VALUES
             (gen_random_uuid(), '00000000-0000-7000-8000-000000000001', 'usb', 'SELECT * FROM usb_devices', 60, now(), now())",
        )
        .await;
    let started = std::time::Instant::now();
    let after = loop {
        let answer = api.post("/config", json!({"node_key": key})).await;
        if answer.body != before {
            break answer.json();
        }
        assert!(started.elapsed() < PATIENCE, "the change does not arrive");
    };
    let usb = json!({"queries": {"usb": {"query": "SELECT * FROM usb_devices", "interval": 60}}});
    assert_eq!(after["packs"]["it"], usb);
    assert!(after["packs"].get("mac").is_none(), "{after}");
    api.eventually(
        "SELECT (document::json->'packs'->'it' IS NOT NULL)::text FROM node_configs JOIN config_documents ON hash = document_hash",
        &["true"],
    )
    .await;
    api.stop().await;
}

#[tokio::test]
async fn an_endpoint_acknowledges_nothing_that_is_meant_for_another() {
    let api = Api::start().await;
    let key = api.enroll("web-1").await;
    // What a node posts whose flags name the wrong path; success would make it delete what it sent.
    for (path, body) in [
        ("/config", json!({"log_type": "result", "data": [{}]})),
        (
            "/config",
            json!({"queries": {"q": []}, "statuses": {"q": 0}}),
        ),
        (
            "/distributed/read",
            json!({"log_type": "status", "data": []}),
        ),
        ("/distributed/read", json!({"queries": {}})),
        (
            "/distributed/write",
            json!({"log_type": "result", "data": [{}]}),
        ),
        ("/distributed/write", json!({"log_type": "status"})),
    ] {
        let mut body = body;
        body["node_key"] = key.clone().into();
        let answer = api.post(path, body.clone()).await;
        assert_eq!(
            (answer.status, answer.is_success()),
            (400, false),
            "{path} {body}"
        );
        assert!(
            answer.json().get("node_invalid").is_none(),
            "it keeps its key"
        );
    }
    api.stop().await;
}
