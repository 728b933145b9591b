//! The main job from one end to the other: nodes enroll and report, one drifts, a finding opens, a mail arrives, and a person finds
//! all of it in a browser.

use std::time::Duration;

use ostiary_simulator::{Drift, Fleet, Misbehaviour};
use ostiary_tests::{PATIENCE, Rest, World, WorldOptions, eventually, rule_of, run_browser};
use serde_json::{Value, json};

const NODES: usize = 25;
/// What the issue allows from the drift to the mail.
const TWO_MINUTES: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_drift_reaches_the_mailbox_and_the_browser_and_nothing_else_does() {
    let world = World::start(WorldOptions::demo()).await;
    let fleet = world.fleet(NODES).start().await.unwrap();
    eventually("all nodes enroll", PATIENCE, async || {
        (fleet.enrolled() == NODES).then_some(())
    })
    .await;
    world.another_look(&fleet, PATIENCE).await;
    assert_first_sets_are_no_drift(&world).await;

    assert_each_is_told_once(&world, &fleet, &[(0, Drift::Firewall)]).await;
    show_it_in_a_browser(&world, &fleet).await;

    let others = other_drifts(&world, &fleet).await;
    assert_each_is_told_once(&world, &fleet, &others).await;
    assert_wiped_databases_and_new_queries_are_no_drift(&world, &fleet).await;

    assert!(
        fleet.drain(PATIENCE).await,
        "{} lines wait",
        fleet.undelivered()
    );
    world.worked_off().await;
    let verdict = world.verdict(&fleet).await;
    assert!(verdict.is_clean(), "{verdict}: {verdict:?}");
    assert!(verdict.stored_exactly_once > 1000, "{verdict}");
    assert_eq!(fleet.totals().node_invalid, 0);
    fleet.stop().await;
    world.end().await;
}

async fn assert_first_sets_are_no_drift(world: &World) {
    let rest = world.rest();
    let nodes = rest.all("nodes").await;
    assert_eq!(nodes.len(), NODES);
    for platform in ["linux", "darwin", "windows"] {
        let of_it = nodes.iter().filter(|node| node["platform"] == platform);
        assert!(of_it.count() >= NODES / 3, "nodes of {platform}");
    }
    for node in &nodes {
        assert_eq!(node["state"], "online", "{node}");
        let present = rest
            .all(&format!("nodes/{}/present-rows", text(&node["id"])))
            .await;
        let ports = present
            .iter()
            .find(|one| one["query"] == "pack/baseline/listening_ports");
        let rows = &ports.unwrap_or_else(|| panic!("no ports of {node}: {present:?}"))["rows"];
        assert!(
            rows.as_array().is_some_and(|rows| rows.len() >= 2),
            "{rows}"
        );
    }
    assert_eq!(rest.all("findings").await, [Value::Null; 0]);
    assert_eq!(world.mail.messages().unwrap().len(), 0);
}

/// Lets nodes drift. Each drift is one more finding and one more mail, the delivery with its attempt; and nothing more comes however
/// often the nodes look again.
async fn assert_each_is_told_once(world: &World, fleet: &Fleet, drifts: &[(usize, Drift)]) {
    let rest = world.rest();
    let told = world.mail.messages().unwrap().len();
    for (node, drift) in drifts {
        fleet.drift(*node, *drift).unwrap();
    }
    let all = told + drifts.len();
    eventually("the mails lie in the catcher", TWO_MINUTES, async || {
        (world.mail.messages().unwrap().len() >= all).then_some(())
    })
    .await;
    let deliveries = eventually("the deliveries are noted", PATIENCE, async || {
        let newest = rest.all("deliveries").await;
        let delivered = newest
            .iter()
            .all(|delivery| delivery["state"] == "delivered");
        (newest.len() == all && delivered).then_some(newest)
    })
    .await;
    let (findings, mails) = (rest.all("findings").await, world.mail.messages().unwrap());
    for (node, drift) in drifts {
        let (rule, hostname) = (rule_of(*drift), fleet.identity(*node).unwrap().hostname);
        let about =
            |one: &&Value| one["rule"]["name"] == rule && one["node"]["name"] == hostname.as_str();
        let finding = findings
            .iter()
            .find(about)
            .unwrap_or_else(|| panic!("{rule} on {hostname}: {findings:?}"));
        assert_eq!(finding["state"], "open");
        assert_eq!(
            finding["matches"].as_array().map(Vec::len),
            Some(1),
            "{finding}"
        );
        assert!(
            mails
                .iter()
                .any(|mail| mail.contains(rule) && mail.contains(&hostname))
        );
        let delivery = deliveries
            .iter()
            .find(|delivery| delivery["finding"]["id"] == finding["id"])
            .unwrap();
        assert_eq!(delivery["alert_kind"], "opened");
        assert_eq!(delivery["attempt_count"], 1, "{delivery}");
        assert_eq!(
            delivery["attempts"][0]["outcome"], "delivered",
            "{delivery}"
        );
    }
    world.another_look(fleet, PATIENCE).await;
    assert_eq!(
        rest.all("findings").await.len(),
        all,
        "one finding for each drift"
    );
    assert_eq!(
        world.mail.messages().unwrap().len(),
        all,
        "one mail for each drift"
    );
}

