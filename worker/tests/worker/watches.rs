//! What rules wait for: rows that hold, rows that are missing, counts and rarity.

use ostiary_domain::ids::NodeId;
use serde_json::{Value, json};

use crate::support::{Stage, line, seconds, snapshot, when};

async fn findings(stage: &Stage) -> Vec<String> {
    stage
        .texts("SELECT concat_ws('|', rule_name, node_name, entity, state, match_count) FROM findings ORDER BY opened_at, id")
        .await
}

fn any_row(query: &str) -> Value {
    json!({"condition": "AND", "rules": [{"field": "query_name", "operator": "equal", "value": query}]})
}

/// A first set, so that what follows is drift.
async fn begin(stage: &Stage, node: NodeId, query: &str, columns: Value) -> i64 {
    let t = stage.unix_now() - 600;
    stage
        .results(node, &[line(query, "added", 0, t, columns)])
        .await;
    stage.work().await;
    t
}

#[tokio::test]
async fn a_finding_on_present_rows_resolves_itself_when_its_row_goes_and_says_why() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .rule("off", &when("alf", "state", "0"), "watch='present'")
        .await;
    let t = begin(&stage, node, "alf", json!({"state": "1"})).await;
    let change = |action, counter, state: &str| {
        line("alf", action, counter, t + 60, json!({"state": state}))
    };
    stage
        .results(node, &[change("removed", 1, "1"), change("added", 1, "0")])
        .await;
    stage.work().await;
    assert_eq!(findings(&stage).await, ["off|web-1|state: 0|open|1"]);

    stage
        .results(node, &[change("removed", 2, "0"), change("added", 2, "1")])
        .await;
    stage.work().await;
    assert_eq!(findings(&stage).await, ["off|web-1|state: 0|resolved|1"]);
    assert_eq!(
        stage
            .texts("SELECT text FROM finding_entries WHERE kind = 'resolved'")
            .await,
        ["the row is gone from alf"]
    );

    // What comes and goes in one post opens nothing that stays, and what goes and comes again is not over.
    stage
        .results(
            node,
            &[
                change("added", 3, "0"),
                change("removed", 4, "0"),
                change("added", 5, "0"),
            ],
        )
        .await;
    stage.work().await;
    assert_eq!(findings(&stage).await[1..], ["off|web-1|state: 0|open|2"]);
    stage.end().await;
}

#[tokio::test]
async fn another_row_of_the_same_entity_keeps_a_finding_open() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .rule(
            "listens",
            &any_row("ports"),
            "watch='present', entity_columns='{port}'",
        )
        .await;
    let t = begin(&stage, node, "ports", json!({"port": "22", "address": "x"})).await;
    let row = |action, counter, address: &str| {
        line(
            "ports",
            action,
            counter,
            t + 60,
            json!({"port": "4444", "address": address}),
        )
    };
    stage
        .results(node, &[row("added", 1, "a"), row("added", 1, "b")])
        .await;
    stage.results(node, &[row("removed", 2, "a")]).await;
    stage.work().await;
    assert_eq!(findings(&stage).await, ["listens|web-1|port: 4444|open|2"]);
    stage.results(node, &[row("removed", 3, "b")]).await;
    stage.work().await;
    assert_eq!(
        findings(&stage).await,
        ["listens|web-1|port: 4444|resolved|2"]
    );
    stage.end().await;
}

#[tokio::test]
async fn a_set_without_a_row_that_matches_opens_and_one_with_such_a_row_resolves() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .rule("no edr", &when("procs", "name", "edr"), "watch='absence'")
        .await;
    let t = stage.unix_now() - 600;
    let set = |at, names: &[&str]| {
        let rows: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        snapshot("procs", t + at, json!(rows))
    };
    stage.results(node, &[set(0, &["edr", "sh"])]).await;
    stage.work().await;
    assert!(findings(&stage).await.is_empty());
    stage.results(node, &[set(60, &["sh"])]).await;
    stage.work().await;
    let open = "no edr|web-1|no row of: procs|open|1";
    assert_eq!(findings(&stage).await, [open]);
    stage.results(node, &[set(120, &["sh"])]).await;
    stage.work().await;
    assert_eq!(findings(&stage).await, [open], "as before is no news");
    stage.results(node, &[set(180, &["sh", "edr"])]).await;
    stage.work().await;
    assert_eq!(
        findings(&stage).await,
        ["no edr|web-1|no row of: procs|resolved|1"]
    );
    stage.end().await;
}

