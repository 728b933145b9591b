//! Rules over a reporting fleet: rows that hold and go, values that only one node has, a dry run that is stopped, tried again and
//! saved in a browser, and a rule of the starter set.

use ostiary_simulator::{Drift, Fleet};
use ostiary_store::testing;
use ostiary_tests::{PATIENCE, Program, World, WorldOptions, eventually, run_browser};
use serde_json::{Value, json};

const NODES: usize = 9;
const STICKS: [&str; 2] = ["pack/baseline/usb_devices", "pack/baseline/disks_windows"];
const EXTENSIONS: &str = "pack/baseline/chrome_extensions";
const STARTER: &str = "Removable media plugged in";

#[tokio::test]
async fn rules_open_recover_stay_silent_and_are_tried_before_they_are_saved() {
    let world = World::start(WorldOptions::demo()).await;
    let fleet = world.fleet(NODES).start().await.unwrap();
    eventually("all nodes enroll", PATIENCE, async || {
        (fleet.enrolled() == NODES).then_some(())
    })
    .await;
    world.another_look(&fleet, PATIENCE).await;

    let [plugged, other] = nodes_that_see(&world, &fleet, Drift::Usb).await;
    a_stick_opens_and_its_going_resolves(&world, &fleet, plugged).await;
    only_the_first_of_two_is_rare(&world, &fleet).await;
    a_dry_run_ends_when_nobody_waits_for_it(&world).await;
    fleet.drift(other, Drift::Usb).unwrap();
    if people_use_the_pages(&world).await {
        a_starter_watches_every_node(&world, &fleet, other).await;
    }
    fleet.stop().await;
    world.end().await;
}

/// Two nodes on which this drift would show.
async fn nodes_that_see(world: &World, fleet: &Fleet, drift: Drift) -> [usize; 2] {
    let mut able = Vec::new();
    for node in 0..fleet.len() {
        if world.can_see(fleet, node, drift).await {
            able.push(node);
        }
    }
    [able[0], able[1]]
}

fn rule(name: &str, queries: &[&str], watch: &str, entity: &str) -> Value {
    json!({"name": name, "severity": "high", "watch": watch, "entity_columns": [entity], "conditions": {"condition": "AND", "rules": [
        {"field": "query_name", "operator": "in", "value": queries}]}})
}

/// Makes a rule and waits until it has looked at what is present.
async fn make(world: &World, rule: &Value) {
    let rest = world.rest();
    let made = rest.post("rules", rule).await;
    let path = format!("rules/{}", made["id"].as_str().unwrap());
    eventually(
        "the rule has looked at what is present",
        PATIENCE,
        async || (rest.get(&path).await["to_study"] == false).then_some(()),
    )
    .await;
}

/// Findings of a rule: node and state, oldest first.
async fn findings(world: &World, rule: &str) -> Vec<String> {
    let sql = format!(
        "SELECT node_name || ' ' || state FROM findings WHERE rule_name = '{rule}' ORDER BY opened_at, id"
    );
    world.db.texts(&sql).await
}

async fn until(world: &World, rule: &str, expected: &[String]) {
    eventually(&format!("{rule}: {expected:?}"), PATIENCE, async || {
        (findings(world, rule).await == expected).then_some(())
    })
    .await;
}

fn name(fleet: &Fleet, node: usize) -> String {
    fleet.identity(node).unwrap().hostname
}

async fn a_stick_opens_and_its_going_resolves(world: &World, fleet: &Fleet, node: usize) {
    make(world, &rule("A stick is in", &STICKS, "present", "serial")).await;
    let host = name(fleet, node);
    fleet.drift(node, Drift::Usb).unwrap();
    until(world, "A stick is in", &[format!("{host} open")]).await;
    fleet.recover(node, Drift::Usb).unwrap();
    until(world, "A stick is in", &[format!("{host} resolved")]).await;
    let why = "SELECT e.text FROM finding_entries e JOIN findings f ON f.id = e.finding_id
        WHERE f.rule_name = 'A stick is in' AND e.kind = 'resolved'";
    let why = world.db.texts(why).await.concat();
    assert!(
        why.starts_with("the row is gone from pack/baseline/"),
        "{why}"
    );
}