/// The other kinds, and the firewalls of the other operating systems, each on a node of its own.
async fn other_drifts(world: &World, fleet: &Fleet) -> Vec<(usize, Drift)> {
    let mut drifts = vec![(1, Drift::Firewall)];
    for (start, drift) in [
        (10, Drift::ListeningPort),
        (14, Drift::BrowserExtension),
        (17, Drift::Usb),
        (20, Drift::Firewall),
    ] {
        let mut nodes = start..fleet.len();
        let able = loop {
            let node = nodes
                .next()
                .unwrap_or_else(|| panic!("no node shows {drift:?}"));
            let is_new = drifts.iter().all(|(taken, _)| *taken != node);
            if is_new && world.can_see(fleet, node, drift).await {
                break node;
            }
        };
        drifts.push((able, drift));
    }
    drifts
}

async fn assert_wiped_databases_and_new_queries_are_no_drift(world: &World, fleet: &Fleet) {
    let rest = world.rest();
    let before = rest.all("findings").await.len();
    let wiped = [7, 8, 9];
    let mut kept = Vec::new();
    for node in wiped {
        let hostname = fleet.identity(node).unwrap().hostname;
        let [known] = &named(&rest, &hostname).await[..] else {
            panic!("{hostname} is one node");
        };
        kept.push((
            hostname,
            known.clone(),
            rest.all(&events_of(known)).await.len(),
        ));
        fleet.misbehave(node, Misbehaviour::Wipe).unwrap();
    }
    // Its rule comes first: it sees the query from the first row on.
    for (command, file) in [
        ("create-rule", "fresh-rule.json"),
        ("import-pack", "fresh.conf"),
    ] {
        let file = format!("{}/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
        world.command(&[command, &file], "").await;
    }
    eventually("wiped nodes enroll again", PATIENCE, async || {
        let again = wiped
            .iter()
            .all(|node| fleet.counts(*node).unwrap().enrollments >= 2);
        again.then_some(())
    })
    .await;
    eventually("the new query was answered by every node", PATIENCE, async || {
        let sql = "SELECT count(*) FROM present_rows JOIN query_names ON id = query_name_id WHERE name = 'pack/fresh/ports'";
        (world.scalar(sql).await >= i64::try_from(NODES).unwrap()).then_some(())
    })
    .await;
    world.another_look(fleet, PATIENCE).await;
    assert_eq!(
        rest.all("findings").await.len(),
        before,
        "a full set is no drift"
    );
    for (hostname, known, before) in kept {
        let stored = rest.all(&events_of(&known)).await.len();
        assert!(
            stored >= before,
            "{hostname} kept {stored} of {before} events"
        );
        // Whoever knows a machine's serial number must not become that machine while it lives: it is another node, and said so.
        let both = named(&rest, &hostname).await;
        let newcomer = both.iter().find(|node| node["id"] != known["id"]);
        let newcomer = newcomer.unwrap_or_else(|| panic!("{hostname} came again: {both:?}"));
        assert!(both.iter().any(|node| node["conflict"] == true), "{both:?}");
        assert_ne!(rest.all(&events_of(newcomer)).await, [Value::Null; 0]);
    }
}

async fn named(rest: &Rest, hostname: &str) -> Vec<Value> {
    let mut nodes = rest.all("nodes").await;
    nodes.retain(|node| node["name"] == hostname);
    nodes
}

fn events_of(node: &Value) -> String {
    format!("nodes/{}/events", text(&node["id"]))
}

async fn show_it_in_a_browser(world: &World, fleet: &Fleet) {
    if std::env::var_os("OSTIARY_SKIP_BROWSER").is_some() {
        println!("OSTIARY_SKIP_BROWSER is set: nobody looks at the pages");
        return;
    }
    let (user, password) = world.admin();
    let hostname = fleet.identity(0).unwrap().hostname;
    let input = json!({
        "manager_url": format!("http://{}", world.manager), "user": user, "password": password,
        "node": hostname, "query": "pack/baseline/listening_ports", "rule": rule_of(Drift::Firewall), "destination": "mail",
    });
    let seen = run_browser("end_to_end.mjs", &input).await;
    assert_eq!(seen["node"]["name"], hostname.as_str(), "{seen}");
    assert!(
        seen["present_rows"].as_u64().is_some_and(|rows| rows >= 3),
        "{seen}"
    );
    assert!(
        text(&seen["finding"]).contains(rule_of(Drift::Firewall)),
        "{seen}"
    );
    assert_eq!(seen["delivery"]["state"], "delivered", "{seen}");
    assert_eq!(seen["delivery"]["attempts"], 1, "{seen}");
    assert_eq!(seen["console"], json!([]), "nothing is wrong on any page");
    let shots = seen["shots"].as_array().unwrap();
    assert!(shots.len() >= 16, "{seen}");
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}