#[tokio::test]
async fn so_many_times_within_a_span_open_one_finding_also_over_several_posts() {
    let stage = Stage::new().await;
    let node = stage.node("web-1").await;
    stage
        .rule(
            "guesses",
            &any_row("logins"),
            "watch='times', watch_count=3, watch_seconds=60, entity_columns='{user}'",
        )
        .await;
    let t = begin(&stage, node, "logins", json!({"user": "nobody"})).await;
    let login = |counter: u64, at: i64, user: &str| {
        let columns = json!({"user": user, "n": counter});
        line("logins", "added", counter, t + at, columns)
    };
    stage
        .results(node, &[login(1, 10, "eve"), login(2, 20, "bob")])
        .await;
    stage.work().await;
    stage.results(node, &[login(3, 30, "eve")]).await;
    stage.work().await;
    // The third of eve's is too late for the first, but not for the second and the fourth.
    stage.results(node, &[login(4, 80, "eve")]).await;
    stage.work().await;
    assert!(findings(&stage).await.is_empty());
    stage.results(node, &[login(5, 85, "eve")]).await;
    stage.work().await;
    assert_eq!(findings(&stage).await, ["guesses|web-1|user: eve|open|1"]);
    stage.end().await;
}

#[tokio::test]
async fn so_many_nodes_within_a_span_open_one_finding_of_the_fleet_with_their_rows() {
    let stage = Stage::new().await;
    stage
        .rule(
            "spreads",
            &any_row("items"),
            "watch='nodes', watch_count=3, watch_seconds=600, entity_columns='{path}'",
        )
        .await;
    for (index, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let node = stage.node(name).await;
        let t = begin(&stage, node, "items", json!({"path": "/old"})).await;
        stage
            .results(
                node,
                &[line("items", "added", 1, t + 30, json!({"path": "/tmp/x"}))],
            )
            .await;
        stage.work().await;
        let expected: &[&str] = match index {
            0 | 1 => &[],
            2 => &["spreads|The fleet|path: /tmp/x|open|1"],
            _ => &["spreads|The fleet|path: /tmp/x|open|2"],
        };
        assert_eq!(findings(&stage).await, expected, "{name}");
    }
    assert_eq!(
        stage
            .texts("SELECT columns->>'node' FROM finding_matches ORDER BY id")
            .await,
        ["c", "d"]
    );
    stage.end().await;
}

#[tokio::test]
async fn rare_values_open_and_common_ones_do_not_whatever_a_baseline_brought() {
    let stage = Stage::new().await;
    stage
        .rule(
            "rare",
            &any_row("exts"),
            "watch='rare', watch_count=1, entity_columns='{id}'",
        )
        .await;
    stage
        .rule(
            "first",
            &any_row("exts"),
            "watch='first_seen', entity_columns='{id}'",
        )
        .await;
    let (a, b, c) = (
        stage.node("a").await,
        stage.node("b").await,
        stage.node("c").await,
    );
    for node in [a, b] {
        begin(&stage, node, "exts", json!({"id": "common"})).await;
    }
    let t = begin(&stage, c, "exts", json!({"id": "mine"})).await;
    assert!(
        findings(&stage).await.is_empty(),
        "baselines are only learned"
    );
    let ext = |action, counter, id: &str| line("exts", action, counter, t + 60, json!({"id": id}));
    stage
        .results(c, &[ext("added", 1, "common"), ext("added", 1, "odd")])
        .await;
    stage.work().await;
    let mut both = findings(&stage).await;
    both.sort_unstable();
    assert_eq!(both, ["first|c|id: odd|open|1", "rare|c|id: odd|open|1"]);
    // On a second node it is neither new nor rare; when it goes from there it is rare once more, but never new again.
    let on_b = |action, counter| line("exts", action, counter, t + 70, json!({"id": "odd"}));
    stage.results(b, &[on_b("added", 1)]).await;
    stage.work().await;
    assert_eq!(findings(&stage).await.len(), 2);
    stage.results(c, &[ext("removed", 2, "odd")]).await;
    stage.results(b, &[on_b("removed", 2)]).await;
    stage.results(b, &[on_b("added", 3)]).await;
    stage.work().await;
    let all = findings(&stage).await;
    assert_eq!(all[2..], ["rare|b|id: odd|open|1"]);
    stage.end().await;
}

