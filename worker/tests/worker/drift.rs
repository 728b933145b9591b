//! From drift to a delivery: rules, findings, alerts.

use ostiary_domain::ids::NodeId;
use ostiary_outputs::Alert;
use serde_json::json;

use crate::support::{Stage, line, seconds, snapshot, when};

/// `query entity state match_count`, oldest first.
async fn findings(stage: &Stage) -> Vec<String> {
    stage
        .texts("SELECT concat_ws('|', rule_name, node_name, entity, state, match_count) FROM findings ORDER BY opened_at, entity")
        .await
}

async fn first_ports(stage: &Stage, node: NodeId) -> i64 {
    let t = stage.unix_now() - 600;
    let ports =
        ["22", "4444"].map(|port| line("pack/net/ports", "added", 0, t, json!({"port": port})));
    stage.results(node, &ports).await;
    stage.work().await;
    t
}

#[tokio::test]
async fn a_first_full_set_opens_nothing_and_later_drift_one_finding_with_one_delivery() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .rule(
            "odd port",
            &when("pack/net/ports", "port", "4444"),
            "description='why', runbook_url='https://run.example'",
        )
        .await;
    let t = first_ports(&stage, node).await;
    assert!(findings(&stage).await.is_empty());

    let drift = |action, counter| {
        line(
            "pack/net/ports",
            action,
            counter,
            t + 60,
            json!({"port": "4444"}),
        )
    };
    stage
        .results(node, &[drift("removed", 1), drift("added", 2)])
        .await;
    stage
        .results(
            node,
            &[line(
                "pack/net/ports",
                "added",
                3,
                t + 90,
                json!({"port": "443"}),
            )],
        )
        .await;
    stage.work().await;
    assert_eq!(findings(&stage).await, ["odd port|web-1|port: 4444|open|2"]);
    assert_eq!(
        stage.texts("SELECT concat_ws('|', action, columns, query_name) FROM finding_matches ORDER BY id").await,
        [r#"removed|{"port":"4444"}|pack/net/ports"#, r#"added|{"port":"4444"}|pack/net/ports"#]
    );
    // The destination's settings are of another key, so the one attempt ends in a refusal, which is recorded.
    assert_eq!(
        stage.texts("SELECT concat_ws('|', destination_name, destination_kind, state, attempts) FROM deliveries").await,
        ["mail for odd port|email|dead|1"]
    );
    let bodies = stage
        .texts("SELECT body::text FROM alerts WHERE kind = 'opened'")
        .await;
    assert_eq!(bodies.len(), 1);
    let alert: Alert = serde_json::from_str(&bodies[0]).unwrap();
    assert_eq!(
        (alert.rule.name.as_str(), alert.rule.description.as_str()),
        ("odd port", "why")
    );
    assert_eq!(
        (
            alert.rule.severity.as_str(),
            alert.rule.runbook_url.as_str()
        ),
        ("high", "https://run.example")
    );
    assert_eq!(
        (alert.node.name.as_str(), alert.node.platform.as_str()),
        ("web-1", "linux")
    );
    assert_eq!(
        (alert.entity.as_str(), alert.action.as_str()),
        ("port: 4444", "removed")
    );
    assert_eq!(alert.columns.get("port"), Some(&json!("4444")));
    assert_eq!(alert.occurred_at.timestamp(), t + 60);
    assert_eq!(
        alert.url,
        format!("https://ostiary.example/findings/{}", alert.finding_id)
    );

    // It counts while it is open or acknowledged, and opens anew once it was resolved.
    stage
        .test
        .execute("UPDATE findings SET state = 'acknowledged'")
        .await;
    stage.results(node, &[drift("added", 4)]).await;
    stage.work().await;
    assert_eq!(
        findings(&stage).await,
        ["odd port|web-1|port: 4444|acknowledged|3"]
    );
    stage
        .test
        .execute("UPDATE findings SET state = 'resolved'")
        .await;
    stage.clock.advance(seconds(5));
    stage.results(node, &[drift("added", 5)]).await;
    stage.work().await;
    assert_eq!(
        findings(&stage).await,
        [
            "odd port|web-1|port: 4444|resolved|3",
            "odd port|web-1|port: 4444|open|1"
        ]
    );
    assert_eq!(stage.count("deliveries").await, 2);
    stage.end().await;
}

