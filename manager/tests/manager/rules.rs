//! Rules: the dry run, revisions, the starter set, REST.

use axum::http::StatusCode;
use chrono::TimeDelta;
use ostiary_boot::clock::{Clock as _, new_id};
use ostiary_domain::ids::NodeId;
use ostiary_domain::log::{Receipt, decode, split_lines};
use ostiary_domain::osquery::LogType;
use ostiary_store::events::{self, NewEvent};
use ostiary_store::query_names;
use serde_json::{Value, json};

use crate::world::World;

/// Stores drift of a query on a node, as the worker does.
async fn stored(world: &World, node: NodeId, query: &str, rows: &[Value]) {
    let now = world.clock.now();
    let lines: Vec<Value> = rows
        .iter()
        .map(|columns| {
            json!({"name": query, "hostIdentifier": "h", "calendarTime": "", "unixTime": now.timestamp() - 60, "epoch": 0,
                "counter": 3, "numerics": false, "action": "added", "columns": columns})
        })
        .collect();
    let text = serde_json::to_string(&lines).unwrap();
    let receipt = Receipt {
        received_at: now - TimeDelta::minutes(1),
        version: "5.23.0".parse().ok(),
        unescape: true,
    };
    let post = decode(LogType::Result, split_lines(&text), &receipt);
    let mut conn = world.test_db.db.acquire().await.unwrap();
    let ids = query_names::insert(&mut conn, &[(query, node)], now)
        .await
        .unwrap();
    let id = match ids.get(query) {
        Some(id) => *id,
        None => query_names::find(&mut conn, &[query]).await.unwrap()[query],
    };
    let new: Vec<NewEvent<'_>> = post
        .executions
        .iter()
        .map(|execution| NewEvent {
            node_id: node,
            query_name_id: id,
            batch_id: 1,
            received_at: receipt.received_at,
            execution,
            baseline: false,
            late: false,
        })
        .collect();
    events::insert(&mut conn, &new).await.unwrap();
}

async fn node(world: &World, name: &str) -> NodeId {
    let id = NodeId(new_id());
    world
        .test_db
        .execute(&format!(
            "INSERT INTO nodes (id, host_identifier, hostname, platform, enrolled_at, first_enrolled_at)
             VALUES ('{id}', '{name}', '{name}', 'linux', now(), now())"
        ))
        .await;
    id
}

fn rule(name: &str, watch: &str) -> Value {
    json!({"name": name, "severity": "high", "watch": watch, "entity_columns": ["port"],
        "conditions": {"condition": "AND", "rules": [
            {"field": "query_name", "operator": "equal", "value": "ports"},
            {"field": "column", "operator": "column_greater", "value": ["port", 1024]}]}})
}

