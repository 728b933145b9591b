//! Of what nobody is told alone: silenced findings, and those that a storm takes in.

use ostiary_domain::ids::NodeId;
use ostiary_outputs::Alert;
use serde_json::json;

use crate::support::{Stage, line, seconds, when};

async fn silence(stage: &Stage, what: &str, until: i64) {
    stage
        .test
        .execute(&format!(
            "INSERT INTO silences (id, {what}, reason, ends_at, created_at, created_by_name)
             SELECT gen_random_uuid(), {}, 'a migration', to_timestamp({until}), now(), 'ann'",
            match what {
                "rule_id" => "(SELECT id FROM rules)",
                "node_id" => "(SELECT id FROM nodes WHERE hostname = 'node-0')",
                _ => "'platform:linux'",
            }
        ))
        .await;
}

/// Nodes with a first set of ports, so that further ones are drift.
async fn nodes(stage: &Stage, count: usize) -> Vec<NodeId> {
    let mut nodes = Vec::new();
    for number in 0..count {
        let node = stage.node(&format!("node-{number}")).await;
        let t = stage.unix_now() - 600;
        let first = line("pack/net/ports", "added", 0, t, json!({"port": "22"}));
        stage.results(node, &[first]).await;
        nodes.push(node);
    }
    stage.work().await;
    nodes
}

async fn drift(stage: &Stage, node: NodeId, counter: u64, columns: serde_json::Value) {
    let t = stage.unix_now();
    let row = line("pack/net/ports", "added", counter, t, columns);
    stage.results(node, &[row]).await;
    stage.work().await;
}

fn odd() -> serde_json::Value {
    when("pack/net/ports", "port", "4444")
}

async fn entries(stage: &Stage) -> Vec<String> {
    stage
        .texts("SELECT concat_ws('|', kind, user_name, text, nullif(match_count, 0)) FROM finding_entries ORDER BY id")
        .await
}

#[tokio::test]
async fn what_is_silenced_opens_all_the_same_and_is_told_when_it_matches_after_the_silence() {
    for what in ["rule_id", "node_id", "target"] {
        let stage = Stage::new().await;
        stage.rule("odd port", &odd(), "").await;
        let nodes = nodes(&stage, 1).await;
        silence(&stage, what, stage.unix_now() + 60).await;
        drift(&stage, nodes[0], 1, json!({"port": "4444"})).await;
        assert_eq!(
            stage.count("findings WHERE silence_id IS NOT NULL").await,
            1
        );
        assert_eq!(stage.count("alerts").await, 0, "{what}");
        assert_eq!(
            entries(&stage).await,
            ["opened||", "silenced|ann|a migration"],
            "{what}"
        );
        stage.clock.advance(seconds(120));
        let gone = line(
            "pack/net/ports",
            "removed",
            2,
            stage.unix_now(),
            json!({"port": "4444"}),
        );
        stage.results(nodes[0], &[gone]).await;
        stage.work().await;
        assert_eq!(
            stage.count("alerts WHERE kind = 'opened'").await,
            1,
            "{what}"
        );
        assert_eq!(
            stage
                .texts("SELECT state || ' ' || match_count FROM findings WHERE silence_id IS NULL")
                .await,
            ["open 2"]
        );
        assert_eq!(
            entries(&stage).await[2..],
            ["matched|||1", "unsilenced||", "told||opened"],
            "{what}"
        );
        stage.end().await;
    }
}

#[tokio::test]
async fn a_silence_about_something_else_silences_nothing() {
    let stage = Stage::new().await;
    stage.rule("odd port", &odd(), "").await;
    let nodes = nodes(&stage, 2).await;
    silence(&stage, "node_id", stage.unix_now() + 60).await;
    drift(&stage, nodes[1], 1, json!({"port": "4444"})).await;
    assert_eq!(stage.count("alerts").await, 1);
    stage.end().await;
}

