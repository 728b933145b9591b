//! Facts that rules can match: enrolled, offline, silent.

use ostiary_store::certificates::{self, ChainRole};
use serde_json::json;

use crate::support::{Stage, seconds, snapshot};

fn on_fact(name: &str) -> serde_json::Value {
    json!({"condition": "AND", "rules": [
        {"field": "query_name", "operator": "equal", "value": name},
        {"field": "action", "operator": "equal", "value": "triggered"},
    ]})
}

async fn opened(stage: &Stage) -> Vec<String> {
    stage.texts("SELECT rule_name || ' ' || node_name || ' ' || match_count FROM findings ORDER BY rule_name").await
}

#[tokio::test]
async fn an_enrollment_is_a_fact_under_our_name_and_doormans() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage.rule("ours", &on_fact("ostiary/enrolled"), "").await;
    stage
        .rule("theirs", &on_fact("doorman/tasks/node_enrolled"), "")
        .await;
    let mut conn = stage.test.db.acquire().await.unwrap();
    let fact = json!({"name": "enrolled", "columns": {"secret": "laptops"}});
    ostiary_store::log_batches::insert_fact(&mut conn, node, &fact, stage.now())
        .await
        .unwrap();
    ostiary_store::log_batches::insert_fact(&mut conn, node, &json!({"odd": 1}), stage.now())
        .await
        .unwrap();
    drop(conn);
    stage.work().await;
    assert_eq!(opened(&stage).await, ["ours web-1 1", "theirs web-1 1"]);
    assert_eq!(
        stage.texts("SELECT reason FROM unreadable").await,
        ["a fact without a name"]
    );
    stage.end().await;
}

#[tokio::test]
async fn an_offline_node_is_noted_once_until_it_is_back() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    let disabled = stage.node("web-2").await;
    stage
        .test
        .execute(&format!(
            "UPDATE nodes SET disabled_at = now() WHERE id = '{disabled}'"
        ))
        .await;
    stage.rule("offline", &on_fact("ostiary/offline"), "").await;
    stage.app.keep_up().await.unwrap();
    stage.work().await;
    assert!(opened(&stage).await.is_empty());
    stage.clock.advance(seconds(16 * 60));
    for _ in 0..3 {
        stage.app.keep_up().await.unwrap();
        stage.work().await;
    }
    assert_eq!(opened(&stage).await, ["offline web-1 1"]);
    assert_eq!(
        stage
            .texts("SELECT columns ->> 'since_last_checkin_days' FROM finding_matches")
            .await,
        ["0"]
    );
    // Back, and gone again: the same matter.
    let at = stage.now();
    stage
        .test
        .execute(&format!(
            "UPDATE node_checkins SET last_seen_at = '{at}' WHERE node_id = '{node}'"
        ))
        .await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(
        stage
            .count("nodes WHERE offline_noted_at IS NOT NULL")
            .await,
        0
    );
    stage.clock.advance(seconds(16 * 60));
    stage.app.keep_up().await.unwrap();
    stage.work().await;
    assert_eq!(opened(&stage).await, ["offline web-1 2"]);
    stage.end().await;
}

#[tokio::test]
async fn a_node_that_checks_in_without_results_is_silent_until_a_snapshot_comes() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage.rule("silent", &on_fact("ostiary/silent"), "").await;
    stage.clock.advance(seconds(121 * 60));
    let at = stage.now();
    stage
        .test
        .execute(&format!("UPDATE node_checkins SET last_seen_at = '{at}'"))
        .await;
    for _ in 0..2 {
        stage.app.keep_up().await.unwrap();
        stage.work().await;
    }
    assert_eq!(opened(&stage).await, ["silent web-1 1"]);
    stage
        .results(
            node,
            &[snapshot(
                "pack/ostiary/uptime",
                stage.unix_now(),
                json!([{"days": "1"}]),
            )],
        )
        .await;
    stage.work().await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(
        stage.count("nodes WHERE silent_noted_at IS NOT NULL").await,
        0
    );
    stage.end().await;
}

