//! Who is told: what a rule names, and what a destination wants.

use serde_json::json;

use crate::support::{Stage, line, when};

#[tokio::test]
async fn a_destination_is_told_of_what_is_severe_enough_on_the_nodes_that_it_wants() {
    let stage = Stage::new().await;
    let (tagged, bare) = (stage.node("db-1").await, stage.node("web-1").await);
    stage
        .rule("odd port", &when("pack/net/ports", "port", "4444"), "")
        .await;
    let mut sql = format!(
        "INSERT INTO tags (id, name, created_at) VALUES (gen_random_uuid(), 'prod', now());
         INSERT INTO node_tags (node_id, tag_id) SELECT '{tagged}', id FROM tags;"
    );
    // The rule is of severity high, and names `mail for odd port` alone.
    for (name, severity, target, takes_all, enabled) in [
        ("all of prod", "high", "prod", true, true),
        ("all but prod", "info", "not prod", true, true),
        ("critical only", "critical", "", true, true),
        ("named by none", "info", "", false, true),
        ("switched off", "info", "", true, false),
    ] {
        sql += &format!(
            "INSERT INTO destinations (id, name, kind, settings_sealed, min_severity, target, takes_all, enabled, created_at, updated_at)
             VALUES (gen_random_uuid(), '{name}', 'email', '', '{severity}', '{target}', {takes_all}, {enabled}, now(), now());"
        );
    }
    stage.test.execute(&sql).await;
    let t = stage.unix_now() - 600;
    for node in [tagged, bare] {
        for (counter, port) in [(0, "22"), (1, "4444")] {
            let row = json!({"port": port});
            let lines = [line("pack/net/ports", "added", counter, t, row)];
            stage.results(node, &lines).await;
        }
    }
    stage.work().await;
    assert_eq!(
        stage
            .texts(
                "SELECT node_name || ': ' || string_agg(destination_name, ', ' ORDER BY destination_name)
                 FROM deliveries JOIN findings f ON f.id = finding_id GROUP BY node_name ORDER BY 1"
            )
            .await,
        [
            "db-1: all of prod, mail for odd port, switched off",
            "web-1: all but prod, mail for odd port, switched off",
        ]
    );
    assert_eq!(
        stage
            .texts("SELECT DISTINCT state FROM deliveries WHERE destination_name = 'switched off'")
            .await,
        ["skipped"]
    );
    stage.end().await;
}