#[tokio::test]
async fn a_dry_run_says_what_a_rule_would_have_opened_and_saves_nothing() {
    let world = World::new().await;
    world.user("ann", "editor").await;
    let token = world.token("ann").await;
    let (one, two) = (node(&world, "web-1").await, node(&world, "web-2").await);
    let ports = |ports: &[u32]| -> Vec<Value> {
        ports
            .iter()
            .map(|port| json!({"port": port.to_string()}))
            .collect()
    };
    stored(&world, one, "ports", &ports(&[22, 4444, 4444, 8080])).await;
    stored(&world, two, "ports", &ports(&[4444, 80])).await;
    stored(&world, two, "other", &ports(&[9999])).await;

    let asked = json!({"rule": rule("", "drift"), "days": 3});
    let answer = world
        .post_json("/api/v1/rules/dry-run", &token, &asked)
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let trial = answer.json();
    assert_eq!(
        (
            &trial["findings"],
            &trial["nodes"],
            &trial["matches"],
            &trial["rows"]
        ),
        (&json!(3), &json!(2), &json!(4), &json!(6)),
        "{trial}"
    );
    assert_eq!(trial["by_node"][0]["name"], "web-1");
    assert_eq!(trial["cut_off_at"], Value::Null);
    let entities: Vec<&str> = trial["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["entity"].as_str().unwrap())
        .collect();
    assert!(entities.contains(&"port: 8080"), "{entities:?}");

    let mut rare = rule("", "rare");
    rare["watch_count"] = json!(1);
    let answer = world
        .post_json("/api/v1/rules/dry-run", &token, &json!({"rule": rare}))
        .await;
    assert_eq!(
        answer.json()["findings"],
        2,
        "of 4444 only the first node's: {}",
        answer.body
    );

    for table in [
        "rules",
        "findings",
        "audit_entries WHERE action LIKE 'rules%'",
    ] {
        let sql = format!("SELECT count(*)::text FROM {table}");
        assert_eq!(world.test_db.texts(&sql).await, ["0"], "{table}");
    }
    world.end().await;
}

#[tokio::test]
async fn the_form_tries_a_rule_and_keeps_what_was_typed() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    browser.get("/rules/new").await;
    let web = node(&world, "web-1").await;
    stored(&world, web, "ports", &[json!({"port": "4444"})]).await;
    let conditions = rule("", "drift")["conditions"].to_string();
    let fields = |days| {
        [
            ("name", "unsaved name"),
            ("severity", "high"),
            ("conditions", conditions.as_str()),
            ("max_age_seconds", "60"),
            ("watch", "drift"),
            ("days", days),
        ]
    };
    let shown = browser.post("/rules/dry-run", &fields("7")).await;
    assert_eq!(shown.status, StatusCode::OK, "{}", shown.body);
    assert!(
        shown.body.contains("<b>1</b> finding on <b>1</b> node"),
        "{}",
        shown.body
    );
    assert!(shown.body.contains("unsaved name"));
    let refused = browser.post("/rules/dry-run", &fields("0")).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused
            .body
            .contains("A whole number from 1 to 90 is needed.")
    );
    world.end().await;
}

#[tokio::test]
async fn a_rule_returns_to_an_earlier_revision_with_one_click() {
    let world = World::new().await;
    world.user("ann", "editor").await;
    let token = world.token("ann").await;
    let made = world
        .post_json("/api/v1/rules", &token, &rule("first name", "drift"))
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let mut browser = world.browser("ann").await;
    browser.get(&format!("/rules/{id}")).await;
    let conditions = rule("", "drift")["conditions"].to_string();
    let changed = [
        ("name", "second name"),
        ("severity", "low"),
        ("conditions", conditions.as_str()),
        ("max_age_seconds", "60"),
        ("watch", "times"),
        ("watch_count", "5"),
        ("watch_seconds", "60"),
        ("owner", "endpoint team"),
    ];
    assert_eq!(
        browser.post(&format!("/rules/{id}"), &changed).await.status,
        StatusCode::SEE_OTHER
    );
    let shown = world
        .get_json(&format!("/api/v1/rules/{id}"), &token)
        .await
        .json();
    assert_eq!(
        (&shown["name"], &shown["watch"], &shown["watch_count"]),
        (&json!("second name"), &json!("times"), &json!(5))
    );

    let page = browser.get(&format!("/rules/{id}")).await.body;
    assert!(
        page.contains("Return to it") && page.contains("endpoint team"),
        "{page}"
    );
    let path = format!("/rules/{id}/revisions/1/return");
    assert_eq!(browser.post(&path, &[]).await.status, StatusCode::SEE_OTHER);
    let shown = world
        .get_json(&format!("/api/v1/rules/{id}"), &token)
        .await
        .json();
    assert_eq!(
        (
            &shown["name"],
            &shown["watch"],
            &shown["severity"],
            &shown["enabled"]
        ),
        (
            &json!("first name"),
            &json!("drift"),
            &json!("high"),
            &json!(true)
        )
    );
    let revisions = world
        .get_json(&format!("/api/v1/rules/{id}/revisions"), &token)
        .await
        .json();
    assert_eq!(revisions["items"][0]["what"], "Returned to revision 1");
    assert_eq!(revisions["items"].as_array().unwrap().len(), 3);
    world.end().await;
}

