//! Facts that hold until they end: each opens one finding, and a rule that waits for rows that hold resolves it.

use ostiary_domain::node_config::config_hash;
use ostiary_store::{api_uptime, audit, nodes};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Stage, seconds, snapshot};

fn on_fact(name: &str) -> Value {
    json!({"condition": "AND", "rules": [
        {"field": "query_name", "operator": "equal", "value": format!("ostiary/{name}")},
    ]})
}

async fn rule(stage: &Stage, fact: &str) {
    stage.rule(fact, &on_fact(fact), "watch='present'").await;
}

async fn step(stage: &Stage) {
    stage.app.keep_up().await.unwrap();
    stage.work().await;
}

/// Findings as `rule node entity state`.
async fn found(stage: &Stage) -> Vec<String> {
    stage
        .texts("SELECT concat_ws(' | ', rule_name, node_name, entity, state, match_count) FROM findings ORDER BY opened_at, entity, id")
        .await
}

pub(crate) async fn is_up(stage: &Stage) {
    let mut conn = stage.test.db.acquire().await.unwrap();
    api_uptime::note(&mut conn, stage.now()).await.unwrap();
}

/// Twenty minutes in which nodes say nothing, while an api is there.
async fn twenty_minutes(stage: &Stage) {
    for _ in 0..20 {
        stage.clock.advance(seconds(60));
        is_up(stage).await;
    }
}

#[tokio::test]
async fn while_no_api_is_there_and_just_after_nobody_is_offline() {
    let stage = Stage::new().await;
    for number in 0..30 {
        stage.node(&format!("web-{number}")).await;
    }
    rule(&stage, "offline").await;
    rule(&stage, "silent").await;
    is_up(&stage).await;
    stage.clock.advance(seconds(5 * 3600));
    step(&stage).await;
    assert!(found(&stage).await.is_empty(), "it is down");
    // It is back, and nodes come one after the other.
    is_up(&stage).await;
    step(&stage).await;
    let at = stage.now().to_rfc3339();
    stage
        .test
        .execute(&format!("UPDATE node_checkins SET last_seen_at = '{at}' WHERE node_id IN (SELECT id FROM nodes WHERE hostname <> 'web-7')"))
        .await;
    step(&stage).await;
    assert!(
        found(&stage).await.is_empty(),
        "everybody is given its time"
    );
    for _ in 0..20 {
        stage.clock.advance(seconds(60));
        is_up(&stage).await;
        let at = stage.now().to_rfc3339();
        stage
            .test
            .execute(&format!("UPDATE node_checkins SET last_seen_at = '{at}' WHERE node_id IN (SELECT id FROM nodes WHERE hostname <> 'web-7')"))
            .await;
    }
    step(&stage).await;
    assert_eq!(
        found(&stage).await,
        ["offline | web-7 | fact: ostiary/offline | open | 1"]
    );
    stage.end().await;
}

#[tokio::test]
async fn a_node_that_returns_resolves_its_finding_and_who_was_told_is_told() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    rule(&stage, "offline").await;
    is_up(&stage).await;
    twenty_minutes(&stage).await;
    step(&stage).await;
    let at = stage.now().to_rfc3339();
    stage
        .test
        .execute(&format!(
            "UPDATE node_checkins SET last_seen_at = '{at}' WHERE node_id = '{node}'"
        ))
        .await;
    step(&stage).await;
    assert_eq!(
        found(&stage).await,
        ["offline | web-1 | fact: ostiary/offline | resolved | 1"]
    );
    assert_eq!(
        stage
            .texts("SELECT kind || ' ' || coalesce(body #>> '{change,reason}', '') FROM alerts ORDER BY created_at, id")
            .await,
        ["opened ", "resolved the node checks in again"]
    );
    // Gone again: another finding, that knows the first.
    twenty_minutes(&stage).await;
    step(&stage).await;
    assert_eq!(
        stage
            .texts("SELECT (former_id IS NOT NULL)::text FROM findings ORDER BY opened_at")
            .await,
        ["false", "true"]
    );
    stage.end().await;
}

#[tokio::test]
async fn a_rule_for_nodes_that_are_gone_for_a_week_waits_for_a_week() {
    let stage = Stage::new().await;
    stage.node("web-1").await;
    let conditions = json!({"condition": "AND", "rules": [
        {"field": "query_name", "operator": "equal", "value": "ostiary/offline"},
        {"field": "column", "operator": "column_greater_or_equal", "value": ["since_last_checkin_days", "7"]},
    ]});
    stage.rule("gone", &conditions, "watch='present'").await;
    let mut opened_after = None;
    for days in 1..=8 {
        stage.clock.advance(seconds(86_400));
        for _ in 0..2 {
            step(&stage).await;
        }
        if opened_after.is_none() && !found(&stage).await.is_empty() {
            opened_after = Some(days);
        }
    }
    assert_eq!(opened_after, Some(8), "seven days, and some time more");
    assert_eq!(
        found(&stage).await,
        ["gone | web-1 | fact: ostiary/offline | open | 1"]
    );
    stage.end().await;
}