#[tokio::test]
async fn a_new_rule_learns_what_is_present_before_it_opens_anything() {
    let stage = Stage::new().await;
    let node = stage.node("a").await;
    let t = begin(&stage, node, "exts", json!({"id": "old"})).await;
    stage
        .rule(
            "first",
            &any_row("exts"),
            "watch='first_seen', to_study=true, entity_columns='{id}'",
        )
        .await;
    stage
        .rule(
            "off",
            &when("exts", "id", "old"),
            "watch='present', to_study=true, on_baseline=true",
        )
        .await;
    let other = stage.node("b").await;
    begin(&stage, other, "exts", json!({"id": "x"})).await;
    stage
        .results(
            other,
            &[line("exts", "added", 1, t + 60, json!({"id": "too early"}))],
        )
        .await;
    stage.work().await;
    assert!(findings(&stage).await.is_empty());

    stage.app.study_rules().await.unwrap();
    assert_eq!(stage.count("rules WHERE to_study").await, 0);
    assert_eq!(findings(&stage).await, ["off|a|id: old|open|1"]);
    let news =
        ["old", "too early", "new"].map(|id| line("exts", "added", 2, t + 90, json!({"id": id})));
    stage.results(other, &news).await;
    stage.work().await;
    assert_eq!(
        stage
            .texts("SELECT entity FROM findings WHERE rule_name = 'first'")
            .await,
        ["id: new"]
    );
    stage.end().await;
}

#[tokio::test]
async fn counts_are_exact_when_workers_bring_their_nodes_at_the_same_time() {
    let stage = Stage::new().await;
    stage
        .rule(
            "spreads",
            &any_row("items"),
            "watch='nodes', watch_count=8, watch_seconds=600, entity_columns='{path}'",
        )
        .await;
    stage
        .rule(
            "first",
            &any_row("items"),
            "watch='first_seen', entity_columns='{path}'",
        )
        .await;
    let mut nodes = Vec::new();
    for index in 0..8 {
        let node = stage.node(&format!("n{index}")).await;
        begin(&stage, node, "items", json!({"path": "/old"})).await;
        nodes.push(node);
    }
    let t = stage.unix_now() - 300;
    for node in &nodes {
        stage
            .results(
                *node,
                &[line("items", "added", 1, t, json!({"path": "/tmp/x"}))],
            )
            .await;
    }
    let others = [
        stage.another_worker(),
        stage.another_worker(),
        stage.another_worker(),
    ];
    let (one, two, three, four) = tokio::join!(
        stage.app.run_until_idle(),
        others[0].run_until_idle(),
        others[1].run_until_idle(),
        others[2].run_until_idle(),
    );
    for result in [one, two, three, four] {
        result.unwrap();
    }
    stage.work().await;
    assert_eq!(stage.count("findings WHERE rule_name = 'spreads'").await, 1);
    assert_eq!(stage.count("findings WHERE rule_name = 'first'").await, 1);
    for other in others {
        other.db.close().await;
    }
    stage.clock.advance(seconds(1));
    stage.end().await;
}