#[tokio::test]
async fn what_a_rule_cannot_mean_is_said_at_its_field() {
    let world = World::new().await;
    world.user("ann", "editor").await;
    let token = world.token("ann").await;
    let mut look_around = rule("r", "drift");
    look_around["conditions"]["rules"][1] = json!({"field": "column", "operator": "column_matches_regex", "value": ["path", "/tmp/(?!x)"]});
    let mut nameless = rule("r", "absence");
    nameless["conditions"]["rules"]
        .as_array_mut()
        .unwrap()
        .remove(0);
    for (sent, field, words) in [
        (look_around, "conditions", "look-around is not available"),
        (nameless, "conditions", "has to name its query"),
        (
            rule("r", "times"),
            "watch_count",
            "A whole number from 1 to 500",
        ),
        (
            rule("r", "sometimes"),
            "watch",
            "Choose what the rule waits for.",
        ),
    ] {
        let answer = world.post_json("/api/v1/rules", &token, &sent).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{}",
            answer.body
        );
        let said = answer.json()["errors"][field].to_string();
        assert!(said.contains(words), "{}", answer.body);
    }
    world.end().await;
}

#[tokio::test]
async fn each_of_the_starter_set_comes_with_its_pack_by_one_click() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let page = browser.get("/rules").await.body;
    let starters: Vec<String> = page
        .split("name=\"starter\" value=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    assert_eq!(starters.len(), 7, "{page}");
    for starter in &starters {
        let answer = browser
            .post("/rules/starter", &[("starter", starter)])
            .await;
        assert_eq!(
            answer.status,
            StatusCode::SEE_OTHER,
            "{starter}: {}",
            answer.body
        );
    }
    let rules = "SELECT count(*)::text FROM rules WHERE enabled";
    assert_eq!(world.test_db.texts(rules).await, ["7"]);
    // Unsound SQL of an import would have come switched off.
    let queries = "SELECT p.name || '/' || q.name FROM queries q JOIN packs p ON p.id = q.pack_id
        WHERE p.name LIKE 'starter-%' AND NOT (q.enabled AND p.enabled)";
    assert_eq!(world.test_db.texts(queries).await, Vec::<String>::new());
    let page = browser.get("/rules").await.body;
    assert_eq!(page.matches(">added<").count(), 7);
    world.end().await;
}

/// Prints figures and judges none, since the machine decides: `cargo test -p ostiary-manager --test manager a_thousand_rules -- --ignored
/// --nocapture`.
#[tokio::test]
#[ignore = "it measures, which says nothing on a busy machine"]
async fn a_thousand_rules_are_imported_and_tried() {
    let world = World::new().await;
    world.user("ann", "editor").await;
    let token = world.token("ann").await;
    let began = std::time::Instant::now();
    for number in 0..1_000 {
        let mut sent = rule(&format!("rule {number}"), "drift");
        sent["conditions"]["rules"][0]["value"] = json!(format!("pack/p/q{number}"));
        let made = world.post_json("/api/v1/rules", &token, &sent).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    }
    println!("1000 rules made over REST in {:.1?}", began.elapsed());
    let began = std::time::Instant::now();
    let listed = world.get_json("/api/v1/rules", &token).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1_000);
    println!("listed in {:.1?}", began.elapsed());

    let mut nodes = Vec::new();
    for number in 0..20 {
        nodes.push(node(&world, &format!("n{number}")).await);
    }
    let rows: Vec<Value> = (0..100)
        .map(|port| json!({"port": (port * 20).to_string(), "path": "/usr/bin/x", "pid": "7"}))
        .collect();
    for number in 0..1_000 {
        stored(&world, nodes[number % 20], "ports", &rows).await;
    }
    let began = std::time::Instant::now();
    let asked = json!({"rule": rule("", "drift"), "days": 7});
    let answer = world
        .post_json("/api/v1/rules/dry-run", &token, &asked)
        .await;
    let trial = answer.json();
    println!(
        "tried on {} rows in {:.1?}: {} findings, cut off: {}",
        trial["rows"],
        began.elapsed(),
        trial["findings"],
        trial["cut_off_at"]
    );
    world.end().await;
}