#[tokio::test]
async fn a_conflict_holds_until_people_decide() {
    let stage = Stage::new().await;
    let (one, other) = (stage.node("web-1").await, stage.node("web-2").await);
    rule(&stage, "conflict").await;
    stage
        .test
        .execute(&format!(
            "UPDATE nodes SET conflict_with = '{other}' WHERE id = '{one}'"
        ))
        .await;
    for _ in 0..2 {
        step(&stage).await;
    }
    let open = "conflict | web-1 | fact: ostiary/conflict | open | 1";
    assert_eq!(found(&stage).await, [open]);
    stage
        .test
        .execute("UPDATE nodes SET conflict_with = NULL")
        .await;
    step(&stage).await;
    assert_eq!(found(&stage).await, [open.replace("open", "resolved")]);
    stage.end().await;
}

#[tokio::test]
async fn who_enrolls_as_a_known_machine_has_its_identity_reestablished() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    rule(&stage, "identity_reestablished").await;
    let mut conn = stage.test.db.acquire().await.unwrap();
    for reestablished in ["0", "1"] {
        let fact = json!({"name": "enrolled", "columns": {"hostname": "web-1", "reestablished": reestablished}});
        ostiary_store::log_batches::insert_fact(&mut conn, node, &fact, stage.now())
            .await
            .unwrap();
    }
    drop(conn);
    stage.work().await;
    assert_eq!(
        found(&stage).await,
        ["identity_reestablished | web-1 | fact: ostiary/identity_reestablished | open | 1"]
    );
    stage.end().await;
}

#[tokio::test]
async fn a_config_that_is_not_taken_up_holds_until_it_is() {
    let stage = Stage::new().await;
    let (stale, fine) = (stage.node("web-1").await, stage.node("web-2").await);
    rule(&stage, "config_not_taken_up").await;
    let document = r#"{"options":{}}"#;
    let hash = format!("\\x{:x}", Sha256::digest(document));
    let running = config_hash(document.as_bytes());
    let at = stage.now().to_rfc3339();
    stage
        .test
        .execute(&format!(
            "INSERT INTO config_documents (hash, document, created_at) VALUES ('{hash}', '{document}', '{at}');
             INSERT INTO node_configs (node_id, document_hash, fetched_at) SELECT id, '{hash}', '{at}' FROM nodes;
             UPDATE nodes SET config_hash = 'another' WHERE id = '{stale}';
             UPDATE nodes SET config_hash = '{running}' WHERE id = '{fine}'"
        ))
        .await;
    step(&stage).await;
    assert!(found(&stage).await.is_empty(), "it has time");
    stage.clock.advance(seconds(4 * 3600));
    let at = stage.now().to_rfc3339();
    stage
        .test
        .execute(&format!(
            "UPDATE node_checkins SET last_seen_at = '{at}', results_at = '{at}'"
        ))
        .await;
    for _ in 0..2 {
        step(&stage).await;
    }
    let open = "config_not_taken_up | web-1 | fact: ostiary/config_not_taken_up | open | 1";
    assert_eq!(found(&stage).await, [open]);
    stage
        .test
        .execute(&format!("UPDATE nodes SET config_hash = '{running}'"))
        .await;
    step(&stage).await;
    assert_eq!(found(&stage).await, [open.replace("open", "resolved")]);
    stage.end().await;
}

#[tokio::test]
async fn each_query_that_is_denylisted_holds_until_it_is_no_longer() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    rule(&stage, "query_denylisted").await;
    let schedule = async |denylisted: &[&str]| {
        let rows: Vec<Value> = ["a", "b", "c"]
            .into_iter()
            .map(|name| json!({"name": name, "denylisted": if denylisted.contains(&name) { "1" } else { "0" }}))
            .collect();
        let line = snapshot(
            "pack/ostiary/osquery_schedule",
            stage.unix_now(),
            json!(rows),
        );
        stage.results(node, &[line]).await;
        stage.work().await;
        stage.clock.advance(seconds(60));
    };
    schedule(&["a", "b"]).await;
    schedule(&["a", "b"]).await;
    schedule(&["b"]).await;
    let of = |query, state| {
        format!(
            "query_denylisted | web-1 | fact: ostiary/query_denylisted, query: {query} | {state} | 1"
        )
    };
    assert_eq!(found(&stage).await, [of("a", "resolved"), of("b", "open")]);
    stage.end().await;
}