/// The rule that the demo has tells of both, so that there is something to wait for.
async fn only_the_first_of_two_is_rare(world: &World, fleet: &Fleet) {
    let mut rare = rule("Hardly anybody has it", &[EXTENSIONS], "rare", "identifier");
    rare["watch_count"] = json!(1);
    make(world, &rare).await;
    let nodes = nodes_that_see(world, fleet, Drift::BrowserExtension).await;
    let told = |so_far: &[usize]| -> Vec<String> {
        let open = |node: &usize| format!("{} open", name(fleet, *node));
        so_far.iter().map(open).collect()
    };
    for so_far in [&nodes[..1], &nodes[..]] {
        fleet
            .drift(so_far[so_far.len() - 1], Drift::BrowserExtension)
            .unwrap();
        until(world, "New browser extension", &told(so_far)).await;
    }
    assert_eq!(
        findings(world, "Hardly anybody has it").await,
        told(&nodes[..1]),
        "on a second node it is rare no more"
    );
}

/// The lock makes the run last. Should it give up by itself before it is left, it is tried again.
async fn a_dry_run_ends_when_nobody_waits_for_it(world: &World) {
    let url = format!("http://{}/api/v1/rules/dry-run", world.manager);
    let asked = json!({"rule": rule("", &STICKS, "drift", "serial"), "days": 1}).to_string();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let waits = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE NOT l.granted AND a.datname = current_database() AND a.usename = 'ostiary_manager'";
    eventually("a dry run is given up", PATIENCE, async || {
        let mut conn = world.db.db.acquire().await.ok()?;
        testing::execute(&mut conn, "BEGIN; LOCK TABLE events").await;
        let request = client
            .post(&url)
            .bearer_auth(&world.api_token)
            .header("content-type", "application/json")
            .body(asked.clone())
            .send();
        let request = tokio::spawn(request);
        eventually("it waits for the lock", PATIENCE, async || {
            (world.scalar(waits).await > 0 || request.is_finished()).then_some(())
        })
        .await;
        request.abort();
        let given_up = eventually("it ends", PATIENCE, async || {
            let given_up = world
                .log(Program::Manager)
                .contains("a dry run was given up");
            (given_up || world.scalar(waits).await == 0).then_some(given_up)
        })
        .await;
        testing::execute(&mut conn, "ROLLBACK").await;
        given_up.then_some(())
    })
    .await;
}

/// Gives whether there is a browser.
async fn people_use_the_pages(world: &World) -> bool {
    if std::env::var_os("OSTIARY_SKIP_BROWSER").is_some() {
        println!("OSTIARY_SKIP_BROWSER is set: nobody tries a rule");
        return false;
    }
    let (user, password) = world.admin();
    let input = json!({
        "manager_url": format!("http://{}", world.manager), "user": user, "password": password,
        "starter": STARTER, "rule": "Extensions, tried first", "query": EXTENSIONS,
    });
    let seen = run_browser("rules.mjs", &input).await;
    assert_eq!(seen["offered"], 7, "{seen}");
    assert_eq!(
        seen["stopped"], "Extensions, tried first",
        "nothing typed is lost"
    );
    assert_eq!(
        seen["trial"], "2 findings on 2 nodes in the last 7 days.",
        "{seen}"
    );
    assert_eq!(seen["rows"].as_array().map(Vec::len), Some(2), "{seen}");
    assert_eq!(seen["tests"], 2, "the builder shows what was tried: {seen}");
    let made = seen["made"].as_str().unwrap();
    assert!(made.starts_with("Extensions, tried first"), "{seen}");
    assert_eq!(seen["console"], json!([]), "nothing is wrong on any page");
    true
}

/// Its stick was there when the starter came, which is no news; that it comes again is.
async fn a_starter_watches_every_node(world: &World, fleet: &Fleet, node: usize) {
    let host = name(fleet, node);
    let rows = format!(
        "SELECT coalesce(sum(row_count), 0)::bigint FROM present_rows p JOIN query_names q ON q.id = p.query_name_id
         JOIN nodes n ON n.id = p.node_id WHERE n.hostname = '{host}' AND q.name LIKE 'pack/starter-removable-media/%'"
    );
    for present in [1, 0] {
        eventually(
            &format!("{present} sticks in {host}"),
            PATIENCE,
            async || (world.scalar(&rows).await == present).then_some(()),
        )
        .await;
        assert_eq!(findings(world, STARTER).await, [""; 0]);
        if present == 1 {
            fleet.recover(node, Drift::Usb).unwrap();
        } else {
            fleet.drift(node, Drift::Usb).unwrap();
        }
    }
    until(world, STARTER, &[format!("{host} open")]).await;
}