#[tokio::test]
async fn a_rule_may_ask_for_baselines() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .rule(
            "odd port",
            &when("pack/net/ports", "port", "4444"),
            "on_baseline=true",
        )
        .await;
    first_ports(&stage, node).await;
    assert_eq!(findings(&stage).await, ["odd port|web-1|port: 4444|open|1"]);
    stage.end().await;
}

#[tokio::test]
async fn a_late_event_is_kept_and_opens_nothing() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .rule(
            "odd port",
            &when("q", "port", "4444"),
            "max_age_seconds=3600",
        )
        .await;
    let two_days_ago = stage.unix_now() - 2 * 86_400;
    stage
        .results(
            node,
            &[line("q", "added", 1, two_days_ago, json!({"port": "4444"}))],
        )
        .await;
    stage
        .results(
            node,
            &[line(
                "q",
                "added",
                2,
                stage.unix_now() - 7200,
                json!({"port": "4444"}),
            )],
        )
        .await;
    stage.work().await;
    assert!(findings(&stage).await.is_empty());
    assert_eq!(
        stage.events(node).await,
        [
            r#"q added {"port":"4444"} late"#,
            r#"q added {"port":"4444"}"#
        ]
    );
    stage.end().await;
}

#[tokio::test]
async fn a_wiped_database_sends_all_rows_again_and_only_the_difference_is_drift() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    let any = json!({"condition": "AND", "rules": [{"field": "query_name", "operator": "equal", "value": "pack/net/ports"}]});
    stage
        .rule("any port", &any, "entity_columns=ARRAY['port']")
        .await;
    let t = first_ports(&stage, node).await;
    let again = ["22", "8080"]
        .map(|port| line("pack/net/ports", "added", 0, t + 300, json!({"port": port})));
    stage.results(node, &again).await;
    stage.work().await;
    assert_eq!(
        findings(&stage).await,
        ["any port|web-1|port: 8080|open|1"],
        "22 was there; 4444 may still come"
    );
    stage.clock.advance(seconds(5));
    // Nothing more comes of the set, but something else does: it is whole, and 4444 is gone.
    stage
        .results(
            node,
            &[line("users", "added", 1, t + 400, json!({"name": "eve"}))],
        )
        .await;
    stage.work().await;
    assert_eq!(
        findings(&stage).await,
        [
            "any port|web-1|port: 8080|open|1",
            "any port|web-1|port: 4444|open|1"
        ]
    );
    assert_eq!(
        stage.present(node).await[0],
        r#"pack/net/ports [{"port":"22"},{"port":"8080"}]"#
    );
    stage.end().await;
}

#[tokio::test]
async fn a_set_of_which_nothing_more_comes_is_settled_by_the_sweep() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    let t = first_ports(&stage, node).await;
    stage
        .results(
            node,
            &[line(
                "pack/net/ports",
                "added",
                0,
                t + 300,
                json!({"port": "22"}),
            )],
        )
        .await;
    stage.work().await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(
        stage.present(node).await,
        [r#"pack/net/ports [{"port":"22"},{"port":"4444"}]"#],
        "it may go on"
    );
    stage.clock.advance(seconds(16 * 60));
    stage.app.keep_up().await.unwrap();
    assert_eq!(
        stage.present(node).await,
        [r#"pack/net/ports [{"port":"22"}]"#]
    );
    assert_eq!(
        stage
            .count("present_rows WHERE unsettled_at IS NOT NULL")
            .await,
        0
    );
    stage.end().await;
}

#[tokio::test]
async fn a_broken_rule_is_off_says_why_and_stops_no_other() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .rule("broken", &json!({"condition": "AND", "rules": []}), "")
        .await;
    stage.rule("good", &when("q", "a", "1"), "").await;
    stage
        .results(
            node,
            &[line("q", "added", 1, stage.unix_now(), json!({"a": "1"}))],
        )
        .await;
    stage.work().await;
    assert_eq!(findings(&stage).await, ["good|web-1|a: 1|open|1"]);
    let reason = "SELECT coalesce(broken_reason, '-') FROM rules ORDER BY name";
    assert_eq!(
        stage.texts(reason).await,
        ["a group contains no rules", "-"]
    );
    // Mended, it is in force for the next post.
    let mended = when("q", "a", "2");
    stage
        .test
        .execute(&format!(
            "UPDATE rules SET conditions = '{mended}' WHERE name = 'broken'"
        ))
        .await;
    stage
        .results(
            node,
            &[line("q", "added", 2, stage.unix_now(), json!({"a": "2"}))],
        )
        .await;
    stage.work().await;
    assert_eq!(stage.texts(reason).await, ["-", "-"]);
    assert_eq!(stage.count("findings").await, 2);
    stage.end().await;
}