#[tokio::test]
async fn after_a_restore_a_node_has_its_time_anew_before_it_counts_as_quiet() {
    let stage = Stage::new().await;
    stage.node("web-1").await;
    stage.rule("offline", &on_fact("ostiary/offline"), "").await;
    // The backup is a day old: nobody was heard of since, as far as it knows.
    stage.clock.advance(seconds(86_400));
    let at = stage.now();
    stage
        .test
        .execute(&format!(
            "INSERT INTO restores (id, restored_at, backup_made_at, schedule_epoch) \
             VALUES (gen_random_uuid(), '{at}', '{at}'::timestamptz - interval '1 day', 7)"
        ))
        .await;
    stage.app.keep_up().await.unwrap();
    stage.work().await;
    assert!(opened(&stage).await.is_empty());
    stage.clock.advance(seconds(16 * 60));
    stage.app.keep_up().await.unwrap();
    stage.work().await;
    assert_eq!(opened(&stage).await, ["offline web-1 1"]);
    stage.end().await;
}

/// A certificate that ends on the day after so many days.
fn ending_in(days: i64, stage: &Stage) -> String {
    use chrono::Datelike as _;
    let end = (stage.now() + chrono::TimeDelta::days(days + 1)).date_naive();
    let mut params = rcgen::CertificateParams::new(vec!["fleet.example.com".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(
        end.year(),
        u8::try_from(end.month()).unwrap(),
        u8::try_from(end.day()).unwrap(),
    );
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

#[tokio::test]
async fn the_end_of_a_certificate_is_told_once_at_each_number_of_days() {
    let stage = Stage::new().await;
    stage
        .rule(
            "certificates",
            &on_fact("ostiary/certificate_expiring"),
            "entity_columns='{role}'",
        )
        .await;
    let (soon, fine) = (ending_in(20, &stage), ending_in(400, &stage));
    let serve = async || {
        let mut conn = stage.test.db.acquire().await.unwrap();
        for (role, id, pem) in [(ChainRole::Api, 1, &soon), (ChainRole::Ca, 2, &fine)] {
            certificates::put_served(&mut conn, role, &[id; 32], pem, stage.now())
                .await
                .unwrap();
        }
    };
    for _ in 0..3 {
        serve().await;
        stage.app.keep_up().await.unwrap();
        stage.work().await;
    }
    assert_eq!(opened(&stage).await, ["certificates Ostiary 1"]);
    stage.clock.advance(seconds(15 * 86_400));
    for _ in 0..2 {
        serve().await;
        stage.app.keep_up().await.unwrap();
        stage.work().await;
    }
    assert_eq!(opened(&stage).await, ["certificates Ostiary 2"]);
    let days = "SELECT columns ->> 'role' || ' ' || (columns ->> 'days_left') FROM finding_matches ORDER BY id";
    assert_eq!(stage.texts(days).await.len(), 2);
    stage.end().await;
}

#[tokio::test]
async fn a_certificate_that_is_renewed_resolves_its_finding() {
    let stage = Stage::new().await;
    stage
        .rule(
            "certificates",
            &on_fact("ostiary/certificate_expiring"),
            "watch='present'",
        )
        .await;
    let (soon, renewed) = (ending_in(20, &stage), ending_in(400, &stage));
    for (id, pem) in [(1, &soon), (2, &renewed)] {
        let mut conn = stage.test.db.acquire().await.unwrap();
        certificates::put_served(&mut conn, ChainRole::Api, &[id; 32], pem, stage.now())
            .await
            .unwrap();
        drop(conn);
        stage.app.keep_up().await.unwrap();
        stage.work().await;
        let states = stage.texts("SELECT state FROM findings").await;
        assert_eq!(states, ["open"], "while both are served");
    }
    // The old one is served no more.
    stage.clock.advance(seconds(3600));
    let mut conn = stage.test.db.acquire().await.unwrap();
    certificates::put_served(&mut conn, ChainRole::Api, &[2; 32], &renewed, stage.now())
        .await
        .unwrap();
    drop(conn);
    stage.app.keep_up().await.unwrap();
    stage.work().await;
    assert_eq!(
        stage.texts("SELECT state FROM findings").await,
        ["resolved"]
    );
    stage.end().await;
}