#[tokio::test]
async fn a_destination_and_a_sink_that_fail_hold_until_they_work_or_are_gone() {
    let stage = Stage::new().await;
    rule(&stage, "destination_failing").await;
    rule(&stage, "sink_failing").await;
    stage
        .test
        .execute(
            "INSERT INTO destinations (id, name, kind, settings_sealed, created_at, updated_at)
                 VALUES ('01900000-0000-7000-8000-000000000001', 'slack', 'slack', '', now(), now()),
                        ('01900000-0000-7000-8000-000000000002', 'pager', 'pagerduty', '', now(), now());
             INSERT INTO destination_circuits (destination_id, failures, failing_since, paused_until, last_answer)
                 SELECT id, 5, now(), now(), 'no answer in time' FROM destinations WHERE name IN ('slack', 'pager');
             INSERT INTO sinks (id, name, kind, settings_sealed, types, created_at, updated_at, due_at, enabled, attempts, last_error)
                 VALUES (gen_random_uuid(), 'siem', 'http', '', '{audit}', now(), now(), now() + interval '1 year', true, 5, 'refused')",
        )
        .await;
    for _ in 0..2 {
        step(&stage).await;
    }
    let destination = |name, state| {
        format!(
            "destination_failing | Ostiary | fact: ostiary/destination_failing, destination: {name} | {state} | 1"
        )
    };
    let sink = |state| {
        format!("sink_failing | Ostiary | fact: ostiary/sink_failing, sink: siem | {state} | 1")
    };
    let sorted = async || {
        let mut all = found(&stage).await;
        all.sort();
        all
    };
    assert_eq!(
        sorted().await,
        [
            destination("pager", "open"),
            destination("slack", "open"),
            sink("open")
        ]
    );
    // One works, one is deleted, one is mended.
    stage
        .test
        .execute(
            "DELETE FROM destination_circuits WHERE destination_id = '01900000-0000-7000-8000-000000000001';
             DELETE FROM destinations WHERE name = 'pager';
             UPDATE sinks SET attempts = 0, last_error = ''",
        )
        .await;
    step(&stage).await;
    assert_eq!(
        sorted().await,
        [
            destination("pager", "resolved"),
            destination("slack", "resolved"),
            sink("resolved")
        ]
    );
    stage.end().await;
}

#[tokio::test]
async fn lines_that_are_lost_are_a_fact_of_their_node() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    rule(&stage, "lines_lost").await;
    let mut conn = stage.test.db.acquire().await.unwrap();
    for lines in [3, 4] {
        nodes::add_lines_lost(&mut conn, node, lines, stage.now())
            .await
            .unwrap();
    }
    drop(conn);
    stage.work().await;
    assert_eq!(
        found(&stage).await,
        ["lines_lost | web-1 | fact: ostiary/lines_lost | open | 2"]
    );
    assert_eq!(
        stage
            .texts("SELECT columns ->> 'lines_in_all' FROM finding_matches ORDER BY id")
            .await,
        ["3", "7"]
    );
    stage.end().await;
}

#[tokio::test]
async fn what_people_do_is_a_fact_with_the_names_of_what_changed() {
    let stage = Stage::new().await;
    let conditions = json!({"condition": "AND", "rules": [
        {"field": "query_name", "operator": "equal", "value": "ostiary/audit"},
        {"field": "column", "operator": "column_equal", "value": ["action", "rules.update"]},
        {"field": "column", "operator": "column_contains", "value": ["changed", "enabled"]},
    ]});
    stage.rule("a rule is switched", &conditions, "").await;
    let mut conn = stage.test.db.acquire().await.unwrap();
    for (subject, before, after) in [
        (
            "1",
            json!({"enabled": true, "name": "x"}),
            json!({"enabled": false, "name": "x"}),
        ),
        (
            "2",
            json!({"enabled": true, "name": "x"}),
            json!({"enabled": true, "name": "y"}),
        ),
    ] {
        let entry = audit::NewEntry {
            user_name: "ada",
            action: "rules.update",
            subject_kind: "rule",
            subject_id: subject.to_owned(),
            subject_name: "New port",
            before: Some(before),
            after: Some(after),
            ..Default::default()
        };
        audit::insert(&mut conn, &entry, stage.now()).await.unwrap();
    }
    drop(conn);
    stage.work().await;
    assert_eq!(
        found(&stage).await,
        [
            "a rule is switched | Ostiary | fact: ostiary/audit, action: rules.update, subject_kind: rule, subject_id: 1 | open | 1"
        ]
    );
    stage.end().await;
}