#[tokio::test]
async fn a_rule_that_was_deleted_or_switched_off_opens_nothing_more() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage.rule("r", &when("q", "a", "1"), "").await;
    let t = stage.unix_now();
    stage
        .results(
            node,
            &[line("q", "added", 1, t, json!({"a": "1", "n": "1"}))],
        )
        .await;
    stage.work().await;
    stage.test.execute("UPDATE rules SET enabled = false").await;
    stage
        .results(
            node,
            &[line("q", "added", 2, t, json!({"a": "1", "n": "2"}))],
        )
        .await;
    stage.work().await;
    stage.test.execute("DELETE FROM rules").await;
    stage
        .results(
            node,
            &[line("q", "added", 3, t, json!({"a": "1", "n": "3"}))],
        )
        .await;
    stage.work().await;
    assert_eq!(findings(&stage).await, ["r|web-1|a: 1, n: 1|open|1"]);
    stage.end().await;
}

#[tokio::test]
async fn a_snapshot_drifts_only_where_it_differs_from_the_one_before() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    let any = json!({"condition": "AND", "rules": [{"field": "query_name", "operator": "equal", "value": "s"}]});
    stage.rule("any", &any, "").await;
    let t = stage.unix_now() - 100;
    stage
        .results(node, &[snapshot("s", t, json!([{"a": "1"}, {"a": "2"}]))])
        .await;
    stage
        .results(
            node,
            &[snapshot("s", t + 10, json!([{"a": "1"}, {"a": "3"}]))],
        )
        .await;
    stage
        .results(
            node,
            &[snapshot("s", t + 20, json!([{"a": "1"}, {"a": "3"}]))],
        )
        .await;
    stage.work().await;
    assert_eq!(
        findings(&stage).await,
        ["any|web-1|a: 2|open|1", "any|web-1|a: 3|open|1"]
    );
    assert_eq!(
        stage
            .texts("SELECT action || ' ' || columns::text FROM finding_matches ORDER BY 1")
            .await,
        [r#"removed {"a":"2"}"#, r#"snapshot {"a":"3"}"#]
    );
    stage.end().await;
}

#[tokio::test]
async fn of_many_matches_the_first_and_the_latest_are_kept_and_all_are_counted() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .rule("r", &when("q", "a", "1"), "entity_columns=ARRAY['a']")
        .await;
    let t = stage.unix_now();
    for post in 0..3 {
        let lines: Vec<_> = (0..15)
            .map(|n| {
                line(
                    "q",
                    "added",
                    1 + post,
                    t,
                    json!({"a": "1", "n": (post * 15 + n).to_string()}),
                )
            })
            .collect();
        stage.results(node, &lines).await;
        stage.work().await;
    }
    assert_eq!(findings(&stage).await, ["r|web-1|a: 1|open|45"]);
    let kept = stage
        .texts("SELECT columns ->> 'n' FROM finding_matches ORDER BY id")
        .await;
    let wanted: Vec<String> = std::iter::once(0)
        .chain(25..45)
        .map(|n| n.to_string())
        .collect();
    assert_eq!(kept, wanted);
    stage.end().await;
}