#[tokio::test]
async fn a_storm_is_told_once_and_what_is_rare_in_it_alone() {
    let stage = Stage::new().await;
    stage
        .rule("odd port", &odd(), "entity_columns='{port,path}'")
        .await;
    let nodes = nodes(&stage, 14).await;
    for node in &nodes[..12] {
        drift(
            &stage,
            *node,
            1,
            json!({"port": "4444", "path": "/usr/bin/nc"}),
        )
        .await;
    }
    // Nine are told alone; with the tenth it is a storm, which takes in all of them.
    assert_eq!(
        stage
            .texts(
                "SELECT concat_ws(' ', on_fleet, state, match_count) FROM findings WHERE on_fleet"
            )
            .await,
        ["t open 12"]
    );
    assert_eq!(
        stage
            .count("findings WHERE fleet_finding_id IS NOT NULL")
            .await,
        12
    );
    assert_eq!(stage.count("alerts").await, 10);
    let body = stage
        .texts(
            "SELECT body::text FROM alerts a JOIN findings f ON f.id = finding_id WHERE on_fleet",
        )
        .await;
    let alert: Alert = serde_json::from_str(&body[0]).unwrap();
    assert_eq!(
        (alert.node.name.as_str(), alert.entity.as_str()),
        ("10 nodes", "10 nodes at once")
    );
    let named = alert.columns["nodes"].as_str().unwrap();
    assert!(named.starts_with("node-0, node-1, "), "{named}");
    assert_eq!(
        alert.columns["found"],
        json!("port: 4444, path: /usr/bin/nc (10)")
    );
    assert_eq!(alert.columns["sample.path"], json!("/usr/bin/nc"));

    // Something that only one node has is told alone, after a while in which others might have had it, too.
    drift(
        &stage,
        nodes[12],
        1,
        json!({"port": "4444", "path": "/tmp/x"}),
    )
    .await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(stage.count("alerts").await, 10);
    stage.clock.advance(seconds(61));
    for _ in 0..2 {
        stage.app.keep_up().await.unwrap();
    }
    assert_eq!(stage.count("alerts").await, 11);
    assert_eq!(
        stage
            .texts("SELECT node_name FROM findings WHERE stands_out_at IS NOT NULL")
            .await,
        ["node-12"]
    );

    // When nothing more opens it is over; the next one is told alone.
    stage.clock.advance(seconds(601));
    stage.app.keep_up().await.unwrap();
    assert_eq!(stage.count("storms").await, 0);
    drift(
        &stage,
        nodes[13],
        1,
        json!({"port": "4444", "path": "/usr/bin/nc"}),
    )
    .await;
    assert_eq!(stage.count("alerts").await, 12);
    assert_eq!(
        stage
            .texts(
                "SELECT kind FROM finding_entries WHERE kind IN ('calm', 'stood_out') ORDER BY id"
            )
            .await,
        ["stood_out", "calm"]
    );
    stage.end().await;
}

#[tokio::test]
async fn workers_that_open_at_the_same_time_begin_one_storm() {
    let stage = Stage::new().await;
    stage.rule("odd port", &odd(), "").await;
    let nodes = nodes(&stage, 40).await;
    let t = stage.unix_now();
    for node in &nodes {
        let row = line("pack/net/ports", "added", 1, t, json!({"port": "4444"}));
        stage.results(*node, &[row]).await;
    }
    let other = stage.another_worker();
    let (one, two) = tokio::join!(stage.app.run_until_idle(), other.run_until_idle());
    one.unwrap();
    two.unwrap();
    assert_eq!(stage.count("findings WHERE NOT on_fleet").await, 40);
    assert_eq!(stage.count("findings WHERE on_fleet").await, 1);
    assert_eq!(
        stage
            .texts("SELECT match_count::text FROM findings WHERE on_fleet")
            .await,
        ["40"]
    );
    // Nine alone, one for all.
    assert_eq!(stage.count("alerts").await, 10);
    stage.end().await;
}

#[tokio::test]
async fn findings_are_forgotten_when_they_were_resolved_long_ago() {
    let stage = Stage::new().await;
    stage.rule("odd port", &odd(), "").await;
    let nodes = nodes(&stage, 3).await;
    for node in &nodes {
        drift(&stage, *node, 1, json!({"port": "4444"})).await;
    }
    let now = stage.now().to_rfc3339();
    stage
        .test
        .execute(&format!(
            "UPDATE findings SET opened_at = '{now}'::timestamptz - interval '3 years';
             UPDATE findings SET state = 'resolved', resolved_at = '{now}'::timestamptz - interval '366 days' WHERE node_name = 'node-0';
             UPDATE findings SET state = 'resolved', resolved_at = '{now}'::timestamptz - interval '364 days' WHERE node_name = 'node-1'"
        ))
        .await;
    stage.app.keep_up().await.unwrap();
    assert_eq!(
        stage
            .texts("SELECT node_name || ' ' || state FROM findings ORDER BY 1")
            .await,
        ["node-1 resolved", "node-2 open"]
    );
    assert_eq!(stage.count("alerts").await, 2);
    stage.end().await;
}

#[tokio::test]
async fn a_match_keeps_the_row_that_went_by_the_same_change() {
    let stage = Stage::new().await;
    stage
        .rule("odd port", &odd(), "entity_columns='{port}'")
        .await;
    let node = stage.node("web-1").await;
    let t = stage.unix_now() - 600;
    let old = json!({"port": "4444", "path": "/usr/bin/nc"});
    let new = json!({"port": "4444", "path": "/tmp/nc"});
    let row = |action, counter, columns: &serde_json::Value| {
        line("pack/net/ports", action, counter, t + 60, columns.clone())
    };
    stage.results(node, &[row("added", 0, &old)]).await;
    stage.work().await;
    stage
        .results(node, &[row("removed", 1, &old), row("added", 1, &new)])
        .await;
    stage.work().await;
    assert_eq!(
        stage
            .texts("SELECT concat_ws('|', action, columns ->> 'path', counterpart ->> 'path') FROM finding_matches ORDER BY id")
            .await,
        ["removed|/usr/bin/nc|/tmp/nc", "added|/tmp/nc|/usr/bin/nc"]
    );
    stage.end().await;
}
