//! What becomes of posts: events, present rows, status logs, vitals, unreadable lines.

use serde_json::json;

use crate::support::{Stage, line, snapshot};

#[tokio::test]
async fn every_format_becomes_events_and_present_rows() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    let t = stage.unix_now() - 60;
    stage
        .results(
            node,
            &[
                line("users", "added", 0, t, json!({"name": "root", "uid": "0"})),
                line("users", "added", 0, t, json!({"name": "eve", "uid": "7"})),
                line("users", "removed", 1, t + 5, json!({"name": "eve", "uid": "7"})),
                json!({"name": "ports", "hostIdentifier": "h", "unixTime": t.to_string(), "epoch": "0", "counter": "0",
                    "diffResults": {"added": [{"port": 22}, {"port": 22}], "removed": ""}}),
                snapshot("mounts", t, json!([{"path": "/"}])),
                snapshot("usb", t, json!([])),
                json!({"name": "procs", "hostIdentifier": "h", "unixTime": t, "epoch": 0, "counter": 0,
                    "columns": {"pid": "1"}, "action": "snapshot", "decorations": {"u": "x"}}),
            ],
        )
        .await;
    stage.work().await;
    assert_eq!(
        stage.events(node).await,
        [
            r#"users added {"name":"root","uid":"0"} baseline"#,
            r#"users added {"name":"eve","uid":"7"} baseline"#,
            r#"users removed {"name":"eve","uid":"7"}"#,
            r#"ports added {"port":"22"} baseline"#,
            r#"ports added {"port":"22"} baseline"#,
            r#"mounts snapshot {"path":"/"} baseline"#,
            "usb - baseline",
            r#"procs snapshot {"pid":"1"} baseline"#,
        ]
    );
    assert_eq!(
        stage.present(node).await,
        [
            r#"mounts [{"path":"/"}]"#,
            r#"ports [{"port":"22"},{"port":"22"}]"#,
            r#"procs [{"pid":"1"}]"#,
            r#"usb []"#,
            r#"users [{"name":"root","uid":"0"}]"#,
        ]
    );
    assert_eq!(stage.count("pending").await, 0);
    assert_eq!(stage.count("unreadable").await, 0);
    assert_eq!(
        stage
            .count("node_checkins WHERE results_at IS NOT NULL")
            .await,
        1
    );
    stage.end().await;
}

#[tokio::test]
async fn status_lines_are_kept_and_bad_lines_cost_only_themselves() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .post(
            node,
            's',
            r#"[{"hostIdentifier":"h","unixTime":"1786096805","severity":"2","filename":"a.cpp","line":"7","message":"no such table: foo","version":"5.9.1"},
                {"severity":1},"just text",{"severity":0,"filename":"b.cpp","line":1,"message":"ok\u0000","version":"5.23.0"}]"#,
        )
        .await;
    stage.post(node, 'x', r#"[{"a":1}]"#).await;
    stage.post(node, 'r', r#""""#).await;
    stage.post_bytes(node, 'r', b"not zstd".to_vec(), "").await;
    stage.work().await;
    assert_eq!(
        stage.texts("SELECT severity || ' ' || filename || ':' || line || ' ' || message FROM status_logs ORDER BY id").await,
        ["2 a.cpp:7 no such table: foo", "0 b.cpp:1 ok\u{FFFD}"]
    );
    let unreadable = stage
        .texts("SELECT log_type || ' ' || reason FROM unreadable ORDER BY log_type, reason")
        .await;
    assert_eq!(unreadable.len(), 4, "{unreadable:?}");
    assert!(
        unreadable[0].starts_with("result the stored post cannot be decompressed"),
        "{unreadable:?}"
    );
    assert!(
        unreadable[1].starts_with("status not the JSON of a log line"),
        "{unreadable:?}"
    );
    assert_eq!(unreadable[2], "status the line holds no message");
    assert_eq!(unreadable[3], "unknown unknown log type");
    assert_eq!(stage.count("pending").await, 0);
    stage.end().await;
}

#[tokio::test]
async fn an_overlapping_post_stores_its_lines_once() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    let t = stage.unix_now();
    let lines: Vec<_> = (1..=11)
        .map(|n| line("q", "added", n, t, json!({"n": n.to_string()})))
        .collect();
    // As a real osqueryd did: a refused post of 5 lines came again within 8 and 11.
    stage.results(node, &lines[..5]).await;
    stage.work().await;
    stage.results(node, &lines[..8]).await;
    stage.results(node, &lines[..11]).await;
    stage.results(node, &lines[..11]).await;
    stage.work().await;
    assert_eq!(stage.events(node).await.len(), 11);
    assert_eq!(
        stage
            .texts("SELECT row_count::text FROM present_rows")
            .await,
        ["11"]
    );
    assert_eq!(stage.count("post_fingerprints").await, 4);
    // Another log type and another node know nothing of these lines.
    let other = stage.node("web-2").await;
    stage.results(other, &lines[..5]).await;
    stage.work().await;
    assert_eq!(stage.events(other).await.len(), 5);
    stage.end().await;
}

