//! What REST answers.

use serde_json::{Value, json};

use super::sample::{self, FINDING, HOSTILE, NODE};
use super::world::World;

#[tokio::test]
async fn a_program_reads_nodes_events_present_rows_findings_and_deliveries() {
    let world = World::new().await;
    world.user("ann", "viewer").await;
    let token = world.token("ann").await;
    sample::one_of_everything(&world).await;
    let get = async |path: &str| world.get_json(path, &token).await.json();

    let nodes = get("/api/v1/nodes").await;
    assert_eq!(nodes["next"], Value::Null);
    let node = &nodes["items"][0];
    assert_eq!(
        (&node["id"], &node["name"], &node["tags"]),
        (&json!(NODE), &json!(HOSTILE), &json!(["prod"]))
    );
    assert_eq!(node["state"], "online");
    assert_eq!(
        get(&format!("/api/v1/nodes/{NODE}")).await["vitals"]["uptime"]["total_seconds"],
        "7200"
    );

    let events = get(&format!("/api/v1/nodes/{NODE}/events")).await;
    let items = events["items"].as_array().unwrap();
    assert_eq!(items.len(), 4);
    assert_eq!(
        (&items[0]["snapshot"], &items[0]["columns"]),
        (&json!(true), &Value::Null),
        "an empty snapshot is one item"
    );
    assert_eq!(items[1]["action"], "added");
    assert_eq!(items[1]["epoch"], json!(18_446_744_073_709_551_615_u64));
    assert_eq!(items[1]["columns"], json!({"port": "22", "name": HOSTILE}));
    assert_eq!(items[1]["decorations"], json!({"host": "h"}));
    assert_eq!(items[3]["action"], "removed");
    assert_eq!(items[3]["query"], "pack/it/ports");

    for spelling in ["present-rows", "present_rows"] {
        let present = get(&format!(
            "/api/v1/nodes/{NODE}/{spelling}?query=pack/it/ports"
        ))
        .await;
        assert_eq!(
            present["items"][0]["rows"][1],
            json!({"port": "80"}),
            "{spelling}"
        );
    }
    let findings = get("/api/v1/findings?state=open").await;
    assert_eq!(findings["items"][0]["id"], FINDING);
    assert_eq!(findings["items"][0]["matches"].as_array().unwrap().len(), 2);
    assert_eq!(
        get("/api/v1/findings?state=resolved").await["items"],
        json!([])
    );
    let deliveries = get("/api/v1/deliveries").await;
    assert_eq!(
        deliveries["items"][0]["attempts"][0]["outcome"],
        "delivered"
    );
    assert_eq!(deliveries["items"][0]["finding"]["id"], FINDING);
    assert_eq!(deliveries["items"][0]["attempts"][0]["body"], Value::Null);
    let id = deliveries["items"][0]["id"].as_str().unwrap();
    let delivery = get(&format!("/api/v1/deliveries/{id}")).await;
    let sent = format!("told: {HOSTILE}");
    assert_eq!(delivery["attempts"][0]["body"], sent.as_str());
    world.end().await;
}

#[tokio::test]
async fn events_are_paged_row_by_row_without_loss_or_repetition() {
    let world = World::new().await;
    world.user("ann", "viewer").await;
    let token = world.token("ann").await;
    sample::one_of_everything(&world).await;
    for limit in 1..=5 {
        let (mut ids, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/nodes/{NODE}/events?limit={limit}&after={after}");
            let page = world.get_json(&path, &token).await.json();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            ids.extend(
                items
                    .iter()
                    .map(|item| item["id"].as_str().unwrap().to_owned()),
            );
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(
            (ids.len(), distinct.len()),
            (4, 4),
            "limit {limit}: {ids:?}"
        );
    }
    world.end().await;
}

#[tokio::test]
async fn lists_are_paged_to_their_end() {
    let world = World::new().await;
    world.user("ann", "viewer").await;
    let token = world.token("ann").await;
    sample::one_of_everything(&world).await;
    sample::many(&world).await;
    for (path, expected) in [("nodes", 132), ("findings", 121), ("deliveries", 1)] {
        let (mut ids, mut after) = (std::collections::BTreeSet::new(), String::new());
        loop {
            let page = world
                .get_json(&format!("/api/v1/{path}?limit=50&after={after}"), &token)
                .await
                .json();
            for item in page["items"].as_array().unwrap() {
                assert!(
                    ids.insert(item["id"].as_str().unwrap().to_owned()),
                    "{path} repeats itself"
                );
            }
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(ids.len(), expected, "{path}");
    }
    world.end().await;
}

#[tokio::test]
async fn an_odd_question_gets_a_clear_answer() {
    let world = World::new().await;
    world.user("ann", "viewer").await;
    let token = world.token("ann").await;
    for (path, status) in [
        ("/api/v1/nodes?limit=0", 422),
        ("/api/v1/nodes?limit=x", 422),
        ("/api/v1/nodes?after=nonsense", 422),
        ("/api/v1/findings?rule=nonsense", 422),
        ("/api/v1/nodes/01900000-0000-7000-8000-00000000ffff", 404),
        (
            "/api/v1/nodes/01900000-0000-7000-8000-00000000ffff/events",
            404,
        ),
        ("/api/v1/nodes/nonsense", 400),
    ] {
        let answer = world.get_json(path, &token).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_eq!(answer.json()["status"], status, "{path}");
    }
    world.end().await;
}
