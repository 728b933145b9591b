//! What a person does with findings in a browser: takes several over at once, silences one, resolves it; and REST tells the same.

use ostiary_tests::{PATIENCE, World, WorldOptions, eventually, run_browser};
use serde_json::{Value, json};

const QUERY: &str = "pack/watch/ports";

/// A node says which ports are open, and then that two more are; a rule opens a finding for each.
async fn two_findings(world: &World) {
    let is = |field: &str, value: &str| json!({"id": field, "field": field, "type": "string", "input": "text", "operator": "equal", "value": value});
    let rule = json!({
        "name": "New port", "severity": "high", "entity_columns": ["port"],
        "conditions": {"condition": "AND", "rules": [is("query_name", QUERY), is("action", "added")]},
    });
    world.rest().post("rules", &rule).await;
    let wire = world.wire();
    let key = wire.enroll(world.enroll_secret(), "web-1").await;
    for (counter, port) in [(0, "22"), (1, "4444"), (2, "5555")] {
        let line = json!({
            "name": QUERY, "hostIdentifier": "web-1", "calendarTime": "", "unixTime": world.now().timestamp(), "epoch": 0,
            "counter": counter, "numerics": false, "action": "added", "columns": {"port": port},
        });
        let body = json!({"node_key": key, "log_type": "result", "data": [line]});
        assert!(wire.post("/log", &body).await.is_success());
    }
    eventually("both findings open", PATIENCE, async || {
        (world.rest().all("findings").await.len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn findings_are_taken_over_at_once_silenced_and_resolved_in_a_browser() {
    if std::env::var_os("OSTIARY_SKIP_BROWSER").is_some() {
        println!("OSTIARY_SKIP_BROWSER is set: nobody looks at the pages");
        return;
    }
    let world = World::start(WorldOptions::default()).await;
    two_findings(&world).await;
    let (user, password) = world.admin();
    let input = json!({"manager_url": format!("http://{}", world.manager), "user": user, "password": password});
    let seen = run_browser("deciding.mjs", &input).await;
    assert_eq!(
        (&seen["open"], &seen["acknowledged"]),
        (&json!(2), &json!(2)),
        "{seen}"
    );
    assert_eq!(seen["console"], json!([]), "nothing is wrong on any page");
    let rest = world.rest();
    let mut states: Vec<Value> = (rest.all("findings").await.iter())
        .map(|finding| finding["state"].clone())
        .collect();
    states.sort_by_key(ToString::to_string);
    assert_eq!(states, ["acknowledged", "resolved"]);
    let silences = rest.all("silences?ended=true").await;
    assert_eq!(silences[0]["reason"], "while we move", "{silences:?}");
    let id = seen["finding"].as_str().expect("an id");
    let shown = rest.get(&format!("findings/{id}")).await;
    let said = |kind: &str, text: &str| {
        let timeline = shown["timeline"].as_array().expect("a timeline");
        timeline
            .iter()
            .any(|entry| entry["kind"] == kind && entry["text"] == text)
    };
    assert!(said("acknowledged", "both are mine"), "{shown}");
    assert!(said("resolved", ""), "{shown}");
    world.end().await;
}