#[tokio::test]
async fn rows_that_only_grow_are_not_kept_as_present() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .test
        .execute(
            "INSERT INTO packs (id, name, created_at, updated_at) VALUES ('00000000-0000-7000-8000-0000000000aa', 'fim', now(), now());
             INSERT INTO queries (id, pack_id, name, sql, interval_seconds, removed, created_at, updated_at) VALUES
             (gen_random_uuid(), '00000000-0000-7000-8000-0000000000aa', 'files', 'SELECT * FROM file_events', 60, true, now(), now()),
             (gen_random_uuid(), '00000000-0000-7000-8000-0000000000aa', 'users', 'SELECT * FROM users', 60, false, now(), now());",
        )
        .await;
    let t = stage.unix_now();
    stage
        .results(
            node,
            &[
                line(
                    "pack/fim/files",
                    "added",
                    1,
                    t,
                    json!({"path": "/etc/passwd"}),
                ),
                line("pack/fim/users", "added", 0, t, json!({"name": "root"})),
                line("pack/fim/users", "added", 1, t + 1, json!({"name": "eve"})),
            ],
        )
        .await;
    stage.work().await;
    assert_eq!(stage.present(node).await, ["pack/fim/users []"]);
    assert_eq!(
        stage.events(node).await,
        [
            r#"pack/fim/files added {"path":"/etc/passwd"}"#,
            r#"pack/fim/users added {"name":"root"} baseline"#,
            r#"pack/fim/users added {"name":"eve"}"#,
        ]
    );
    stage.end().await;
}

#[tokio::test]
async fn the_built_in_pack_gives_the_vitals() {
    let stage = Stage::new().await;
    let node = stage.node("old-name").await;
    let t = stage.unix_now();
    stage
        .results(
            node,
            &[
                snapshot("pack/ostiary/osquery_info", t, json!([{"version": "5.23.1", "config_hash": "ab12", "instance_id": "i-2"}])),
                snapshot("pack/ostiary/system_info", t, json!([{"hostname": "web-9", "hardware_serial": "", "hardware_model": "M1"}])),
                snapshot("pack/ostiary/os_version", t, json!([{"name": "Ubuntu", "version": "24.04"}])),
                snapshot(
                    "pack/ostiary/osquery_schedule",
                    t,
                    json!([{"name": "a", "denylisted": "1", "last_executed": "5"}, {"name": "b", "denylisted": "0", "last_executed": "9"}]),
                ),
            ],
        )
        .await;
    stage.work().await;
    assert_eq!(
        stage
            .texts("SELECT concat_ws('|', hostname, osquery_version, config_hash, instance_id, hardware_model, os_name, os_version) FROM nodes")
            .await,
        ["web-9|5.23.1|ab12|i-2|M1|Ubuntu|24.04"]
    );
    assert_eq!(
        stage
            .texts("SELECT (vitals -> 'osquery_schedule')::text FROM nodes")
            .await,
        [r#"{"queries":2,"denylisted":["a"],"last_executed":9}"#]
    );
    stage.end().await;
}

#[tokio::test]
async fn an_unchanged_snapshot_writes_no_present_rows() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    let t = stage.unix_now() - 100;
    stage
        .results(node, &[snapshot("mounts", t, json!([{"path": "/"}]))])
        .await;
    stage.work().await;
    let before = stage
        .texts("SELECT xmin::text || ctid::text FROM present_rows")
        .await;
    stage
        .results(node, &[snapshot("mounts", t + 60, json!([{"path": "/"}]))])
        .await;
    stage.work().await;
    assert_eq!(
        stage
            .texts("SELECT xmin::text || ctid::text FROM present_rows")
            .await,
        before
    );
    stage
        .results(
            node,
            &[snapshot("mounts", t + 90, json!([{"path": "/srv"}]))],
        )
        .await;
    stage.work().await;
    assert_eq!(stage.present(node).await, [r#"mounts [{"path":"/srv"}]"#]);
    stage.end().await;
}

#[tokio::test]
async fn a_node_may_be_the_first_to_say_only_so_many_names() {
    let stage = Stage::with(|settings| settings.worker.names_per_node = 2).await;
    let (node, other) = (stage.node("web-1").await, stage.node("web-2").await);
    let t = stage.unix_now();
    let say_at = |name: &str, counter| line(name, "added", counter, t, json!({"a": "1"}));
    let say = |name: &str| say_at(name, 1);
    stage
        .results(node, &[say("a"), say("b"), say("c"), say(&"x".repeat(600))])
        .await;
    stage.work().await;
    stage.results(other, &[say("c"), say("a")]).await;
    stage
        .results(node, &[say_at("c", 2), say_at("d", 2), say_at("a", 2)])
        .await;
    stage.work().await;
    assert_eq!(
        stage
            .texts("SELECT name FROM query_names ORDER BY name")
            .await,
        ["a", "b", "c"]
    );
    assert_eq!(stage.events(node).await.len(), 4, "a, b, then c and a");
    let reasons = stage
        .texts("SELECT reason FROM unreadable ORDER BY received_at, reason")
        .await;
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(
        reasons
            .iter()
            .any(|reason| reason.contains("too many names")),
        "{reasons:?}"
    );
    assert!(
        reasons.iter().any(|reason| reason.contains("too long")),
        "{reasons:?}"
    );
    stage.end().await;
}

#[tokio::test]
async fn a_deleted_node_takes_its_pending_work_with_it() {
    let stage = Stage::new().await;
    let (gone, kept) = (stage.node("gone").await, stage.node("kept").await);
    let t = stage.unix_now();
    for node in [gone, kept] {
        stage
            .results(node, &[line("q", "added", 1, t, json!({"a": "1"}))])
            .await;
    }
    stage
        .test
        .execute(&format!("DELETE FROM nodes WHERE id = '{gone}'"))
        .await;
    stage.work().await;
    assert_eq!(
        stage.texts("SELECT node_id::text FROM events").await,
        [kept.to_string()]
    );
    assert_eq!(stage.count("pending").await, 0);
    stage.end().await;
}
